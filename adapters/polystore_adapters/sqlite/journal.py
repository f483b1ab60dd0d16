"""The journal of a SQLite file: the duty to deliver, in rows that outlive the worker that wrote them.

Functions of one connection. Those that change something run inside the writer's transaction.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from polystore.env import Env
from polystore.errors import IntegrityViolation
from polystore.model import (
    CALLER,
    Backlog,
    Key,
    OutboxRow,
    RetryRow,
    Settlement,
    StoredVector,
    TargetRow,
    text_hash,
)
from polystore_adapters.sqlite.commit import KEEP_SQL
from polystore_adapters.sqlite.facets import FacetRow
from polystore_adapters.sqlite.records import Tables
from polystore_adapters.sqlite.schema import check_file
from polystore_adapters.sqlite.serving import check_serves

TAKEOVER_US = 60_000_000
"""Outbox rows claimed longer ago than this are anybody's."""
DUE_AGAIN_US = 5_000_000
"""How long a retry row handed out by `due` stays away from other workers."""
OP_TTL_US = 24 * 3600 * 1_000_000

_IN = "IN (SELECT value FROM json_each(?))"
_FREE = f"etype {_IN} AND (owner IS NULL OR (owner <> ? AND (claimed_at < ? OR NOT owner {_IN})))"
_OWED_SQL = """
INSERT INTO ps_retry (target, tenant, etype, id, h, version, min_version, state, attempts, hard_fails, first_us,
    next_us, error_class, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (target, tenant, etype, id) DO UPDATE SET
    state = CASE WHEN excluded.version > version OR (excluded.version = version AND state <> 'p')
        THEN excluded.state ELSE state END,
    error_class = CASE WHEN excluded.version > version OR (excluded.version = version AND state <> 'p')
        THEN excluded.error_class ELSE error_class END,
    error = CASE WHEN excluded.version > version OR (excluded.version = version AND state <> 'p')
        THEN excluded.error ELSE error END,
    version = max(version, excluded.version), min_version = min(min_version, excluded.min_version),
    attempts = max(attempts, excluded.attempts), hard_fails = max(hard_fails, excluded.hard_fails),
    first_us = CASE WHEN first_us = 0 THEN excluded.first_us ELSE first_us END,
    next_us = CASE WHEN excluded.version > version OR (excluded.version = version AND state <> 'p')
        THEN excluded.next_us ELSE next_us END
"""
_RETRY_COLUMNS = (
    "target, tenant, etype, id, h, version, min_version, state, attempts, hard_fails, first_us, next_us, error_class, "
    "error"
)


# -- outbox -------------------------------------------------------------------------------------------------------


class Claim(msgspec.Struct, frozen=True):
    """The arguments of `SupportsJournal.claim`."""

    worker: str
    live: frozenset[str]
    etypes: Sequence[str]
    limit: int

    def free(self, now_us: int) -> tuple[object, ...]:
        """The parameters of the condition that tells which rows nobody alive owns."""
        return json.dumps(list(self.etypes)), self.worker, now_us - TAKEOVER_US, json.dumps(list(self.live))


def claimable(db: sqlite3.Connection, claim: Claim, now_us: int) -> bool:
    """Whether there is anything to claim: looking costs other writers nothing."""
    return db.execute(f"SELECT 1 FROM ps_outbox WHERE {_FREE} LIMIT 1", claim.free(now_us)).fetchone() is not None


def claim(db: sqlite3.Connection, claim: Claim, env: Env) -> list[OutboxRow]:
    now = env.now_us()
    env.crashpoint("sqlite.claim")
    sql = (
        "UPDATE ps_outbox SET claimed_at = ?, owner = ?, "
        f"claims = claims + (owner IS NOT NULL AND NOT owner {_IN}) "
        f"WHERE version IN (SELECT version FROM ps_outbox WHERE {_FREE} ORDER BY version LIMIT ?) "
        "RETURNING version, tenant, etype, id, h, targets, claims"
    )
    parameters = (now, claim.worker, json.dumps(list(claim.live)), *claim.free(now), claim.limit)
    return sorted((_outbox_row(row) for row in db.execute(sql, parameters)), key=lambda row: row.version)


def claimed(db: sqlite3.Connection, worker: str, older_than_us: int, limit: int) -> list[OutboxRow]:
    sql = (
        "SELECT version, tenant, etype, id, h, targets, claims FROM ps_outbox WHERE owner = ? AND claimed_at < ? "
        "ORDER BY version LIMIT ?"
    )
    return [_outbox_row(row) for row in db.execute(sql, (worker, older_than_us, limit))]


def _outbox_row(row: tuple[int, str, str, str, int, int, int]) -> OutboxRow:
    version, tenant, etype, id, h, targets, claims = row
    return OutboxRow(version, Key(tenant, etype, id), h, targets, claims)


def retire(db: sqlite3.Connection, worker: str) -> None:
    db.execute("UPDATE ps_outbox SET owner = NULL, claimed_at = NULL WHERE owner = ?", (worker,))


def settle(db: sqlite3.Connection, settlement: Settlement, env: Env) -> None:
    _owe(db, settlement.owed)
    env.crashpoint("sqlite.settle.inside")
    if settlement.done:
        db.executemany(
            "DELETE FROM ps_retry WHERE target = ? AND tenant = ? AND etype = ? AND id = ? AND version <= ?",
            [(one.target, one.key.tenant, one.key.etype, one.key.id, one.version) for one in settlement.done],
        )
    if settlement.delivered:
        db.executemany("DELETE FROM ps_outbox WHERE version = ?", [(version,) for version in settlement.delivered])


def _owe(db: sqlite3.Connection, rows: Sequence[RetryRow]) -> None:
    """Merge rows into what the copies are owed already, see `Settlement`."""
    if rows:
        db.executemany(
            _OWED_SQL,
            [
                (
                    row.target,
                    row.key.tenant,
                    row.key.etype,
                    row.key.id,
                    *(row.h, row.version, row.min_version, row.state, row.attempts, row.hard_fails),
                    *(row.first_us, row.next_us, row.error_class, row.error),
                )
                for row in rows
            ],
        )


# -- retry rows and dead letters ----------------------------------------------------------------------------------


def _retry_row(row: Sequence[Any]) -> RetryRow:
    target, tenant, etype, id, *rest = row
    return RetryRow(target, Key(tenant, etype, id), *rest)


def _chosen(target: str | None, keys: Sequence[Key] | None) -> tuple[str, tuple[object, ...]]:
    """Which retry rows are meant: SQL and its parameters; None is all."""
    sql, parameters = "1", list[object]()
    if target is not None:
        sql += " AND target = ?"
        parameters.append(target)
    if keys is not None:
        sql += (
            " AND (tenant, etype, id) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), "
            "json_extract(value, '$[2]') FROM json_each(?))"
        )
        parameters.append(json.dumps([(key.tenant, key.etype, key.id) for key in keys]))
    return sql, tuple(parameters)


class Due(msgspec.Struct, frozen=True):
    """The arguments of `SupportsJournal.due`."""

    target: str
    etypes: Sequence[str]
    now_us: int
    limit: int


def due(db: sqlite3.Connection, due: Due, *, take: bool) -> list[RetryRow]:
    """The rows whose time has come; with `take` they stay away from others for a while."""
    sql = (
        f"SELECT {_RETRY_COLUMNS} FROM ps_retry WHERE target = ? AND state <> 'p' AND next_us <= ? AND etype {_IN} "
        "ORDER BY next_us, version LIMIT ?"
    )
    found = db.execute(sql, (due.target, due.now_us, json.dumps(list(due.etypes)), due.limit)).fetchall()
    if take:
        db.executemany(
            "UPDATE ps_retry SET next_us = ? WHERE target = ? AND tenant = ? AND etype = ? AND id = ?",
            [(due.now_us + DUE_AGAIN_US, *row[:4]) for row in found],
        )
    return [_retry_row(row) for row in found]


def awaken(db: sqlite3.Connection, target: str, keys: Sequence[Key] | None, within_us: int, env: Env) -> int:
    chosen, parameters = _chosen(target, keys)
    places = db.execute(
        f"SELECT target, tenant, etype, id FROM ps_retry WHERE {chosen} AND state <> 'p'", parameters
    ).fetchall()
    now = env.now_us()
    db.executemany(
        "UPDATE ps_retry SET next_us = ? WHERE target = ? AND tenant = ? AND etype = ? AND id = ?",
        [(now + env.random.randint(0, within_us), *place) for place in places],
    )
    return len(places)


def pending(db: sqlite3.Connection, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
    sql = (
        "SELECT NOT EXISTS (SELECT 1 FROM ps_target WHERE name = ? AND etype = ? AND status = 'active') "
        "OR EXISTS (SELECT 1 FROM json_each(?) p CROSS JOIN ps_outbox o "
        "ON o.version = json_extract(p.value, '$[1]') JOIN ps_target t ON t.etype = o.etype AND t.name = ? "
        "WHERE o.etype = ? AND o.targets & (1 << t.bit)) "
        "OR EXISTS (SELECT 1 FROM json_each(?) p CROSS JOIN ps_retry r ON r.target = ? AND r.etype = ? "
        "AND r.h = json_extract(p.value, '$[0]') AND r.min_version <= json_extract(p.value, '$[1]'))"
    )
    asked = (json.dumps(list(pairs)), target, etype)
    return bool(db.execute(sql, (target, etype, *asked, *asked)).fetchone()[0])


def parked(
    db: sqlite3.Connection, target: str | None, cursor: str | None, limit: int
) -> tuple[list[RetryRow], str | None]:
    chosen, parameters = _chosen(target, None)
    after = ("", "", "", "") if cursor is None else tuple(json.loads(cursor))
    sql = (
        f"SELECT {_RETRY_COLUMNS} FROM ps_retry WHERE {chosen} AND state = 'p' "
        "AND (target, tenant, etype, id) > (?, ?, ?, ?) ORDER BY target, tenant, etype, id LIMIT ?"
    )
    rows = db.execute(sql, (*parameters, *after, limit + 1)).fetchall()
    return [_retry_row(row) for row in rows[:limit]], json.dumps(rows[limit - 1][:4]) if len(rows) > limit else None


def redrive(db: sqlite3.Connection, target: str | None, keys: Sequence[Key] | None, now_us: int) -> int:
    chosen, parameters = _chosen(target, keys)
    sql = (
        "UPDATE ps_retry SET state = 'o', attempts = 0, hard_fails = 0, first_us = ?, next_us = ? "
        f"WHERE {chosen} AND state = 'p'"
    )
    return db.execute(sql, (now_us, now_us, *parameters)).rowcount


def drop(db: sqlite3.Connection, target: str | None, keys: Sequence[Key] | None) -> int:
    chosen, parameters = _chosen(target, keys)
    return db.execute(f"DELETE FROM ps_retry WHERE {chosen} AND state = 'p'", parameters).rowcount


def backlog(db: sqlite3.Connection) -> Backlog:
    outbox = db.execute("SELECT etype, count(*), min(created_at), min(version) FROM ps_outbox GROUP BY 1")
    retry = db.execute("SELECT target, etype, state = 'p', count(*), min(min_version) FROM ps_retry GROUP BY 1, 2, 3")
    (touched,) = db.execute("SELECT count(*) FROM ps_touch").fetchone()
    return Backlog.counted(outbox, retry, touched)


# -- placements, targets, marks -----------------------------------------------------------------------------------


def placements(db: sqlite3.Connection, path: str) -> dict[str, str]:
    if not check_file(db, path):
        return {}
    return dict(db.execute("SELECT etype, placement FROM ps_placement"))


def remember(db: sqlite3.Connection, etype: str, placement: str, was: str | None = None) -> bool:
    if was is not None:
        standing = db.execute("SELECT placement FROM ps_placement WHERE etype = ?", (etype,)).fetchone()
        if standing not in ((was,), (placement,)):
            return False
    db.execute("INSERT OR REPLACE INTO ps_placement (etype, placement) VALUES (?, ?)", (etype, placement))
    return True


def targets(db: sqlite3.Connection) -> list[TargetRow]:
    return [TargetRow(*row) for row in db.execute("SELECT etype, name, bit, status, cursor, data_id FROM ps_target")]


def set_target(db: sqlite3.Connection, row: TargetRow, was: TargetRow | None = None) -> None:
    if was is not None and not was.stands(targets(db)):
        return
    for name, bit in db.execute("SELECT name, bit FROM ps_target WHERE etype = ?", (row.etype,)).fetchall():
        if (name == row.name) != (bit == row.bit):
            raise IntegrityViolation(
                f"{row.etype}: bit {bit} belongs to {name!r} for good; give {row.name!r} a free one"
            )
    db.execute(
        "INSERT OR REPLACE INTO ps_target (etype, name, bit, status, cursor, data_id) VALUES (?, ?, ?, ?, ?, ?)",
        (row.etype, row.name, row.bit, row.status, row.cursor, row.data_id),
    )


def backfill(db: sqlite3.Connection, tables: Tables, row: TargetRow, limit: int, now_us: int) -> TargetRow:
    known = [one for one in targets(db) if (one.etype, one.name) == (row.etype, row.name)]
    standing = known[0] if known else row  # a status set meanwhile stays
    if row.cursor == "" or standing.cursor != row.cursor:
        return standing
    table = tables[row.etype]
    first = ("", -math.inf if table.int_key else "")
    after = first if row.cursor is None else tuple(json.loads(row.cursor))
    found = db.execute(table.keys_sql, (*after, limit + 1)).fetchall()
    owed = [
        RetryRow(row.name, Key(tenant, row.etype, str(id)), h, v, v, "b", first_us=now_us, next_us=now_us)
        for tenant, id, h, v in found[:limit]
    ]
    _owe(db, owed)
    cursor = json.dumps(found[limit - 1][:2]) if len(found) > limit else ""
    standing = msgspec.structs.replace(standing, cursor=cursor)
    set_target(db, standing)
    return standing


def written_since(db: sqlite3.Connection, tables: Tables, etype: str, version: int, limit: int) -> list[OutboxRow]:
    sql = (
        f"SELECT * FROM (SELECT * FROM ({tables[etype].since_sql}) WHERE ps_version >= ? UNION ALL SELECT tenant, id, "
        "h, version FROM ps_tombstone WHERE etype = ? AND version >= ?) ORDER BY 4 LIMIT ?"
    )
    rows = db.execute(sql, (version, etype, version, limit))
    return [OutboxRow(v, Key(tenant, etype, str(id)), h, 0) for tenant, id, h, v in rows]


def mark(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM ps_mark WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


# -- vectors beside the home --------------------------------------------------------------------------------------


def vectors(db: sqlite3.Connection, keys: Sequence[Key]) -> list[StoredVector]:
    sql = (
        "SELECT v.tenant, v.etype, v.id, v.field, v.embedder, v.text_hash, v.vec FROM json_each(?) k CROSS JOIN "
        "ps_vector v ON v.tenant = json_extract(k.value, '$[0]') AND v.etype = json_extract(k.value, '$[1]') "
        "AND v.id = json_extract(k.value, '$[2]')"
    )
    wanted = json.dumps([(key.tenant, key.etype, key.id) for key in keys])
    return [StoredVector(Key(*row[:3]), *row[3:]) for row in db.execute(sql, (wanted,))]


def put_vectors(db: sqlite3.Connection, tables: Tables, found: Sequence[StoredVector]) -> None:
    for etype in {one.key.etype for one in found}:
        check_serves(db, tables[etype])
    for one in found:
        key, table = one.key, tables[one.key.etype]
        row = table.stored(db, key.tenant, [key.id], bodies=True).get(key.id)
        text = None if row is None or row.body is None else row.body.get(one.field)
        if row is None or row.body is None or not isinstance(text, str) or text_hash(text) != one.text_hash:
            continue  # made of a text that is gone
        if not row.rid:
            continue  # nobody has taken the row over yet
        place = (key.tenant, key.etype, key.id, one.field)
        db.execute(KEEP_SQL, (*place, one.embedder, one.text_hash, one.vector))
        spec = None if table.vector is None else table.layout.vectors.get(one.field)
        sql = "SELECT 1 FROM ps_vector WHERE tenant = ? AND etype = ? AND id = ? AND field = ? AND embedder = ?"
        brought = db.execute(sql, (*place, CALLER)).fetchone() is not None
        if table.vector is not None and spec is not None and spec.embedder == one.embedder and not brought:
            keep = frozenset(table.layout.vectors) - {one.field}
            new = table.layout.served({one.field: one.vector})
            table.vector.put(db, [FacetRow(row.rid, key.tenant, key.id, row.body, new, row.version, keep)])


def forget_vectors(db: sqlite3.Connection, etype: str, but_of: Sequence[str], limit: int) -> int:
    key = "tenant, etype, id, field, embedder"
    sql = (
        f"DELETE FROM ps_vector WHERE ({key}) IN (SELECT {key} FROM ps_vector WHERE etype = ? "
        "AND embedder NOT IN (SELECT value FROM json_each(?)) LIMIT ?)"
    )
    return db.execute(sql, (etype, json.dumps([CALLER, *but_of]), limit)).rowcount


# -- tidying ------------------------------------------------------------------------------------------------------


def purge(db: sqlite3.Connection, now_us: int, tombstone_ttl_us: int) -> int:
    key = "tenant, etype, id"
    sql = (
        f"DELETE FROM ps_tombstone WHERE deleted_at < ? AND ({key}) NOT IN (SELECT {key} FROM ps_outbox) "
        f"AND ({key}) NOT IN (SELECT {key} FROM ps_retry)"
    )
    tombstones = db.execute(sql, (now_us - tombstone_ttl_us,)).rowcount
    return tombstones + db.execute("DELETE FROM ps_op WHERE created_at < ?", (now_us - OP_TTL_US,)).rowcount
