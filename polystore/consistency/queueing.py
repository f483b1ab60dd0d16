"""The fast path: what was just committed goes to the lanes of its home without a look into the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from polystore.consistency.line import Line
from polystore.consistency.tasks import SyncTask


class Queue:
    """It stands above durable rows: losing it loses nothing."""

    def __init__(self, most: int) -> None:
        self._tasks: asyncio.Queue[SyncTask] = asyncio.Queue(most)
        self._dispatcher: asyncio.Task[None] | None = None

    def put(self, task: SyncTask) -> bool:
        """False when it is full: the relay of the home comes upon the row then."""
        try:
            self._tasks.put_nowait(task)
        except asyncio.QueueFull:
            return False
        return True

    def start(self, lines: Mapping[str, Line]) -> None:
        self._dispatcher = asyncio.create_task(self._dispatch(lines))

    async def stop(self) -> None:
        """Idempotent."""
        if self._dispatcher is not None:
            self._dispatcher.cancel()
            await asyncio.gather(self._dispatcher, return_exceptions=True)
            self._dispatcher = None

    async def _dispatch(self, lines: Mapping[str, Line]) -> None:
        while True:
            task = await self._tasks.get()
            while True:
                lines[task.home].lanes.put(task)
                try:
                    task = self._tasks.get_nowait()
                except asyncio.QueueEmpty:
                    break
