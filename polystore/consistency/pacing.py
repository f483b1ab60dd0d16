"""Imports go as fast as the copies that answer, not faster."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polystore.consistency.line import Line


SIZE_MIN, SIZE_MAX = 50, 500
"""Records of a part."""


class Pacing:
    """Of all imports into one home together, which ask before each of their parts.

    So many parts are let through at a time as the copies take in `import_lag_s`: one more when one was delivered in
    half of that, half as many, or half as large ones, when it took longer (Chiu and Jain, "Analysis of the increase and
    decrease algorithms", 1989), and none while a copy catches up, to which more would only come by the long way, as
    retry rows. One that is down, or being filled, is not waited for.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._parts: deque[tuple[int, float]] = deque()
        """The newest version in hand when a part had been committed, and when that was."""
        self._parts_max = 1
        self._size = SIZE_MAX

    async def room(self) -> int | None:
        """Wait until an import may go on with its next part. How many records the one after it should have; None: no
        copy keeps it from having more."""
        line = self._line
        if line.in_hand:
            self._parts.append((next(reversed(line.in_hand)), line.context.env.monotonic()))
        else:
            self._size = min(SIZE_MAX, 2 * self._size)
        while self._full():
            await line.room()
        return self._size if line.in_hand or self._size < SIZE_MAX else None

    def _full(self) -> bool:
        line, settings = self._line, self._line.context.settings
        if self._catching_up():
            self._parts_max = 0
            return True
        while self._parts and self._parts[0][0] not in line.in_hand:
            _, since = self._parts.popleft()
            self._learn(line.context.env.monotonic() - since, settings.import_lag_s)
        return len(self._parts) > self._parts_max or line.free() < settings.queue_max // 2

    def _learn(self, took_s: float, most_s: float) -> None:
        if took_s < most_s / 2 and self._size < SIZE_MAX:
            self._size = min(SIZE_MAX, 2 * self._size)
        elif took_s < most_s / 2:
            self._parts_max += 1
        elif self._parts_max:
            self._parts_max //= 2
        elif took_s > most_s:
            self._size = max(SIZE_MIN, self._size // 2)

    def _catching_up(self) -> bool:
        """Whether a copy that answers is at work on what it was left with, or brought what it is owed."""
        line = self._line
        filling = {row.name for row in line.targets.rows() if row.status == "backfilling"}
        names = (line.delivery.left_behind() | line.retries.busy) - filling
        stores = map(line.context.stores.get, names)
        return any(store is not None and not store.breaker.open for store in stores)
