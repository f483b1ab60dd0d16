"""Homes that cannot commit: what their journal keeps of a record, and how a record is put together again.

To the journal such a type is an ordinary one with fewer fields (`JournalEntity`): the key, what has to be known at the
commit (unique values, files, texts that are embedded), the hash of the content, and the packed body, which goes once
the home has it. So versions, tombstones, the outbox and everything else are the journal's own, unchanged. `LentBodies`
stands between that store and those who use it: they see whole records.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace

from polystore.conditions import Conditions
from polystore.declaration import FieldSpec
from polystore.entity import EntityType
from polystore.env import Env
from polystore.errors import ConfigurationError, DecodeError, InvalidData, StalenessTimeout, VersionConflict
from polystore.evolution import describe
from polystore.kinds import TYPES, kind_of
from polystore.model import (
    JOURNAL_BODY,
    JOURNAL_DIGEST,
    JOURNAL_HELD,
    Body,
    Commit,
    Committed,
    Key,
    Placement,
    Record,
    Write,
    Written,
)
from polystore.store import Store

PATIENCE_S = 2.0
"""How long a read waits for a home that holds another version than its journal has: as long as one with `after=`."""
UPDATE_TRIES: Final = 8
"""How often an update begins anew because another process wrote in between; those of one process take turns."""
PAUSE_S: Final = 0.005
"""Before the second try at most; each further pause may be twice as long."""
HASH_BYTES: Final = 16
_KINDS: Final = {JOURNAL_DIGEST: bytes, JOURNAL_BODY: bytes | None, JOURNAL_HELD: int | None}

Records = list[Record | None]
Read = Callable[[Sequence[Key]], Awaitable[Records]]
Send = Callable[[Commit], Awaitable[Committed]]


class JournalEntity(EntityType[Any]):
    """What a journal keeps of an entity whose home cannot commit, as an entity of its own: the same name and key."""

    def __init__(self, entity: EntityType[Any]) -> None:
        if taken := sorted(_KINDS.keys() & entity.fields.keys()):
            raise ConfigurationError(
                f"{entity.cls.__name__}.{taken[0]}: its home cannot commit, and in its journal this name is "
                "polystore's own; name the field otherwise"
            )
        kept = dict.fromkeys((entity.key, *entity.unique, *entity.files, *entity.embedded_texts))
        self.of = entity
        self.cls, self.name, self.key = entity.cls, entity.name, entity.key
        self.needs, self.data_type, self.cache, self.ttl_s = entity.needs, entity.data_type, entity.cache, entity.ttl_s
        self.fields = {name: entity.fields[name] for name in kept}
        self.fields |= {name: FieldSpec(name, kind_of(hint), None) for name, hint in _KINDS.items()}
        self.renamed = {new: old for new, old in entity.renamed.items() if new in kept}
        self.full_text, self.relations = (), {}
        self.embeddings = self.embedded_texts = entity.embedded_texts
        self.unique, self.files, self.measures, self.mapped = entity.unique, entity.files, entity.measures, None
        self.index = (JOURNAL_HELD,)
        self._conditions = Conditions(self.cls.__name__, {name: spec.kind for name, spec in self.fields.items()})
        self._packer = msgspec.msgpack.Encoder()
        self._unpacker = _unpacker(entity)
        shape = msgspec.json.encode(describe(entity).fields, order="sorted")
        self._shape = zlib.crc32(shape).to_bytes(4, "little")

    def default_of(self, name: str) -> Any:
        """Records whose bodies are at their home are not read to find what a field that is kept from now on holds."""
        raise InvalidData(
            "its journal keeps this field from now on, and of older records it does not know it: take Unique(), "
            "Embedding() or FileRef from it, or give the records to a new entity by import_many"
        )

    def content_hash(self, body: Body, *, bounded: bool = False) -> bytes:
        """The hash of the whole record as it was written; b"" when the class had other fields then, since nobody can
        tell what its hash would be today."""
        digest: bytes = body[JOURNAL_DIGEST]
        return digest[:HASH_BYTES] if digest[HASH_BYTES:] == self._shape else b""

    # -- into the journal -----------------------------------------------------------------------------------------

    def whole(self, write: Write) -> Write:
        """The write of a whole record."""
        body = write.body or {}
        return replace(write, body=self._body(body, body, write.hash))

    def update(self, write: Write, record: Record | None) -> tuple[Write, Body | None]:
        """The write of some fields of the record that stands, and the whole body after it."""
        if record is None or record.body is None:
            # Nothing stands: so it is to remain, and if this op_id was carried out before, the journal says that.
            return replace(write, body={}, expect_version=0), None
        expected = record.version if write.expect_version is None else write.expect_version
        changes = write.body or {}
        body = {**record.body, **changes}
        hash = self.of.content_hash(body, bounded=True)
        return replace(write, body=self._body(body, changes, hash), expect_version=expected), body

    def _body(self, whole: Body, changed: Body, hash: bytes) -> dict[str, Any]:
        kept = {name: changed[name] for name in self.fields if name in changed}
        packed = self._packer.encode(whole)
        return {**kept, JOURNAL_DIGEST: hash + self._shape, JOURNAL_BODY: packed, JOURNAL_HELD: None}

    # -- out of it ------------------------------------------------------------------------------------------------

    def unpacked(self, record: Record) -> Record | None:
        """The live record with the body that the journal keeps; None when only the home has it. Raises DecodeError."""
        kept = record.body or {}
        packed = kept.get(JOURNAL_BODY)
        if packed is None:
            return None
        try:
            body = self._unpacker.decode(packed)
        except msgspec.DecodeError:
            raise DecodeError(
                f"{self.name} {record.key.id!r}: the body in its journal does not fit {self.cls.__name__}"
            ) from None
        hash = self.content_hash(kept)
        if not hash:
            body = self._of_today(body)
            hash = self.of.content_hash(body)
        return replace(record, body=body, hash=hash)

    def _of_today(self, body: Body) -> dict[str, Any]:
        """A body that was written when the class had other fields, see `polystore.evolution`."""
        out: dict[str, Any] = {}
        for name, spec in self.of.fields.items():
            value = body.get(name, body.get(self.of.renamed.get(name, name)))
            out[name] = self.of.default_of(name) if value is None and not spec.kind.optional else value
        return out


def _unpacker(entity: EntityType[Any]) -> msgspec.msgpack.Decoder[dict[str, Any]]:
    kinds = {name: TYPES.get(spec.kind.name, Any) for name, spec in entity.fields.items()}
    kinds |= {old: kinds[new] for new, old in entity.renamed.items()}
    make: Any = TypedDict
    body = make("body", {name: one if one is Any else one | None for name, one in kinds.items()}, total=False)
    return msgspec.msgpack.Decoder(body)


class Lent(msgspec.Struct, frozen=True):
    """One type of a journal: the form it has there, its home, and the copies that hold whole records too."""

    entity: JournalEntity
    home: Store
    copies: Sequence[Store]


class LentBodies:
    """The types of one journal whose bodies are at their homes."""

    def __init__(self, env: Env, journal: str, types: Mapping[str, Lent]) -> None:
        self._env = env
        self._journal = journal
        self._types = types
        self._turns = WeakValueDictionary[Key, asyncio.Lock]()
        """Of records that updates of this process are about: each goes when nobody wants it."""

    def lends(self, etype: str) -> bool:
        return etype in self._types

    # -- reading --------------------------------------------------------------------------------------------------

    async def completed(self, keys: Sequence[Key], read: Read) -> Records:
        """The records as the journal knows them (`read`), with their bodies. Raises StalenessTimeout for a record that
        its home does not hold at the journal's version, nor any copy; and what stores raise."""
        records = await read(keys)
        away = [i for i, key in enumerate(keys) if self._is_away(key, records, i)]
        deadline = self._env.monotonic() + PATIENCE_S
        pause_s = 0.0
        while away := await self._fetched(keys, records, away):
            # Somebody wrote it meanwhile, or the home has lost it: the journal knows.
            before = {i: records[i] for i in away}
            for i, one in zip(away, await read([keys[i] for i in away]), strict=True):
                records[i] = one
            away = [i for i in away if self._is_away(keys[i], records, i)]
            if pause_s:
                stood = [i for i in away if records[i] == before[i]]
                left = await self._of_copies(keys, records, stood)
                away = [i for i in away if i in left or i not in stood]
            if away and self._env.monotonic() >= deadline:
                error = self._lost(keys[away[0]], records[away[0]])
                error.lost = tuple(keys[i] for i in away)
                raise error
            await asyncio.sleep(pause_s)
            pause_s = min(0.1, pause_s * 2 or 0.01)
        return records

    def _is_away(self, key: Key, records: Records, i: int) -> bool:
        """Whether only the home has this body; else the record is completed."""
        one, record = self._types.get(key.etype), records[i]
        if one is None or record is None or record.body is None:
            return False
        whole = one.entity.unpacked(record)
        if whole is not None:
            records[i] = whole
        return whole is None

    async def _fetched(self, keys: Sequence[Key], records: Records, away: Sequence[int]) -> list[int]:
        """Complete records with the bodies of their homes; which are left."""
        left: list[int] = []
        for etype in dict.fromkeys(keys[i].etype for i in away):
            mine = [i for i in away if keys[i].etype == etype]
            found = await self._types[etype].home.get([keys[i] for i in mine])
            left += [i for i, one in zip(mine, found, strict=True) if not _complete(records, i, one)]
        return left

    async def _of_copies(self, keys: Sequence[Key], records: Records, away: Sequence[int]) -> list[int]:
        """The same from copies, as far as the content is what was written: a copy may hold less than its home."""
        left: list[int] = []
        for i in away:
            lent, record = self._types[keys[i].etype], records[i]
            assert record is not None
            digest = lent.entity.content_hash(record.body or {})
            for copy in lent.copies:
                (found,) = await copy.get([keys[i]])
                whole = found is not None and found.body is not None and lent.entity.of.content_hash(found.body)
                if digest and whole == digest and _complete(records, i, found):
                    break
            else:
                left.append(i)
        return left

    def _lost(self, key: Key, record: Record | None) -> StalenessTimeout:
        home = self._types[key.etype].home.name
        return StalenessTimeout(
            f"{key.etype} {key.id!r} is at version {record.version if record else 0} in its journal {self._journal!r}, "
            f"and its home {home!r} does not hold that: it was lost there. `polystore verify` lists such records; "
            f"put the data of {home!r} back, or write the record anew"
        )

    # -- writing --------------------------------------------------------------------------------------------------

    async def committed(self, commit: Commit, send: Send, read: Read) -> Committed:
        """Carry out the commit (`send`) in the journal's form; the answer has whole bodies. Raises what `send`
        raises."""
        if not any(write.key.etype in self._types for write in commit.writes):
            return await send(commit)
        updates = [write for write in commit.writes if write.kind == "update" and write.key.etype in self._types]
        async with self._turn(write.key for write in updates):
            return await self._committed(commit, updates, send, read)

    @contextlib.asynccontextmanager
    async def _turn(self, keys: Iterable[Key]) -> AsyncGenerator[None]:
        """Inside, no other update of this process is about these records: what each writes follows from what it read,
        so all but one of those that read the same would begin anew."""
        in_order = sorted(set(keys), key=lambda key: (key.etype, key.tenant, key.id))
        async with contextlib.AsyncExitStack() as taken:
            for key in in_order:
                await taken.enter_async_context(self._turns.setdefault(key, asyncio.Lock()))
            yield

    async def _committed(self, commit: Commit, updates: Sequence[Write], send: Send, read: Read) -> Committed:
        bases: Records = []
        for attempt in range(1, UPDATE_TRIES + 1):
            standing = await self.completed([write.key for write in updates], read) if updates else []
            stands = {one.key: record for one, record in zip(updates, standing, strict=True)}
            writes, bodies = self._translated(commit.writes, stands)
            try:
                done = await send(replace(commit, writes=writes))
            except VersionConflict:
                # Between reading and writing somebody else wrote; what the caller expects is not tried again.
                expected = all(one.expect_version is not None for one in updates)
                if attempt == UPDATE_TRIES or standing == bases or expected:
                    raise
                bases = standing
                await asyncio.sleep(self._env.random.uniform(0, PAUSE_S * 2 ** (attempt - 1)))
            else:
                answers = zip(writes, done.written, bodies, strict=True)
                return replace(done, written=[self._answer(*one) for one in answers])
        raise AssertionError("the last attempt returns or raises")

    def _translated(
        self, writes: Sequence[Write], standing: Mapping[Key, Record | None]
    ) -> tuple[list[Write], list[Body | None]]:
        """The writes in the journal's form, and the whole body after each."""
        out: list[Write] = []
        bodies: list[Body | None] = []
        for write in writes:
            lent, translated, body = self._types.get(write.key.etype), write, write.body
            if lent is not None and write.kind == "update":
                translated, body = lent.entity.update(write, standing[write.key])
            elif lent is not None and body is not None:
                translated = lent.entity.whole(write)
            out.append(translated)
            bodies.append(body)
        return out, bodies

    def _answer(self, write: Write, written: Written, body: Body | None) -> Written:
        lent = self._types.get(write.key.etype)
        if lent is None or written.body is None:
            return written
        hash = lent.entity.content_hash(written.body)
        return replace(written, body=body if written.changed else None, hash=hash)


def _complete(records: Records, i: int, found: Record | None) -> bool:
    """Give the record the body of the found one, if that is at the same version. Times are the journal's."""
    record = records[i]
    if record is None or found is None or found.body is None or found.version != record.version:
        return False
    records[i] = replace(record, body=found.body, hash=found.hash)
    return True


def lend(
    env: Env, stores: Mapping[str, Store], types: Mapping[str, EntityType[Any]], placed: Mapping[str, Placement]
) -> None:
    """Let each journal's store answer with whole records of the types whose bodies are at their homes."""
    by_journal: dict[str, dict[str, Lent]] = {}
    for etype, one in placed.items():
        if one.lent:
            others = [name for name in one.copies() if name in stores and name not in (one.home, one.cache)]
            lent = Lent(JournalEntity(types[etype]), stores[one.home], [stores[name] for name in others])
            by_journal.setdefault(one.journal, {})[etype] = lent
    for name, lents in by_journal.items():
        stores[name].bodies = LentBodies(env, name, lents)
