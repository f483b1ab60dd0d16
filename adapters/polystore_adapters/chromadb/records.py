"""Records: read by key, in the order of their hashes, and written if newer.

The server cannot compare and write in one step. So what is written to one entity type goes one after the other in a
process: read the versions that stand, write what is newer. The vectors go first and the record last, whose version
tells that all is there: an end between them is mended by the delivery that comes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, unquote

import msgspec

from polystore.embedding import unpack as components
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
    Item,
    bucket_of,
    id_of,
    over,
    unpacked,
    vector_of,
    vector_text,
)
from polystore_adapters.chromadb.server import Document, Server

KEYS = 500
WRITE_BYTES = 8_000_000
"""Of the records of one request, unless one alone has more: the server takes 40 MB as it comes."""
BUCKETS = 1 << BUCKET_BITS
SAMPLE = 20
"""So many of the newer ones are looked at, of which the newest leaves few above it."""
_PLACEHOLDER = [0.0]


async def get(server: Server, types: AllHeld, keys: Sequence[Key]) -> list[Record | None]:
    """See `Repository.get`."""
    found: dict[Key, Record] = {}
    for etype, asked in _by_type(keys).items():
        held = types[etype]
        places = {id_of(key): key for key in asked}
        for item in await by_ids(server, held.id, list(places), "metadatas", "uris"):
            key = places[item["id"]]
            found[key] = held.codec.record(key, item, server.env.now_us())
    return [found.get(key) for key in keys]


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


async def scan(server: Server, held: Held, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
    """See `Repository.scan`. The server has no order: some buckets of hashes are read whole, more of them where little
    is found, and sorted here. What is found by is compared with the record, too."""
    after = (span.low, "") if cursor is None else msgspec.json.decode(cursor, type=tuple[int, str])
    start, last = bucket_of(max(span.low, after[0])), bucket_of(max(span.high - 1, 0))
    width = max(1, 2 * limit * BUCKETS // max(1, await server.count(held.id)))
    found: list[tuple[int, str, Document]] = []
    while start <= last and len(found) <= limit and span.low < span.high:
        buckets = list(range(start, min(start + width, last + 1)))
        some = await _some(server, held, tenant, buckets)
        found += sorted(
            (one for one in some if span.low <= one[0] < span.high and (cursor is None or one[:2] > after)),
            key=lambda one: one[:2],
        )
        start += width
        width = width * 2 if len(some) < limit else width
    stamps = await _stamps(server, held, found[:limit])
    return Page(stamps, msgspec.json.encode(found[limit - 1][:2]).decode() if len(found) > limit else None)


async def _some(server: Server, held: Held, tenant: str, buckets: Sequence[int]) -> list[tuple[int, str, Document]]:
    """(hash, id, item) of the live records of these buckets."""
    mine = {"ps_tenant": quote(tenant, safe="")}
    where = mine if len(buckets) == BUCKETS else both(mine, {"ps_bucket": {"$in": buckets}})
    items = await server.items(held.id, "metadatas", "uris", where=where)
    now = server.env.now_us()
    live = [one for one in items if not over(one["metadatas"], now)]
    return [(one["metadatas"]["ps_h"], one["metadatas"]["ps_id"], one) for one in live]


async def _stamps(server: Server, held: Held, found: Sequence[tuple[int, str, Document]]) -> list[Stamp]:
    vectors: dict[str, dict[str, Document]] = {}
    for field, id in held.indexes.items():
        there = await by_ids(server, id, [item["id"] for *_, item in found], "metadatas", "embeddings")
        vectors[field] = {one["id"]: one for one in there}
    return [
        _stamp(held, item, {field: some[item["id"]] for field, some in vectors.items() if item["id"] in some})
        for *_, item in found
    ]


def _stamp(held: Held, item: Document, vectors: Mapping[str, Document]) -> Stamp:
    about: Document = item["metadatas"]
    try:
        body = held.codec.decode(about["ps_id"], item["uris"])
    except DecodeError:
        return Stamp(about["ps_id"], about["ps_h"], about["ps_version"], b"", fault=UNREADABLE)
    shown = held.codec.shown(body)
    fault = "" if _tells(about, shown) else "the metadata are not those of the stored record"
    for field, one in vectors.items():
        beside: Document = one["metadatas"]
        same = [beside.get(name) == about.get(name) for name in ("ps_tenant", "ps_id", "ps_version", "ps_expires_us")]
        if not (all(same) and _tells(beside, shown)):
            fault = f"the metadata of the vector of {field!r} are not those of the stored record"
        elif not _alike(one["embeddings"], vector_of(beside)):
            fault = f"the index has another vector of {field!r} than was written"
    digests = {field: vector_digest(vector_of(one["metadatas"])) for field, one in vectors.items()}
    hash = held.entity.content_hash(body)
    return Stamp(about["ps_id"], about["ps_h"], about["ps_version"], hash, False, digests, fault)


def _tells(about: Document, shown: Document) -> bool:
    return all(about.get(name) == value for name, value in shown.items())


def _alike(embedding: Sequence[float], packed: bytes) -> bool:
    """Whether what the server has of a vector is it, but for the rounding of what it compares by cosine."""
    if len(packed) != 4 * len(embedding):
        return False
    written = components(packed)
    rough = 1e-15 + 1e-4 * max(abs(one) for one in written)
    return all(abs(a - b) <= rough for a, b in zip(embedding, written, strict=True))


async def tenants(server: Server, held: Held) -> list[str]:
    """See `Repository.tenants`: those that were ever noted and have a live record."""
    noted = await server.items(held.tenants, "metadatas", where={"etype": held.etype})
    living = {"$or": [{"ps_expires_us": 0}, {"ps_expires_us": {"$gt": server.env.now_us()}}]}
    names = {one["metadatas"]["tenant"] for one in noted}
    some = [name for name in names if await server.items(held.id, where=both({"ps_tenant": name}, living), limit=1)]
    return sorted(unquote(name) for name in some)


async def newest(server: Server, held: Held) -> int:
    """See `Repository.newest`. The server has no maximum: some that are newer than the newest that is known are asked
    for, further and further on, until there are none, and then between."""
    there: Document = await server.collection(held.name) or {}
    about: Document = there.get("metadata") or {}
    low, high, step = int(about.get("newest", 0)), 1 << 53, 1
    while low + 1 < high:
        middle = min(low + step, (low + high) // 2)
        newer = await server.items(held.id, "metadatas", where={"ps_version": {"$gte": middle}}, limit=SAMPLE)
        low, high = (max(one["metadatas"]["ps_version"] for one in newer), high) if newer else (low, middle)
        step = 2 * step if newer else high
    return low


# -- writing ------------------------------------------------------------------------------------------------------


class Draft(NamedTuple):
    """A change that is to be written, and which of the given ones it is."""

    i: int
    item: Item
    vectors: Mapping[str, bytes]


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
    include = ("metadatas", "uris") if held.retired else ("metadatas",)
    standing = {one["id"]: one for one in await by_ids(server, held.id, list(places.values()), *include)}
    drafts: dict[str, Draft] = {}
    for i, change in sorted(changes.items(), key=lambda pair: pair[1].version):
        id = places[change.key]
        there = standing.get(id)
        if there is not None and not change.replaces(there["metadatas"].get("ps_version") or 0):
            continue
        try:
            item = held.codec.encoded(change, _kept(held, there))
            drafts[id] = Draft(i, item, held.layout.served(change.vectors))
        except PolystoreError as error:
            outcomes[i] = Outcome("rejected", error)
    await _note_tenants(server, held, {item.fields["ps_tenant"] for _, item, _ in drafts.values()} - {None})
    for part in _parts(list(drafts.values())):
        await _write(server, held, part, standing.keys(), outcomes)


def _kept(held: Held, there: Document | None) -> Mapping[str, object]:
    """Values of fields that the class has no more."""
    if not held.retired or there is None or there["metadatas"].get("ps_deleted"):
        return {}
    try:
        return {name: value for name, value in unpacked(there["uris"]).items() if name in held.retired}
    except (msgspec.DecodeError, TypeError, ValueError):  # what is damaged has nothing to keep, and is written again
        return {}


async def _note_tenants(server: Server, held: Held, names: Iterable[str]) -> None:
    """Before the first record of a tenant: the server cannot tell which there are."""
    new = sorted(set(names) - held.known)
    if new:
        about = [{"etype": held.etype, "tenant": name} for name in new]
        ids = [f"tenant {held.etype} {name}" for name in new]
        await server.write(held.tenants, "upsert", ids=ids, embeddings=[_PLACEHOLDER] * len(new), metadatas=about)
        held.known.update(new)


def _parts(drafts: Sequence[Draft]) -> list[list[Draft]]:
    parts: list[list[Draft]] = []
    size = 0
    for draft in drafts:
        size += len(draft.item.uri)
        if not parts or size > WRITE_BYTES or len(parts[-1]) >= KEYS:
            parts.append([])
            size = len(draft.item.uri)
        parts[-1].append(draft)
    return parts


async def _write(
    server: Server, held: Held, drafts: Sequence[Draft], there: Iterable[str], outcomes: list[Outcome]
) -> None:
    """Together; where the server refuses that, each alone, for it refuses all for one."""
    try:
        for field, id in held.indexes.items():
            await _write_vectors(server, id, field, drafts, set(there))
        await write_records(server, held, [draft.item for draft in drafts])
    except InvalidData as error:
        if len(drafts) == 1:
            outcomes[drafts[0].i] = Outcome("rejected", error)
            return
        for draft in drafts:
            await _write(server, held, [draft], there, outcomes)
        return
    for draft in drafts:
        outcomes[draft.i] = APPLIED


async def write_records(server: Server, held: Held, items: Sequence[Item]) -> None:
    await server.write(
        held.id,
        "upsert",
        ids=[item.id for item in items],
        embeddings=[_PLACEHOLDER] * len(items),
        metadatas=[item.metadata for item in items],
        uris=[item.uri for item in items],
    )


async def _write_vectors(server: Server, id: str, field: str, drafts: Sequence[Draft], there: set[str]) -> None:
    with_one = [draft for draft in drafts if field in draft.vectors]
    gone = [draft.item.id for draft in drafts if field not in draft.vectors and draft.item.id in there]
    if gone:
        await server.write(id, "delete", ids=gone)
    if with_one:
        vectors = [draft.vectors[field] for draft in with_one]
        about = [draft.item.fields for draft in with_one]
        await write_vectors(server, id, [draft.item.id for draft in with_one], vectors, about)


async def write_vectors(
    server: Server, id: str, ids: Sequence[str], vectors: Sequence[bytes], about: Sequence[Document]
) -> None:
    await server.write(
        id,
        "upsert",
        ids=ids,
        embeddings=[components(one).tolist() for one in vectors],
        metadatas=[one | {"ps_vector": vector_text(packed)} for one, packed in zip(about, vectors, strict=True)],
    )


async def purge(server: Server, held: Held, before_us: int) -> int:
    """Remove tombstones that are older; the newest of all stays: what it was is asked for. Returns how many."""
    return await server.alone(held.name, partial(_purge, server, held, before_us))


async def _purge(server: Server, held: Held, before_us: int) -> int:
    old = {"ps_updated_us": {"$lt": before_us}}
    where = both({"ps_deleted": True}, old, {"ps_version": {"$lt": await newest(server, held)}})
    gone = [one["id"] for one in await server.items(held.id, where=where, limit=KEYS)]
    if gone:
        await server.write(held.id, "delete", ids=gone, where={"ps_deleted": True})
    return len(gone)
