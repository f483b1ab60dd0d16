"""The part of a SQLite repository that is about facts: `SupportsTimeRange`, `SupportsLog`, `SupportsSpill`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from polystore.env import Env
from polystore.errors import SchemaMismatch
from polystore.filters import Checked
from polystore.model import (
    Aggregate,
    Key,
    Line,
    PointRow,
    PointValue,
    Series,
    Span,
    Spill,
    SpillCount,
    SpillRow,
    Windows,
)
from polystore.protocols import Layout
from polystore.text import Phrase
from polystore_adapters.sqlite import facts
from polystore_adapters.sqlite.database import Database
from polystore_adapters.sqlite.log import LogTable, LogTables
from polystore_adapters.sqlite.prepare import compare, prepare


class FactCalls:
    """Mixed into the repository, which opens the file."""

    path: str
    _db: Database
    _env: Env
    _logs: LogTables

    async def _prepare_facts(self, layouts: Sequence[Layout], *, create: bool) -> None:
        """After the tables of the records. Raises SchemaMismatch."""
        logs = [LogTable(layout) for layout in layouts if layout.kind == "fact"]
        if create and await self._db.read(self._lacks, logs):
            await self._db.write_one(self._make, logs)
        elif not create:
            await self._db.read(self._compare, logs)
        self._logs.update({log.table.etype: log for log in logs})

    def _compare(self, db: sqlite3.Connection, logs: Sequence[LogTable]) -> None:
        compare(db, self.path, [log.table for log in logs])
        if facts.missing(db):
            raise SchemaMismatch(f"{self.path}: not prepared for facts; run `polystore init`")

    def _lacks(self, db: sqlite3.Connection, logs: Sequence[LogTable]) -> bool:
        try:
            self._compare(db, logs)
        except SchemaMismatch:
            return True
        return False

    def _make(self, db: sqlite3.Connection, logs: Sequence[LogTable]) -> None:
        prepare(db, self.path, [log.table for log in logs])
        for statement in facts.TABLES:
            db.execute(statement)
        for log in logs:
            log.prepare(db)

    # -- points -----------------------------------------------------------------------------------------------

    async def append_points(self, points: Sequence[PointRow]) -> None:
        await self._db.write_one(facts.append, points, "points")

    async def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        return await self._db.read(facts.points, series, span, limit, newest_first, self._env.now_us())

    async def last_points(self, series: Sequence[Series], age_max_us: int | None) -> list[PointRow | None]:
        return await self._db.read(facts.last_points, series, age_max_us, self._env.now_us())

    async def windows(
        self, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
    ) -> list[tuple[int, PointValue]]:
        return await self._db.read(facts.windows, series, span, windows, aggregate, limit, self._env.now_us())

    async def erase_points(self, key: Key, measures: Sequence[str]) -> None:
        await self._db.write_one(lambda db, one: facts.erase(db, one, measures), key, "erase")

    async def expire_points(self, etype: str, measure: str, age_max_us: int, limit: int) -> int:
        before_us = self._env.now_us() - age_max_us
        return await self._db.write_one(lambda db, _: facts.expire(db, etype, measure, before_us, limit), None)

    # -- lines ------------------------------------------------------------------------------------------------

    async def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> None:
        log = self._logs[etype]
        await self._db.write_one(lambda db, new: log.append(db, tenant, new), lines, "lines")

    async def lines(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        now_us, log = self._env.now_us(), self._logs[etype]
        return await self._db.read(log.lines, tenant, phrases, where, limit, newest_first, now_us)

    async def count_lines(self, etype: str, tenant: str, where: Checked | None) -> int:
        return await self._db.read(self._logs[etype].count, tenant, where, self._env.now_us())

    async def expire_lines(self, etype: str, limit: int) -> int:
        now_us, log = self._env.now_us(), self._logs[etype]
        return await self._db.write_one(lambda db, _: log.expire(db, limit, now_us), None)

    # -- for other stores -------------------------------------------------------------------------------------

    async def spill(self, spills: Sequence[Spill], bytes_max: int) -> None:
        now_us = self._env.now_us()
        await self._db.write_one(lambda db, new: facts.spill(db, new, bytes_max, now_us), spills, "spill")

    async def spilled(self, store: str, limit: int) -> list[SpillRow]:
        now_us = self._env.now_us()
        if not await self._db.read(facts.takeable, store, limit, now_us):  # looking costs other writers nothing
            return []
        return await self._db.write_one(lambda db, _: facts.spilled(db, store, limit, now_us), None, durable=False)

    async def unspill(self, numbers: Sequence[int]) -> None:
        await self._db.write_one(facts.unspill, numbers, "unspill")

    async def postpone(self, numbers: Sequence[int], delay_us: int, error: str, aside: bool) -> None:
        until_us = self._env.now_us() + delay_us
        await self._db.write_one(
            lambda db, these: facts.postpone(db, these, until_us, error, aside), numbers, durable=False
        )

    async def spills(self) -> list[SpillCount]:
        return await self._db.read(facts.spills)

    async def erasing(self, store: str, etype: str, tenant: str, ids: Sequence[str]) -> list[str]:
        return await self._db.read(facts.erasing, store, etype, tenant, ids)
