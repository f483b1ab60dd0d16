"""Connections to one database: bounded, the last one used first, so that few are warm and the others can rest; those
who wait have one in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from polystore.errors import Unavailable

C = TypeVar("C")


class Connections(Generic[C]):
    """Used from one event loop. `connect` makes one; `close` ends one at once, whatever it does; `alive` tells whether
    one that rested can still be used."""

    def __init__(
        self,
        place: str,
        size: int,
        connect: Callable[[], Awaitable[C]],
        close: Callable[[C], None],
        alive: Callable[[C], bool],
    ) -> None:
        self.place = place
        self._size = size
        self._connect = connect
        self._close = close
        self._alive = alive
        self._idle: list[C] = []
        self._out: set[C] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[C | None]] = deque()
        self.closed = False

    @property
    def checked_out(self) -> int:
        """Connections that are in use now, or being made."""
        return len(self._out) + self._connecting

    def check(self) -> None:
        """Raises Unavailable after `end`."""
        if self.closed:
            raise Unavailable(f"{self.place}: closed; connect again")

    def rested(self) -> C | None:
        """A connection for the caller alone; None: it has to be made or waited for, see `take`."""
        while self._idle:
            connection = self._idle.pop()
            if self._alive(connection):
                self._out.add(connection)
                return connection
            self._close(connection)
        return None

    async def take(self) -> C:
        """A connection for the caller alone; waits while all are in use. Raises Unavailable after `end`."""
        enqueue = self._waiting.append
        while True:
            self.check()
            if (connection := self.rested()) is not None:
                return connection
            if self.checked_out < self._size:
                return await self._new()
            waiter: asyncio.Future[C | None] = asyncio.get_running_loop().create_future()
            enqueue(waiter)
            try:
                connection = await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():
                    self._next(waiter.result())  # our turn came: it is the next one's
                raise
            self.check()
            if connection is not None:
                return connection
            enqueue = self._waiting.appendleft  # there was room for a new one, which another has taken meanwhile

    async def _new(self) -> C:
        self._connecting += 1
        try:
            connection = await self._connect()
        except BaseException:
            self._hand(None)
            raise
        finally:
            self._connecting -= 1
        if self.closed:
            self._close(connection)
            self.check()
        self._out.add(connection)
        return connection

    def give(self, connection: C) -> None:
        """Back to those that rest, or right to the one who has waited longest: who gives a connection back and takes
        one at once would leave none to those who wait."""
        if self.closed or not self._alive(connection):
            self.drop(connection)
        elif not self._hand(connection):
            self._out.discard(connection)
            self._idle.append(connection)

    def drop(self, connection: C) -> None:
        """Back, but of no use any more."""
        self._out.discard(connection)
        self._close(connection)
        self._hand(None)

    def drop_idle(self) -> None:
        """A server that restarts ends them all: those that rest are not trusted either."""
        idle, self._idle = self._idle, []
        for connection in idle:
            self._close(connection)

    def end(self) -> list[C]:
        """No more connections; those in use are closed under their callers. Returns those that rested, for the
        caller to close in good order. Idempotent."""
        self.closed = True
        idle, self._idle = self._idle, []
        for connection in list(self._out):
            self.drop(connection)
        while self._hand(None):
            pass
        return idle

    def _next(self, connection: C | None) -> None:
        """What was for one who does not want it any more."""
        if connection is None:
            self._hand(None)
        else:
            self.give(connection)

    def _hand(self, connection: C | None) -> bool:
        """Wake the one who has waited longest, with this connection, or since there is room for a new one. Returns
        whether anybody waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False
