"""Which store answered what, and how long it took: for whoever asks around a piece of code.

A tracer is anything with `record`. It is installed for the current task and the tasks made in it; without one, a
store leaves this layer out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast

import msgspec

from polystore.operations import Operation

R = TypeVar("R")


class Step(msgspec.Struct, frozen=True, gc=False):
    """One operation of one store: its verb, how long the caller waited, how many items it was about, and the class of
    the error it ended with ("" when it succeeded)."""

    store: str
    verb: str
    ms: float
    n: int
    error: str = ""


class Tracer(Protocol):
    """What hears of every operation when it has ended, in the task that asked for it. Must be quick and not raise."""

    def record(self, step: Step) -> None: ...


class Trace:
    """The steps that `collect` saw, in the order in which they ended."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def record(self, step: Step) -> None:
        self.steps.append(step)

    def __repr__(self) -> str:
        return f"Trace({self.steps!r})"


current: ContextVar[Tracer | None] = ContextVar("polystore_tracer", default=None)


@contextlib.contextmanager
def use(tracer: Tracer | None) -> Generator[None]:
    """Install a tracer for the block, in place of an outer one; None: nothing inside the block is recorded."""
    token = current.set(tracer)
    try:
        yield
    finally:
        current.reset(token)


@contextlib.contextmanager
def collect() -> Generator[Trace]:
    """Collect the steps of the block."""
    trace = Trace()
    with use(trace):
        yield trace


class Tracing:
    """Tell the current tracer of every operation."""

    def __init__(self, store: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def call(self, operation: Operation[R], inner: Callable[[Operation[R]], Awaitable[R]]) -> R:
        started = self._clock()
        error = ""
        try:
            return await inner(operation)
        except BaseException as e:
            error = type(e).__name__
            raise
        finally:
            if tracer := current.get():
                ms = (self._clock() - started) * 1000
                tracer.record(Step(self._store, operation.verb, ms, _items(operation.args), error))


def _items(args: tuple[Any, ...]) -> int:
    """How many items a call is about: the length of a batch, else 1."""
    return len(cast(list[Any], args[0])) if args and isinstance(args[0], (list, tuple)) else 1
