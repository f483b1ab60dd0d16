"""Commits of a home, decided in memory: what each write does upon what stands and upon the writes before it.

A store reads what stands of all keys under their locks (`Standing`), has a group of commits decided, and writes what
came of it at once. Deciding changes nothing in the store, so a write that must not happen takes nothing back and
disturbs nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from polystore.entity import EntityType
from polystore.errors import IntegrityViolation, InvalidData, PolystoreError
from polystore.model import (
    CALLER,
    Body,
    Commit,
    Committed,
    Key,
    OpId,
    Spill,
    StoredVector,
    Vectors,
    Write,
    Written,
    key_hash,
    refs_of,
    text_hash,
)
from polystore.protocols import Layout
from polystore.relational.claims import FileClaims


class Draft(msgspec.Struct, gc=False):
    """What a row is to become. `columns` None: deleted; else the fields' values as the store has them. `overwrites`: as
    of `Change`."""

    version: int
    h: int
    hash: bytes
    updated_us: int
    body: Body | None
    columns: Sequence[Any] | None
    vectors: Vectors = {}
    expires_us: int = 0
    overwrites: bool = False


class Row(msgspec.Struct, gc=False):
    """A row as it stands. `body` and `vectors` are read only where an answer or a new body is made of them."""

    version: int
    hash: bytes
    updated_us: int
    expires_us: int = 0
    body: Body | None = None
    vectors: Vectors = {}


class Table(Protocol):
    """What deciding asks of an entity's table."""

    @property
    def entity(self) -> EntityType[Any]: ...

    @property
    def layout(self) -> Layout: ...

    @property
    def unique(self) -> Sequence[str]:
        """Fields whose values are held unique."""
        ...

    @property
    def vectors(self) -> Collection[str]:
        """Fields whose vectors the home serves itself."""
        ...

    def columns(self, key: Key, body: Body) -> Sequence[Any]:
        """Raises InvalidData."""
        ...


Done = tuple[bytes, Sequence[tuple[int, bool]]]
"""Request hash, and (version, existed) of each write."""
Slot = tuple[str, str, str, object]
"""Entity, tenant, field and value that one record may have."""


class Standing(msgspec.Struct):
    """What a store holds, read under the locks of all keys, of the op ids, and of the unique values written.

    masks: entity -> copies that are owed its changes. holders: who has a unique value, and until when. known: what
    embedders made, by record, field and embedder: hash of the text, and vector. files_of, files: see `FileClaims`.
    """

    now_us: int
    masks: Mapping[str, int]
    rows: dict[Key, Row] = {}
    done: dict[tuple[str, str], Done] = {}
    holders: dict[Slot, tuple[str, int]] = {}
    known: dict[tuple[Key, str, str], tuple[bytes, bytes]] = {}
    files_of: dict[Key, frozenset[str]] = {}
    files: dict[str, tuple[str, Key | None]] = {}


def versions_needed(tables: Mapping[str, Table], writes: Sequence[Write]) -> int:
    """How many versions deciding the writes can draw at most: one for each, and one for each unique value that it
    brings, whose holder is deleted when its time is over."""
    return len(writes) + sum(len(tables[write.key.etype].unique) for write in writes)


class Forget(msgspec.Struct, frozen=True):
    """Kept vectors of a record to be removed: all, or the caller's, or the caller's of these fields."""

    key: Key
    callers: bool = False
    fields: Sequence[str] | None = None


class Outgoing(msgspec.Struct, frozen=True):
    """A row of the outbox."""

    version: int
    key: Key
    h: int
    targets: int
    owner: str | None


class Decisions:
    """The commits of one transaction, in the order they came: what is to be written is in the public attributes."""

    def __init__(
        self, tables: Mapping[str, Table] | Callable[[str], Table], standing: Standing, versions: Iterator[int]
    ) -> None:
        self._table: Callable[[str], Table] = tables if callable(tables) else tables.__getitem__
        self._given = standing
        self._now = standing.now_us
        self._versions = versions
        self.drafts: dict[Key, Draft] = {}
        self.outbox: list[Outgoing] = []
        self.vectors: list[Forget | StoredVector] = []
        """To be carried out in this order."""
        self.ops: dict[tuple[str, str], Done] = {}
        self.marks: dict[str, str] = {}
        self.spills: list[Spill] = []
        self.files = FileClaims(standing.files_of, standing.files)
        self._claims: dict[Slot, str] = {}
        self._before: list[tuple[Key, Draft | None]] = []

    def attempt(self, commit: Commit) -> Committed | Exception:
        """Decide the writes of a commit, or leave all as it was."""
        outbox, vectors, files = len(self.outbox), len(self.vectors), self.files.position
        self._before = []
        op = commit.op
        try:
            if op is not None and (done := self._done_before(op)) is not None:
                return done
            written = [self._decide(write, commit.owner) for write in commit.writes]
        except PolystoreError as error:
            for key, draft in reversed(self._before):
                if draft is None:
                    self.drafts.pop(key, None)
                else:
                    self.drafts[key] = draft
            del self.outbox[outbox:], self.vectors[vectors:]
            self.files.back(files)
            return error
        if op is not None:
            self.ops[op.tenant, op.id] = (op.request_hash, [(one.version, one.existed) for one in written])
        self.marks.update(commit.marks)
        self.spills += commit.owed(written)
        return Committed(written)

    def _done_before(self, op: OpId) -> Committed | None:
        place = (op.tenant, op.id)
        done = self.ops.get(place) or self._given.done.get(place)
        if done is None:
            return None
        request, answers = done
        if request != op.request_hash:
            raise InvalidData(f"op_id {op.id!r} was used for another request; make a new one for every request")
        return Committed([Written(version, existed, changed=False) for version, existed in answers], True)

    def _decide(self, write: Write, owner: str | None) -> Written:
        key, kind = write.key, write.kind
        stored = key in self._given.rows
        standing = self._standing(key)
        if kind == "expire":
            if standing is not None or key in self.drafts or not stored:
                return Written(0, existed=False, changed=False)
            kind = "delete"
        else:
            write.judge(None if standing is None else standing.version)
            if standing is None and kind == "delete":
                return Written(0, existed=False, changed=False)
            if standing is not None and write.leaves(standing.hash):
                body = standing.body if kind == "insert" else write.body
                ends = standing.expires_us
                return Written(standing.version, True, False, 0, body, standing.hash, standing.updated_us, ends)
        table, existed = self._table(key.etype), standing is not None
        if kind == "delete":
            draft = Draft(next(self._versions), write.h, b"", self._now, None, None)
        else:
            draft = self._draft(table, write, standing)
        if table.entity.files:
            self.files.claim(key, frozenset(ref.key for ref in refs_of(table.entity.files, draft.body or {})))
        self._before.append((key, self.drafts.get(key)))
        self.drafts[key] = draft
        mask = self._given.masks.get(key.etype, 0)
        if mask:
            self.outbox.append(Outgoing(draft.version, key, write.h, mask, owner))
        if table.entity.embeddings:
            self._keep(table, write, draft, existed=existed or stored)
        return Written(draft.version, existed, True, mask, draft.body, draft.hash, self._now, draft.expires_us)

    def _standing(self, key: Key) -> Row | Draft | None:
        """The live record as the writes decided so far leave it."""
        draft = self.drafts.get(key)
        if draft is None:
            stored = self._given.rows.get(key)
            return None if stored is None or 0 < stored.expires_us <= self._now else stored
        return None if draft.columns is None else draft

    def _draft(self, table: Table, write: Write, standing: Row | Draft | None) -> Draft:
        key, body, hash = write.key, write.body or {}, write.hash
        vectors: Vectors = table.layout.served(write.vectors)
        expires_us = 0 if write.ttl_us is None else self._now + write.ttl_us
        if write.kind == "update" and standing is not None:
            expires_us = expires_us or standing.expires_us
            others = {field: one for field, one in standing.vectors.items() if field not in body}
            vectors = {**others, **vectors}
            body = {**(standing.body or {}), **body}
            hash = table.entity.content_hash(body, bounded=True)
        columns = table.columns(key, body)
        self._check_unique(table, key, body)
        vectors = {**self._known(table, key, body, vectors), **vectors}
        return Draft(next(self._versions), write.h, hash, self._now, body, columns, vectors, expires_us)

    def _known(self, table: Table, key: Key, body: Body, have: Vectors) -> dict[str, bytes]:
        """What the embedders made of the same texts before: unchanged text is never embedded again."""
        known: dict[str, bytes] = {}
        for field in table.vectors:
            text, spec = body.get(field), table.layout.vectors[field]
            if field not in have and isinstance(text, str):
                made_of, vector = self._given.known.get((key, field, spec.embedder), (b"", b""))
                if made_of == text_hash(text):
                    known[field] = vector
        return known

    def _check_unique(self, table: Table, key: Key, body: Body) -> None:
        """Raises IntegrityViolation when another record has a unique value, as the writes decided so far leave it."""
        for field in table.unique:
            value = body.get(field)
            if value is None:
                continue
            slot = (key.etype, key.tenant, field, value)
            stored, ends = self._given.holders.get(slot, (None, 0))
            for id in {self._claims.get(slot), stored} - {None, key.id}:
                other = Key(key.tenant, key.etype, str(id))
                draft = self.drafts.get(other)
                if draft is None and id == stored and 0 < ends <= self._now and not table.entity.erases:
                    # Its time is over: it is deleted now. Unless its points go with it: the duty to erase them
                    # comes with the commit of the sweeper, which knows them.
                    self._decide(Write("expire", other, key_hash(other.tenant, other.etype, other.id), None), None)
                    continue
                # A claim without a draft is of a commit of this group that was given up.
                if id == stored if draft is None else draft.body is not None and draft.body.get(field) == value:
                    raise IntegrityViolation(
                        f"{key.etype} {key.id!r}: another record has the same {field}, which is unique"
                    )
            self._claims[slot] = key.id

    def _keep(self, table: Table, write: Write, draft: Draft, *, existed: bool) -> None:
        """Store the vectors that the caller gave, forget those of what is gone, see `Write`."""
        key, vectors = write.key, self.vectors
        if existed and write.kind in ("delete", "expire"):
            vectors.append(Forget(key))
        elif existed and write.kind == "update":
            fields = sorted(table.entity.embeddings.keys() & (write.body or {}).keys())
            vectors.append(Forget(key, True, fields))
        elif existed:
            vectors.append(Forget(key, True))
        for field in write.keep:
            text = (draft.body or {}).get(field)
            made_of = text_hash(text) if isinstance(text, str) else b""
            vectors.append(StoredVector(key, field, CALLER, made_of, write.vectors[field]))
