"""Lanes: changes of one record are delivered one after the other, of different records side by side."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from polystore.consistency.settings import Settings
from polystore.consistency.tasks import SyncTask

Deliver = Callable[[Sequence[SyncTask]], Awaitable[None]]


class Lanes:
    """`h % lanes` picks a record's lane. A lane takes what is there: a single change at low load, full batches at high
    load, without ever waiting for a batch to fill."""

    def __init__(self, deliver: Deliver, settled: Callable[[SyncTask], None], settings: Settings) -> None:
        self._deliver = deliver
        self._settled = settled
        self._batch_max = settings.batch_max
        self._waiting: list[deque[SyncTask]] = [deque() for _ in range(settings.lanes)]
        self._wake = [asyncio.Event() for _ in range(settings.lanes)]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(i)) for i in range(len(self._waiting))]

    def put(self, task: SyncTask) -> None:
        lane = task.change.h % len(self._waiting)
        self._waiting[lane].append(task)
        self._wake[lane].set()

    async def _run(self, lane: int) -> None:
        waiting, wake = self._waiting[lane], self._wake[lane]
        while True:
            await wake.wait()
            wake.clear()
            while waiting:
                batch = self._take(waiting)
                try:
                    await self._deliver(batch)
                finally:
                    for task in batch:
                        self._settled(task)

    def _take(self, waiting: deque[SyncTask]) -> list[SyncTask]:
        """The next batch; a record whose earlier owners died with it goes alone."""
        batch = [waiting.popleft()]
        while waiting and len(batch) < self._batch_max and not batch[0].solo and not waiting[0].solo:
            batch.append(waiting.popleft())
        return batch

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
