"""Points of measures in partitions by time, so that old ones go as a whole.

A partition holds 30 days and is made when the first point of that time is appended. What belongs to none is in
`ps_point_rest`: points of far away times, and those of a user who may not make tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from polystore.errors import IntegrityViolation, StoreError, Unavailable
from polystore_adapters.postgresql.pool import Pool, Session

WIDTH_US: Final = 30 * 86_400_000_000
YEAR_US: Final = 365 * 86_400_000_000
PAST_US, FUTURE_US = 20 * YEAR_US, YEAR_US
"""Times for which partitions are made, around now: never more than 256."""
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
"""Whoever makes or drops a partition waits for the calls under way, and others for him; then he gives up."""
_COLUMNS = "series bigint NOT NULL, at bigint NOT NULL, i bigint, f double precision, s text, PRIMARY KEY (series, at)"
TABLES = f"""
CREATE TABLE ps_point ({_COLUMNS}) PARTITION BY RANGE (at);
CREATE TABLE ps_point_rest PARTITION OF ps_point DEFAULT;
"""
_MOVE = f"""
ALTER TABLE ps_point RENAME TO ps_point_rest;
CREATE TABLE ps_point ({_COLUMNS}) PARTITION BY RANGE (at);
ALTER TABLE ps_point ATTACH PARTITION ps_point_rest DEFAULT;
"""
_PARTITIONED_SQL = (
    "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'ps_point_rest' "
    "AND relnamespace = quote_ident(current_schema())::regnamespace)"
)
_MADE_SQL = (
    "SELECT substr(c.relname, 10)::bigint FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid "
    "WHERE inhparent = to_regclass('ps_point') AND c.relname ~ '^ps_point_[0-9]+$' ORDER BY 1"
)
_OTHERS_SQL = (
    "SELECT EXISTS (SELECT 1 FROM {part} p JOIN ps_series s ON s.n = p.series WHERE s.etype <> $1 OR s.measure <> $2)"
)


async def partitioned(db: Session) -> bool:
    """Whether the points of this database lie in partitions; until `move` they may lie in one table."""
    return bool(await db.value(_PARTITIONED_SQL))


async def move(db: Session) -> None:
    """From now on there are partitions; the points of before stay where they are, as the rest."""
    await db.run(_MOVE)


class Partitions:
    """Which partitions one process knows to be there, or not to be had."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    async def make(self, pool: Pool, times_us: Iterable[int]) -> None:
        """Make those that lack for points of these times, where that is possible."""
        wanted = {at // WIDTH_US for at in times_us} - self._known
        if not wanted:
            return
        now: int = await pool.value("SELECT ps_now_us()")
        self._known.update(n for (n,) in await pool.fetch(_MADE_SQL))
        for n in sorted(wanted - self._known):
            if now - PAST_US <= n * WIDTH_US <= now + FUTURE_US:
                await _made(pool, n)
            self._known.add(n)

    async def drop(self, pool: Pool, etype: str, measure: str, before_us: int, more_than: int) -> int:
        """Drop the partitions that end before this time and hold nothing but points of the measure: none at all, or
        more than so many. Returns how many points went."""
        gone = 0
        for (n,) in await pool.fetch(_MADE_SQL):
            if (n + 1) * WIDTH_US <= before_us:
                gone += await _dropped(pool, n, etype, measure, more_than)
        return gone


async def _made(pool: Pool, n: int) -> None:
    low, high = n * WIDTH_US, (n + 1) * WIDTH_US
    sql = f"CREATE TABLE IF NOT EXISTS ps_point_{n:d} PARTITION OF ps_point FOR VALUES FROM ({low:d}) TO ({high:d})"
    try:
        async with pool.transaction() as db:
            await db.run(f"{LOCK_TIMEOUT}; {sql}")
    except (StoreError, IntegrityViolation):
        pass  # made by another, no right, in use, or the rest has points of that time: it is where they go


async def _dropped(pool: Pool, n: int, etype: str, measure: str, more_than: int) -> int:
    part = f"ps_point_{n:d}"
    others = _OTHERS_SQL.format(part=part)
    if await pool.value(others, etype, measure):
        return 0
    try:
        async with pool.transaction(name="drop") as db:
            # Nobody adds to it from here on; readers go on until it is dropped.
            await db.run(f"{LOCK_TIMEOUT}; LOCK TABLE {part} IN SHARE ROW EXCLUSIVE MODE")
            held: int = await db.value(f"SELECT count(*) FROM {part}")
            if await db.value(others, etype, measure) or 0 < held <= more_than:
                return 0
            await db.run(f"DROP TABLE {part}")
            return held
    except Unavailable:
        return 0  # in use: its points are deleted one by one, or it is dropped another time
