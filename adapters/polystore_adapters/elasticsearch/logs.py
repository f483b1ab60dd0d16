"""Lines of logs, whose home the server is: appended under the id that they were given, found by words, fields and time.

A line is a document of version 1, and the server takes a version once: a line that is appended again, perhaps changed,
is left as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from polystore.filters import Checked, predicate
from polystore.model import Key, Line
from polystore.text import Phrase
from polystore_adapters.elasticsearch.conditions import query
from polystore_adapters.elasticsearch.counts import TIMES
from polystore_adapters.elasticsearch.documents import AT, LINE_VERSION, id_of
from polystore_adapters.elasticsearch.full_text import PAGE, clause
from polystore_adapters.elasticsearch.held import Held
from polystore_adapters.elasticsearch.records import bulk_action, bulks, outcome
from polystore_adapters.elasticsearch.server import Document, Server


async def append(server: Server, held: Held, tenant: str, lines: Sequence[Line]) -> None:
    """See `SupportsLog.append_lines`. A server that fails in the middle has some of the lines."""
    sent = [
        (
            i,
            bulk_action("index", held.index, id_of(Key(tenant, held.etype, line.id)), LINE_VERSION, "external"),
            held.codec.line(tenant, line),
        )
        for i, line in enumerate(lines)
    ]
    for some in bulks(sent):
        answer = await server.bulk([part for _, *parts in some for part in parts], held.index)
        for item in answer["items"]:
            refused = outcome(next(iter(item.values()))).error
            if refused is not None:
                raise refused


async def lines(
    server: Server,
    held: Held,
    tenant: str,
    phrases: Sequence[Phrase],
    where: Checked | None,
    limit: int,
    newest_first: bool,
) -> list[Line]:
    """See `SupportsLog.lines`."""
    way = "desc" if newest_first else "asc"
    key = held.entity.key
    found: list[Line] = []
    async for page in _pages(server, held, tenant, phrases, where, [{AT: way}, {key: way}], limit):
        found += page
        if len(found) >= limit:
            break
    return found[:limit]


async def count(server: Server, held: Held, tenant: str, where: Checked | None) -> int:
    """See `SupportsLog.count_lines`."""
    asked = query(where, TIMES)
    if not asked.exact:
        pages = _pages(server, held, tenant, (), where, [{AT: "asc"}, {held.entity.key: "asc"}], None)
        return sum([len(page) async for page in pages])
    await server.seen(held.index)
    body = {"size": 0, "track_total_hits": True, "query": _query(server, held, tenant, (), asked.find)}
    found: int = (await server.ask("POST", f"/{held.index}/_search", body))["hits"]["total"]["value"]
    return found


async def expire(server: Server, held: Held, limit: int) -> int:
    """See `SupportsLog.expire_lines`."""
    oldest_us, gone = held.oldest_us(server.env.now_us()), 0
    if oldest_us is None:
        return 0
    while gone < limit:
        await server.seen(held.index)
        body = {
            "size": min(PAGE, limit - gone),
            "query": {"range": {AT: {"lt": oldest_us}}},
            "_source": False,
            "track_total_hits": False,
        }
        hits = (await server.ask("POST", f"/{held.index}/_search", body))["hits"]["hits"]
        if not hits:
            break
        removals = [bulk_action("delete", held.index, hit["_id"], LINE_VERSION, "external_gte") for hit in hits]
        for item in (await server.bulk(removals, held.index))["items"]:
            (one,) = item.values()
            if one["status"] != 404:  # somebody else has removed it
                outcome(one)
        gone += len(hits)
    return gone


def _query(server: Server, held: Held, tenant: str, phrases: Sequence[Phrase], find: Document | None) -> Document:
    words = [clause(phrase) for phrase in phrases]
    return held.live(tenant, server.env.now_us(), *words, *([] if find is None else [find]))


async def _pages(
    server: Server,
    held: Held,
    tenant: str,
    phrases: Sequence[Phrase],
    where: Checked | None,
    order: Sequence[Document],
    limit: int | None,
) -> AsyncGenerator[list[Line]]:
    """Lines in an order, with those removed that the server found too many; `limit` is what the caller needs."""
    await server.seen(held.index)
    asked = query(where, TIMES)
    meant = None if asked.exact or where is None else predicate(where)
    size = PAGE if limit is None or meant is not None else min(PAGE, limit)
    body: Document = {
        "query": _query(server, held, tenant, phrases, asked.find),
        "sort": list(order),
        "size": size,
        "track_total_hits": False,
    }
    while True:
        hits = (await server.ask("POST", f"/{held.index}/_search", body))["hits"]["hits"]
        read = [Line(hit["_source"]["ps_id"], held.codec.decode(hit["_source"])) for hit in hits]
        yield read if meant is None else [line for line in read if meant(line.body)]
        if len(hits) < size:
            return
        body["search_after"] = hits[-1]["sort"]
