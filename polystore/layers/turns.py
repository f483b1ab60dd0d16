"""One call of `apply` at a time, and in it all that came while the one before ran."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

from polystore.errors import PolystoreError
from polystore.layers.sizing import Sizing
from polystore.layers.together import own
from polystore.model import Change, Outcome
from polystore.operations import Call, Operation
from polystore.protocols import Repository

R = TypeVar("R")
_Asked = tuple[Operation[Any], asyncio.Future[list[Outcome]]]


class Turns:
    """For a store that carries out one write at a time: thirty small calls that wait for one another would each take a
    turn of thirty, here they travel together, as many changes as the store takes unless a call alone has more. Whoever
    is cancelled leaves the others, and what was sent, as they are. An outage is told to all that wait; where a call
    fails for another reason its parts go one by one.
    """

    def __init__(self, sizing: Sizing) -> None:
        self._sizing = sizing
        self._waiting: list[_Asked] = []
        self._running: asyncio.Task[None] | None = None

    async def call(self, operation: Operation[R], inner: Call) -> R:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, answer))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(inner))
        result: R = await answer
        return result

    async def drain(self) -> None:
        """Wait for what is under way."""
        if self._running is not None:
            await asyncio.wait((self._running,))

    async def _run(self, inner: Call) -> None:
        while self._waiting:
            together = self._next()
            try:
                outage = await self._answer([one for one in together if not one[1].done()], inner)
            except BaseException:  # cancelled, by the loop that ends or by the driver: nobody would answer them
                for _, answer in (*together, *self._waiting):
                    answer.cancel()
                self._waiting.clear()
                raise
            if outage is not None:
                for _, answer in self._waiting:
                    if not answer.done():
                        answer.set_exception(own(outage))
                self._waiting.clear()

    def _next(self) -> list[_Asked]:
        together = [self._waiting.pop(0)]
        size = len(_changes(together[0]))
        while self._waiting and size + len(_changes(self._waiting[0])) <= self._sizing.most:
            together.append(self._waiting.pop(0))
            size += len(_changes(together[-1]))
        return together

    async def _answer(self, together: Sequence[_Asked], inner: Call) -> PolystoreError | None:
        """Carry them out as one; returns the outage that ended it."""
        if not together:
            return None
        changes = [change for one in together for change in _changes(one)]
        operation: Operation[list[Outcome]] = Operation("apply", (changes,), Repository)
        try:
            outcomes = await inner(operation)
        except Exception as error:  # noqa: BLE001 -- it is raised where the calls were made
            outage = error if isinstance(error, PolystoreError) and error.retryable else None
            if outage is None and len(together) > 1:
                for i, one in enumerate(together):
                    if outage := await self._answer([one], inner):
                        self._waiting[:0] = together[i + 1 :]
                        return outage
                return None
            for _, answer in together:
                if not answer.done():
                    answer.set_exception(own(error) if len(together) > 1 else error)
            return outage
        for one in together:
            mine, outcomes = outcomes[: len(_changes(one))], outcomes[len(_changes(one)) :]
            if not one[1].done():
                one[1].set_result(mine)
        return None


def _changes(asked: _Asked) -> Sequence[Change]:
    changes: Sequence[Change] = asked[0].args[0]
    return changes
