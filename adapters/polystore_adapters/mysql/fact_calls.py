"""The part of a MariaDB repository that is about facts: `SupportsTimeRange`, `SupportsLog`, `SupportsSpill`."""

from __future__ import annotations

from collections.abc import Sequence

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
from polystore.text import Phrase
from polystore_adapters.mysql import facts
from polystore_adapters.mysql.log import LogTables
from polystore_adapters.mysql.pool import Pool


class FactCalls:
    """Mixed into the repository."""

    _pool: Pool
    _logs: LogTables

    # -- points -----------------------------------------------------------------------------------------------

    async def append_points(self, points: Sequence[PointRow]) -> None:
        await facts.append(self._pool, points)

    async def points(self, series: Series, span: Span, limit: int, newest_first: bool) -> list[PointRow]:
        return await facts.points(self._pool, series, span, limit, newest_first)

    async def last_points(self, series: Sequence[Series], age_max_us: int | None) -> list[PointRow | None]:
        return await facts.last_points(self._pool, series, age_max_us)

    async def windows(
        self, series: Series, span: Span, windows: Windows, aggregate: Aggregate, limit: int
    ) -> list[tuple[int, PointValue]]:
        return await facts.windows(self._pool, series, span, windows, aggregate, limit)

    async def erase_points(self, key: Key, measures: Sequence[str]) -> None:
        await facts.erase(self._pool, key, measures)

    async def expire_points(self, etype: str, measure: str, age_max_us: int, limit: int) -> int:
        return await facts.expire(self._pool, etype, measure, age_max_us, limit)

    # -- lines ------------------------------------------------------------------------------------------------

    async def append_lines(self, etype: str, tenant: str, lines: Sequence[Line]) -> None:
        await self._logs[etype].append(self._pool, tenant, lines)

    async def lines(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        newest_first: bool,
    ) -> list[Line]:
        return await self._logs[etype].lines(self._pool, tenant, phrases, where, limit, newest_first)

    async def count_lines(self, etype: str, tenant: str, where: Checked | None) -> int:
        return await self._logs[etype].count(self._pool, tenant, where)

    async def expire_lines(self, etype: str, limit: int) -> int:
        return await self._logs[etype].expire(self._pool, limit)

    # -- for other stores -------------------------------------------------------------------------------------

    async def spill(self, spills: Sequence[Spill], bytes_max: int) -> None:
        await facts.spill(self._pool, spills, bytes_max)

    async def spilled(self, store: str, limit: int) -> list[SpillRow]:
        return await facts.spilled(self._pool, store, limit)

    async def unspill(self, numbers: Sequence[int]) -> None:
        await facts.unspill(self._pool, numbers)

    async def postpone(self, numbers: Sequence[int], delay_us: int, error: str, aside: bool) -> None:
        await facts.postpone(self._pool, numbers, delay_us, error, aside)

    async def spills(self) -> list[SpillCount]:
        return await facts.spills(self._pool)

    async def erasing(self, store: str, etype: str, tenant: str, ids: Sequence[str]) -> list[str]:
        return await facts.erasing(self._pool, store, etype, tenant, ids)
