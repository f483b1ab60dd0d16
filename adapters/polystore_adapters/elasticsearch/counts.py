"""Counts by value and by time: made by the server where it sees values as polystore does, else of the documents."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from math import gcd
from typing import Any, NamedTuple
from uuid import UUID

from polystore.filters import Checked, predicate
from polystore.model import Body, Tally, Windows
from polystore.text import Phrase
from polystore_adapters.elasticsearch.conditions import Query, query
from polystore_adapters.elasticsearch.documents import AT
from polystore_adapters.elasticsearch.full_text import clause
from polystore_adapters.elasticsearch.held import Held
from polystore_adapters.elasticsearch.server import Document, Server

PAGE = 1_000
TIMES = {"at": AT}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Asked(NamedTuple):
    """`find`: which documents; `where`, what is left of the condition to be judged by us."""

    held: Held
    find: Document
    where: Checked | None
    field: str
    windows: Windows | None


async def counts(
    server: Server,
    held: Held,
    tenant: str,
    phrases: Sequence[Phrase],
    where: Checked | None,
    field: str,
    windows: Windows | None,
    limit: int,
) -> Sequence[tuple[Any, int]]:
    """See `SupportsCounts.counts`. All values are counted, and by one shard as by many; then the first are taken."""
    await server.seen(held.index)
    found: Query = query(where, TIMES if held.fact else {})
    parts = [*(clause(phrase) for phrase in phrases), *([] if found.find is None else [found.find])]
    live = held.live(tenant, server.env.now_us(), *parts)
    asked = Asked(held, live, None if found.exact else where, field, windows)
    tally = Tally(field, windows)
    source = _source(field, windows)
    if source is None or not found.exact:
        async for body in _bodies(server, asked):
            tally.take(body)
        return tally.first(limit)
    async for value, count in _buckets(server, asked, source):
        tally.add(value, count)
    if held.codec.kinds[field].name == "str":  # those that are too long to be compared as a whole
        long: Document = {"bool": {"filter": [live, {"term": {"ps_long": field}}]}}
        async for body in _bodies(server, asked._replace(find=long)):
            tally.take(body)
    return tally.first(limit)


def _source(field: str, windows: Windows | None) -> Document | None:
    """What the server makes buckets of: values, or stretches that no window cuts. None: of finer times than it knows,
    which are milliseconds."""
    if windows is None:
        return {"terms": {"field": field}}
    edges = windows.edges
    width_us = reduce(gcd, (edge - edges[0] for edge in edges), 0) if edges else windows.width_us
    origin_us = edges[0] if edges else windows.origin_us
    if not width_us or width_us % 1000 or origin_us % 1000:
        return None
    width, offset = width_us // 1000, origin_us % width_us // 1000
    return {"date_histogram": {"field": field, "fixed_interval": f"{width}ms", "offset": f"+{offset}ms"}}


async def _buckets(server: Server, asked: Asked, source: Document) -> AsyncGenerator[tuple[Any, int]]:
    composite: Document = {"size": PAGE, "sources": [{"value": source}]}
    body = {"size": 0, "query": asked.find, "aggs": {"by": {"composite": composite}}}
    while True:
        page = (await server.ask("POST", f"/{asked.held.index}/_search", body))["aggregations"]["by"]
        for bucket in page["buckets"]:
            value = bucket["key"]["value"]
            yield (_value(asked, value) if asked.windows is None else value * 1000), bucket["doc_count"]
        if len(page["buckets"]) < PAGE:
            return
        composite["after"] = page["after_key"]


def _value(asked: Asked, key: Any) -> Any:
    """What a bucket's key stands for: a date is milliseconds there, a truth may be 0 or 1."""
    match asked.held.codec.kinds[asked.field].name:
        case "date":
            return (EPOCH + timedelta(milliseconds=key)).date()
        case "bool":
            return bool(key)
        case "uuid":
            return UUID(key)
        case _:
            return key


async def _bodies(server: Server, asked: Asked) -> AsyncGenerator[Body]:
    """The documents, judged where that is left to us."""
    meant = None if asked.where is None else predicate(asked.where)
    body: Document = {
        "query": asked.find,
        "sort": [{"ps_id": "asc"}],
        "size": PAGE,
        "track_total_hits": False,
    }
    while True:
        hits = (await server.ask("POST", f"/{asked.held.index}/_search", body))["hits"]["hits"]
        for hit in hits:
            found = asked.held.codec.decode(hit["_source"])
            if meant is None or meant(found):
                yield found
        if len(hits) < PAGE:
            return
        body["search_after"] = hits[-1]["sort"]
