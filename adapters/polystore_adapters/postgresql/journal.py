"""The journal of a PostgreSQL database: the duty to deliver, in rows that outlive the worker that wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from polystore.env import Env
from polystore.errors import IntegrityViolation
from polystore.model import Backlog, Key, OutboxRow, RetryRow, Settlement, TargetRow
from polystore_adapters.postgresql.bodies import settle_held
from polystore_adapters.postgresql.dialect import decode_json, encode_json
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.records import Tables
from polystore_adapters.postgresql.schema import check_database

TAKEOVER_US = 60_000_000
"""Outbox rows claimed longer ago than this are anybody's."""
DUE_AGAIN_US = 5_000_000
"""How long a retry row handed out by `due` stays away from other workers."""
OP_TTL_US = 24 * 3600 * 1_000_000

_ROW = "version, tenant, etype, id, h, targets, claims"
_CLAIM_SQL = f"""
WITH c AS (SELECT version AS v FROM ps_outbox WHERE etype = ANY($1::text[]) AND (owner IS NULL OR (owner <> $2
    AND (claimed_at < ps_now_us() - {TAKEOVER_US} OR NOT owner = ANY($3::text[])))) ORDER BY version LIMIT $4
    FOR UPDATE SKIP LOCKED)
UPDATE ps_outbox SET owner = $2, claimed_at = ps_now_us(),
    claims = claims + (owner IS NOT NULL AND NOT owner = ANY($3::text[]))::int
FROM c WHERE version = c.v RETURNING {_ROW}
"""
_NEWER = "excluded.version > r.version OR (excluded.version = r.version AND r.state <> 'p')"
_RETRY = (
    "target, tenant, etype, id, h, version, min_version, state, attempts, hard_fails, first_us, next_us, error_class, "
    "error"
)
_OWED_SQL = f"""
INSERT INTO ps_retry AS r ({_RETRY}) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[],
    $6::bigint[], $7::bigint[], $8::text[], $9::int[], $10::int[], $11::bigint[], $12::bigint[], $13::text[],
    $14::text[])
ON CONFLICT (target, tenant, etype, id) DO UPDATE SET
    state = CASE WHEN {_NEWER} THEN excluded.state ELSE r.state END,
    error_class = CASE WHEN {_NEWER} THEN excluded.error_class ELSE r.error_class END,
    error = CASE WHEN {_NEWER} THEN excluded.error ELSE r.error END,
    next_us = CASE WHEN {_NEWER} THEN excluded.next_us ELSE r.next_us END,
    version = greatest(r.version, excluded.version), min_version = least(r.min_version, excluded.min_version),
    attempts = greatest(r.attempts, excluded.attempts), hard_fails = greatest(r.hard_fails, excluded.hard_fails),
    first_us = CASE WHEN r.first_us = 0 THEN excluded.first_us ELSE r.first_us END
"""
_DELIVERED_SQL = "DELETE FROM ps_outbox WHERE version = ANY($1::bigint[])"
_DONE_SQL = (
    "DELETE FROM ps_retry r USING unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS d "
    "(target, tenant, etype, id, version) WHERE r.target = d.target AND r.tenant = d.tenant AND r.etype = d.etype "
    "AND r.id = d.id AND r.version <= d.version"
)
# By place: by key, a planner without statistics reads all rows of the copy for each one that is due.
_DUE_SQL = f"""
WITH c AS (SELECT ctid AS place, {_RETRY} FROM ps_retry WHERE target = $1 AND state <> 'p' AND next_us <= $3
    AND etype = ANY($2::text[]) ORDER BY next_us, version LIMIT $4 FOR UPDATE SKIP LOCKED)
UPDATE ps_retry r SET next_us = $3 + {DUE_AGAIN_US} FROM c WHERE r.ctid = c.place
RETURNING {", ".join(f"c.{column}" for column in _RETRY.split(", "))}
"""
_PENDING_SQL = """
SELECT NOT EXISTS (SELECT 1 FROM ps_target WHERE name = $1 AND etype = $2 AND status = 'active')
OR EXISTS (SELECT 1 FROM unnest($4::bigint[]) AS p (version) JOIN ps_outbox o ON o.version = p.version
    JOIN ps_target t ON t.etype = o.etype AND t.name = $1 WHERE o.etype = $2 AND o.targets & (1::bigint << t.bit) <> 0)
OR EXISTS (SELECT 1 FROM unnest($3::bigint[], $4::bigint[]) AS p (h, version) JOIN ps_retry r ON r.target = $1
    AND r.etype = $2 AND r.h = p.h AND r.min_version <= p.version)
"""


# -- outbox -------------------------------------------------------------------------------------------------------


async def claim(
    pool: Pool, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int, env: Env
) -> list[OutboxRow]:
    env.crashpoint("postgresql.claim")
    rows = await pool.fetch(_CLAIM_SQL, list(etypes), worker, sorted(live), limit)
    return sorted((_outbox_row(row) for row in rows), key=lambda row: row.version)


async def claimed(pool: Pool, worker: str, older_than_us: int, limit: int) -> list[OutboxRow]:
    sql = f"SELECT {_ROW} FROM ps_outbox WHERE owner = $1 AND claimed_at < $2 ORDER BY version LIMIT $3"
    return [_outbox_row(row) for row in await pool.fetch(sql, worker, older_than_us, limit)]


def _outbox_row(row: Sequence[Any]) -> OutboxRow:
    version, tenant, etype, id, h, targets, claims = row
    return OutboxRow(version, Key(tenant, etype, id), h, targets, claims)


async def settle(pool: Pool, tables: Tables, settlement: Settlement, env: Env) -> None:
    delivered = list(settlement.delivered)
    if not (settlement.owed or settlement.done or settlement.held):  # as a rule: one statement is its own transaction
        env.crashpoint("postgresql.settle.before")
        await pool.fetch(_DELIVERED_SQL, delivered)  # lost before the answer, it is done again: there is nothing to add
        env.crashpoint("postgresql.settle.after")
        return
    async with pool.transaction(name="settle") as db:
        await _owe(db, settlement.owed)
        env.crashpoint("postgresql.settle.inside")
        if settlement.done:
            rows = [
                (one.target, one.key.tenant, one.key.etype, one.key.id, one.version)
                for one in sorted(
                    settlement.done, key=lambda one: (one.target, one.key.tenant, one.key.etype, one.key.id)
                )
            ]
            await db.run(_DONE_SQL, *map(list, zip(*rows, strict=True)))
        if delivered:
            await db.run(_DELIVERED_SQL, delivered)
        await settle_held(db, tables, settlement.held)


async def _owe(db: Session, rows: Sequence[RetryRow]) -> None:
    """Merge rows into what the copies are owed already, see `Settlement`. Several of one record are merged in turn."""
    rest = sorted(rows, key=lambda one: (one.target, one.key.tenant, one.key.etype, one.key.id))
    while rest:
        turn: dict[tuple[str, Key], RetryRow] = {}
        later = [row for row in rest if turn.setdefault((row.target, row.key), row) is not row]
        values = [
            (
                *(
                    row.target,
                    row.key.tenant,
                    row.key.etype,
                    row.key.id,
                    row.h,
                    row.version,
                    row.min_version,
                    row.state,
                ),
                *(row.attempts, row.hard_fails, row.first_us, row.next_us, row.error_class, row.error),
            )
            for row in turn.values()
        ]
        await db.run(_OWED_SQL, *map(list, zip(*values, strict=True)))
        rest = later


# -- retry rows and dead letters ----------------------------------------------------------------------------------


def _retry_row(row: Sequence[Any]) -> RetryRow:
    target, tenant, etype, id, *rest = row
    return RetryRow(target, Key(tenant, etype, id), *rest)


_CHOSEN = (
    "($1::text IS NULL OR target = $1) AND ($2::boolean OR (tenant, etype, id) IN "
    "(SELECT * FROM unnest($3::text[], $4::text[], $5::text[])))"
)


def _chosen(target: str | None, keys: Sequence[Key] | None) -> tuple[Any, ...]:
    """The first five parameters: which retry rows are meant; None is all."""
    some = keys or ()
    return (target, keys is None, [k.tenant for k in some], [k.etype for k in some], [k.id for k in some])


async def due(pool: Pool, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
    rows = [_retry_row(row) for row in await pool.fetch(_DUE_SQL, target, list(etypes), now_us, limit)]
    return sorted(rows, key=lambda row: (row.next_us, row.version))


async def awaken(pool: Pool, target: str, keys: Sequence[Key] | None, within_us: int) -> int:
    sql = (
        "UPDATE ps_retry SET next_us = ps_now_us() + floor(random() * ($6::bigint + 1))::bigint "
        f"WHERE {_CHOSEN} AND state <> 'p'"
    )
    return await pool.run(sql, *_chosen(target, keys), within_us)


async def pending(pool: Pool, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
    asked = [h for h, _ in pairs], [version for _, version in pairs]
    return bool(await pool.value(_PENDING_SQL, target, etype, *asked))


async def parked(pool: Pool, target: str | None, cursor: str | None, limit: int) -> tuple[list[RetryRow], str | None]:
    after = ("", "", "", "") if cursor is None else tuple(decode_json(cursor))
    sql = (
        f"SELECT {_RETRY} FROM ps_retry WHERE ($1::text IS NULL OR target = $1) AND state = 'p' AND "
        "(target, tenant, etype, id) > ($2, $3, $4, $5) ORDER BY target, tenant, etype, id LIMIT $6"
    )
    rows = await pool.fetch(sql, target, *after, limit + 1)
    return [_retry_row(row) for row in rows[:limit]], encode_json(rows[limit - 1][:4]) if len(rows) > limit else None


async def redrive(pool: Pool, target: str | None, keys: Sequence[Key] | None) -> int:
    sql = (
        "UPDATE ps_retry SET state = 'o', attempts = 0, hard_fails = 0, first_us = ps_now_us(), next_us = ps_now_us() "
        f"WHERE {_CHOSEN} AND state = 'p'"
    )
    return await pool.run(sql, *_chosen(target, keys))


async def drop(pool: Pool, target: str | None, keys: Sequence[Key] | None) -> int:
    return await pool.run(f"DELETE FROM ps_retry WHERE {_CHOSEN} AND state = 'p'", *_chosen(target, keys))


async def backlog(pool: Pool, tables: Tables) -> Backlog:
    async with pool.transaction(begin="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as db:
        outbox = await db.fetch("SELECT etype, count(*), min(created_at), min(version) FROM ps_outbox GROUP BY 1")
        retry = await db.fetch(
            "SELECT target, etype, state = 'p', count(*), min(min_version) FROM ps_retry GROUP BY 1, 2, 3"
        )
        shared = any(table.shared for table in tables.values())
        touched: int = await db.value("SELECT count(*) FROM ps_touch") if shared else 0
    return Backlog.counted(outbox, retry, touched)


# -- placements, targets, marks -----------------------------------------------------------------------------------


async def placements(pool: Pool) -> dict[str, str]:
    async with pool.transaction() as db:
        if not await check_database(db, pool.place):
            return {}
        return dict(await db.fetch("SELECT etype, placement FROM ps_placement"))


async def remember(pool: Pool, etype: str, placement: str, was: str | None = None) -> bool:
    if was is not None:
        sql = "UPDATE ps_placement SET placement = $2 WHERE etype = $1 AND placement IN ($2, $3)"
        return await pool.run(sql, etype, placement, was) == 1
    sql = (
        "INSERT INTO ps_placement (etype, placement) VALUES ($1, $2) "
        "ON CONFLICT (etype) DO UPDATE SET placement = excluded.placement"
    )
    await pool.run(sql, etype, placement)
    return True


_TARGETS_SQL = "SELECT etype, name, bit, status, cursor, data_id FROM ps_target"


async def targets(pool: Pool) -> list[TargetRow]:
    return [TargetRow(*row) for row in await pool.fetch(_TARGETS_SQL)]


async def set_target(pool: Pool, row: TargetRow, was: TargetRow | None = None) -> None:
    """Every commit reads the copies, and its statement takes its snapshot after the lock on their table. So with this
    one, commits under way end first, and those that wait use the new row: none is left out of a backfill."""
    async with pool.transaction() as db:
        await db.run("LOCK TABLE ps_target IN ACCESS EXCLUSIVE MODE")
        standing = [TargetRow(*one) for one in await db.fetch(f"{_TARGETS_SQL} WHERE etype = $1", row.etype)]
        if was is not None and not was.stands(standing):
            return
        for one in standing:
            if (one.name == row.name) != (one.bit == row.bit):
                raise IntegrityViolation(
                    f"{row.etype}: bit {one.bit} belongs to {one.name!r} for good; give {row.name!r} a free one"
                )
        await _put_target(db, row)


async def _put_target(db: Session, row: TargetRow) -> None:
    sql = (
        "INSERT INTO ps_target (etype, name, bit, status, cursor, data_id) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT "
        "(etype, name) DO UPDATE SET status = excluded.status, cursor = excluded.cursor, data_id = excluded.data_id"
    )
    await db.run(sql, row.etype, row.name, row.bit, row.status, row.cursor, row.data_id)


async def backfill(pool: Pool, tables: Tables, row: TargetRow, limit: int) -> TargetRow:
    if row.cursor == "":
        return row
    table = tables[row.etype]
    async with pool.transaction() as db:
        known = await db.row(f"{_TARGETS_SQL} WHERE etype = $1 AND name = $2 FOR UPDATE", row.etype, row.name)
        standing = TargetRow(*known) if known is not None else row  # a status set meanwhile stays
        if standing.cursor != row.cursor:
            return standing
        if row.cursor is None:
            found = await db.fetch(table.first_keys_sql, limit + 1)
        else:
            tenant, id = decode_json(row.cursor)
            found = await db.fetch(table.keys_sql, tenant, table.key_value(id), limit + 1)
        now = await db.value("SELECT ps_now_us()")
        await _owe(
            db,
            [
                RetryRow(row.name, Key(tenant, row.etype, str(id)), h, v, v, "b", first_us=now, next_us=now)
                for tenant, id, h, v in found[:limit]
            ],
        )
        cursor = encode_json([found[limit - 1][0], str(found[limit - 1][1])]) if len(found) > limit else ""
        standing = msgspec.structs.replace(standing, cursor=cursor)
        await _put_target(db, standing)
    return standing


async def written_since(pool: Pool, tables: Tables, etype: str, version: int, limit: int) -> list[OutboxRow]:
    sql = (
        f"SELECT tenant, id::text, h, v FROM ({tables[etype].since_sql}) AS t (tenant, id, h, v) WHERE v >= $1 UNION "
        "ALL SELECT tenant, id, h, version FROM ps_tombstone WHERE etype = $2 AND version >= $1 ORDER BY 4 LIMIT $3"
    )
    rows = await pool.fetch(sql, version, etype, limit)
    return [OutboxRow(v, Key(tenant, etype, id), h, 0) for tenant, id, h, v in rows]


async def mark(pool: Pool, name: str) -> str | None:
    value = await pool.value("SELECT value FROM ps_mark WHERE name = $1", name)
    return None if value is None else str(value)


# -- tidying ------------------------------------------------------------------------------------------------------


async def expired(pool: Pool, tables: Tables, etypes: Sequence[str], limit: int) -> list[Key]:
    keys: list[Key] = []
    for etype in etypes:
        rows = await pool.fetch(tables[etype].expired_sql, limit - len(keys))
        keys += [Key(tenant, etype, str(id)) for tenant, id in rows]
    return keys


async def purge(pool: Pool, now_us: int, tombstone_ttl_us: int) -> int:
    async with pool.transaction() as db:
        tombstones = await db.run(
            "DELETE FROM ps_tombstone t WHERE deleted_at < $1 AND NOT EXISTS (SELECT 1 FROM ps_outbox o WHERE "
            "o.tenant = t.tenant AND o.etype = t.etype AND o.id = t.id) AND NOT EXISTS (SELECT 1 FROM ps_retry r WHERE "
            "r.tenant = t.tenant AND r.etype = t.etype AND r.id = t.id)",
            now_us - tombstone_ttl_us,
        )
        return tombstones + await db.run("DELETE FROM ps_op WHERE created_at < $1", now_us - OP_TTL_US)
