"""One connection to a memory server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ClassVar, ParamSpec, TypeVar

from polystore.env import Env
from polystore.errors import Unavailable
from polystore.filters import Checked, Sort
from polystore.model import (
    Backlog,
    Change,
    Commit,
    Committed,
    Direction,
    HashSpan,
    Instance,
    Key,
    Limits,
    Link,
    Match,
    OutboxRow,
    Outcome,
    Page,
    Reached,
    Record,
    RetryRow,
    Settlement,
    StoredVector,
    TargetRow,
)
from polystore.protocols import (
    Layout,
    SupportsCache,
    SupportsCommit,
    SupportsCounts,
    SupportsEpoch,
    SupportsFileClaims,
    SupportsFilter,
    SupportsInlineCache,
    SupportsInlineGet,
    SupportsJournal,
    SupportsKeptBodies,
    SupportsLog,
    SupportsObjects,
    SupportsRebuild,
    SupportsSchema,
    SupportsSpill,
    SupportsState,
    SupportsTextSearch,
    SupportsTimeRange,
    SupportsTraversal,
    SupportsVectorSearch,
)
from polystore.text import Phrase

from .cache_calls import CacheCalls
from .facts import FactCalls
from .object_calls import ObjectCalls
from .objects import PART_BYTES
from .server import MemoryServer
from .state import StateCalls

P = ParamSpec("P")
R = TypeVar("R")


class MemoryRepository(CacheCalls, FactCalls, ObjectCalls, StateCalls):
    """The server's operations as an application meets them: later, and perhaps not at all.

    Each call gives way to others before and after the server works, as a call over a network does, and passes the
    crashpoints `memory.<verb>.before` and `memory.<verb>.after` there.
    """

    capabilities: frozenset[type] = frozenset(
        {
            SupportsSchema,
            SupportsRebuild,
            SupportsCommit,
            SupportsEpoch,
            SupportsJournal,
            SupportsInlineGet,
            SupportsFilter,
            SupportsTextSearch,
            SupportsVectorSearch,
            SupportsTraversal,
            SupportsState,
            SupportsCache,
            SupportsInlineCache,
            SupportsObjects,
            SupportsFileClaims,
            SupportsTimeRange,
            SupportsLog,
            SupportsCounts,
            SupportsSpill,
            SupportsKeptBodies,
        }
    )
    limits: Limits = Limits(ack_durable=False, shared=False, part_bytes=PART_BYTES)
    metrics: ClassVar[frozenset[str]] = frozenset({"cosine", "l2", "ip"})

    def __init__(self, server: MemoryServer, env: Env) -> None:
        self.server = server
        self._env = env
        self._closed = False

    async def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        verb = method.__name__
        self._check_open()
        self._env.crashpoint(f"memory.{verb}.before")
        await asyncio.sleep(0)
        self._check_open()
        result = method(*args, **kwargs)
        self._env.crashpoint(f"memory.{verb}.after")
        await asyncio.sleep(0)
        return result

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the connection is closed")

    async def aclose(self) -> None:
        self._closed = True
        self.server.hub.end(self)

    async def ping(self) -> Instance:
        return await self._call(self.server.ping)

    async def prepare(self, layouts: Sequence[Layout], *, create: bool) -> None:
        await self._call(self.server.prepare, layouts, create=create)

    async def clear(self, etype: str) -> None:
        await self._call(self.server.clear, etype)

    # -- records ----------------------------------------------------------------------------------------------

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return await self._call(self.server.get, keys)

    def get_now(self, key: Key) -> Record | None:
        self._check_open()
        return self.server.get_now(key)

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        return await self._call(self.server.apply, changes)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        return await self._call(self.server.scan, etype, tenant, span, cursor, limit)

    async def tenants(self, etype: str) -> list[str]:
        return await self._call(self.server.tenants, etype)

    async def newest(self, etype: str) -> int:
        return await self._call(self.server.newest, etype)

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Exception]:
        return await self._call(self.server.commit, commits)

    # -- queries ----------------------------------------------------------------------------------------------

    async def find(
        self, etype: str, tenant: str, where: Checked | None, order: Sequence[Sort], limit: int
    ) -> list[Record]:
        return await self._call(self.server.find, etype, tenant, where, order, limit)

    async def count(self, etype: str, tenant: str, where: Checked | None) -> int:
        return await self._call(self.server.count, etype, tenant, where)

    async def search(
        self,
        etype: str,
        tenant: str,
        phrases: Sequence[Phrase],
        where: Checked | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Match]:
        return await self._call(self.server.search, etype, tenant, phrases, where, limit, after)

    async def similar(
        self, etype: str, tenant: str, field: str, vector: bytes, where: Checked | None, limit: int
    ) -> list[Match]:
        return await self._call(self.server.similar, etype, tenant, field, vector, where, limit)

    async def traverse(
        self,
        etype: str,
        tenant: str,
        id: str,
        types: Sequence[str],
        direction: Direction,
        depth: int,
        where: Checked | None,
        limit: int,
    ) -> list[Reached]:
        return await self._call(self.server.traverse, etype, tenant, id, types, direction, depth, where, limit)

    async def paths(
        self,
        start: Key,
        end: Key,
        types: Sequence[str],
        direction: Direction,
        depth_max: int,
        where: Checked | None,
        limit: int,
    ) -> list[list[Link]]:
        return await self._call(self.server.paths, start, end, types, direction, depth_max, where, limit)

    # -- journal ----------------------------------------------------------------------------------------------

    async def bump_epoch(self) -> int:
        return await self._call(self.server.bump_epoch)

    async def beat(self, worker: str) -> frozenset[str]:
        return await self._call(self.server.beat, worker)

    async def retire(self, worker: str) -> None:
        await self._call(self.server.retire, worker)

    async def hold_lease(self, name: str, worker: str, ttl_s: float) -> bool:
        return await self._call(self.server.hold_lease, name, worker, ttl_s)

    async def claim(self, worker: str, live: frozenset[str], etypes: Sequence[str], limit: int) -> list[OutboxRow]:
        return await self._call(self.server.claim, worker, live, etypes, limit)

    async def claimed(self, worker: str, older_than_us: int, limit: int) -> list[OutboxRow]:
        return await self._call(self.server.claimed, worker, older_than_us, limit)

    async def settle(self, settlement: Settlement) -> None:
        await self._call(self.server.settle, settlement)

    async def due(self, target: str, etypes: Sequence[str], now_us: int, limit: int) -> list[RetryRow]:
        return await self._call(self.server.due, target, etypes, now_us, limit)

    async def awaken(self, target: str, keys: Sequence[Key] | None, within_us: int) -> int:
        return await self._call(self.server.awaken, target, keys, within_us)

    async def pending(self, etype: str, target: str, pairs: Sequence[tuple[int, int]]) -> bool:
        return await self._call(self.server.pending, etype, target, pairs)

    async def parked(self, target: str | None, cursor: str | None, limit: int) -> tuple[list[RetryRow], str | None]:
        return await self._call(self.server.parked, target, cursor, limit)

    async def redrive(self, target: str | None, keys: Sequence[Key] | None) -> int:
        return await self._call(self.server.redrive, target, keys)

    async def drop(self, target: str | None, keys: Sequence[Key] | None) -> int:
        return await self._call(self.server.drop, target, keys)

    async def backlog(self) -> Backlog:
        return await self._call(self.server.backlog)

    async def placements(self) -> dict[str, str]:
        return await self._call(self.server.placements)

    async def remember(self, etype: str, placement: str, was: str | None = None) -> bool:
        return await self._call(self.server.remember, etype, placement, was)

    async def targets(self) -> list[TargetRow]:
        return await self._call(self.server.targets)

    async def set_target(self, row: TargetRow, was: TargetRow | None = None) -> None:
        await self._call(self.server.set_target, row, was)

    async def written_since(self, etype: str, version: int, limit: int) -> list[OutboxRow]:
        return await self._call(self.server.written_since, etype, version, limit)

    async def backfill(self, row: TargetRow, limit: int) -> TargetRow:
        return await self._call(self.server.backfill, row, limit)

    async def mark(self, name: str) -> str | None:
        return await self._call(self.server.mark, name)

    async def vectors(self, keys: Sequence[Key]) -> list[StoredVector]:
        return await self._call(self.server.vectors, keys)

    async def put_vectors(self, vectors: Sequence[StoredVector]) -> None:
        await self._call(self.server.put_vectors, vectors)

    async def expired(self, etypes: Sequence[str], limit: int) -> list[Key]:
        return await self._call(self.server.expired_keys, etypes, limit)

    async def forget_vectors(self, etype: str, but_of: Sequence[str], limit: int) -> int:
        return await self._call(self.server.forget_vectors, etype, but_of, limit)

    async def release(self, etype: str, age_us: int, limit: int) -> int:
        return await self._call(self.server.release, etype, age_us, limit)

    async def purge(self, now_us: int, tombstone_ttl_us: int) -> int:
        return await self._call(self.server.purge, now_us, tombstone_ttl_us)
