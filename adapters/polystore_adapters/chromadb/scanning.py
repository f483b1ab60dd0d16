"""Records in the order of their hashes, compared with what they are found by."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from polystore.embedding import pack
from polystore.errors import DecodeError
from polystore.model import UNREADABLE, HashSpan, Page, Stamp, vector_digest
from polystore_adapters.chromadb.held import Held
from polystore_adapters.chromadb.items import (
    BUCKET_BITS,
    DAMAGED,
    RECORDS,
    at_of,
    bucket_of,
    h_of,
    kept_of,
    key_of,
    vector_of,
)
from polystore_adapters.chromadb.records import by_ids, columns_of, is_over, newest_of, placed, read, version_of
from polystore_adapters.chromadb.server import COLUMNS, Document, Server

BUCKETS = 1 << BUCKET_BITS
COUNTED_S = 10.0
"""So long a scan goes by the number of records that it counted."""


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
    start, width = first, (limit + 1) * BUCKETS // max(1, await _about(server, held)) + 1
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


async def _about(server: Server, held: Held) -> int:
    """How many records there are, or were a while ago: counting them takes the server a fifth of a page."""
    now = server.env.monotonic()
    if held.counted is None or now - held.counted[0] >= COUNTED_S:
        held.counted = now, sum([await server.count(held.ids[place]) for place in held.whole])
    return held.counted[1]


async def _some(server: Server, held: Held, tenant: str, buckets: range) -> list[Found]:
    """The live records of these buckets."""
    mine = quote(tenant, safe="")
    at: Document = {"ps_at": {"$in": [at_of(mine, one) for one in buckets]}}
    where = {"ps_tenant": mine} if len(buckets) == BUCKETS else at
    there: dict[str, dict[str, Document]] = {}
    for place in held.whole:  # not both at once: live writes have a turn between
        there[place] = placed(place, await read(server, held.ids[place], *columns_of(place), where=where))
    now = server.env.now_us()
    live = [(key_of(held.etype, one), one) for one in newest_of(there).values() if not is_over(one, now)]
    return [Found(h_of(key), key.id, one) for key, one in live]


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
