"""Imports go as fast as the copies that answer, not faster."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polystore.consistency.line import Line


class Pacing:
    """Of all imports into one home together, which ask before each of their parts.

    One part more is let through at a time when one was delivered in half of `import_lag_s`, half as many when one took
    longer: Chiu and Jain, "Analysis of the increase and decrease algorithms", 1989.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._parts: deque[tuple[int, float]] = deque()
        """The newest version in hand when a part began, and when that was."""
        self._parts_max = 2

    async def room(self) -> None:
        """Wait until half of the queue is free, the copies are not more than about `import_lag_s` late, and none that
        answers was left behind: more would only come to it by the long way, as retry rows."""
        line = self._line
        while self._full() or self._late():
            await line.room()
        if line.in_hand:
            self._parts.append((next(reversed(line.in_hand)), line.context.env.monotonic()))

    def _full(self) -> bool:
        line = self._line
        return len(line.in_hand) + line.reserved > line.context.settings.queue_max // 2

    def _late(self) -> bool:
        line = self._line
        now, half_s = line.context.env.monotonic(), line.context.settings.import_lag_s / 2
        while self._parts and self._parts[0][0] not in line.in_hand:
            _, since = self._parts.popleft()
            self._parts_max = self._parts_max + 1 if now - since < half_s else max(1, self._parts_max // 2)
        behind = line.delivery.left_behind()
        if behind:
            self._parts_max = 1
        return behind or len(self._parts) >= self._parts_max
