"""One deadline for an operation, retries included."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from polystore.errors import OutcomeUnknown, StoreTimeout
from polystore.operations import Call, Operation

R = TypeVar("R")


class Timeout:
    """Cancel a call that has not ended after `timeout_s`.

    It then raises StoreTimeout, or OutcomeUnknown when repeating the operation could do something twice. A cancellation
    by the caller stays one. All calls have the same time, so their deadlines pass in the order of the calls: one timer
    for the oldest serves all. That costs a fifth of `asyncio.timeout`, which sets and cancels one for each call.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._deadlines: dict[asyncio.Task[Any], float | None] = {}  # None: cancelled by us
        self._timer: asyncio.TimerHandle | None = None

    async def call(self, operation: Operation[R], inner: Call) -> R:
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        loop = task.get_loop()
        deadline = self._deadlines[task] = loop.time() + self.timeout_s
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        try:
            return await inner(operation)
        except asyncio.CancelledError as e:
            # One cancellation since the start is ours; with another, the caller's own, it stays a cancellation.
            if self._deadlines[task] is None and task.cancelling() == before + 1:
                raise self._error(operation) from e
            raise
        finally:
            if self._deadlines.pop(task) is None:
                task.uncancel()

    def _expire(self) -> None:
        """Cancel what is overdue and set the timer for the next; no timer when nothing waits."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for task, deadline in self._deadlines.items():
            if deadline is None:
                continue
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._expire)
                return
            self._deadlines[task] = None
            task.cancel()

    def _error(self, operation: Operation[Any]) -> StoreTimeout | OutcomeUnknown:
        text = f"no answer within {self.timeout_s:g} s"
        if operation.idempotent:
            return StoreTimeout(f"{text}; try again")
        again = ", or call again with the same op_id" if operation.verb == "commit" else " before doing it again"
        return OutcomeUnknown(f"{text}: carried out or not; look{again}")

    def close(self) -> None:
        """Forget the timer; calls under way end without a deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
