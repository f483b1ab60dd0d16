"""Commits of a home: records, tombstones, the duty to deliver, op ids and marks, in one transaction.

The locks of all keys come first, as rows of `ps_lock` in ascending order; then what stands is read once for all writes
of a group, every write is decided in memory (`polystore.relational.deciding`), and everything is written at once. So
versions are drawn under the keys' locks. An op id and a unique value have a bucket as well: two commits that bring the
same one wait for each other.

That is two round trips: one packet locks, reads and draws, the other writes and commits.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from polystore.model import CALLER, Commit, Committed, Key, StoredVector, Write, key_hash, refs_of
from polystore.relational import records as relational
from polystore.relational.deciding import Decisions, Draft, Forget, Row, Standing, versions_needed
from polystore.relational.records import by_table
from polystore_adapters.mysql import claims, facts, graph
from polystore_adapters.mysql.graph import slot_of
from polystore_adapters.mysql.locks import bucket, lock_later
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.records import Tables
from polystore_adapters.mysql.schema import BUCKETS, TARGETS_LOCK
from polystore_adapters.mysql.table import RecordTable

_MASKS_SQL = (
    "SELECT t.etype, t.bit FROM ps_lock AS l LEFT JOIN ps_target AS t ON t.status <> 'off' WHERE l.b = %s "
    "LOCK IN SHARE MODE"
)
_OPS_SQL = "SELECT tenant, op_id, request_hash, answers FROM ps_op WHERE (tenant, op_id) IN %s"
_KNOWN_SQL = (
    "SELECT id, field, embedder, text_hash, vec FROM ps_vector WHERE tenant = %s AND etype = %s AND id IN %s AND "
    "embedder <> %s"
)
_KEEP_SQL = "INSERT INTO ps_vector (slot, tenant, etype, id, field, embedder, text_hash, vec)"
_KEEP_END = "ON DUPLICATE KEY UPDATE text_hash = VALUES(text_hash), vec = VALUES(vec)"


class _Again(Exception):
    """The transaction has to begin anew with the locks of these keys too."""

    def __init__(self, keys: Collection[Key]) -> None:
        self.keys = keys


async def run(pool: Pool, tables: Tables, commits: Sequence[Commit]) -> list[Committed | Exception]:
    """The answer to each commit."""
    if not commits:
        return []
    return await relational.commit(commits, lambda part: _together(pool, tables, part))


async def _together(pool: Pool, tables: Tables, commits: Sequence[Commit]) -> list[Committed | Exception]:
    extra: set[Key] = set()
    while True:
        try:
            async with pool.transaction(name="commit") as db:
                lock_later(db, _buckets(tables, commits, extra))
                standing, versions = await _read(pool, db, tables, commits, extra)
                decisions = Decisions(tables.__getitem__, standing, versions)
                answers = [decisions.attempt(commit) for commit in commits]
                await _write(db, tables, decisions, standing)
            return answers
        except _Again as again:
            extra |= set(again.keys)


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
    pool: Pool, db: Session, tables: Tables, commits: Sequence[Commit], extra: Collection[Key]
) -> tuple[Standing, Iterator[int]]:
    """What stands of all keys; bodies where an answer or a new body is made of the one before. And as many new versions
    as the commits can need."""
    writes = [write for commit in commits for write in commit.writes]
    whole = {write.key for write in writes if write.kind in ("update", "insert")}
    bare = {*(write.key for write in writes), *extra} - whole
    values = _unique_values(tables, writes)
    targets = db.later(_MASKS_SQL, TARGETS_LOCK)
    heads = [
        (etype, tenant, db.later(tables[etype].versions_sql, tenant, tables[etype].key_values(ids)))
        for (etype, tenant), ids in by_table(bare).items()
    ]
    rows = [
        (etype, tenant, db.later(tables[etype].rows_sql, tenant, tables[etype].key_values(ids)))
        for (etype, tenant), ids in by_table(whole).items()
    ]
    ops = tuple((one.op.tenant, one.op.id) for one in commits if one.op is not None)
    done = db.later(_OPS_SQL, ops) if ops else []
    holders = [(place, db.later(*_holders_sql(tables, place, values[place]))) for place in values]
    known = [
        (etype, tenant, db.later(_KNOWN_SQL, tenant, etype, tuple(ids), CALLER))
        for (etype, tenant), ids in by_table(write.key for write in writes).items()
        if tables[etype].vectors
    ]
    count = versions_needed(tables, writes)
    drawn = [db.later(statement) for statement in db.flavour.draw(count)]
    await db.flush()
    standing = Standing(pool.clock.now_us(), _masks(targets))
    for etype, tenant, found in heads:
        for id, version, hash, updated, ends in found:
            standing.rows[Key(tenant, etype, str(id))] = Row(version, hash, updated, ends or 0)
    for etype, tenant, found in rows:
        for row in found:
            key = Key(tenant, etype, tables[etype].id_of(row))
            standing.rows[key] = tables[etype].standing(key, row)
    for tenant, id, request, answers in done:
        standing.done[tenant, id] = (request, json.loads(answers))
    for place, found in holders:
        _note_holders(tables, standing, place, found, {*bare, *whole})
    for etype, tenant, found in known:
        for id, field, embedder, made_of, vec in found:
            standing.known[Key(tenant, etype, id), field, embedder] = (made_of, vec)
    standing.files_of = await claims.files_of(db, {key for key in (*bare, *whole) if tables[key.etype].entity.files})
    files = await claims.states(db, _files(tables, writes))
    standing.files = {file: (state, holder) for file, (state, holder, _) in files.items()}
    return standing, db.flavour.drawn(drawn[-1], count) if drawn else iter(())


def _masks(targets: Sequence[Sequence[Any]]) -> dict[str, int]:
    masks: dict[str, int] = {}
    for etype, bit in targets:
        if etype is not None:
            masks[etype] = masks.get(etype, 0) | 1 << bit
    return masks


def _holders_sql(
    tables: Tables, place: tuple[str, str, str], values: Collection[object]
) -> tuple[str, str, tuple[object, ...]]:
    etype, tenant, field = place
    table = tables[etype]
    return table.holders_sql[field], tenant, tuple(table.form_of(field, value) for value in values)


def _note_holders(
    tables: Tables,
    standing: Standing,
    place: tuple[str, str, str],
    found: Sequence[Sequence[Any]],
    locked: Collection[Key],
) -> None:
    """Who has the unique values that are written. One whose time is over is deleted, under its lock."""
    etype, tenant, field = place
    expired: set[Key] = set()
    for form, id, ends in found:
        standing.holders[etype, tenant, field, tables[etype].value_of(field, form)] = (str(id), ends or 0)
        if ends is not None and ends <= standing.now_us:
            expired.add(Key(tenant, etype, str(id)))
    if expired.difference(locked):
        raise _Again(expired.difference(locked))


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
        if isinstance(change, Forget):
            forget(db, change)
        else:
            await keep(db, [change])
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
        db.later(table.delete_sql, tenant, table.key_values(ids))
    live = {key: one for key, one in drafts.items() if one.columns is not None}
    await db.insert(table.insert_sql, table.rows(live), table.put_sql, texts=table.full_text is not None)
    if table.edges is not None:
        await graph.replace(db, table, {key: one.body for key, one in drafts.items()})


def forget(db: Session, one: Forget) -> None:
    sql = "DELETE FROM ps_vector WHERE tenant = %s AND etype = %s AND id = %s"
    place = (one.key.tenant, one.key.etype, one.key.id)
    if not one.callers:
        db.later(sql, *place)
    elif one.fields is None:
        db.later(f"{sql} AND embedder = %s", *place, CALLER)
    elif one.fields:
        db.later(f"{sql} AND embedder = %s AND field IN %s", *place, CALLER, tuple(one.fields))


async def keep(db: Session, vectors: Sequence[StoredVector]) -> None:
    rows = [
        (
            slot_of(one.key.tenant, one.key.etype, one.key.id, one.field, one.embedder),
            *(one.key.tenant, one.key.etype, one.key.id, one.field, one.embedder, one.text_hash, one.vector),
        )
        for one in vectors
    ]
    await db.insert(_KEEP_SQL, sorted(rows), _KEEP_END)
