"""Commits of a home: records, tombstones, the duty to deliver, op ids and marks, in one transaction.

The locks of all keys come first, as rows of `ps_lock` in ascending order; then what stands is read once for all writes
of a group, every write is decided in memory (`polystore.relational.deciding`), and everything is written at once. So
versions are drawn under the keys' locks. An op id and a unique value have a bucket as well: two commits that bring the
same one wait for each other.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from polystore.errors import IntegrityViolation, InvalidData, PolystoreError
from polystore.model import CALLER, Commit, Committed, Key, StoredVector, Write, key_hash, refs_of
from polystore.relational.deciding import Decisions, Draft, Forget, Row, Standing
from polystore_adapters.mysql import claims, facts, graph
from polystore_adapters.mysql.graph import slot_of
from polystore_adapters.mysql.locks import bucket, lock
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.records import Tables, by_table
from polystore_adapters.mysql.schema import BUCKETS, TARGETS_LOCK
from polystore_adapters.mysql.table import RecordTable

_MASKS_SQL = (
    "SELECT t.etype, t.bit FROM ps_lock AS l LEFT JOIN ps_target AS t ON t.status <> 'off' WHERE l.b = %s "
    "LOCK IN SHARE MODE"
)
_KEEP_SQL = "INSERT INTO ps_vector (slot, tenant, etype, id, field, embedder, text_hash, vec)"
_KEEP_END = "ON DUPLICATE KEY UPDATE text_hash = VALUES(text_hash), vec = VALUES(vec)"
_FIRST_PASS = 1 << 60


class _Again(Exception):
    """The transaction has to begin anew with the locks of these keys too."""

    def __init__(self, keys: Collection[Key]) -> None:
        self.keys = keys


async def run(pool: Pool, tables: Tables, commits: Sequence[Commit]) -> list[Committed | Exception]:
    """The answer to each commit. What the database itself refuses is tried with each commit alone."""
    if not commits:
        return []
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
            async with pool.transaction(name="commit") as db:
                await lock(db, _buckets(tables, commits, extra))
                standing = await _read(db, tables, commits, extra, pool.clock.now_us())
                counted = itertools.count(_FIRST_PASS)
                _decided(tables, standing, commits, counted)
                versions = await _draw(db, next(counted) - _FIRST_PASS)
                decisions, answers = _decided(tables, standing, commits, versions)
                await _write(db, tables, decisions, standing)
            return answers
        except _Again as again:
            extra |= set(again.keys)


def _decided(
    tables: Tables, standing: Standing, commits: Sequence[Commit], versions: Iterator[int]
) -> tuple[Decisions, list[Committed | Exception]]:
    decisions = Decisions(tables.__getitem__, standing, versions)
    return decisions, [decisions.attempt(commit) for commit in commits]


def _buckets(tables: Tables, commits: Sequence[Commit], extra: Collection[Key]) -> set[int]:
    writes = [write for commit in commits for write in commit.writes]
    buckets = {bucket(key) for key in (*(write.key for write in writes), *extra)}
    buckets |= {key_hash(one.op.tenant, "ps_op", one.op.id) % BUCKETS for one in commits if one.op is not None}
    for (etype, tenant, field), values in _unique_values(tables, writes).items():
        form_of = tables[etype].form_of
        buckets |= {key_hash(tenant, f"{etype}.{field}", str(form_of(field, value))) % BUCKETS for value in values}
    return buckets | {claims.file_bucket(file) for file in _files(tables, writes)}


def _files(tables: Tables, writes: Sequence[Write]) -> set[str]:
    """The files that the writes name. Others that stay in a record, it has."""
    return {ref.key for write in writes for ref in refs_of(tables[write.key.etype].entity.files, write.body or {})}


def _unique_values(tables: Tables, writes: Sequence[Write]) -> dict[tuple[str, str, str], set[object]]:
    """(entity, tenant, field) -> values that the writes bring. What an update leaves as it is, its record has."""
    wanted: dict[tuple[str, str, str], set[object]] = {}
    for write in writes:
        for field in tables[write.key.etype].unique:
            value = (write.body or {}).get(field)
            if value is not None:
                wanted.setdefault((write.key.etype, write.key.tenant, field), set()).add(value)
    return wanted


# -- reading ------------------------------------------------------------------------------------------------------


async def _read(
    db: Session, tables: Tables, commits: Sequence[Commit], extra: Collection[Key], now_us: int
) -> Standing:
    """What stands of all keys; bodies where an answer or a new body is made of the one before."""
    masks: dict[str, int] = {}
    for etype, bit in await db.fetch(_MASKS_SQL, TARGETS_LOCK):
        if etype is not None:
            masks[etype] = masks.get(etype, 0) | 1 << bit
    standing = Standing(now_us, masks)
    writes = [write for commit in commits for write in commit.writes]
    whole = {write.key for write in writes if write.kind in ("update", "insert")}
    bare = {*(write.key for write in writes), *extra} - whole
    for (etype, tenant), ids in by_table(bare).items():
        table = tables[etype]
        for id, version, hash, updated, ends in await db.fetch(table.versions_sql, tenant, table.key_values(ids)):
            standing.rows[Key(tenant, etype, str(id))] = Row(version, hash, updated, ends or 0)
    for (etype, tenant), ids in by_table(whole).items():
        table = tables[etype]
        for row in await db.fetch(table.rows_sql, tenant, table.key_values(ids)):
            key = Key(tenant, etype, table.id_of(row))
            standing.rows[key] = table.standing(key, row)
    ops = tuple((one.op.tenant, one.op.id) for one in commits if one.op is not None)
    if ops:
        sql = "SELECT tenant, op_id, request_hash, answers FROM ps_op WHERE (tenant, op_id) IN %s"
        for tenant, id, request, answers in await db.fetch(sql, ops):
            standing.done[tenant, id] = (request, json.loads(answers))
    await _read_holders(db, tables, writes, standing, {*bare, *whole})
    await _read_known(db, tables, writes, standing)
    standing.files_of = await claims.files_of(db, {key for key in (*bare, *whole) if tables[key.etype].entity.files})
    known = await claims.states(db, _files(tables, writes))
    standing.files = {file: (state, holder) for file, (state, holder, _) in known.items()}
    return standing


async def _read_holders(
    db: Session, tables: Tables, writes: Sequence[Write], standing: Standing, locked: Collection[Key]
) -> None:
    """Who has the unique values that are written. One whose time is over is deleted, under its lock."""
    expired: set[Key] = set()
    for (etype, tenant, field), values in _unique_values(tables, writes).items():
        table = tables[etype]
        forms = tuple(table.form_of(field, value) for value in values)
        for form, id, ends in await db.fetch(table.holders_sql[field], tenant, forms):
            standing.holders[etype, tenant, field, table.value_of(field, form)] = (str(id), ends or 0)
            if ends is not None and ends <= standing.now_us:
                expired.add(Key(tenant, etype, str(id)))
    if expired.difference(locked):
        raise _Again(expired.difference(locked))


async def _read_known(db: Session, tables: Tables, writes: Sequence[Write], standing: Standing) -> None:
    for (etype, tenant), ids in by_table(write.key for write in writes).items():
        if tables[etype].vectors:
            sql = (
                "SELECT id, field, embedder, text_hash, vec FROM ps_vector WHERE tenant = %s AND etype = %s AND id "
                "IN %s AND embedder <> %s"
            )
            for id, field, embedder, made_of, vec in await db.fetch(sql, tenant, etype, tuple(ids), CALLER):
                standing.known[Key(tenant, etype, id), field, embedder] = (made_of, vec)


async def _draw(db: Session, count: int) -> Iterator[int]:
    """So many new versions, ascending: under the locks of the keys they are for."""
    if not count:
        return iter(())
    rows = await db.fetch(f"SELECT NEXTVAL(ps_version) FROM seq_1_to_{count}")
    return iter(sorted(version for (version,) in rows))


# -- writing ------------------------------------------------------------------------------------------------------


async def _write(db: Session, tables: Tables, decisions: Decisions, standing: Standing) -> None:
    """Bring the database to what was decided."""
    by_type: dict[str, dict[Key, Draft]] = {}
    for key in sorted(decisions.drafts, key=lambda key: (key.etype, key.tenant, key.id)):
        by_type.setdefault(key.etype, {})[key] = decisions.drafts[key]
    for etype, drafts in by_type.items():
        await _write_rows(db, tables[etype], drafts, standing.rows)
    await db.insert(
        "INSERT INTO ps_tombstone (tenant, etype, id, version, h, deleted_at)",
        [
            (key.tenant, key.etype, key.id, one.version, one.h, one.updated_us)
            for drafts in by_type.values()
            for key, one in drafts.items()
            if one.columns is None
        ],
        "ON DUPLICATE KEY UPDATE version = VALUES(version), deleted_at = VALUES(deleted_at)",
    )
    for change in decisions.vectors:
        await (forget(db, change) if isinstance(change, Forget) else keep(db, [change]))
    now = standing.now_us
    await db.insert(
        "INSERT INTO ps_outbox (version, tenant, etype, id, h, targets, owner, claimed_at, created_at)",
        [
            (
                *(one.version, one.key.tenant, one.key.etype, one.key.id, one.h, one.targets, one.owner),
                *(now if one.owner is not None else None, now),
            )
            for one in decisions.outbox
        ],
    )
    await db.insert(
        "INSERT INTO ps_op (tenant, op_id, request_hash, answers, created_at)",
        [(*place, request, json.dumps(answers), now) for place, (request, answers) in sorted(decisions.ops.items())],
    )
    await db.insert(
        "INSERT INTO ps_mark (name, value)",
        sorted(decisions.marks.items()),
        "ON DUPLICATE KEY UPDATE value = VALUES(value)",
    )
    await claims.write(db, decisions.files.holders, now)
    if decisions.spills:
        await facts.keep(db, decisions.spills, now)


async def _write_rows(db: Session, table: RecordTable, drafts: Mapping[Key, Draft], stored: Collection[Key]) -> None:
    """Bring the rows of a home and their edges to the drafts, under the keys' locks."""
    gone: dict[str, list[str]] = {}
    for key, one in drafts.items():
        if one.columns is None and key in stored:
            gone.setdefault(key.tenant, []).append(key.id)
    for tenant, ids in gone.items():
        await db.run(table.delete_sql, tenant, table.key_values(ids))
    live = {key: one for key, one in drafts.items() if one.columns is not None}
    await db.insert(table.insert_sql, table.rows(live), table.put_sql)
    if table.edges is not None:
        await graph.replace(db, table, {key: one.body for key, one in drafts.items()})


async def forget(db: Session, one: Forget) -> None:
    sql = "DELETE FROM ps_vector WHERE tenant = %s AND etype = %s AND id = %s"
    place = (one.key.tenant, one.key.etype, one.key.id)
    if not one.callers:
        await db.run(sql, *place)
    elif one.fields is None:
        await db.run(f"{sql} AND embedder = %s", *place, CALLER)
    elif one.fields:
        await db.run(f"{sql} AND embedder = %s AND field IN %s", *place, CALLER, tuple(one.fields))


async def keep(db: Session, vectors: Sequence[StoredVector]) -> None:
    rows = [
        (
            slot_of(one.key.tenant, one.key.etype, one.key.id, one.field, one.embedder),
            *(one.key.tenant, one.key.etype, one.key.id, one.field, one.embedder, one.text_hash, one.vector),
        )
        for one in vectors
    ]
    await db.insert(_KEEP_SQL, sorted(rows), _KEEP_END)
