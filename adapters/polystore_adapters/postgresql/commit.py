"""Commits of a home: records, tombstones, the duty to deliver, op ids and marks, in one transaction.

The locks of all keys come first, as buckets in ascending order; then what stands is read once for all writes of a
group, every write is decided in memory (`polystore.relational.deciding`), and everything is written at once. So
versions are drawn under the keys' locks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from polystore.model import CALLER, Commit, Committed, Key, StoredVector, Write, key_hash, refs_of
from polystore.relational import records as relational
from polystore.relational.deciding import Decisions, Draft, Forget, Row, Standing, versions_needed
from polystore.relational.records import by_table
from polystore_adapters.postgresql import application, claims, facts, graph
from polystore_adapters.postgresql.application import ApplicationTable
from polystore_adapters.postgresql.claims import file_bucket
from polystore_adapters.postgresql.dialect import decode_json, encode_json
from polystore_adapters.postgresql.epoch import SAME_SQL, Moved
from polystore_adapters.postgresql.locks import BUCKETS, Again, begin_sql, bucket
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.records import Tables
from polystore_adapters.postgresql.table import RecordTable

MASKS_SQL = (
    "(SELECT jsonb_object_agg(etype, mask)::text FROM (SELECT etype, bit_or(1::bigint << bit) AS mask FROM ps_target "
    "WHERE status <> 'off' GROUP BY etype) AS targets)"
)
_BEGIN_SQL = (
    f"SELECT {SAME_SQL}, ps_now_us(), {MASKS_SQL}, ARRAY(SELECT nextval('ps_version') FROM generate_series(1, $1))"
)
_OPS_SQL = (
    "SELECT tenant, op_id, request_hash, answers FROM ps_op "
    "WHERE (tenant, op_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
)
COPY_MIN = 16
"""New rows that are worth a COPY."""
_OWED = ("version", "tenant", "etype", "id", "h", "targets", "owner", "claimed_at", "created_at")
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


async def run(pool: Pool, tables: Tables, commits: Sequence[Commit]) -> list[Committed | Exception]:
    """The answer to each commit."""
    return await relational.commit(commits, lambda part: _together(pool, tables, part))


async def _together(pool: Pool, tables: Tables, commits: Sequence[Commit]) -> list[Committed | Exception]:
    extra: set[Key] = set()
    rows = any(tables[write.key.etype].shared for commit in commits for write in commit.writes)
    while True:
        try:
            begin = begin_sql(buckets_of(tables, commits, extra), rows=rows)
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
    standing, versions = await _read(db, tables, commits, extra)
    if any(tables[key.etype].shared and key not in locked for key in standing.rows):
        raise Again(())  # a row of the application came meanwhile
    decisions = Decisions(tables.__getitem__, standing, versions)
    answers = [decisions.attempt(commit) for commit in commits]
    await _write(db, tables, decisions, standing)
    return answers


def _files(tables: Tables, commits: Sequence[Commit]) -> set[str]:
    """The files that the writes name."""
    writes = (write for commit in commits for write in commit.writes if tables[write.key.etype].entity.files)
    return {ref.key for one in writes for ref in refs_of(tables[one.key.etype].entity.files, one.body or {})}


# -- reading ------------------------------------------------------------------------------------------------------


async def _read(
    db: Session, tables: Tables, commits: Sequence[Commit], extra: Collection[Key]
) -> tuple[Standing, Iterator[int]]:
    """What stands of all keys; bodies where an answer or a new body is made of the one before. And as many new versions
    as the commits can need."""
    writes = [write for commit in commits for write in commit.writes]
    same, now_us, masks, versions = await db.row(_BEGIN_SQL, versions_needed(tables, writes))
    if not same:
        raise Moved
    standing = Standing(now_us, decode_json(masks) if masks else {})
    whole = {write.key for write in writes if write.kind in ("update", "insert")}
    keys = {*(write.key for write in writes), *extra}
    await _read_rows(db, tables, standing, keys - whole, bodies=False)
    await _read_rows(db, tables, standing, whole, bodies=True)
    ops = [(one.op.tenant, one.op.id) for one in commits if one.op is not None]
    if ops:
        for tenant, id, request, answers in await db.fetch(_OPS_SQL, *map(list, zip(*ops, strict=True))):
            standing.done[tenant, id] = (request, decode_json(answers))
    await _read_holders(db, tables, standing, writes, keys)
    named = {key for key in keys if tables[key.etype].entity.files}
    if named:
        standing.files_of = await claims.files_of(db, named)
        standing.files = await claims.states(db, _files(tables, commits))
    for (etype, tenant), ids in by_table(write.key for write in writes).items():
        if tables[etype].entity.embeddings:
            for *key, field, embedder, made_of, vec in await db.fetch(_KNOWN_SQL, tenant, etype, ids):
                standing.known[Key(*key), field, embedder] = (made_of, vec)
    return standing, iter(versions)


async def _read_rows(db: Session, tables: Tables, standing: Standing, keys: Collection[Key], *, bodies: bool) -> None:
    for (etype, tenant), ids in by_table(keys).items():
        table = tables[etype]
        wanted = [table.key_value(id) for id in ids]
        if not bodies:
            for id, version, hash, updated, ends in await db.fetch(table.versions_sql, tenant, wanted):
                standing.rows[Key(tenant, etype, str(id))] = Row(version, hash, updated, ends or 0)
            continue
        for row in await db.fetch(table.rows_sql, tenant, wanted):
            record = table.record(Key(tenant, etype, table.id_of(row)), row)
            vectors = table.vectors_of(row[len(row) - len(table.vectors) :])
            own = (record.version, record.hash, record.updated_us, record.expires_us, record.body, vectors)
            standing.rows[record.key] = Row(*own)


async def _read_holders(
    db: Session, tables: Tables, standing: Standing, writes: Sequence[Write], locked: Collection[Key]
) -> None:
    """Who has the unique values that are written. One whose time is over is deleted, under its lock."""
    wanted: dict[tuple[str, str, str], list[object]] = {}
    for write in writes:
        for field in tables[write.key.etype].unique:
            value = (write.body or {}).get(field)
            if value is not None:
                wanted.setdefault((write.key.etype, write.key.tenant, field), []).append(value)
    expired: set[Key] = set()
    for (etype, tenant, field), values in wanted.items():
        for value, id, ends in await db.fetch(tables[etype].holders_sql[field], tenant, values):
            standing.holders[etype, tenant, field, value] = (str(id), ends or 0)
            if ends is not None and ends <= standing.now_us:
                expired.add(Key(tenant, etype, str(id)))
    if expired.difference(locked):
        raise Again(expired.difference(locked))


# -- writing ------------------------------------------------------------------------------------------------------


async def _write(db: Session, tables: Tables, decisions: Decisions, standing: Standing) -> None:
    """Bring the database to what was decided."""
    by_type: dict[str, dict[Key, Draft]] = {}
    for key in sorted(decisions.drafts, key=lambda key: (key.etype, key.tenant, key.id)):
        by_type.setdefault(key.etype, {})[key] = decisions.drafts[key]
    for etype, drafts in by_type.items():
        await write_drafts(db, tables[etype], drafts, standing.rows)
    buried = [
        (key.tenant, key.etype, key.id, one.version, one.h, one.updated_us)
        for drafts in by_type.values()
        for key, one in drafts.items()
        if one.columns is None
    ]
    if buried:
        await db.run(BURY_SQL, *map(list, zip(*buried, strict=True)))
    for change in decisions.vectors:
        await (_forget(db, change) if isinstance(change, Forget) else keep(db, change))
    now = standing.now_us
    owed = [
        (
            *(one.version, one.key.tenant, one.key.etype, one.key.id, one.h, one.targets, one.owner),
            *(now if one.owner is not None else None, now),
        )
        for one in decisions.outbox
    ]
    if db.copies and len(owed) >= COPY_MIN:
        await db.copy("ps_outbox", _OWED, owed)
    elif owed:
        await db.run(OUTBOX_SQL, *map(list, zip(*owed, strict=True)))
    for (tenant, id), (request, answers) in decisions.ops.items():
        sql = "INSERT INTO ps_op (tenant, op_id, request_hash, answers, created_at) VALUES ($1, $2, $3, $4, $5)"
        await db.run(sql, tenant, id, request, encode_json(answers), now)
    for name in sorted(decisions.marks):
        await db.run(MARK_SQL, name, decisions.marks[name])
    await claims.write(db, decisions.files.holders, now)
    if decisions.spills:
        await facts.keep(db, decisions.spills)


async def _forget(db: Session, one: Forget) -> None:
    place = (one.key.tenant, one.key.etype, one.key.id)
    if not one.callers:
        await db.run(FORGET_SQL, *place)
    elif one.fields is None:
        await db.run(f"{FORGET_SQL} AND embedder = $4", *place, CALLER)
    else:
        await db.run(f"{FORGET_SQL} AND embedder = $4 AND field = ANY($5::text[])", *place, CALLER, list(one.fields))


async def keep(db: Session, one: StoredVector) -> None:
    place = (one.key.tenant, one.key.etype, one.key.id)
    await db.run(KEEP_SQL, *place, one.field, one.embedder, one.text_hash, one.vector)


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
    if db.copies and table.copied is not None and len(live) >= COPY_MIN and not standing:
        await db.copy(table.bare, table.copied, table.in_order(live))
    elif live:
        await db.run(table.upsert_sql, *table.arrays(live))
    if table.edges is not None:
        await graph.replace(db, table, {key: one.body for key, one in drafts.items()})
