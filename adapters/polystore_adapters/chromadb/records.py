"""Records: read by key, and written if newer.

The server cannot compare and write in one step. So what is written to one entity type goes one after the other in a
process: read the versions that stand, write what is newer. A record lies in one of two collections, see `items.py`. One
that moves is written to its new place before it leaves the old one, so that the newer of two counts; vectors of other
fields go before both. An end between them is mended by the delivery that comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from polystore.errors import DecodeError, InvalidData, PolystoreError, Unavailable
from polystore.model import (
    APPLIED,
    STALE,
    Change,
    Key,
    Outcome,
    Record,
)
from polystore_adapters.chromadb.held import AllHeld, Held
from polystore_adapters.chromadb.items import (
    DAMAGED,
    NO_VECTOR,
    RECORDS,
    Item,
    id_of,
    kept_of,
    over,
)
from polystore_adapters.chromadb.server import COLUMNS, Document, Server

KEYS = 500
WRITE_BYTES = 8_000_000
"""Of one request, about, unless one record alone has more: the server takes 40 MB as it comes."""
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
        there = newest_of(await standing(server, held, list(places)))
        if missing := [id for id in places if id not in there]:  # perhaps it moved from the place that was read later
            there |= newest_of(await standing(server, held, missing))
        for id, item in there.items():
            found[places[id]] = held.codec.record(places[id], item, server.env.now_us())
    return [found.get(key) for key in keys]


async def standing(server: Server, held: Held, ids: Sequence[str], *include: str) -> Standing:
    """What there is of these records; all of it, where nothing is named."""
    found = await asyncio.gather(
        *(by_ids(server, held.ids[place], ids, *(include or columns_of(place))) for place in held.whole)
    )
    return {place: placed(place, items) for place, items in zip(held.whole, found, strict=True)}


def columns_of(place: str) -> Sequence[str]:
    """What an item there has; the server refuses to give embeddings while the first one of a collection is written."""
    return COLUMNS[:2] if place == RECORDS else COLUMNS


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
        found += await read(server, id, *include, ids=ids[start : start + KEYS])
    return found


async def read(server: Server, id: str, *include: str, **asked: Any) -> list[Document]:
    """`Server.items`. The server fails to give embeddings where one of the items is deleted while it looks: then the
    others are asked for."""
    try:
        return await server.items(id, *include, **asked)
    except Unavailable:
        if "embeddings" not in include:
            raise
        there = [one["id"] for one in await server.items(id, **asked)]
        if "ids" in asked and len(there) == len(asked["ids"]):
            raise
    return await read(server, id, *include, ids=there) if there else []


def _by_type(keys: Iterable[Key]) -> dict[str, list[Key]]:
    grouped: dict[str, list[Key]] = {}
    for key in dict.fromkeys(keys):
        grouped.setdefault(key.etype, []).append(key)
    return grouped


# -- what there is ------------------------------------------------------------------------------------------------


def is_over(item: Document, now_us: int) -> bool:
    """Whether its time is over; what cannot be read has none."""
    try:
        return over(kept_of(item), now_us)
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
    there = await standing(server, held, list(places.values()), *(() if held.retired else ("metadatas",)))
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
    for place, stood in there.items():  # of a move that came to an end half way
        await _leave(server, held, place, [id for id in stood if id not in drafts and counting[id]["place"] != place])


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
    """Vectors of other fields, then the records, then what they leave. Of other fields nobody has looked what there is:
    a write that came to an end half way may have left it."""
    for place in [field for field in held.vectors if field not in held.whole]:
        await _leave(server, held, place, [one.id for one in drafts if place not in one.items])
        await _put(server, held, place, [one for one in drafts if place in one.items])
    await write_whole(server, held, drafts)
    for place in held.whole:
        await _leave(server, held, place, [one.id for one in drafts if place in one.there and place not in one.items])


async def write_whole(server: Server, held: Held, drafts: Sequence[Draft]) -> None:
    """The records, where they are to lie."""
    for place in held.whole:
        await _put(server, held, place, [one for one in drafts if place in one.items])


async def _leave(server: Server, held: Held, place: str, ids: Sequence[str]) -> None:
    if ids:
        await server.write(held.ids[place], "delete", ids=ids)


async def _put(server: Server, held: Held, place: str, drafts: Sequence[Draft]) -> None:
    if not drafts:
        return
    items = [one.items[place] for one in drafts]
    fresh = [place in held.whole and place not in one.there for one in drafts]
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
    """Remove tombstones that are older, `KEYS` at most, and never the newest: what it was is asked for. Returns how
    many."""
    return await server.alone(held.name, partial(_purge, server, held, before_us))


async def _purge(server: Server, held: Held, before_us: int) -> int:
    old: Document = {"ps_deleted_us": {"$lt": before_us}}
    found = await server.items(held.ids[RECORDS], "metadatas", where=old, limit=KEYS + 1)
    gone = sorted(found, key=version_of)[:-1]
    if gone:
        await server.write(held.ids[RECORDS], "delete", ids=[one["id"] for one in gone], where=old)
    return len(gone)
