"""The verbs of commits and of the journal, as the repository has them."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.env import Env
from polystore.model import Commit, Committed, OutboxRow, Settlement, StoredVector
from polystore.relational.calls import of_pool, of_tables
from polystore_adapters.mysql import bodies, claims, commit, epoch, journal, workers
from polystore_adapters.mysql.pool import Pool
from polystore_adapters.mysql.records import Tables


class JournalCalls:
    """Part of `MysqlRepository`."""

    _pool: Pool
    _env: Env
    _tables: Tables

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        return await commit.run(self._pool, self._tables, commits)

    async def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        return await journal.claim(self._pool, worker, live, etypes, limit, self._env)

    async def settle(self, settlement: Settlement) -> None:
        await journal.settle(self._pool, self._tables, settlement, self._env)

    async def put_vectors(self, vectors: Sequence[StoredVector]) -> None:
        await journal.put_vectors(self._pool, self._tables, vectors)

    async def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        return await claims.condemn(self._pool, keys, released_us, only_ask=only_ask)

    bump_epoch = of_pool(epoch.begin)
    beat = of_pool(workers.beat)
    retire = of_pool(workers.retire)
    hold_lease = of_pool(workers.hold_lease)
    claimed = of_pool(journal.claimed)
    due = of_pool(journal.due)
    awaken = of_pool(journal.awaken)
    pending = of_pool(journal.pending)
    parked = of_pool(journal.parked)
    redrive = of_pool(journal.redrive)
    drop = of_pool(journal.drop)
    backlog = of_pool(journal.backlog)
    placements = of_pool(journal.placements)
    remember = of_pool(journal.remember)
    targets = of_pool(journal.targets)
    set_target = of_pool(journal.set_target)
    backfill = of_tables(journal.backfill)
    written_since = of_tables(journal.written_since)
    mark = of_pool(journal.mark)
    vectors = of_pool(journal.vectors)
    forget_vectors = of_pool(journal.forget_vectors)
    expired = of_tables(journal.expired)
    release = of_tables(bodies.release)
    purge = of_pool(journal.purge)
