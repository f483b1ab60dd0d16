"""Workers: who lives, and who may do what only one may do at a time."""

from __future__ import annotations

from polystore_adapters.mysql.pool import Pool

DEAD_US = 5_000_000
"""A worker that was not heard of for so long is dead."""
FORGOTTEN_US = 86_400_000_000
"""A worker that was not heard of for so long is no more remembered."""
TABLE = """CREATE TABLE IF NOT EXISTS ps_lease (name VARCHAR(255) PRIMARY KEY, owner VARCHAR(64) NOT NULL,
    until_us BIGINT NOT NULL)"""
_NOW = "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)"
# From left to right: the second assignment sees whether the first has made the worker the owner.
_HOLD_SQL = f"""INSERT INTO ps_lease (name, owner, until_us) VALUES (%s, %s, {_NOW} + %s) ON DUPLICATE KEY UPDATE
    owner = IF(owner = VALUES(owner) OR until_us <= {_NOW}, VALUES(owner), owner),
    until_us = IF(owner = VALUES(owner), VALUES(until_us), until_us)"""


async def beat(pool: Pool, worker: str) -> frozenset[str]:
    async with pool.session(sent=True) as db:
        now = pool.clock.now_us()
        await db.insert(
            "INSERT INTO ps_worker (id, beat_us)", [(worker, now)], "ON DUPLICATE KEY UPDATE beat_us = VALUES(beat_us)"
        )
        db.later("DELETE FROM ps_worker WHERE beat_us < %s", now - FORGOTTEN_US)
        rows = await db.fetch("SELECT id FROM ps_worker WHERE beat_us > %s", now - DEAD_US)
    return frozenset(id for (id,) in rows) | {worker}


async def retire(pool: Pool, worker: str) -> None:
    async with pool.transaction() as db:
        await db.run("UPDATE ps_outbox SET owner = NULL, claimed_at = NULL WHERE owner = %s", worker)
        await db.run("DELETE FROM ps_worker WHERE id = %s", worker)


async def hold_lease(pool: Pool, name: str, worker: str, ttl_s: float) -> bool:
    """See `SupportsJournal.hold_lease`."""
    async with pool.session(sent=True) as db:
        await db.run(_HOLD_SQL, name, worker, int(ttl_s * 1e6))
        return bool(await db.value("SELECT owner FROM ps_lease WHERE name = %s", name) == worker)
