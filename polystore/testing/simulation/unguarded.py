"""A store that writes whatever it is told, as ChromaDB does: its adapter reads the versions that stand, and then writes
what is newer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from polystore.model import STALE, Change, Outcome
from polystore.testing.simloop import current_process
from polystore.testing.simulation.network import SimRepository
from polystore.testing.simulation.servers import SimServer

R = TypeVar("R")
UNGUARDED = "vectors"
"""The copy that is such a store, in a seed that has one."""

BETWEEN_S = 0.1
"""Between reading and writing, on average."""


class UnguardedRepository(SimRepository):
    """One write at a time of this process. `home` knows who has the lease."""

    def __init__(self, home: SimServer, server: SimServer, *args: Any, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        self.limits = replace(self.limits, guarded=False, serial=True)
        self._home = home
        self._copy = server
        self._lane = asyncio.Lock()

    async def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        async with self._lane:
            standing = await self._call(self._copy.versions, [change.key for change in changes])
            await asyncio.sleep(self._env.random.expovariate(1 / BETWEEN_S))
            newer = [i for i, change in enumerate(changes) if change.replaces(standing[i])]
            told = await super().apply([changes[i] for i in newer]) if newer else []
        outcomes = dict(zip(newer, told, strict=True))
        return [outcomes.get(i, STALE) for i in range(len(changes))]

    async def _call(self, method: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        def told(*args: Any, **kwargs: Any) -> R:
            self._copy.late = self._late()
            try:
                return method(*args, **kwargs)
            finally:
                self._copy.late = ""

        told.__name__ = method.__name__
        return await super()._call(told, *args, **kwargs)

    def _late(self) -> str:
        """Why this request comes too late to be held off: its connection was lost before it arrived, or its sender was
        held up until its lease was over."""
        if current_process() is None:
            return "landed"
        worker = self._link.worker()
        return "over" if worker and not self._home.leased_to(f"copy:{UNGUARDED}", worker) else ""
