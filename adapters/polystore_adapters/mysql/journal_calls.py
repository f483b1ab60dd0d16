"""The verbs of commits and of the journal, as the repository has them."""

from __future__ import annotations

from collections.abc import Sequence

from polystore.env import Env
from polystore.model import (
    Backlog,
    Commit,
    Committed,
    Key,
    OutboxRow,
    RetryRow,
    Settlement,
    StoredVector,
    TargetRow,
)
from polystore_adapters.mysql import claims, commit, journal
from polystore_adapters.mysql.pool import Pool
from polystore_adapters.mysql.records import Tables


class JournalCalls:
    """Part of `MysqlRepository`."""

    _pool: Pool
    _env: Env
    _tables: Tables

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        return await commit.run(self._pool, self._tables, commits)

    async def beat(self, worker: str) -> frozenset[str]:
        return await journal.beat(self._pool, worker)

    async def retire(self, worker: str) -> None:
        await journal.retire(self._pool, worker)

    async def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        return await journal.claim(self._pool, worker, live, etypes, limit, self._env)

    async def claimed(self, worker: str, older_than_us: int, limit: int) -> list[OutboxRow]:
        return await journal.claimed(self._pool, worker, older_than_us, limit)

    async def settle(self, settlement: Settlement) -> None:
        await journal.settle(self._pool, settlement, self._env)

    async def due(self, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
        return await journal.due(self._pool, target, etypes, now_us, limit)

    async def awaken(self, target: str, keys: Sequence[Key] | None, within_us: int) -> int:
        return await journal.awaken(self._pool, target, keys, within_us)

    async def pending(self, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
        return await journal.pending(self._pool, etype, target, pairs)

    async def parked(self, target: str | None, cursor: str | None, limit: int) -> tuple[list[RetryRow], str | None]:
        return await journal.parked(self._pool, target, cursor, limit)

    async def redrive(self, target: str | None, keys: Sequence[Key] | None) -> int:
        return await journal.redrive(self._pool, target, keys)

    async def drop(self, target: str | None, keys: Sequence[Key] | None) -> int:
        return await journal.drop(self._pool, target, keys)

    async def backlog(self) -> Backlog:
        return await journal.backlog(self._pool)

    async def placements(self) -> dict[str, str]:
        return await journal.placements(self._pool)

    async def remember(self, etype: str, placement: str) -> None:
        await journal.remember(self._pool, etype, placement)

    async def targets(self) -> list[TargetRow]:
        return await journal.targets(self._pool)

    async def set_target(self, row: TargetRow, was: TargetRow | None = None) -> None:
        await journal.set_target(self._pool, row, was)

    async def backfill(self, row: TargetRow, limit: int) -> TargetRow:
        return await journal.backfill(self._pool, self._tables, row, limit)

    async def mark(self, name: str) -> str | None:
        return await journal.mark(self._pool, name)

    async def vectors(self, keys: Sequence[Key]) -> list[StoredVector]:
        return await journal.vectors(self._pool, keys)

    async def put_vectors(self, vectors: Sequence[StoredVector]) -> None:
        await journal.put_vectors(self._pool, self._tables, vectors)

    async def expired(self, etypes: Sequence[str], limit: int) -> list[Key]:
        return await journal.expired(self._pool, self._tables, etypes, limit)

    async def forget_vectors(self, etype: str, but_of: Sequence[str], limit: int) -> int:
        return await journal.forget_vectors(self._pool, etype, but_of, limit)

    async def condemn(self, keys: Sequence[str], released_us: int, only_ask: bool) -> list[bool]:
        return await claims.condemn(self._pool, keys, released_us, only_ask=only_ask)

    async def purge(self, now_us: int, tombstone_ttl_us: int) -> int:
        return await journal.purge(self._pool, now_us, tombstone_ttl_us)
