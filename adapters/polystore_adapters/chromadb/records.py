"""Records: read by key, in the order of their hashes, and written if newer.

The server cannot compare and write in one step. So what is written to one entity type goes one after the other in a
process: read the versions that stand, write what is newer. A record lies in one of two collections, see `items.py`. One
that moves is written to its new place before it leaves the old one, so that the newer of two counts; vectors of other
fields go before both. An end between them is mended by the delivery that comes again.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, unquote

import msgspec

from polystore.embedding import pack
from polystore.errors import DecodeError, InvalidData, PolystoreError
from polystore.model import (
    APPLIED,
    STALE,
    UNREADABLE,
    Change,
    HashSpan,
    Key,
    Outcome,
    Page,
    Record,
    Stamp,
    vector_digest,
)
from polystore_adapters.chromadb.conditions import both
from polystore_adapters.chromadb.held import AllHeld, Held
from polystore_adapters.chromadb.items import (
    BUCKET_BITS,
    DAMAGED,
    NO_VECTOR,
    RECORDS,
    Item,
    at_of,
    bucket_of,
    h_of,
    id_of,
    kept_of,
    key_of,
    over,
    vector_of,
)
from polystore_adapters.chromadb.server import COLUMNS, Document, Server

KEYS = 500
WRITE_BYTES = 8_000_000
"""Of one request, about, unless one record alone has more: the server takes 40 MB as it comes."""
BUCKETS = 1 << BUCKET_BITS
SAMPLE = 20
"""So many of the newer ones are looked at, of which the newest leaves few above it."""

Standing = Mapping[str, Mapping[str, Document]]
"""Place -> id -> the item there."""


async def get(server: Server, types: AllHeld, keys: Sequence[Key]) -> list[Record | None]:
    """See `Repository.get`."""
    found: dict[Key, Record] = {}
    for etype, asked in _by_type(keys).items():
        held = types[etype]
        places = {id_of(key): key for key in asked}
        there = newest_of(await standing(server, held, list(places), *COLUMNS))
        if missing := [id for id in places if id not in there]:  # perhaps it moved from the place that was read later
            there |= newest_of(await standing(server, held, missing, *COLUMNS))
        for id, item in there.items():
            found[places[id]] = held.codec.record(places[id], item, server.env.now_us())
    return [found.get(key) for key in keys]


async def standing(server: Server, held: Held, ids: Sequence[str], *include: str) -> Standing:
    """What there is of these records."""
    found = await asyncio.gather(*(by_ids(server, held.ids[place], ids, *include) for place in held.whole))
    return {place: placed(place, items) for place, items in zip(held.whole, found, strict=True)}


def placed(place: str, items: Iterable[Document]) -> dict[str, Document]:
    """By their ids, each with its place."""
    return {one["id"]: {**one, "place": place} for one in items}


def newest_of(there: Standing) -> dict[str, Document]:
    """Id -> the item that counts."""
    found: dict[str, Document] = {}
    for items in there.values():
        for id, one in items.items():
            if id not in found or version_of(one) > version_of(found[id]):
                found[id] = one
    return found


def version_of(item: Document) -> int:
    return int(item["metadatas"].get("ps_version") or 0)


async def by_ids(server: Server, id: str, ids: Sequence[str], *include: str) -> list[Document]:
    """Those of the items that there are."""
    found: list[Document] = []
    for start in range(0, len(ids), KEYS):
        found += await server.items(id, *include, ids=ids[start : start + KEYS])
    return found


def _by_type(keys: Iterable[Key]) -> dict[str, list[Key]]:
    grouped: dict[str, list[Key]] = {}
    for key in dict.fromkeys(keys):
        grouped.setdefault(key.etype, []).append(key)
    return grouped


# -- in order -----------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """A live record, as it lies there."""

    h: int
    id: str
    item: Document


async def scan(server: Server, held: Held, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
    """See `Repository.scan`. The server has no order: some buckets of hashes are read whole, as many as should have
    what is missing, and sorted here. What is found by is compared with the record, too."""
    after = (span.low, "") if cursor is None else msgspec.json.decode(cursor, type=tuple[int, str])
    first, last = bucket_of(max(span.low, after[0])), bucket_of(max(span.high - 1, 0))
    total = sum([await server.count(held.ids[place]) for place in held.whole])
    start, width = first, (limit + 1) * BUCKETS // max(1, total) + 1
    found: list[Found] = []
    while start <= last and len(found) <= limit and span.low < span.high:
        some = await _some(server, held, tenant, range(start, min(start + width, last + 1)))
        found += sorted(
            (one for one in some if span.low <= one.h < span.high and (cursor is None or one[:2] > after)),
            key=lambda one: one[:2],
        )
        start += width
        wanted = (limit + 1 - len(found)) * (start - first) // max(1, len(found)) + 1
        width = min(4 * width, wanted) if found else 4 * width
    stamps = await _stamps(server, held, found[:limit])
    return Page(stamps, msgspec.json.encode(found[limit - 1][:2]).decode() if len(found) > limit else None)


async def _some(server: Server, held: Held, tenant: str, buckets: range) -> list[Found]:
    """The live records of these buckets."""
    mine = quote(tenant, safe="")
    at: Document = {"ps_at": {"$in": [at_of(mine, one) for one in buckets]}}
    where = {"ps_tenant": mine} if len(buckets) == BUCKETS else at
    there: dict[str, dict[str, Document]] = {}
    for place in held.whole:  # not both at once: live writes have a turn between
        there[place] = placed(place, await server.items(held.ids[place], *COLUMNS, where=where))
    now = server.env.now_us()
    live = [(key_of(held.etype, one), one) for one in newest_of(there).values() if not is_over(one, now)]
    return [Found(h_of(key), key.id, one) for key, one in live]


def is_over(item: Document, now_us: int) -> bool:
    """Whether its time is over; what cannot be read has none."""
    try:
        return over(kept_of(item), now_us)
    except DAMAGED:
        return False


async def _stamps(server: Server, held: Held, found: Sequence[Found]) -> list[Stamp]:
    vectors: dict[str, dict[str, Document]] = {one.item["id"]: {} for one in found}
    for field in [field for field in held.vectors if field not in held.whole]:
        for one in await by_ids(server, held.ids[field], list(vectors), *COLUMNS):
            vectors[one["id"]][field] = one
    return [_stamp(held, one, vectors[one.item["id"]]) for one in found]


def _stamp(held: Held, found: Found, others: Mapping[str, Document]) -> Stamp:
    item, version, codec = found.item, version_of(found.item), held.codec
    try:
        body = codec.decode(item)
    except DecodeError:
        return Stamp(found.id, found.h, version, b"", fault=UNREADABLE)
    about = codec.about(key_of(held.etype, item), found.h, version, body)
    there = {item["place"]: item, **others}
    fault = ""
    for field, one in there.items():
        if not _tells(one, codec.told(field, about)):
            fault = "the metadata are not those of the stored record"
        elif field != RECORDS and not _sound(one, item):
            fault = f"the index has another vector of {field!r} than was written"
    digests = {field: vector_digest(vector_of(one)) for field, one in there.items() if field != RECORDS}
    return Stamp(found.id, found.h, version, held.entity.content_hash(body), False, digests, fault)


def _tells(item: Document, told: Document) -> bool:
    return all(item["metadatas"].get(name) == value for name, value in told.items())


def _sound(one: Document, record: Document) -> bool:
    """Whether the embedding is the one that was sent, with this record."""
    try:
        mine, its = kept_of(one), kept_of(record)
        of_it = (mine.updated_us, mine.expires_us, mine.hash) == (its.updated_us, its.expires_us, its.hash)
        return of_it and zlib.crc32(pack(one["embeddings"])) == mine.check
    except DAMAGED:
        return False


async def tenants(server: Server, held: Held) -> list[str]:
    """See `Repository.tenants`: those that were ever noted and have a live record."""
    noted = await server.items(held.tenants, "metadatas", where={"etype": held.etype})
    names = {one["metadatas"]["tenant"] for one in noted}
    return sorted([unquote(name) for name in names if await _has_live(server, held, name)])


async def _has_live(server: Server, held: Held, tenant: str) -> bool:
    now = server.env.now_us()
    for place in held.whole:
        seen = 0
        while some := await server.items(
            held.ids[place], "metadatas", "uris", where={"ps_tenant": tenant}, limit=SAMPLE, offset=seen
        ):
            if not all(is_over(one, now) for one in some):
                return True
            seen += len(some)
    return False


async def newest(server: Server, held: Held, ids: Sequence[str] = ()) -> int:
    """See `Repository.newest`; `ids`: of the collections, where they are not those of `held`. The server has no
    maximum: some that are newer than the newest that is known are asked for, further and further on, until there are
    none, and then between."""
    there: Document = await server.collection(held.name) or {}
    about: Document = there.get("metadata") or {}
    low, high, step = int(about.get("newest", 0)), 1 << 53, 1
    while low + 1 < high:
        middle = min(low + step, (low + high) // 2)
        newer: list[Document] = []
        for id in ids or [held.ids[place] for place in held.whole]:
            newer += await server.items(id, "metadatas", where={"ps_version": {"$gte": middle}}, limit=SAMPLE)
        low, high = (max(version_of(one) for one in newer), high) if newer else (low, middle)
        step = 2 * step if newer else high
    return low


# -- writing ------------------------------------------------------------------------------------------------------


class Draft(NamedTuple):
    """A change that is to be written, which of the given ones it is, and the places where its record stands."""

    i: int
    items: Mapping[str, Item]
    there: Sequence[str]

    @property
    def id(self) -> str:
        return next(iter(self.items.values())).id


async def apply(server: Server, types: AllHeld, changes: Sequence[Change]) -> list[Outcome]:
    """See `Repository.apply`: of a key's changes only the newest is sent."""
    outcomes: list[Outcome] = [STALE] * len(changes)
    numbers: dict[str, list[int]] = {}
    for i, change in enumerate(changes):
        numbers.setdefault(change.key.etype, []).append(i)
    for etype, some in numbers.items():
        held, mine = types[etype], {i: changes[i] for i in some}
        await server.alone(held.name, partial(_apply, server, held, mine, outcomes))
    return outcomes


async def _apply(server: Server, held: Held, changes: Mapping[int, Change], outcomes: list[Outcome]) -> None:
    places = {change.key: id_of(change.key) for change in changes.values()}
    there = await standing(server, held, list(places.values()), *(COLUMNS if held.retired else ("metadatas",)))
    counting = newest_of(there)
    drafts: dict[str, Draft] = {}
    for i, change in sorted(changes.items(), key=lambda pair: pair[1].version):
        id = places[change.key]
        before = counting.get(id)
        if before is not None and not change.replaces(version_of(before)):
            continue
        try:
            items = held.codec.encoded(change, held.layout.served(change.vectors), _kept_fields(held, before))
            drafts[id] = Draft(i, items, [place for place in held.whole if id in there[place]])
        except PolystoreError as error:
            outcomes[i] = Outcome("rejected", error)
    live = [changes[i].key.tenant for i, *_ in drafts.values() if changes[i].body is not None]
    await _note_tenants(server, held, {quote(tenant, safe="") for tenant in live})
    for part in _parts(list(drafts.values())):
        await _write(server, held, part, outcomes)
    for place, items in there.items():  # of a move that came to an end half way
        left = [id for id, one in items.items() if id not in drafts and counting[id] is not one]
        if left:
            await server.write(held.ids[place], "delete", ids=left)


def _kept_fields(held: Held, item: Document | None) -> Mapping[str, object]:
    """Values of fields that the class has no more."""
    if not held.retired or item is None or "ps_deleted_us" in item["metadatas"]:
        return {}
    try:
        return {name: value for name, value in held.codec.plain(item).items() if name in held.retired}
    except DecodeError:  # what is damaged has nothing to keep, and is written again
        return {}


async def _note_tenants(server: Server, held: Held, names: Iterable[str]) -> None:
    """Before the first record of a tenant: the server cannot tell which there are."""
    new = sorted(set(names) - held.known)
    if new:
        about = [{"etype": held.etype, "tenant": name} for name in new]
        ids = [f"tenant {held.etype} {name}" for name in new]
        await server.write(held.tenants, "upsert", ids=ids, embeddings=[NO_VECTOR] * len(new), metadatas=about)
        held.known.update(new)


def _parts(drafts: Sequence[Draft]) -> list[list[Draft]]:
    parts: list[list[Draft]] = []
    size = 0
    for draft in drafts:
        mine = sum(item.size for item in draft.items.values())
        size += mine
        if not parts or size > WRITE_BYTES or len(parts[-1]) >= KEYS:
            parts.append([])
            size = mine
        parts[-1].append(draft)
    return parts


async def _write(server: Server, held: Held, drafts: Sequence[Draft], outcomes: list[Outcome]) -> None:
    """Together; where the server refuses that, each alone, for it refuses all for one."""
    try:
        await write_items(server, held, drafts)
    except InvalidData as error:
        if len(drafts) == 1:
            outcomes[drafts[0].i] = Outcome("rejected", error)
            return
        for draft in drafts:
            await _write(server, held, [draft], outcomes)
        return
    for draft in drafts:
        outcomes[draft.i] = APPLIED


async def write_items(server: Server, held: Held, drafts: Sequence[Draft]) -> None:
    """Vectors of other fields, then the records, then what they leave."""
    for place in [field for field in held.vectors if field not in held.whole]:
        await _leave(server, held, place, [one.id for one in drafts if one.there and place not in one.items])
        await _put(server, held, place, [one for one in drafts if place in one.items])
    for place in held.whole:
        await _put(server, held, place, [one for one in drafts if place in one.items])
    for place in held.whole:
        await _leave(server, held, place, [one.id for one in drafts if place in one.there and place not in one.items])


async def _leave(server: Server, held: Held, place: str, ids: Sequence[str]) -> None:
    if ids:
        await server.write(held.ids[place], "delete", ids=ids)


async def _put(server: Server, held: Held, place: str, drafts: Sequence[Draft]) -> None:
    if not drafts:
        return
    items = [one.items[place] for one in drafts]
    fresh = [place not in one.there if place in held.whole else not one.there for one in drafts]
    await server.write(
        held.ids[place],
        "upsert",
        ids=[item.id for item in items],
        embeddings=[item.embedding for item in items],
        metadatas=[_there(item.metadata) if new else item.metadata for item, new in zip(items, fresh, strict=True)],
        uris=[item.uri for item in items],
    )


def _there(metadata: Document) -> Document:
    """Without what would be removed: the server looks for each of that, also in a new item."""
    return {name: value for name, value in metadata.items() if value is not None}


async def purge(server: Server, held: Held, before_us: int) -> int:
    """Remove tombstones that are older; the newest of all stays: what it was is asked for. Returns how many."""
    return await server.alone(held.name, partial(_purge, server, held, before_us))


async def _purge(server: Server, held: Held, before_us: int) -> int:
    old: Document = {"ps_deleted_us": {"$lt": before_us}}
    where = both(old, {"ps_version": {"$lt": await newest(server, held)}})
    id = held.ids[RECORDS]
    gone = [one["id"] for one in await server.items(id, where=where, limit=KEYS)]
    if gone:
        await server.write(id, "delete", ids=gone, where=old)
    return len(gone)
