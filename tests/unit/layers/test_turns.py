"""What travels together to a store that carries out one write at a time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from polystore.errors import InvalidData, StoreError, Unavailable
from polystore.layers.sizing import Sizing
from polystore.layers.turns import Turns
from polystore.model import APPLIED, Change, Outcome
from polystore.operations import Operation
from polystore.protocols import Repository
from tests.unit.doubles import key, virtually


class Server:
    """Needs a second for a write; `broken`: id -> why it refuses any write with it."""

    def __init__(self, **broken: BaseException) -> None:
        self.turns = Turns(Sizing(4))
        self.broken = broken
        self.calls = list[str]()
        self.at_work = 0

    async def _write(self, operation: Operation[Any]) -> Any:
        changes: Sequence[Change] = operation.args[0]
        assert not self.at_work
        self.at_work += 1
        await asyncio.sleep(1)
        self.at_work -= 1
        self.calls.append("".join(one.key.id for one in changes))
        for one in changes:
            if one.key.id in self.broken:
                raise self.broken[one.key.id]
        return [APPLIED if one.key.id != "r" else Outcome("rejected", InvalidData("r")) for one in changes]

    async def asked(self, *calls: str) -> list[asyncio.Task[list[Outcome]]]:
        """One after the other, all before the first has ended."""
        tasks: list[asyncio.Task[list[Outcome]]] = []
        for ids in calls:
            tasks.append(asyncio.create_task(self._ask(ids)))
            await asyncio.sleep(0.01)
        return tasks

    async def _ask(self, ids: str) -> list[Outcome]:
        changes = [Change(key(id), 1, 0, {}, b"", 0) for id in ids]
        operation: Operation[list[Outcome]] = Operation("apply", (changes,), Repository)
        return await self.turns.call(operation, self._write)


def test_what_came_while_a_call_ran_goes_together_up_to_the_bound() -> None:
    async def main() -> None:
        server = Server()
        answers = await asyncio.gather(*await server.asked("a", "bc", "r", "d", "efghi", "k"))
        assert server.calls == ["a", "bcrd", "efghi", "k"]
        assert [len(one) for one in answers] == [1, 2, 1, 1, 5, 1]
        assert [one.status for one in answers[2]] == ["rejected"]

    virtually(main)


def test_of_calls_that_fail_together_only_the_one_at_fault_fails() -> None:
    async def main() -> None:
        server = Server(x=StoreError("no"))
        answers = await asyncio.gather(*await server.asked(*"abxc"), return_exceptions=True)
        assert server.calls == ["a", "bxc", "b", "x", "c"]
        assert [type(one) for one in answers] == [list, list, StoreError, list]

    virtually(main)


def test_an_outage_is_told_to_all_that_wait_and_each_gets_an_error_of_its_own() -> None:
    async def main() -> None:
        server = Server(a=Unavailable("gone"))
        answers = await asyncio.gather(*await server.asked(*"abc"), return_exceptions=True)
        assert server.calls == ["a"]
        assert [type(one) for one in answers] == [Unavailable] * 3
        assert len(set(map(id, answers))) == 3
        (later,) = await server.asked("d")
        assert await later == [APPLIED]

    virtually(main)


def test_a_driver_that_is_cancelled_itself_leaves_nobody_waiting() -> None:
    async def main() -> None:
        server = Server(c=asyncio.CancelledError())
        tasks = await server.asked(*"abcd", "efgh")
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in answers] == [list, *[asyncio.CancelledError] * 4]
        (later,) = await server.asked("i")
        assert await later == [APPLIED]

    virtually(main)


def test_who_is_cancelled_leaves_the_others_and_what_was_sent() -> None:
    async def main() -> None:
        server = Server()
        first, second, third = await server.asked(*"abc")
        first.cancel()
        second.cancel()
        assert await third == [APPLIED]
        assert server.calls == ["a", "c"]
        with pytest.raises(asyncio.CancelledError):
            await second

    virtually(main)
