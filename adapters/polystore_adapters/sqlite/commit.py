"""Commits of a home: records, tombstones, the duty to deliver, op ids and marks, in one transaction.

What stands is read once for all writes of a group, every write is decided in memory upon what the ones before it
decided, and then everything is written at once. Deciding changes nothing in the file, so a write that must not happen
takes nothing back and disturbs nobody.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from polystore.env import Env
from polystore.errors import (
    IntegrityViolation,
    InvalidData,
    PolystoreError,
)
from polystore.model import (
    CALLER,
    Body,
    Commit,
    Committed,
    Key,
    OpId,
    Spill,
    Vectors,
    Write,
    Written,
    key_hash,
    refs_of,
    text_hash,
)
from polystore_adapters.sqlite import facts, fresh, records
from polystore_adapters.sqlite.claims import Claims
from polystore_adapters.sqlite.many import Insert
from polystore_adapters.sqlite.records import Tables
from polystore_adapters.sqlite.table import Draft, RecordTable, Row

_OUTBOX = Insert(
    "ps_outbox",
    ("version", "tenant", "etype", "id", "h", "targets", "owner", "claimed_at", "claims", "created_at"),
)
_OP_SQL = "INSERT INTO ps_op (tenant, op_id, request_hash, answers, created_at) VALUES (?, ?, ?, ?, ?)"
FORGET_SQL = "DELETE FROM ps_vector WHERE tenant = ? AND etype = ? AND id = ?"
KEEP_SQL = (
    "INSERT OR REPLACE INTO ps_vector (tenant, etype, id, field, embedder, text_hash, vec) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_KNOWN_SQL = (
    "SELECT vec FROM ps_vector WHERE tenant = ? AND etype = ? AND id = ? AND field = ? AND embedder = ? "
    "AND text_hash = ?"
)

Done = tuple[bytes, Sequence[tuple[int, bool]]]
"""Request hash, and (version, existed) of each write."""


class Commits:
    """The commits of one transaction, in the order they came."""

    def __init__(self, db: sqlite3.Connection, tables: Tables, env: Env) -> None:
        self._db = db
        self._tables = tables
        self._now = env.now_us()
        (self._version,) = db.execute("SELECT v FROM ps_meta WHERE k = 'version'").fetchone()
        self._masks: dict[str, int] = {}
        for etype, bit in db.execute("SELECT etype, bit FROM ps_target WHERE status <> 'off'"):
            self._masks[etype] = self._masks.get(etype, 0) | 1 << bit
        self._stored: dict[Key, Row] = {}
        # What the commits so far have decided and the file does not know yet.
        self._drafts: dict[Key, Draft] = {}
        self._outbox: list[tuple[object, ...]] = []
        self._vectors: list[tuple[str, tuple[object, ...]]] = []
        self._ops: dict[tuple[str, str], Done] = {}
        self._marks: dict[str, str] = {}
        self._spills: list[Spill] = []
        self._claims: dict[tuple[str, str, str, object], str] = {}
        self._files = Claims(db, self._now)

    def run(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        """The answer to each commit; what they decided is written to the file."""
        first = self._version
        if len(commits) == 1 and (alone := self._insert(commits[0])) is not None:
            self._write(first)
            return [alone]
        self._read([write for commit in commits for write in commit.writes])
        answers = [self._attempt(commit) for commit in commits]
        self._write(first)
        return answers

    def _insert(self, commit: Commit) -> Committed | None:
        """A commit of new records only; None: it is not, and nothing was done."""
        new = fresh.insert(self._db, self._tables, self._masks, commit, self._version, self._now)
        if new is None:
            return None
        self._version += len(new)
        self._marks.update(commit.marks)
        return Committed(new)

    def _read(self, writes: Sequence[Write]) -> None:
        """What stands of all keys; bodies where an answer or a new body is made of the one before."""
        whole = {write.key for write in writes if write.kind in ("update", "insert")}
        self._read_keys([write.key for write in writes if write.key not in whole], bodies=False)
        self._read_keys(list(whole), bodies=True)

    def _read_keys(self, keys: Sequence[Key], *, bodies: bool) -> None:
        for (etype, tenant), ids in records.by_table(keys).items():
            for id, row in self._tables[etype].stored(self._db, tenant, ids, bodies=bodies).items():
                self._stored[Key(tenant, etype, id)] = row

    def _write(self, first: int) -> None:
        db = self._db
        rids = {key: row.rid for key, row in self._stored.items()}
        records.write(db, self._tables, rids, self._drafts)
        for sql, parameters in self._vectors:
            db.execute(sql, parameters)
        self._files.write()
        if self._outbox:
            _OUTBOX.run(db, self._outbox)
        for (tenant, id), (request, answers) in self._ops.items():
            db.execute(_OP_SQL, (tenant, id, request, json.dumps(answers), self._now))
        if self._marks:
            db.executemany("INSERT OR REPLACE INTO ps_mark (name, value) VALUES (?, ?)", self._marks.items())
        if self._spills:
            facts.keep(db, self._spills, self._now)
        if self._version > first:
            db.execute("UPDATE ps_meta SET v = ? WHERE k = 'version'", (self._version,))

    # -- one commit -------------------------------------------------------------------------------------------

    def _attempt(self, commit: Commit) -> Committed | Exception:
        outbox, vectors, files = len(self._outbox), len(self._vectors), self._files.position
        self._before: list[tuple[Key, Draft | None]] = []
        op = commit.op
        try:
            if op is not None and (done := self._done_before(op)) is not None:
                return done
            written = [self._decide(write, commit.owner) for write in commit.writes]
        except PolystoreError as error:
            for key, draft in reversed(self._before):
                if draft is None:
                    self._drafts.pop(key, None)
                else:
                    self._drafts[key] = draft
            del self._outbox[outbox:], self._vectors[vectors:]
            self._files.back(files)
            return error
        if op is not None:
            self._ops[op.tenant, op.id] = (op.request_hash, [(one.version, one.existed) for one in written])
        if commit.marks:
            self._marks.update(commit.marks)
        self._spills += commit.owed(written)
        return Committed(written)

    def _done_before(self, op: OpId) -> Committed | None:
        done = self._ops.get((op.tenant, op.id))
        if done is None:
            sql = "SELECT request_hash, answers FROM ps_op WHERE tenant = ? AND op_id = ?"
            row = self._db.execute(sql, (op.tenant, op.id)).fetchone()
            if row is None:
                return None
            done = (row[0], json.loads(row[1]))
        request, answers = done
        if request != op.request_hash:
            raise InvalidData(f"op_id {op.id!r} was used for another request; make a new one for every request")
        return Committed([Written(version, existed, changed=False) for version, existed in answers], True)

    def _decide(self, write: Write, owner: str | None) -> Written:
        key, kind = write.key, write.kind
        standing = self._standing(key)
        if kind == "expire":
            if standing is not None or key in self._drafts or key not in self._stored:
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
        self._version = version = self._version + 1
        now, table = self._now, self._tables[key.etype]
        draft = (
            Draft(version, write.h, b"", now, None, None)
            if kind == "delete"
            else self._draft(table, write, standing, version)
        )
        if table.entity.files:
            self._files.claim(key, frozenset(ref.key for ref in refs_of(table.entity.files, draft.body or {})))
        self._before.append((key, self._drafts.get(key)))
        self._drafts[key] = draft
        mask = self._masks.get(key.etype, 0)
        if mask:
            claimed = now if owner is not None else None
            self._outbox.append((version, key.tenant, key.etype, key.id, write.h, mask, owner, claimed, 0, now))
        if table.entity.embeddings:
            self._keep(table, write, draft, existed=standing is not None or key in self._stored)
        existed = standing is not None
        return Written(version, existed, True, mask, draft.body, draft.hash, now, draft.expires_us)

    def _standing(self, key: Key) -> Row | Draft | None:
        """The live record as the writes decided so far leave it."""
        draft = self._drafts.get(key)
        if draft is None:
            stored = self._stored.get(key)
            return None if stored is None or 0 < stored.expires_us <= self._now else stored
        return None if draft.columns is None else draft

    def _draft(self, table: RecordTable, write: Write, standing: Row | Draft | None, version: int) -> Draft:
        key, body, hash = write.key, write.body or {}, write.hash
        vectors: Vectors = table.layout.served(write.vectors)
        keep: frozenset[str] = frozenset()
        expires_us = 0 if write.ttl_us is None else self._now + write.ttl_us
        if write.kind == "update" and standing is not None:
            expires_us = expires_us or standing.expires_us
            if table.vector is not None:
                others = table.layout.vectors.keys() - body.keys() - vectors.keys()
                before: Vectors = standing.vectors if isinstance(standing, Draft) else {}
                vectors = {**{field: one for field, one in before.items() if field in others}, **vectors}
                keep = (standing.keep & others) if isinstance(standing, Draft) else frozenset(others)
            body = {**(standing.body or {}), **body}
            hash = table.entity.content_hash(body, bounded=True)
        body = table.with_defaults(self._db, body)
        columns = records.columns_of(table, key, body)
        body, hash = table.read_back(key, columns, body, hash)
        if table.unique:
            self._check_unique(table, key, body, columns)
        if table.vector is not None and len(vectors) + len(keep) < len(table.layout.vectors):
            vectors = {**self._known_vectors(table, key, body, vectors.keys() | keep), **vectors}
        return Draft(version, write.h, hash, self._now, body, columns, vectors, keep, expires_us)

    def _check_unique(self, table: RecordTable, key: Key, body: Body, columns: Sequence[object]) -> None:
        """Raises IntegrityViolation when another record has a unique value, as the writes decided so far leave it."""
        for field in table.unique:
            value = body.get(field)
            if value is None:
                continue
            slot = (key.etype, key.tenant, field, value)
            stored = table.holder(self._db, key.tenant, field, columns[table.codec.names.index(field)])
            for id in {self._claims.get(slot), stored} - {None, key.id}:
                other = Key(key.tenant, key.etype, str(id))
                draft = self._drafts.get(other)
                if draft is None and id == stored and self._make_way(other):
                    continue
                # A claim without a draft is of a commit of this group that was given up.
                if id == stored if draft is None else draft.body is not None and draft.body.get(field) == value:
                    raise IntegrityViolation(
                        f"{key.etype} {key.id!r}: another record has the same {field}, which is unique"
                    )
            self._claims[slot] = key.id

    def _make_way(self, holder: Key) -> bool:
        """Whether the holder of a unique value has expired; then it is deleted now, not when the sweeper comes. Unless
        its points are to be erased with it: the duty to do that comes with the sweeper's commit, which knows them."""
        if self._tables[holder.etype].entity.erases:
            return False
        self._read_keys([holder], bodies=False)
        h = key_hash(holder.tenant, holder.etype, holder.id)
        return self._decide(Write("expire", holder, h, None), None).changed

    # -- vectors ----------------------------------------------------------------------------------------------

    def _known_vectors(self, table: RecordTable, key: Key, body: Body, have: Collection[str]) -> dict[str, bytes]:
        """What the embedders made of the same texts before: unchanged text is never embedded again."""
        known: dict[str, bytes] = {}
        for field, spec in table.layout.vectors.items():
            text = body.get(field)
            if field not in have and isinstance(text, str):
                place = (key.tenant, key.etype, key.id, field, spec.embedder, text_hash(text))
                row = self._db.execute(_KNOWN_SQL, place).fetchone()
                if row is not None:
                    known[field] = row[0]
        return known

    def _keep(self, table: RecordTable, write: Write, draft: Draft, *, existed: bool) -> None:
        """Store the vectors that the caller gave, forget those of what is gone, see `Write`."""
        key, vectors = write.key, self._vectors
        place = (key.tenant, key.etype, key.id)
        if existed and write.kind in ("delete", "expire"):
            vectors.append((FORGET_SQL, place))
        elif existed and write.kind == "update":
            for field in table.entity.embeddings.keys() & (write.body or {}).keys():
                vectors.append((f"{FORGET_SQL} AND embedder = ? AND field = ?", (*place, CALLER, field)))
        elif existed:
            vectors.append((f"{FORGET_SQL} AND embedder = ?", (*place, CALLER)))
        for field in write.keep:
            text = (draft.body or {}).get(field)
            made_of = text_hash(text) if isinstance(text, str) else b""
            vectors.append((KEEP_SQL, (*place, field, CALLER, made_of, write.vectors[field])))
