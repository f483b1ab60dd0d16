"""The part of a MariaDB repository that is about facts: `SupportsTimeRange`, `SupportsLog`, `SupportsSpill`."""

from __future__ import annotations

from polystore.relational.calls import LogCalls, of_pool
from polystore_adapters.mysql import facts
from polystore_adapters.mysql.log import LogTables
from polystore_adapters.mysql.pool import Pool


class FactCalls(LogCalls[Pool, LogTables]):
    """Mixed into the repository."""

    append_points = of_pool(facts.append)
    points = of_pool(facts.points)
    last_points = of_pool(facts.last_points)
    windows = of_pool(facts.windows)
    erase_points = of_pool(facts.erase)
    expire_points = of_pool(facts.expire)

    # For other stores.
    spill = of_pool(facts.spill)
    spilled = of_pool(facts.spilled)
    unspill = of_pool(facts.unspill)
    postpone = of_pool(facts.postpone)
    spills = of_pool(facts.spills)
    erasing = of_pool(facts.erasing)
