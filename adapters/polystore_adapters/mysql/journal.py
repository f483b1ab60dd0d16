"""The journal of a MariaDB database: the duty to deliver, in rows that outlive the worker that wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from polystore.relational.records import by_table
from polystore_adapters.mysql.bodies import settle_held
from polystore_adapters.mysql.commit import keep
from polystore_adapters.mysql.dialect import decode_json, encode_json, ident
from polystore_adapters.mysql.graph import slot_of
from polystore_adapters.mysql.locks import bucket, lock
from polystore_adapters.mysql.pool import Pool, Session
from polystore_adapters.mysql.records import Tables
from polystore_adapters.mysql.schema import TARGETS_LOCK, check_database
from polystore_adapters.mysql.table import vector_column

TAKEOVER_US = 60_000_000
"""Outbox rows claimed longer ago than this are anybody's."""
DUE_AGAIN_US = 5_000_000
"""How long a retry row handed out by `due` stays away from other workers."""
OP_TTL_US = 24 * 3600 * 1_000_000

_NOBODY = ("",)
"""In place of an empty list, which SQL has not."""
_OUTBOX = "version, tenant, etype, id, h, targets, claims"
_RETRY = (
    "target, tenant, etype, id, h, version, min_version, state, attempts, hard_fails, first_us, next_us, error_class, "
    "error"
)
_NEWER = "VALUES(version) > version OR (VALUES(version) = version AND state <> 'p')"
# What decides stands last: an assignment sees those before it.
_OWED_END = f"""ON DUPLICATE KEY UPDATE
    error_class = IF({_NEWER}, VALUES(error_class), error_class), error = IF({_NEWER}, VALUES(error), error),
    next_us = IF({_NEWER}, VALUES(next_us), next_us), min_version = LEAST(min_version, VALUES(min_version)),
    attempts = GREATEST(attempts, VALUES(attempts)), hard_fails = GREATEST(hard_fails, VALUES(hard_fails)),
    first_us = IF(first_us = 0, VALUES(first_us), first_us), state = IF({_NEWER}, VALUES(state), state),
    version = GREATEST(version, VALUES(version))"""


# -- outbox -------------------------------------------------------------------------------------------------------


async def claim(
    pool: Pool, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int, env: Env
) -> list[OutboxRow]:
    env.crashpoint("mysql.claim")
    alive = tuple(sorted(live)) or _NOBODY
    free = "etype IN %s AND (owner IS NULL OR (owner <> %s AND (claimed_at < %s OR owner NOT IN %s)))"
    async with pool.session() as db:
        now = pool.clock.now_us()
        asked = (tuple(etypes) or _NOBODY, worker, now - TAKEOVER_US, alive)
        if await db.value(f"SELECT 1 FROM ps_outbox WHERE {free} LIMIT 1", *asked) is None:
            return []
    async with pool.transaction() as db:
        sql = f"SELECT {_OUTBOX}, owner FROM ps_outbox WHERE {free} ORDER BY version LIMIT %s FOR UPDATE SKIP LOCKED"
        rows = await db.fetch(sql, *asked, limit)
        dead = tuple(row[0] for row in rows if row[-1] is not None and row[-1] not in live)
        if rows:
            taken = "owner = %s, claimed_at = %s, claims = claims + (version IN %s)"
            sql = f"UPDATE ps_outbox SET {taken} WHERE version IN %s"
            await db.run(sql, worker, now, dead or (0,), tuple(row[0] for row in rows))
    return [_outbox_row((*row[:6], row[6] + (row[0] in dead))) for row in rows]


async def claimed(pool: Pool, worker: str, older_than_us: int, limit: int) -> list[OutboxRow]:
    sql = f"SELECT {_OUTBOX} FROM ps_outbox WHERE owner = %s AND claimed_at < %s ORDER BY version LIMIT %s"
    return [_outbox_row(row) for row in await pool.fetch(sql, worker, older_than_us, limit)]


def _outbox_row(row: Sequence[Any]) -> OutboxRow:
    version, tenant, etype, id, h, targets, claims = row
    return OutboxRow(version, Key(tenant, etype, id), h, targets, claims)


async def settle(pool: Pool, tables: Tables, settlement: Settlement, env: Env) -> None:
    async with pool.transaction(name="settle") as db:
        await _owe(db, settlement.owed)
        env.crashpoint("mysql.settle.inside")
        for slot, version in sorted((_slot(one.target, one.key), one.version) for one in settlement.done):
            db.later("DELETE FROM ps_retry WHERE slot = %s AND version <= %s", slot, version)
        if settlement.delivered:
            db.later("DELETE FROM ps_outbox WHERE version IN %s", tuple(sorted(settlement.delivered)))
        await settle_held(db, tables, settlement.held, pool.clock.now_us())


def _slot(target: str, key: Key) -> bytes:
    return slot_of(target, key.tenant, key.etype, key.id)


async def _owe(db: Session, rows: Sequence[RetryRow]) -> None:
    """Merge rows into what the copies are owed already, see `Settlement`."""
    values = [
        (
            *(_slot(row.target, row.key), row.target, row.key.tenant, row.key.etype, row.key.id, row.h, row.version),
            *(row.min_version, row.state, row.attempts, row.hard_fails, row.first_us, row.next_us),
            *(row.error_class, row.error),
        )
        for row in rows
    ]
    values.sort(key=lambda one: one[0])  # all writers lock in one order; of one record they are merged as they came
    await db.insert(f"INSERT INTO ps_retry (slot, {_RETRY})", values, _OWED_END)


# -- retry rows and dead letters ----------------------------------------------------------------------------------


def _retry_row(row: Sequence[Any]) -> RetryRow:
    target, tenant, etype, id, *rest = row
    return RetryRow(target, Key(tenant, etype, id), *rest)


def _chosen(target: str | None, keys: Sequence[Key] | None) -> tuple[str, list[Any]]:
    """Which retry rows are meant: SQL and its parameters; None is all."""
    parts, args = ["1 = 1"], list[Any]()
    if target is not None:
        parts.append("target = %s")
        args.append(target)
    if keys is not None:
        parts.append("(tenant, etype, id) IN %s" if keys else "1 = 0")
        args += [tuple((key.tenant, key.etype, key.id) for key in keys)] if keys else []
    return " AND ".join(parts), args


async def due(pool: Pool, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
    sql = (
        f"SELECT {_RETRY} FROM ps_retry WHERE target = %s AND state <> 'p' AND next_us <= %s AND etype IN %s "
        "ORDER BY next_us, version LIMIT %s"
    )
    asked = (target, now_us, tuple(etypes) or _NOBODY, limit)
    if not await pool.fetch(sql, *asked):
        return []
    async with pool.transaction() as db:
        rows = [_retry_row(row) for row in await db.fetch(f"{sql} FOR UPDATE SKIP LOCKED", *asked)]
        if rows:
            slots = tuple(sorted(_slot(row.target, row.key) for row in rows))
            await db.run("UPDATE ps_retry SET next_us = %s WHERE slot IN %s", now_us + DUE_AGAIN_US, slots)
    return rows


async def awaken(pool: Pool, target: str, keys: Sequence[Key] | None, within_us: int) -> int:
    chosen, args = _chosen(target, keys)
    async with pool.session(sent=True) as db:
        sql = f"UPDATE ps_retry SET next_us = %s + FLOOR(RAND() * %s) WHERE {chosen} AND state <> 'p'"
        await db.run(sql, pool.clock.now_us(), within_us + 1, *args)
        return int(await db.value(f"SELECT COUNT(*) FROM ps_retry WHERE {chosen} AND state <> 'p'", *args))


async def pending(pool: Pool, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
    owed = " OR ".join("(r.h = %s AND r.min_version <= %s)" for _ in pairs) or "1 = 0"
    sql = (
        "SELECT NOT EXISTS (SELECT 1 FROM ps_target WHERE name = %s AND etype = %s AND status = 'active') "
        "OR EXISTS (SELECT 1 FROM ps_outbox o JOIN ps_target t ON t.etype = o.etype AND t.name = %s WHERE o.etype = %s "
        "AND o.version IN %s AND o.targets & (1 << t.bit)) "
        f"OR EXISTS (SELECT 1 FROM ps_retry r WHERE r.target = %s AND r.etype = %s AND ({owed}))"
    )
    versions = tuple(version for _, version in pairs) or (0,)
    flat = [one for pair in pairs for one in pair]
    return bool(await pool.value(sql, target, etype, target, etype, versions, target, etype, *flat))


async def parked(pool: Pool, target: str | None, cursor: str | None, limit: int) -> tuple[list[RetryRow], str | None]:
    chosen, args = _chosen(target, None)
    after = ("", "", "", "") if cursor is None else tuple(decode_json(cursor))
    sql = (
        f"SELECT {_RETRY} FROM ps_retry WHERE {chosen} AND state = 'p' AND (target, tenant, etype, id) > "
        "(%s, %s, %s, %s) ORDER BY target, tenant, etype, id LIMIT %s"
    )
    rows = await pool.fetch(sql, *args, *after, limit + 1)
    return [_retry_row(row) for row in rows[:limit]], encode_json(rows[limit - 1][:4]) if len(rows) > limit else None


async def redrive(pool: Pool, target: str | None, keys: Sequence[Key] | None) -> int:
    chosen, args = _chosen(target, keys)
    async with pool.session(sent=True) as db:
        now = pool.clock.now_us()
        sql = (
            "UPDATE ps_retry SET state = 'o', attempts = 0, hard_fails = 0, first_us = %s, next_us = %s "
            f"WHERE {chosen} AND state = 'p'"
        )
        return await db.run(sql, now, now, *args)


async def drop(pool: Pool, target: str | None, keys: Sequence[Key] | None) -> int:
    chosen, args = _chosen(target, keys)
    return await pool.run(f"DELETE FROM ps_retry WHERE {chosen} AND state = 'p'", *args)


async def backlog(pool: Pool) -> Backlog:
    async with pool.snapshot() as db:
        outbox = await db.fetch("SELECT etype, COUNT(*), MIN(created_at), MIN(version) FROM ps_outbox GROUP BY 1")
        retry = await db.fetch(
            "SELECT target, etype, state = 'p', COUNT(*), MIN(min_version) FROM ps_retry GROUP BY 1, 2, 3"
        )
    return Backlog.counted(outbox, retry)


# -- placements, targets, marks -----------------------------------------------------------------------------------


async def placements(pool: Pool) -> dict[str, str]:
    async with pool.session() as db:
        if not await check_database(db, pool.place):
            return {}
        rows = await db.fetch("SELECT etype, placement FROM ps_placement")
        return {str(etype): str(placement) for etype, placement in rows}


async def remember(pool: Pool, etype: str, placement: str, was: str | None = None) -> bool:
    async with pool.transaction() as db:
        standing = await db.row("SELECT placement FROM ps_placement WHERE etype = %s FOR UPDATE", etype)
        if was is not None and (standing is None or standing[0] not in (was, placement)):
            return False
        await db.run("REPLACE INTO ps_placement (etype, placement) VALUES (%s, %s)", etype, placement)
        return True


_TARGETS_SQL = "SELECT etype, name, bit, status, cur, data_id FROM ps_target"


async def targets(pool: Pool) -> list[TargetRow]:
    return [TargetRow(*row) for row in await pool.fetch(_TARGETS_SQL)]


async def set_target(pool: Pool, row: TargetRow, was: TargetRow | None = None) -> None:
    """Commits share the lock on the copies: those under way end first, and those that wait use the new row, so that
    none is left out of a backfill."""
    async with pool.transaction() as db:
        await lock(db, [TARGETS_LOCK])
        standing = [TargetRow(*one) for one in await db.fetch(f"{_TARGETS_SQL} WHERE etype = %s", row.etype)]
        if was is not None and not was.stands(standing):
            return
        for one in standing:
            if (one.name == row.name) != (one.bit == row.bit):
                raise IntegrityViolation(
                    f"{row.etype}: bit {one.bit} belongs to {one.name!r} for good; give {row.name!r} a free one"
                )
        await _put_target(db, row)


async def _put_target(db: Session, row: TargetRow) -> None:
    await db.insert(
        "INSERT INTO ps_target (etype, name, bit, status, cur, data_id)",
        [(row.etype, row.name, row.bit, row.status, row.cursor, row.data_id)],
        "ON DUPLICATE KEY UPDATE status = VALUES(status), cur = VALUES(cur), data_id = VALUES(data_id)",
    )


async def backfill(pool: Pool, tables: Tables, row: TargetRow, limit: int) -> TargetRow:
    if row.cursor == "":
        return row
    table = tables[row.etype]
    async with pool.transaction() as db:
        await lock(db, [TARGETS_LOCK])
        known = await db.row(f"{_TARGETS_SQL} WHERE etype = %s AND name = %s", row.etype, row.name)
        standing = TargetRow(*known) if known is not None else row  # a status set meanwhile stays
        if standing.cursor != row.cursor:
            return standing
        if row.cursor is None:
            found = await db.fetch(table.first_keys_sql, limit + 1)
        else:
            tenant, id = decode_json(row.cursor)
            found = await db.fetch(table.keys_sql, tenant, table.key_value(id), tenant, limit + 1)
        now = pool.clock.now_us()
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
    dead = "SELECT tenant, id, h, version AS ps_version FROM ps_tombstone WHERE etype = %s AND version >= %s"
    last = "ORDER BY ps_version LIMIT %s"  # one after the other: keys of the two may be of different types
    live = await pool.fetch(f"{tables[etype].since_sql} {last}", version, limit)
    gone = await pool.fetch(f"{dead} {last}", etype, version, limit)
    rows = sorted((*live, *gone), key=lambda row: row[3])[:limit]
    return [OutboxRow(v, Key(tenant, etype, str(id)), h, 0) for tenant, id, h, v in rows]


async def mark(pool: Pool, name: str) -> str | None:
    value = await pool.value("SELECT value FROM ps_mark WHERE name = %s", name)
    return None if value is None else str(value)


# -- vectors beside the home --------------------------------------------------------------------------------------


async def vectors(pool: Pool, keys: Sequence[Key]) -> list[StoredVector]:
    if not keys:
        return []
    sql = "SELECT tenant, etype, id, field, embedder, text_hash, vec FROM ps_vector WHERE (tenant, etype, id) IN %s"
    rows = await pool.fetch(sql, tuple((key.tenant, key.etype, key.id) for key in keys))
    return [StoredVector(Key(*row[:3]), *row[3:]) for row in rows]


async def put_vectors(pool: Pool, tables: Tables, found: Sequence[StoredVector]) -> None:
    if not found:
        return
    async with pool.transaction() as db:
        await lock(db, {bucket(one.key) for one in found})
        texts: dict[Key, Mapping[str, Any]] = {}
        for (etype, tenant), ids in by_table(one.key for one in found).items():
            table = tables[etype]
            for row in await db.fetch(table.rows_sql, tenant, table.key_values(ids)):
                key = Key(tenant, etype, table.id_of(row))
                texts[key] = table.record(key, row).body or {}
        current: list[StoredVector] = []
        for one in found:
            text = texts.get(one.key, {}).get(one.field)
            if isinstance(text, str) and text_hash(text) == one.text_hash:  # else made of a text that is gone
                current.append(one)
        await keep(db, current)
        await _serve(db, tables, current)


async def _serve(db: Session, tables: Tables, found: Sequence[StoredVector]) -> None:
    """Have the homes search by those that are of their own embedder, but where the caller has brought one."""
    mine = {
        slot_of(one.key.tenant, one.key.etype, one.key.id, one.field, CALLER): one
        for one in sorted(found, key=lambda one: (one.key.tenant, one.key.etype, one.key.id, one.field))
        if one.field in tables[one.key.etype].vectors
        and tables[one.key.etype].layout.vectors[one.field].embedder == one.embedder
    }
    if not mine:
        return
    brought = {slot for (slot,) in await db.fetch("SELECT slot FROM ps_vector WHERE slot IN %s", tuple(mine))}
    for slot, one in mine.items():
        if slot not in brought:
            table = tables[one.key.etype]
            vector = table.layout.served({one.field: one.vector})[one.field]
            column = ident(vector_column(one.field))
            sql = f"UPDATE {table.name} SET {column} = %s WHERE ps_tenant = %s AND {ident(table.key)} = %s"
            db.later(sql, vector, one.key.tenant, table.key_value(one.key.id))


async def forget_vectors(pool: Pool, etype: str, but_of: Sequence[str], limit: int) -> int:
    sql = "DELETE FROM ps_vector WHERE etype = %s AND embedder NOT IN %s LIMIT %s"
    return await pool.run(sql, etype, (CALLER, *but_of), limit)


# -- tidying ------------------------------------------------------------------------------------------------------


async def expired(pool: Pool, tables: Tables, etypes: Sequence[str], limit: int) -> list[Key]:
    keys: list[Key] = []
    async with pool.session() as db:
        for etype in etypes:
            rows = await db.fetch(tables[etype].expired_sql, pool.clock.now_us(), limit - len(keys))
            keys += [Key(tenant, etype, str(id)) for tenant, id in rows]
    return keys


async def purge(pool: Pool, now_us: int, tombstone_ttl_us: int) -> int:
    owed = " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM {table} o WHERE o.tenant = t.tenant AND o.etype = t.etype AND o.id = t.id)"
        for table in ("ps_outbox", "ps_retry")
    )
    async with pool.transaction() as db:
        sql = f"DELETE t FROM ps_tombstone AS t WHERE t.deleted_at < %s AND {owed}"
        tombstones = await db.run(sql, now_us - tombstone_ttl_us)
        return tombstones + await db.run("DELETE FROM ps_op WHERE created_at < %s", now_us - OP_TTL_US)
