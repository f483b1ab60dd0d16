"""Calls of one loop tick travel as one: what makes many small reads and writes cheap."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from polystore.errors import StoreError

A = TypeVar("A")
R = TypeVar("R")

_MANY = range(9)


class Together(Generic[A, R]):
    """Hand over to `run` all that was asked within one tick of the loop; it answers or refuses each by itself.

    A task of its own does so: nobody's cancellation touches another, and what was asked is carried out even if its
    caller is cancelled. `alone` is what a single call is handed to, in its caller's task, which costs less: it ends
    with its caller. A call does not wait for others when at most `besides` things are going to run in this tick, which
    saves a lone caller a turn of the loop.
    """

    def __init__(
        self,
        run: Callable[[list[A]], Awaitable[Sequence[R | Exception]]],
        alone: Callable[[A], Awaitable[R]],
        besides: int = 0,
    ) -> None:
        self._run = run
        self._alone = alone
        self._besides = besides
        self._tick: list[tuple[A, asyncio.Future[R]]] | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def ask(self, asked: A) -> R:
        """The answer, or the error, that `run` has for this."""
        tick, loop = self._tick, asyncio.get_running_loop()
        if tick is None:
            return await (self._alone(asked) if _waiting(loop) <= self._besides else self._lead(asked))
        future: asyncio.Future[R] = loop.create_future()
        tick.append((asked, future))
        return await future

    async def _lead(self, asked: A) -> R:
        """The first call of a tick: let the others come; by itself when nobody did."""
        tick = self._tick = list[tuple[A, asyncio.Future[R]]]()
        future: asyncio.Future[R] | None = None
        try:
            await asyncio.sleep(0)
            if tick:
                future = asyncio.get_running_loop().create_future()
                tick.insert(0, (asked, future))
        finally:  # those who came are answered also when the first is cancelled
            self._tick = None
            if tick:
                self._start(tick)
        return await (self._alone(asked) if future is None else future)

    def _start(self, tick: list[tuple[A, asyncio.Future[R]]]) -> None:
        self._tasks[id(tick)] = asyncio.get_running_loop().create_task(self._answer(tick))

    async def _answer(self, tick: list[tuple[A, asyncio.Future[R]]]) -> None:
        if self._tick is tick:
            self._tick = None
        try:
            answers = await self._all([asked for asked, _ in tick])
            for (_, future), answer in zip(tick, answers, strict=True):
                if future.done():
                    continue  # its caller was cancelled
                if isinstance(answer, Exception):
                    future.set_exception(own(answer) if len(tick) > 1 else answer)
                else:
                    future.set_result(answer)
        except asyncio.CancelledError:
            for _, future in tick:
                future.cancel()
            raise
        finally:
            self._tasks.pop(id(tick), None)

    async def _all(self, asked: list[A]) -> Sequence[R | Exception]:
        try:
            answers = await self._run(asked)
            if len(answers) != len(asked):
                raise AssertionError(f"{len(asked)} were asked, {len(answers)} answered")
            return answers
        except Exception as error:  # noqa: BLE001 -- it is raised where the call was made
            return [error] * len(asked)

    async def drain(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())


def _waiting(loop: asyncio.AbstractEventLoop) -> int:
    """How many other things will run in this tick. Only asyncio's own loop can be asked, by a private name; of others
    it is said that many will."""
    return len(getattr(loop, "_ready", _MANY)) if isinstance(loop, asyncio.SelectorEventLoop) else len(_MANY)


def own(error: Exception) -> Exception:
    """An error that several callers get: each its own, since the store writes the caller's key into it."""
    if not isinstance(error, StoreError):
        return error
    mine = copy.copy(error)
    mine.__cause__ = error
    return mine
