"""Records: read by key, in the order of their hashes, and written if newer.

The server's own version of a document is the record's: with `version_type=external` it refuses what is not newer, and
says so for each item of a bulk request. A deletion is a document, too: the server forgets the versions of what it
deletes after `index.gc_deletes`, and would then take an older record for new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from polystore.errors import InvalidData, PolystoreError, Unavailable
from polystore.model import APPLIED, STALE, Change, HashSpan, Key, Outcome, Page, Record, Stamp
from polystore_adapters.elasticsearch.documents import id_of
from polystore_adapters.elasticsearch.held import AllHeld, Held
from polystore_adapters.elasticsearch.server import Document, Server, by_status

KEYS = 500
"""Documents asked for at once."""
BULK_BYTES = 1_000_000
"""Of one request, unless a document alone has more: beyond 1 MiB aiohttp, under the driver, warns that it holds up the
event loop."""
PAGE = 500
STALE_STATUS = 409


async def get(server: Server, types: AllHeld, keys: Sequence[Key]) -> list[Record | None]:
    """See `Repository.get`. By id what was written is seen at once."""
    found: dict[Key, Record] = {}
    for etype, asked in _by_type(keys).items():
        held = types[etype]
        for start in range(0, len(asked), KEYS):
            some = asked[start : start + KEYS]
            documents = await server.mget(held.index, [id_of(key) for key in some])
            for key, one in zip(some, documents, strict=True):
                if one.get("found"):
                    found[key] = held.codec.record(key, one["_source"], server.env.now_us())
    return [found.get(key) for key in keys]


def _by_type(keys: Sequence[Key] | Mapping[Key, object]) -> dict[str, list[Key]]:
    grouped: dict[str, list[Key]] = {}
    for key in dict.fromkeys(keys):
        grouped.setdefault(key.etype, []).append(key)
    return grouped


# -- in order -----------------------------------------------------------------------------------------------------


async def scan(server: Server, held: Held, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
    """See `Repository.scan`. The full text is compared with the fields, too."""
    await server.refresh(held.index)
    inside = {"range": {"ps_h": {"gte": span.low, "lt": span.high}}}
    body: Document = {
        "query": held.live(tenant, server.env.now_us(), inside),
        "sort": [{"ps_h": "asc"}, {"ps_id": "asc"}],
        "size": limit + 1,
        "track_total_hits": False,
    }
    if cursor is not None:
        body["search_after"] = msgspec.json.decode(cursor)
    hits = (await server.ask("POST", f"/{held.index}/_search", body))["hits"]["hits"]
    stamps = [_stamp(held, hit["_source"]) for hit in hits[:limit]]
    more = len(hits) > limit
    return Page(stamps, msgspec.json.encode((stamps[-1].h, stamps[-1].id)).decode() if more else None)


def _stamp(held: Held, source: Document) -> Stamp:
    body = held.codec.decode(source)
    fault = ""
    if held.full_text and source.get("ps_terms") != held.codec.terms(body):
        fault = "the full text is not that of the stored fields"
    return Stamp(source["ps_id"], source["ps_h"], source["ps_version"], held.entity.content_hash(body), fault=fault)


async def tenants(server: Server, held: Held) -> list[str]:
    """See `Repository.tenants`."""
    await server.refresh(held.index)
    found: list[str] = []
    after: Document = {}
    while True:
        source = {"size": 1000, "sources": [{"tenant": {"terms": {"field": "ps_tenant"}}}], **after}
        body = {"size": 0, "query": held.live(None, server.env.now_us()), "aggs": {"by": {"composite": source}}}
        page = (await server.ask("POST", f"/{held.index}/_search", body))["aggregations"]["by"]
        found += [bucket["key"]["tenant"] for bucket in page["buckets"]]
        if not page["buckets"] or "after_key" not in page:
            return sorted(found)
        after = {"after": page["after_key"]}


async def newest(server: Server, held: Held) -> int:
    """See `Repository.newest`."""
    await server.refresh(held.index)
    body = {"size": 0, "aggs": {"top": {"max": {"field": "ps_version"}}}}
    top = (await server.ask("POST", f"/{held.index}/_search", body))["aggregations"]["top"]["value"]
    kept = await server.mget(server.meta, [_newest_id(held)])
    purged: list[int] = [one["_source"]["version"] for one in kept if one.get("found")]
    return max([0, int(top or 0), *purged])


def _newest_id(held: Held) -> str:
    return f"newest {held.etype}"


# -- writing ------------------------------------------------------------------------------------------------------


async def apply(server: Server, types: AllHeld, changes: Sequence[Change]) -> list[Outcome]:
    """See `Repository.apply`: of a key's changes only the newest is sent."""
    outcomes: list[Outcome] = [STALE] * len(changes)
    newest_of: dict[Key, tuple[int, bytes]] = {}
    purge_us = server.env.now_us() + int(server.options.tombstone_ttl_s * 1e6)
    for i, change in sorted(enumerate(changes), key=lambda pair: (pair[1].version, pair[1].overwrites)):
        try:
            newest_of[change.key] = i, types[change.key.etype].codec.encoded(change, purge_us)
        except PolystoreError as error:
            outcomes[i] = Outcome("rejected", error)
    lines: list[bytes] = []
    order: list[int] = []
    size = 0
    await _keep_retired(server, types, changes, newest_of)
    versions = await _to_overwrite(server, types, [changes[i] for i, _ in newest_of.values() if changes[i].overwrites])
    for key, (i, document) in newest_of.items():
        version, kind = versions.get(key, (changes[i].version, "external"))
        if version < changes[i].version:
            continue  # what stands is newer
        action = bulk_action("index", types[key.etype].index, id_of(key), version, kind)
        if lines and size + len(document) > BULK_BYTES:
            await _send(server, lines, order, outcomes)
            lines, order, size = [], [], 0
        lines += [action, document]
        order.append(i)
        size += len(document)
    if lines:
        await _send(server, lines, order, outcomes)
    await _not_taken(server, types, [(i, changes[i]) for i, _ in newest_of.values() if outcomes[i] is STALE], outcomes)
    return outcomes


async def _to_overwrite(
    server: Server, types: AllHeld, changes: Sequence[Change]
) -> dict[Key, tuple[int, Literal["external_gte"]]]:
    """Under which version of the server's own each change takes the place of what stands: of who wrote past polystore,
    the server has counted the version up. 0: what stands is newer than the change."""
    found: dict[Key, tuple[int, Literal["external_gte"]]] = {}
    by_key = {change.key: change for change in changes}
    for etype, keys in _by_type(by_key).items():
        documents = await server.mget(types[etype].index, [id_of(key) for key in keys], _source_includes="ps_version")
        for key, one in zip(keys, documents, strict=True):
            wanted = by_key[key].version
            newer = int((one.get("_source") or {}).get("ps_version") or 0) > wanted
            found[key] = 0 if newer else max(wanted, int(one.get("_version") or 0)), "external_gte"
    return found


async def _not_taken(
    server: Server, types: AllHeld, refused: Sequence[tuple[int, Change]], outcomes: list[Outcome]
) -> None:
    """Where something was deleted past polystore, the server knows of it for some time, and refuses what is no newer
    than that."""
    for i, change in refused:
        if change.overwrites:
            (one,) = await server.mget(types[change.key.etype].index, [id_of(change.key)], _source=False)
            if not one.get("found"):
                wait = Unavailable("it was deleted there a moment ago; the server takes it after index.gc_deletes")
                outcomes[i] = Outcome("rejected", wait)


async def _keep_retired(
    server: Server, types: AllHeld, changes: Sequence[Change], newest_of: dict[Key, tuple[int, bytes]]
) -> None:
    """Values of fields that the class has no more go along into the new documents."""
    for etype, keys in _by_type(newest_of).items():
        held = types[etype]
        some = [key for key in keys if held.retired and not changes[newest_of[key][0]].deleted]
        if not some:
            continue
        found = await server.mget(held.index, [id_of(key) for key in some], _source_includes=",".join(held.retired))
        for key, one in zip(some, found, strict=True):
            if one.get("_source"):
                i, document = newest_of[key]
                whole = {**one["_source"], **msgspec.json.decode(document)}
                newest_of[key] = i, msgspec.json.encode(whole)


def bulk_action(verb: str, index: str, id: str, version: int, kind: str) -> bytes:
    """The line before a document. What is indexed goes to an alias: an index that is gone is not made by writing."""
    about: Document = {"_index": index, "_id": id, "version": version, "version_type": kind}
    return msgspec.json.encode({verb: about | ({"require_alias": True} if verb == "index" else {})})


async def _send(server: Server, lines: Sequence[bytes], order: Sequence[int], outcomes: list[Outcome]) -> None:
    """One bulk request; each item is answered by itself. What is the server's trouble of the moment is raised: to send
    the others again changes nothing."""
    answer = await server.bulk(lines)
    for i, item in zip(order, answer["items"], strict=True):
        one: Document = next(iter(item.values()))
        if one["status"] < 300:
            outcomes[i] = APPLIED
        elif one["status"] == STALE_STATUS:
            outcomes[i] = STALE
        else:
            error = by_status(one["status"], str(one.get("error", {}).get("type", "")))
            if not isinstance(error, InvalidData):
                raise error
            outcomes[i] = Outcome("rejected", error)


async def purge(server: Server, held: Held) -> int:
    """Remove tombstones whose time is over, unless something newer came meanwhile; returns how many. What the newest of
    them was is kept."""
    body = {
        "query": {"range": {"ps_purge_us": {"lte": server.env.now_us()}}},
        "sort": [{"ps_version": "desc"}],
        "size": PAGE,
        "_source": ["ps_version"],
    }
    hits = (await server.ask("POST", f"/{held.index}/_search", body))["hits"]["hits"]
    if not hits:
        return 0
    top = max(await newest(server, held), hits[0]["_source"]["ps_version"])
    await server.ask("PUT", f"/{server.meta}/_doc/{_newest_id(held)}".replace(" ", "%20"), {"version": top})
    gone = [bulk_action("delete", held.index, hit["_id"], hit["_source"]["ps_version"], "external_gte") for hit in hits]
    await server.bulk(gone)
    return len(gone)
