"""The history that a server writes, and going on when it took up another one.

A standby that is promoted, and a backup that is restored to a point in time, write a timeline of their own
(https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES). What the server before had
committed last may be missing there: then the sequence would draw versions anew that copies hold already, for other
content. So whatever draws a version asks in the same statement whether the timeline is still the one that is noted
(SAME_SQL); if not, nothing is written, the next epoch begins, and it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from polystore.errors import Unavailable
from polystore.model import EPOCH_BITS, JOURNAL_BODY, JOURNAL_HELD
from polystore.relational.serving import load_served
from polystore_adapters.postgresql.dialect import ident
from polystore_adapters.postgresql.pool import Pool, Session
from polystore_adapters.postgresql.schema import exists

log = logging.getLogger("polystore.postgresql")

R = TypeVar("R")

_TIMELINE_SQL = "substring(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
"""`pg_control_checkpoint()` tells the old one for some seconds after a promotion."""
SAME_SQL = f"({_TIMELINE_SQL} = (SELECT v FROM ps_meta WHERE k = 'timeline'))"
"""About 10 us. What a process remembers would cost 2, and is not enough: two standbys of one server may both come to
write a second timeline, one after the other, and only the notes of the latter tell that it is another one."""
_NOTE_SQL = f"INSERT INTO ps_meta (k, v) VALUES ('timeline', {_TIMELINE_SQL}) ON CONFLICT (k) DO NOTHING"
_LOCK_SQL = "SELECT pg_advisory_xact_lock(1886614643, 1)"
_NOW_SQL = (
    f"SELECT {SAME_SQL}, (SELECT coalesce(max(v::bigint), 0) FROM ps_meta WHERE k = 'epoch'), "
    f"(SELECT last_value FROM ps_version) >> {EPOCH_BITS}"
)
_SET_SQL = (
    f"INSERT INTO ps_meta (k, v) VALUES ('epoch', $1), ('timeline', {_TIMELINE_SQL}) "
    "ON CONFLICT (k) DO UPDATE SET v = excluded.v"
)
_LENT_SQL = (
    "SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped)"
)


class Moved(Unavailable):
    """The database writes another timeline than is noted: nothing was written."""

    def __init__(self) -> None:
        super().__init__(
            "another server has taken over, or a backup; nothing was written, and whoever has an architecture open, or "
            "`polystore epoch bump`, begins the next epoch"
        )


async def going_on(pool: Pool, work: Callable[[], Awaitable[R]]) -> R:
    """The work; when the database has moved, once more in the next epoch."""
    try:
        return await work()
    except Moved:
        await renew(pool)
        return await work()


async def note(pool: Pool) -> None:
    """Of a home that is opened: note its timeline, or go on after another one."""
    await pool.run(_NOTE_SQL)
    if not await pool.value(f"SELECT {SAME_SQL}"):
        await renew(pool)


_under_way: WeakKeyDictionary[Pool, asyncio.Task[int]] = WeakKeyDictionary()


async def renew(pool: Pool) -> int:
    """Begin the next epoch, unless somebody else has; returns the one that it is now. It goes on when a caller has no
    more time: with many records it takes longer than a call may."""
    task = _under_way.get(pool)
    if task is None or task.done():
        task = _under_way[pool] = asyncio.create_task(begin(pool), name="polystore epoch")
        task.add_done_callback(lambda one: None if one.cancelled() else one.exception())
    return await asyncio.shield(task)


async def begin(pool: Pool, *, always: bool = False) -> int:
    """Begin the next epoch. Unless `always`, only if the database has moved."""
    async with pool.transaction(name="epoch") as db:
        await db.run(_LOCK_SQL)
        same, noted, drawn = await db.row(_NOW_SQL)
        if same and not always:
            return int(max(1, noted))
        # Every commit reads the copies, and takes its snapshot after the lock on their table: those under way end
        # first, and those that wait find the new epoch.
        await db.run("LOCK TABLE ps_target IN ACCESS EXCLUSIVE MODE")
        number: int = max(noted, drawn, 1) + 1
        version = (number << EPOCH_BITS) + 1
        await db.value("SELECT setval('ps_version', $1)", version)
        await db.run(_SET_SQL, str(number))
        types = await _homes(db)
        homes = [etype for etype in types if await _renew(db, etype, version)]
        await db.run("UPDATE ps_tombstone SET version = $1 WHERE etype = ANY($2::text[])", version, types)
        await db.run(
            "UPDATE ps_target SET status = 'backfilling', cursor = NULL WHERE status <> 'off' AND etype = ANY($1)",
            homes,
        )
    log.warning("%s: epoch %d begins; the copies of %s are filled anew", pool.place, number, ", ".join(homes) or "none")
    return number


async def _homes(db: Session) -> list[str]:
    """The entity types that are at home here."""
    rows = await db.fetch("SELECT substr(k, 8), v FROM ps_meta WHERE k LIKE 'served:%' ORDER BY k")
    return [etype for etype, served in rows if load_served(served).home]


async def _renew(db: Session, etype: str, version: int) -> bool:
    """Give the records of a type a new version, if their content is here."""
    side, own = ident("ps_row", etype), ident(etype)
    table = side if await exists(db, side) else own
    lent = await db.value(_LENT_SQL, table, JOURNAL_BODY)
    # The home held the body at the version before.
    more = f", {JOURNAL_HELD} = NULL WHERE {JOURNAL_BODY} IS NOT NULL" if lent else ""
    await db.run(f"UPDATE {table} SET ps_version = $1{more}", version)
    return not lent
