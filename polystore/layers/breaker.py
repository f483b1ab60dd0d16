"""No calls to a store that does not answer, until it does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from polystore.env import Env
from polystore.errors import CircuitOpen, OutcomeUnknown, Unavailable
from polystore.operations import Call, Operation

R = TypeVar("R")

FAILURES_IN_A_ROW = 5
WINDOW_S = 10
CALLS_MIN = 20
PROBE_S = 2.0


class Breaker:
    """Open after 5 transport errors (Unavailable, OutcomeUnknown) in a row, or when of at least 20 calls of the last
    10 s at least half failed so. While it is open every call raises CircuitOpen, and one `probe` at a time is sent,
    each random(0.5, 1) * 2 s after the last; the first that succeeds closes it.

    `on_change` functions are called with True (opened) and False (closed).
    """

    def __init__(self, env: Env, probe: Callable[[], Awaitable[object]]) -> None:
        self.open = False
        self.on_change: list[Callable[[bool], None]] = []
        self._clock = env.monotonic
        self._random = env.random
        self._probe = probe
        self._probing: asyncio.Task[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._in_a_row = 0
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=WINDOW_S)  # (second, calls, failures)
        self._second = self._calls = self._failures = 0

    async def call(self, operation: Operation[R], inner: Call) -> R:
        if self.open:
            raise CircuitOpen("it kept failing and is asked again in about a second", retry_after_s=PROBE_S)
        try:
            result = await inner(operation)
        except (Unavailable, OutcomeUnknown):
            self._count()
            self._failed()
            raise
        self._count()
        self._in_a_row = 0
        return result

    def _count(self) -> None:
        second = int(self._clock())
        if second != self._second:
            self._seconds.append((self._second, self._calls, self._failures))
            self._second, self._calls, self._failures = second, 0, 0
        self._calls += 1

    def _failed(self) -> None:
        self._failures += 1
        self._in_a_row += 1
        if not self.open and (self._in_a_row >= FAILURES_IN_A_ROW or self._half_failed()):
            self._probing = asyncio.get_running_loop().create_task(self._until_closed())
            self._change(True)

    def _half_failed(self) -> bool:
        recent = [one for one in self._seconds if one[0] > self._second - WINDOW_S]
        calls = self._calls + sum(one[1] for one in recent)
        failures = self._failures + sum(one[2] for one in recent)
        return calls >= CALLS_MIN and failures * 2 >= calls

    async def _until_closed(self) -> None:
        while self.open:
            await asyncio.sleep(self._random.uniform(0.5, 1) * PROBE_S)
            try:
                await self._probe()
            except Exception:  # noqa: BLE001 -- whatever it is, the store does not answer yet
                continue
            self._reset()
            self._change(False)

    def _change(self, opened: bool) -> None:
        self.open = opened
        for heard in self.on_change:
            heard(opened)

    async def aclose(self) -> None:
        """End the probing."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
