"""Commits of a home: records, tombstones, the duty to deliver, op ids and marks, in one transaction.

The locks of all keys come first, as buckets in ascending order; then what stands is read once for all writes of a
group, every write is decided in memory upon what the ones before it decided, and everything is written at once. So a
write that must not happen takes nothing back and disturbs nobody, and versions are drawn under the keys' locks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from polystore.errors import IntegrityViolation, InvalidData, PolystoreError
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
from polystore_adapters.postgresql import application, facts, graph
from polystore_adapters.postgresql.application import ApplicationTable
from polystore_adapters.postgresql.claims import Claims, file_bucket
from polystore_adapters.postgresql.dialect import decode_json, encode_json
from polystore_adapters.postgresql.locks import BUCKETS, Again, begin_sql, bucket
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.records import Tables, by_table
from polystore_adapters.postgresql.table import Draft, RecordTable, Row

MASKS_SQL = (
    "(SELECT jsonb_object_agg(etype, mask)::text FROM (SELECT etype, bit_or(1::bigint << bit) AS mask FROM ps_target "
    "WHERE status <> 'off' GROUP BY etype) AS targets)"
)
_BEGIN_SQL = f"SELECT ps_now_us(), {MASKS_SQL}, ARRAY(SELECT nextval('ps_version') FROM generate_series(1, $1))"
_OPS_SQL = (
    "SELECT tenant, op_id, request_hash, answers FROM ps_op "
    "WHERE (tenant, op_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
)
OUTBOX_SQL = (
    "INSERT INTO ps_outbox (version, tenant, etype, id, h, targets, owner, claimed_at, created_at) SELECT * FROM "
    "unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::bigint[], "
    "$9::bigint[])"
)
BURY_SQL = (
    "INSERT INTO ps_tombstone (tenant, etype, id, version, h, deleted_at) SELECT * FROM unnest($1::text[], $2::text[], "
    "$3::text[], $4::bigint[], $5::bigint[], $6::bigint[]) ON CONFLICT (tenant, etype, id) DO UPDATE SET "
    "version = excluded.version, deleted_at = excluded.deleted_at"
)
_KNOWN_SQL = (
    "SELECT tenant, etype, id, field, embedder, text_hash, vec FROM ps_vector "
    "WHERE tenant = $1 AND etype = $2 AND id = ANY($3::text[]) AND embedder <> 'caller'"
)
FORGET_SQL = "DELETE FROM ps_vector WHERE tenant = $1 AND etype = $2 AND id = $3"
KEEP_SQL = (
    "INSERT INTO ps_vector (tenant, etype, id, field, embedder, text_hash, vec) VALUES ($1, $2, $3, $4, $5, $6, $7) "
    "ON CONFLICT (tenant, etype, id, field, embedder) DO UPDATE SET text_hash = excluded.text_hash, vec = excluded.vec"
)
MARK_SQL = "INSERT INTO ps_mark (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

Done = tuple[bytes, Sequence[tuple[int, bool]]]
"""Request hash, and (version, existed) of each write."""


async def run(pool: Pool, tables: Tables, commits: Sequence[Commit]) -> list[Committed | Exception]:
    """The answer to each commit. What the database itself refuses is tried with each commit alone."""
    try:
        return await _together(pool, tables, commits)
    except (IntegrityViolation, InvalidData) as error:
        if len(commits) == 1:
            return [error]
    answers: list[Committed | Exception] = []
    for one in commits:
        try:
            answers += await run(pool, tables, [one])
        except PolystoreError as error:  # those before it are done
            answers.append(error)
    return answers


async def _together(pool: Pool, tables: Tables, commits: Sequence[Commit]) -> list[Committed | Exception]:
    extra: set[Key] = set()
    while True:
        try:
            begin = begin_sql(buckets_of(tables, commits, extra))
            async with pool.transaction(begin=begin, name="commit") as db:
                return await carry_out(db, tables, commits, extra)
        except Again as again:
            extra |= set(again.keys)


def buckets_of(tables: Tables, commits: Sequence[Commit], extra: Collection[Key]) -> set[int]:
    """What is to be locked before `carry_out`. Rows of the application are locks themselves."""
    keys = {write.key for commit in commits for write in commit.writes} | set(extra)
    buckets = {bucket(key) for key in keys if not tables[key.etype].shared}
    buckets |= {file_bucket(file) for file in _files(tables, commits)}
    return buckets | {key_hash(one.op.tenant, "ps_op", one.op.id) % BUCKETS for one in commits if one.op is not None}


async def carry_out(
    db: Session, tables: Tables, commits: Sequence[Commit], extra: Collection[Key] = ()
) -> list[Committed | Exception]:
    """The answers, in a transaction that holds the locks. Raises Again, and what the database does."""
    commits = await application.settled(db, tables, commits)
    locked = await application.locked(db, tables, (write.key for commit in commits for write in commit.writes))
    group = Commits(db, tables)
    await group.read(commits, extra)
    if any(tables[key.etype].shared and key not in locked for key in group.standing):
        raise Again(())  # a row of the application came meanwhile
    answers = [group.attempt(commit) for commit in commits]
    await group.write()
    return answers


def _files(tables: Tables, commits: Sequence[Commit]) -> set[str]:
    """The files that the writes name."""
    writes = (write for commit in commits for write in commit.writes if tables[write.key.etype].entity.files)
    return {ref.key for one in writes for ref in refs_of(tables[one.key.etype].entity.files, one.body or {})}


class Commits:
    """The commits of one transaction, in the order they came."""

    def __init__(self, db: Session, tables: Tables) -> None:
        self._db = db
        self._tables = tables
        self._now = 0
        self._masks: Mapping[str, int] = {}
        self._versions: list[int] = []
        self._stored: dict[Key, Row] = {}
        self._holders: dict[tuple[str, str, str, object], tuple[str, int]] = {}
        self._known: dict[tuple[Key, str, str], tuple[bytes, bytes]] = {}
        # What the commits so far have decided and the database does not know yet.
        self._drafts: dict[Key, Draft] = {}
        self._outbox: list[tuple[object, ...]] = []
        self._vectors: list[tuple[str, tuple[object, ...]]] = []
        self._done: dict[tuple[str, str], Done] = {}
        self._ops: dict[tuple[str, str], Done] = {}
        self._marks: dict[str, str] = {}
        self._spills: list[Spill] = []
        self._claimed = Claims()
        self._claims: dict[tuple[str, str, str, object], str] = {}

    # -- reading ----------------------------------------------------------------------------------------------

    async def read(self, commits: Sequence[Commit], extra: Collection[Key]) -> None:
        """What stands of all keys; bodies where an answer or a new body is made of the one before."""
        writes = [write for commit in commits for write in commit.writes]
        row = await self._db.row(_BEGIN_SQL, len(writes) + len(extra))
        self._now, self._versions = row[0], list(reversed(row[2]))
        self._masks = decode_json(row[1]) if row[1] else {}
        whole = {write.key for write in writes if write.kind in ("update", "insert")}
        bare = {*(write.key for write in writes), *extra} - whole
        await self._read_keys(bare, bodies=False)
        await self._read_keys(whole, bodies=True)
        ops = [(one.op.tenant, one.op.id) for one in commits if one.op is not None]
        if ops:
            for tenant, id, request, answers in await self._db.fetch(_OPS_SQL, *map(list, zip(*ops, strict=True))):
                self._done[tenant, id] = (request, decode_json(answers))
        await self._read_holders(writes, {*bare, *whole})
        named = {key for key in {*bare, *whole} if self._tables[key.etype].entity.files}
        if named:
            await self._claimed.read(self._db, named, _files(self._tables, commits))
        for (etype, tenant), ids in by_table(write.key for write in writes).items():
            if self._tables[etype].entity.embeddings:
                for *key, field, embedder, made_of, vec in await self._db.fetch(_KNOWN_SQL, tenant, etype, ids):
                    self._known[Key(*key), field, embedder] = (made_of, vec)

    async def _read_keys(self, keys: Collection[Key], *, bodies: bool) -> None:
        for (etype, tenant), ids in by_table(keys).items():
            table = self._tables[etype]
            wanted = [table.key_value(id) for id in ids]
            if not bodies:
                for id, version, hash, updated, ends in await self._db.fetch(table.versions_sql, tenant, wanted):
                    self._stored[Key(tenant, etype, str(id))] = Row(version, hash, updated, ends or 0)
                continue
            for row in await self._db.fetch(table.rows_sql, tenant, wanted):
                id = table.id_of(row)
                record = table.record(Key(tenant, etype, id), row)
                vectors = table.vectors_of(row[len(row) - len(table.vectors) :])
                own = (record.version, record.hash, record.updated_us, record.expires_us, record.body, vectors)
                self._stored[Key(tenant, etype, id)] = Row(*own)

    async def _read_holders(self, writes: Sequence[Write], locked: Collection[Key]) -> None:
        """Who has the unique values that are written. One whose time is over is deleted, under its lock."""
        wanted: dict[tuple[str, str, str], list[object]] = {}
        for write in writes:
            for field in self._tables[write.key.etype].unique:
                value = (write.body or {}).get(field)
                if value is not None:
                    wanted.setdefault((write.key.etype, write.key.tenant, field), []).append(value)
        expired: set[Key] = set()
        for (etype, tenant, field), values in wanted.items():
            rows = await self._db.fetch(self._tables[etype].holders_sql[field], tenant, values)
            for value, id, ends in rows:
                self._holders[etype, tenant, field, value] = (str(id), ends or 0)
                if ends is not None and ends <= self._now:
                    expired.add(Key(tenant, etype, str(id)))
        if expired.difference(locked):
            raise Again(expired.difference(locked))

    @property
    def standing(self) -> Collection[Key]:
        """The records that were there."""
        return self._stored

    # -- one commit -------------------------------------------------------------------------------------------

    def attempt(self, commit: Commit) -> Committed | Exception:
        """Decide the writes of a commit, or leave all as it was."""
        outbox, vectors, files = len(self._outbox), len(self._vectors), self._claimed.position
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
            self._claimed.back(files)
            return error
        if op is not None:
            self._ops[op.tenant, op.id] = (op.request_hash, [(one.version, one.existed) for one in written])
        self._marks.update(commit.marks)
        self._spills += commit.owed(written)
        return Committed(written)

    def _done_before(self, op: OpId) -> Committed | None:
        done = self._ops.get((op.tenant, op.id)) or self._done.get((op.tenant, op.id))
        if done is None:
            return None
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
        version, now, table = self._versions.pop(), self._now, self._tables[key.etype]
        draft = (
            Draft(version, write.h, b"", now, None, None)
            if kind == "delete"
            else self._draft(table, write, standing, version)
        )
        if table.entity.files:
            self._claimed.claim(key, frozenset(ref.key for ref in refs_of(table.entity.files, draft.body or {})))
        self._before.append((key, self._drafts.get(key)))
        self._drafts[key] = draft
        mask = self._masks.get(key.etype, 0)
        if mask:
            claimed = now if owner is not None else None
            self._outbox.append((version, key.tenant, key.etype, key.id, write.h, mask, owner, claimed, now))
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
        expires_us = 0 if write.ttl_us is None else self._now + write.ttl_us
        if write.kind == "update" and standing is not None:
            expires_us = expires_us or standing.expires_us
            others = {field: one for field, one in standing.vectors.items() if field not in body}
            vectors = {**others, **vectors}
            body = {**(standing.body or {}), **body}
            hash = table.entity.content_hash(body, bounded=True)
        columns = table.columns(key, body)
        if table.unique:
            self._check_unique(table, key, body)
        for field in table.vectors:
            text, spec = body.get(field), table.layout.vectors[field]
            if field not in vectors and isinstance(text, str):
                made_of, vector = self._known.get((key, field, spec.embedder), (b"", b""))
                if made_of == text_hash(text):  # unchanged text is never embedded again
                    vectors = {**vectors, field: vector}
        return Draft(version, write.h, hash, self._now, body, columns, vectors, expires_us)

    def _check_unique(self, table: RecordTable, key: Key, body: Body) -> None:
        """Raises IntegrityViolation when another record has a unique value, as the writes decided so far leave it."""
        for field in table.unique:
            value = body.get(field)
            if value is None:
                continue
            slot = (key.etype, key.tenant, field, value)
            stored, ends = self._holders.get(slot, (None, 0))
            for id in {self._claims.get(slot), stored} - {None, key.id}:
                other = Key(key.tenant, key.etype, str(id))
                draft = self._drafts.get(other)
                over = 0 < ends <= self._now and not table.entity.erases  # else the sweeper, who owes that, deletes it
                if draft is None and id == stored and over:
                    self._decide(Write("expire", other, key_hash(other.tenant, other.etype, other.id), None), None)
                    continue
                # A claim without a draft is of a commit of this group that was given up.
                if id == stored if draft is None else draft.body is not None and draft.body.get(field) == value:
                    raise IntegrityViolation(
                        f"{key.etype} {key.id!r}: another record has the same {field}, which is unique"
                    )
            self._claims[slot] = key.id

    def _keep(self, table: RecordTable, write: Write, draft: Draft, *, existed: bool) -> None:
        """Store the vectors that the caller gave, forget those of what is gone, see `Write`."""
        key, vectors = write.key, self._vectors
        place = (key.tenant, key.etype, key.id)
        if existed and write.kind in ("delete", "expire"):
            vectors.append((FORGET_SQL, place))
        elif existed and write.kind == "update":
            fields = sorted(table.entity.embeddings.keys() & (write.body or {}).keys())
            vectors.append((f"{FORGET_SQL} AND embedder = $4 AND field = ANY($5::text[])", (*place, CALLER, fields)))
        elif existed:
            vectors.append((f"{FORGET_SQL} AND embedder = $4", (*place, CALLER)))
        for field in write.keep:
            text = (draft.body or {}).get(field)
            made_of = text_hash(text) if isinstance(text, str) else b""
            vectors.append((KEEP_SQL, (*place, field, CALLER, made_of, write.vectors[field])))

    # -- writing ----------------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Bring the database to what was decided."""
        db = self._db
        by_type: dict[str, dict[Key, Draft]] = {}
        for key in sorted(self._drafts, key=lambda key: (key.etype, key.tenant, key.id)):
            by_type.setdefault(key.etype, {})[key] = self._drafts[key]
        for etype, drafts in by_type.items():
            await write_drafts(db, self._tables[etype], drafts, self._stored)
        buried = [
            (key.tenant, key.etype, key.id, one.version, one.h, one.updated_us)
            for key, one in sorted(self._drafts.items(), key=lambda pair: (pair[0].tenant, pair[0].etype, pair[0].id))
            if one.columns is None
        ]
        if buried:
            await db.run(BURY_SQL, *map(list, zip(*buried, strict=True)))
        for sql, parameters in self._vectors:
            await db.run(sql, *parameters)
        if self._outbox:
            await db.run(OUTBOX_SQL, *map(list, zip(*self._outbox, strict=True)))
        for (tenant, id), (request, answers) in self._ops.items():
            sql = "INSERT INTO ps_op (tenant, op_id, request_hash, answers, created_at) VALUES ($1, $2, $3, $4, $5)"
            await db.run(sql, tenant, id, request, encode_json(answers), self._now)
        for name in sorted(self._marks):
            await db.run(MARK_SQL, name, self._marks[name])
        await self._claimed.write(db, self._now)
        if self._spills:
            await facts.keep(db, self._spills)


async def write_drafts(db: Session, table: RecordTable, drafts: Mapping[Key, Draft], stored: Collection[Key]) -> None:
    """Bring the rows of a home and their edges to the drafts, under the keys' locks."""
    if isinstance(table, ApplicationTable):
        await table.write(db, drafts, stored)
        return
    gone: dict[str, list[object]] = {}
    for key, one in drafts.items():
        if one.columns is None and key in stored:
            gone.setdefault(key.tenant, []).append(table.key_value(key.id))
    for tenant, ids in gone.items():
        await db.run(table.delete_sql, tenant, ids)
    live = {key: one for key, one in drafts.items() if one.columns is not None}
    standing = [key for key in live if key in stored]
    if table.unique and standing and len(live) > 1:
        # Values go from record to record in one commit, in an order that the final rows do not show.
        tenants = sorted({key.tenant for key in standing})
        for tenant in tenants:
            ids = [table.key_value(key.id) for key in standing if key.tenant == tenant]
            await db.run(table.free_sql, tenant, ids)
    if live:
        await db.run(table.upsert_sql, *table.arrays(live))
    if table.edges is not None:
        await graph.replace(db, table, {key: one.body for key, one in drafts.items()})
