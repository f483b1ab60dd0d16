"""Records: read by key, in the order of their hashes, and written if newer.

The server's own version of a document is the record's: with `version_type=external` it refuses what is not newer, and
says so for each item of a bulk request. A deletion is a document, too: the server forgets the versions of what it
deletes after `index.gc_deletes`, and would then take an older record for new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from polystore.errors import DecodeError, InvalidData, PolystoreError, Unavailable
from polystore.model import APPLIED, STALE, UNREADABLE, Change, HashSpan, Key, Outcome, Page, Record, Stamp
from polystore_adapters.elasticsearch.documents import id_of
from polystore_adapters.elasticsearch.held import AllHeld, Held
from polystore_adapters.elasticsearch.server import Document, Server, by_status

KEYS = 500
"""Documents asked for at once."""
BULK_BYTES = 1_000_000
"""Of one request, unless a document alone has more: beyond 1 MiB aiohttp, under the driver, warns that it holds up the
event loop."""
PAGE = 500
NOT_NEWER = "version_conflict_engine_exception"
"""The type of the error when the index has this version of a document, or a newer one."""


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
    """See `Repository.scan`. The full text is compared with the fields, too. What others wrote before the first page is
    in all of them."""
    await (server.refresh if cursor is None else server.seen)(held.index)
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
    try:
        body = held.codec.decode(source)
    except DecodeError:
        return Stamp(source["ps_id"], source["ps_h"], source["ps_version"], b"", fault=UNREADABLE)
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
    """See `Repository.newest`. Of tombstones that are removed, `purge` leaves a note."""
    await server.refresh(held.index)
    body = {"size": 0, "aggs": {"top": {"max": {"field": "ps_version"}}}}
    top = (await server.ask("POST", f"/{held.index}/_search", body))["aggregations"]["top"]["value"]
    return int(top or 0)


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
    await _keep_retired(server, types, changes, newest_of)
    versions = await _to_overwrite(server, types, [changes[i] for i, _ in newest_of.values() if changes[i].overwrites])
    sent: list[tuple[int, bytes, bytes]] = []
    for key, (i, document) in newest_of.items():
        version, kind = versions.get(key, (changes[i].version, "external"))
        if version >= changes[i].version:  # else what stands is newer
            sent.append((i, bulk_action("index", types[key.etype].index, id_of(key), version, kind), document))
    written = {types[key.etype].index for key in newest_of}
    for some in bulks(sent):
        await _send(server, some, written, outcomes)
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
            source: Document = one.get("_source") or {}
            newer = int(source.get("ps_version") or 0) > wanted
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


def bulks(sent: Iterable[tuple[int, bytes, bytes]]) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """(place, action, document) in as many bulk requests as their size asks for."""
    some: list[tuple[int, bytes, bytes]] = []
    size = 0
    for one in sent:
        if some and size + len(one[2]) > BULK_BYTES:
            yield some
            some, size = [], 0
        some.append(one)
        size += len(one[2])
    if some:
        yield some


async def _send(
    server: Server, sent: Sequence[tuple[int, bytes, bytes]], written: Iterable[str], outcomes: list[Outcome]
) -> None:
    """One bulk request; each item is answered by itself. What is the server's trouble of the moment is raised: to send
    the others again changes nothing."""
    answer = await server.bulk([line for _, *lines in sent for line in lines], *written)
    for (i, *_), item in zip(sent, answer["items"], strict=True):
        one: Document = next(iter(item.values()))
        outcomes[i] = outcome(one)


def outcome(item: Document) -> Outcome:
    """What a bulk request did with one item. Raises what is not about the item, but about the server or the index."""
    kind = str(item.get("error", {}).get("type", ""))
    if item["status"] < 300:
        return APPLIED
    if kind == NOT_NEWER:
        return STALE
    error = by_status(item["status"], kind)
    if isinstance(error, InvalidData):
        return Outcome("rejected", error)
    raise error
