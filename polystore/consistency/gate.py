"""Work that many do at once, and work that must be alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Gate:
    """Any number pass at the same time; who wants to be alone holds newcomers off and waits until all are through."""

    def __init__(self) -> None:
        self.closed = False
        self._inside = 0
        self._changed = asyncio.Event()

    async def enter(self) -> None:
        while self.closed:
            await self.changed()
        self._inside += 1

    def leave(self) -> None:
        self._inside -= 1
        self._changed.set()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        while self.closed:
            await self.changed()
        self.closed = True
        try:
            while self._inside:
                await self.changed()
            yield
        finally:
            self.closed = False
            self._changed.set()

    async def changed(self) -> None:
        """Return when somebody has left, or the gate has opened."""
        self._changed.clear()
        await self._changed.wait()
