"""Commits of a memory server: records, tombstones, outbox rows and marks together, or nothing."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from polystore.env import Env
from polystore.errors import (
    IntegrityViolation,
    InvalidData,
    PolystoreError,
)
from polystore.model import (
    CALLER,
    FIRST_VERSION,
    Body,
    Commit,
    Committed,
    Key,
    OpId,
    OutboxRow,
    StoredVector,
    Write,
    Written,
    refs_of,
    text_hash,
)

from .claims import DraftedClaims, FileClaims
from .journal import Journal, Operation, Owed
from .spills import Spills
from .tables import Row, Tombstone, copied, draft, with_vectors


class Drafts:
    """The writes of a commit before it is true: they see one another, and nobody else sees them."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.states: dict[Key, Row | Tombstone] = {}
        self._holders: dict[tuple[Key, str, object], str | None] = {}
        self.claims = DraftedClaims(home.claims)

    def live(self, key: Key) -> Row | None:
        state = self.states.get(key) or self._home.part(key.etype, key.tenant).rows.get(key.id)
        return state if isinstance(state, Row) and not self._home.expired(state) else None

    def over(self, key: Key) -> Row | None:
        """The record under the key that has expired, and that no write of this commit has replaced."""
        row = None if key in self.states else self._home.part(key.etype, key.tenant).rows.get(key.id)
        return row if row is not None and self._home.expired(row) else None

    def place(self, key: Key, state: Row | Tombstone) -> None:
        """Raises IntegrityViolation when another record holds a unique value, or names one of the files."""
        old = self.live(key)
        if files := self._home.layout(key.etype).entity.files:
            refs = refs_of(files, state.body) if isinstance(state, Row) else ()
            self.claims.claim(key, {ref.key for ref in refs})
        for field, value in self._home.unique_values(key.etype, old.body) if old is not None else ():
            self._holders[_everybody(key), field, value] = None
        for field, value in self._home.unique_values(key.etype, state.body) if isinstance(state, Row) else ():
            slot = (_everybody(key), field, value)
            committed = self._home.part(key.etype, key.tenant).holders.get((field, value))
            if committed is not None and self.over(Key(key.tenant, key.etype, committed)) is not None:
                committed = None  # it is not there any more; the sweeper deletes it
            if self._holders.get(slot, committed) not in (None, key.id):
                raise IntegrityViolation(
                    f"{key.etype} {key.id!r}: another record has the same {field}, which is unique"
                )
            self._holders[slot] = key.id
        self.states[key] = state


def _everybody(key: Key) -> Key:
    """The scope of a unique value: the type and tenant."""
    return Key(key.tenant, key.etype, "")


class Home(Journal):
    """The source of truth: draws versions and owes them to the copies, in the same step."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._version = FIRST_VERSION
        self.claims = FileClaims()
        self.kept = Spills()

    def newest(self, etype: str) -> int:
        return self._version if self.layout(etype).home else super().newest(etype)

    def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        answers: list[Committed | Exception] = []
        for commit in commits:
            try:
                answers.append(self._commit(commit))
            except PolystoreError as e:
                answers.append(e)
        return answers

    def _commit(self, commit: Commit) -> Committed:
        if commit.op is not None and (done := self._done_before(commit.op)) is not None:
            return done
        drafts = self.drafts()
        written = [self._write(drafts, write) for write in commit.writes]
        # Nothing has changed so far, and nothing fails from here on.
        now = self.env.now_us()
        for key, state in drafts.states.items():
            self.install(key, state)
        drafts.claims.install(now)
        for write, result in zip(commit.writes, written, strict=True):
            if result.changed:
                self._keep(write, result.body or {})
            if result.targets:
                row = OutboxRow(result.version, write.key, write.h, result.targets)
                self.outbox[result.version] = Owed(row, commit.owner, now, now)
        self.marks.update(commit.marks)
        self.kept.keep(commit.owed(written), now)
        if commit.op is not None:
            answers = [(one.version, one.existed) for one in written]
            self.operations[commit.op.tenant, commit.op.id] = Operation(commit.op.request_hash, answers, now)
        return Committed(written)

    def drafts(self) -> Drafts:
        return Drafts(self)

    def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        return self.claims.condemn(keys, released_us, only_ask, self.env.now_us())

    def _done_before(self, op: OpId) -> Committed | None:
        known = self.operations.get((op.tenant, op.id))
        if known is None:
            return None
        if known.request_hash != op.request_hash:
            raise InvalidData(f"op_id {op.id!r} was used for another request; make a new one for every request")
        return Committed([Written(version, existed, changed=False) for version, existed in known.answers], True)

    def _write(self, drafts: Drafts, write: Write) -> Written:
        key, kind = write.key, write.kind
        row = drafts.live(key)
        if kind == "expire":
            if drafts.over(key) is None:
                return Written(0, existed=False, changed=False)
        else:
            write.judge(None if row is None else row.version)
            if row is None and kind == "delete":
                return Written(0, existed=False, changed=False)
        if row is not None and write.leaves(row.hash):
            return Written(row.version, True, False, 0, copied(row.body), row.hash, row.updated_us, row.expires_us)
        self._version = version = self._version + 1
        now, existed, targets = self.env.now_us(), row is not None, self.mask(key.etype)
        if kind in ("delete", "expire"):
            drafts.place(key, Tombstone(version, write.h, now))
            return Written(version, existed, targets=targets, updated_us=now)
        new = self._new_row(write, row, version, now)
        drafts.place(key, new)
        return Written(version, existed, True, targets, copied(new.body), new.hash, now, new.expires_us)

    def _new_row(self, write: Write, old: Row | None, version: int, now: int) -> Row:
        layout, body, hash = self.layout(write.key.etype), write.body or {}, write.hash
        kept: dict[str, array[float]] = {}
        expires_us = 0 if write.ttl_us is None else now + write.ttl_us
        if write.kind == "update" and old is not None:
            kept = {field: vector for field, vector in old.vectors.items() if field not in body}
            body = {**old.body, **body}
            expires_us = expires_us or old.expires_us
            hash = layout.entity.content_hash(body, bounded=True)
        new = draft(layout, write.key, version, write.h, body, hash, now)
        new = msgspec.structs.replace(new, vectors=kept, expires_us=expires_us)
        return with_vectors(layout, new, write.vectors)

    def _keep(self, write: Write, whole: Body) -> None:
        """Store the vectors that the caller gave, and forget those of what is gone, see `Write`."""
        if write.kind in ("delete", "expire"):
            self.stored.pop(write.key, None)
            return
        stored = self.stored.setdefault(write.key, {})
        changed = whole if write.kind != "update" else write.body or {}
        for field, embedder in list(stored):
            if embedder == CALLER and field in changed:
                del stored[field, embedder]
        for field in write.keep:
            text = whole.get(field)
            made_of = text_hash(text) if isinstance(text, str) else b""
            stored[field, CALLER] = StoredVector(write.key, field, CALLER, made_of, write.vectors[field])
