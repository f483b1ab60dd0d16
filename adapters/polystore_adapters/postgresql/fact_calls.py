"""The part of a PostgreSQL repository that is about facts: `SupportsTimeRange`, `SupportsLog`, `SupportsSpill`."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.model import PointRow
from polystore.relational.calls import LogCalls, of_pool
from polystore_adapters.postgresql import facts
from polystore_adapters.postgresql.log import LogTables
from polystore_adapters.postgresql.partitions import Partitions
from polystore_adapters.postgresql.pool import Pool


class FactCalls(LogCalls[Pool, LogTables]):
    """Mixed into the repository."""

    _partitions: Partitions

    async def append_points(self, points: Sequence[PointRow]) -> None:
        await facts.append(self._pool, points, self._partitions)

    async def expire_points(self, etype: str, measure: str, age_max_us: int, limit: int) -> int:
        return await facts.expire(self._pool, etype, measure, age_max_us, limit, self._partitions)

    points = of_pool(facts.points)
    last_points = of_pool(facts.last_points)
    windows = of_pool(facts.windows)
    erase_points = of_pool(facts.erase)

    # For other stores.
    spill = of_pool(facts.spill)
    spilled = of_pool(facts.spilled)
    unspill = of_pool(facts.unspill)
    postpone = of_pool(facts.postpone)
    spills = of_pool(facts.spills)
    erasing = of_pool(facts.erasing)
