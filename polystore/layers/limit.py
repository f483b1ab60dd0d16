"""How many calls one store gets at the same time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar

from polystore.errors import Backpressure
from polystore.operations import Call, Operation

R = TypeVar("R")


class Limit:
    """At most `calls_max` calls run, at most `waiting_max` wait, first come first served; one more is Backpressure."""

    def __init__(self, store: str, calls_max: int, waiting_max: int) -> None:
        self._store = store
        self._free = calls_max
        self._waiting_max = waiting_max
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def call(self, operation: Operation[R], inner: Call) -> R:
        if self._free:
            self._free -= 1
        else:
            await self._turn(operation.verb)
        try:
            return await inner(operation)
        finally:
            self._leave()

    async def _turn(self, verb: str) -> None:
        if len(self._waiting) >= self._waiting_max:
            raise Backpressure(f"{self._store} {verb}: {self._waiting_max} calls wait already; try again later")
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._leave()  # cancelled in the moment in which its turn came
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def _leave(self) -> None:
        """Hand the place to the next in line, if any."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
