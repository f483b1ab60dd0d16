"""Workers: who lives, and who may do what only one may do at a time."""

from __future__ import annotations

from polystore_adapters.postgresql.epoch import SAME_SQL, renew
from polystore_adapters.postgresql.pool import Pool

DEAD_US = 5_000_000
"""A worker that was not heard of for so long is dead."""
_HOLD_SQL = """
INSERT INTO ps_lease AS l (name, owner, until_us) VALUES ($1, $2, ps_now_us() + $3)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until_us = excluded.until_us
WHERE l.owner = excluded.owner OR l.until_us <= ps_now_us() RETURNING true
"""


async def beat(pool: Pool, worker: str) -> frozenset[str]:
    sql = (
        "WITH b AS (INSERT INTO ps_worker (id, beat_us) VALUES ($1, ps_now_us()) ON CONFLICT (id) DO UPDATE SET "
        "beat_us = excluded.beat_us), d AS (DELETE FROM ps_worker WHERE beat_us < ps_now_us() - 86400000000 "
        f"AND id <> $1) SELECT id, {SAME_SQL} FROM ps_worker WHERE beat_us > ps_now_us() - {DEAD_US}"
    )
    rows = await pool.fetch(sql, worker)
    if any(same is False for _, same in rows):
        await renew(pool)
    return frozenset(id for id, _ in rows) | {worker}


async def retire(pool: Pool, worker: str) -> None:
    async with pool.transaction() as db:
        await db.run("UPDATE ps_outbox SET owner = NULL, claimed_at = NULL WHERE owner = $1", worker)
        await db.run("DELETE FROM ps_worker WHERE id = $1", worker)


async def hold_lease(pool: Pool, name: str, worker: str, ttl_s: float) -> bool:
    """See `SupportsJournal.hold_lease`."""
    return bool(await pool.value(_HOLD_SQL, name, worker, int(ttl_s * 1e6), writes=True))
