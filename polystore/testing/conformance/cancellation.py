"""A call that is cancelled at any of its awaits is done or not done, and leaves nothing in use."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

from polystore.model import EVERYTHING
from polystore.protocols import Repository, SupportsFilter
from polystore.testing.conformance.base import Conformance, key_of
from polystore.testing.conformance.entities import THING
from polystore.testing.conformance.filters import BY_KEY
from polystore.testing.conformance.records import thing

LONG_S = 0.2
"""After so long every second await is tried, after twice as long every third."""


class Interrupted:
    """Awaits `call`, and cancels the task that it runs in when it waits for the `at`-th time: while it waits, or with
    `answered` at the moment when that for which it waits is there, which is when a pool's connection gets lost."""

    def __init__(self, call: Coroutine[Any, Any, Any], at: int, *, answered: bool) -> None:
        self._call = call
        self._at = at
        self._answered = answered
        self.awaits = 0

    async def run(self) -> Any:
        return await self

    def __await__(self) -> Generator[Any, None, Any]:
        raised: BaseException | None = None
        while True:
            try:
                waits_for = self._call.send(None) if raised is None else self._call.throw(raised)
            except StopIteration as end:
                return end.value
            self.awaits += 1
            if self.awaits == self._at:
                self._cancel(waits_for)
            raised = None
            try:
                yield waits_for
            except BaseException as e:  # noqa: BLE001 -- the call's to see, whatever it is
                raised = e

    def _cancel(self, waits_for: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._answered and waits_for is not None:
            waits_for.add_done_callback(lambda _: task.cancel())  # called before the task is awakened
        else:
            task.cancel()


async def cancelled_everywhere(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Make the call again and again, and cancel it at its first await, its second, and so on, until one comes to its
    end. Where that takes long, because each cancelled call costs a connection, some awaits are left out."""
    for answered in (False, True):
        began, at = time.monotonic(), 1
        while True:
            one = Interrupted(call(), at, answered=answered)
            task = asyncio.create_task(one.run())
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()  # what is cancelled ends with CancelledError, and no call fails because of another
            if one.awaits < at:
                break
            at += 1 + int((time.monotonic() - began) / LONG_S)


class CancellationConformance(Conformance):
    """Subclass it for the copy, and with `home = True` for the home."""

    protocol = Repository
    types = (THING,)

    async def test_reads_cancelled_at_any_await_harm_no_other_call(self) -> None:
        store: Repository = await self.open()
        await self.write(store, [thing(f"{i}", i, number=i) for i in range(1, 6)])
        keys = [key_of(THING, f"{i}") for i in range(1, 6)]

        async def get() -> None:
            assert [r and r.body and r.body["number"] for r in await store.get(keys)] == [1, 2, 3, 4, 5]

        async def scan() -> None:
            assert len((await store.scan(THING.name, "", EVERYTHING, None, 10)).stamps) == 5

        async def find() -> None:
            found = await cast(SupportsFilter, store).find(THING.name, "", None, BY_KEY, 10)
            assert [one.key for one in found] == keys

        await cancelled_everywhere(get)
        await cancelled_everywhere(scan)
        if SupportsFilter in store.capabilities:
            await cancelled_everywhere(find)

    async def test_a_write_cancelled_at_any_await_is_done_or_not_and_holds_up_no_other(self) -> None:
        store: Repository = await self.open()
        other: Repository = await self.open()
        numbers = itertools.count(1)

        async def written(by: Repository) -> int:
            number = next(numbers)
            await self.write(by, [thing(id, number, number=number) for id in ("a", "b")])
            return number

        async def seen(by: Repository, number: int) -> None:
            records = await by.get([key_of(THING, id) for id in ("a", "b")])
            a, b = [r and r.body and r.body["number"] for r in records]
            assert a == b, "one commit, of which half is there"
            assert self.home or a == number  # a home may carry out what was cancelled after what came then

        async def write() -> None:
            await seen(store, await written(store))

        await cancelled_everywhere(write)
        await seen(store, await written(other))
        await seen(other, await written(store))
