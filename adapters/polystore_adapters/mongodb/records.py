"""Records as a copy has them: brought to given versions, each only when newer than what stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError

from polystore.errors import DecodeError, IntegrityViolation, OutcomeUnknown, PolystoreError, Unavailable
from polystore.model import APPLIED, STALE, UNREADABLE, Change, HashSpan, Key, Outcome, Page, Record, Stamp
from polystore_adapters.mongodb.documents import id_of, version_of
from polystore_adapters.mongodb.driver import Document, listed
from polystore_adapters.mongodb.errors import DUPLICATE, by_code, details
from polystore_adapters.mongodb.held import META, AllHeld, Held
from polystore_adapters.mongodb.server import Server

KEYS = 1_000
"""Keys of one query."""
_Write: TypeAlias = InsertOne[RawBSONDocument] | UpdateOne


def live(tenant: str, now_us: int) -> Document:
    """The documents of a tenant's records; tombstones have no tenant."""
    return {"ps_tenant": tenant, "$nor": [{"ps_expires_us": {"$lte": now_us}}]}


def _by_type(keys: Iterable[Key]) -> dict[str, list[Key]]:
    """Entity name -> keys, each once, sorted: all writers take documents in one order."""
    out: dict[str, set[Key]] = {}
    for key in keys:
        out.setdefault(key.etype, set()).add(key)
    return {etype: sorted(out[etype], key=lambda key: (key.tenant, key.id)) for etype in sorted(out)}


# -- reading ------------------------------------------------------------------------------------------------------


async def get(server: Server, types: AllHeld, keys: Sequence[Key]) -> list[Record | None]:
    """See `Repository.get`."""
    found: dict[Key, Record] = {}
    for etype, asked in _by_type(keys).items():
        held = types[etype]
        for start in range(0, len(asked), KEYS):
            among = {"_id": {"$in": [id_of(key) for key in asked[start : start + KEYS]]}}
            with server.speaking():
                documents = await listed(held.documents.find(among))
            for document in documents:
                record = held.codec.record(etype, document, server.clock.now_us())
                found[record.key] = record
    return [found.get(key) for key in keys]


async def scan(server: Server, held: Held, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
    """See `Repository.scan`. The full text is compared with the fields, too."""
    where = live(tenant, server.clock.now_us()) | {"ps_h": {"$gte": span.low, "$lt": span.high}}
    if cursor is not None:
        h, id = msgspec.json.decode(cursor, type=tuple[int, str])
        where["ps_h"]["$gte"] = max(span.low, h)
        where["$or"] = [{"ps_h": {"$gt": h}}, {"ps_h": h, "_id.id": {"$gt": id}}]
    with server.speaking():
        by = [("ps_h", 1), ("_id.id", 1)]
        documents = await listed(held.documents.find(where).sort(by).limit(limit + 1))
    stamps = [_stamp(held, document) for document in documents[:limit]]
    last = stamps[-1] if stamps else None
    more = len(documents) > limit and last is not None
    return Page(stamps, msgspec.json.encode((last.h, last.id)).decode() if more and last is not None else None)


def _stamp(held: Held, document: Document) -> Stamp:
    id, h, version = document["_id"]["id"], document["ps_h"], max(0, version_of(document))
    try:
        body = held.codec.record(held.etype, document, 0).body
    except DecodeError:
        body = None
    if body is None:
        return Stamp(id, h, version, b"", fault=UNREADABLE)
    fault = "" if held.full_text is None else held.full_text.fault(document, body)
    return Stamp(id, h, version, held.entity.content_hash(body), fault=fault)


async def newest(server: Server, held: Held) -> int:
    """See `Repository.newest`."""
    with server.speaking():
        top = await listed(held.documents.find({}, {"ps_version": 1}).sort("ps_version", -1).limit(1))
        gone = await server.collection(META).find_one({"_id": held.newest_id()})
    return max([0, *(version_of(one) for one in (*top, gone) if one is not None)])


# -- writing ------------------------------------------------------------------------------------------------------


async def apply(server: Server, types: AllHeld, changes: Sequence[Change]) -> list[Outcome]:
    """See `Repository.apply`: of a key's changes only the newest is sent."""
    newest_of: dict[Key, int] = {}
    outcomes: list[Outcome] = [STALE] * len(changes)
    documents: dict[Key, bytes] = {}
    purge_us = server.clock.now_us() + int(server.options.tombstone_ttl_s * 1e6)
    for i, change in sorted(enumerate(changes), key=lambda pair: pair[1].version):
        try:
            documents[change.key] = types[change.key.etype].codec.encoded(change, purge_us)
            newest_of[change.key] = i
        except PolystoreError as error:
            outcomes[i] = Outcome("rejected", error)
    for etype, keys in _by_type(newest_of).items():
        mine = {key: changes[newest_of[key]] for key in keys}
        for key, outcome in (await _apply(server, types[etype], mine, documents)).items():
            outcomes[newest_of[key]] = outcome
    return outcomes


async def _apply(
    server: Server, held: Held, changes: Mapping[Key, Change], documents: Mapping[Key, bytes]
) -> dict[Key, Outcome]:
    """The outcomes. What stands is asked for first, since the guard does not tell what it did; what is sent is guarded
    again: another writer may come between."""
    with server.speaking():
        asked = {"_id": {"$in": [id_of(key) for key in changes]}}
        found = await listed(held.documents.find(asked, {"ps_version": 1}))
    stands = {Key(one["_id"]["tenant"], held.etype, one["_id"]["id"]): version_of(one) for one in found}
    newer = [key for key, change in changes.items() if change.replaces(stands.get(key, -1))]
    gone = [changes[key].version for key in newer if changes[key].deleted]
    with server.speaking(sent=True):
        if gone:
            top = {"$max": {"ps_version": max(gone)}}
            await server.collection(META).update_one({"_id": held.newest_id()}, top, upsert=True)
        refused = await _Batch(server.place, held, changes, documents).write(newer, stands.keys())
    outcomes = dict.fromkeys(changes, STALE) | dict.fromkeys(newer, APPLIED)
    return outcomes | {key: Outcome("rejected", error) for key, error in refused.items()}


class _Batch(NamedTuple):
    """What is written into one collection: the change of each key, and its document."""

    place: str
    held: Held
    changes: Mapping[Key, Change]
    documents: Mapping[Key, bytes]

    async def write(self, keys: Sequence[Key], there: Collection[Key]) -> dict[Key, PolystoreError]:
        """Insert what is not `there`, change what is; the keys whose documents were refused.

        A document that another writer inserts at the same moment makes ours a duplicate, and so does a value in a
        unique index of the application's own. They look alike: what is a duplicate is sent once more as a change of
        what is there.
        """
        # What was there may be purged at this moment, and is inserted then.
        sent = {key: self._guarded(key, upsert=True) if key in there else self._inserted(key) for key in keys}
        duplicates, refused = await self._send(sent)
        if duplicates:
            again, errors = await self._send({key: self._guarded(key, upsert=False) for key in duplicates})
            among = {"_id": {"$in": [id_of(key) for key in duplicates]}}
            stand = await listed(self.held.documents.find(among, {"_id": 1}))
            stood = {(one["_id"]["tenant"], one["_id"]["id"]) for one in stand}
            held_by_others = [key for key in duplicates if key in again or (key.tenant, key.id) not in stood]
            refused |= errors | {key: IntegrityViolation(f"{by_code(DUPLICATE, self.place)}") for key in held_by_others}
        return refused

    async def _send(self, writes: Mapping[Key, _Write]) -> tuple[list[Key], dict[Key, PolystoreError]]:
        """The keys that were duplicates, and those that were refused for another reason."""
        keys = list(writes)
        try:
            if writes:
                await self.held.documents.bulk_write(list(writes.values()), ordered=False)
        except BulkWriteError as error:
            single, concern = details(error)
            if concern:
                raise OutcomeUnknown(
                    f"{self.place}: the write is not on enough servers yet; read the records before writing again"
                ) from None
            refused: dict[Key, PolystoreError] = {
                keys[one["index"]]: by_code(one["code"], self.place, sent=True)
                for one in single
                if one["code"] != DUPLICATE
            }
            for kind in (OutcomeUnknown, Unavailable):  # the others are written: to write them again changes nothing
                for one in refused.values():
                    if isinstance(one, kind):
                        raise one from None
            return [keys[one["index"]] for one in single if one["code"] == DUPLICATE], refused
        return [], {}

    def _inserted(self, key: Key) -> _Write:
        return InsertOne(RawBSONDocument(self.documents[key]))

    def _guarded(self, key: Key, *, upsert: bool) -> _Write:
        """One step of the server's: the document takes the place of an older one. `$literal`: a text that begins with $
        is no name of a field."""
        change = self.changes[key]
        new: Any = {"$literal": RawBSONDocument(self.documents[key])}
        if self.held.retired and not change.deleted:
            new = {"$mergeObjects": [{field: f"${field}" for field in self.held.retired}, new]}
        older = {"$lte" if change.overwrites else "$lt": [{"$ifNull": ["$ps_version", -1]}, change.version]}
        return UpdateOne({"_id": id_of(key)}, [{"$replaceWith": {"$cond": [older, new, "$$ROOT"]}}], upsert=upsert)
