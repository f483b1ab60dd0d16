"""Calls of one tick become one, and nobody's fate is another's."""

import asyncio
from collections.abc import Sequence

import pytest

from polystore.errors import Unavailable
from polystore.layers.together import Together


class Doubler:
    """Doubles numbers, refuses odd ones, fails as told. Takes two ticks."""

    def __init__(self) -> None:
        self.together = Together(self.run, self.alone)
        self.runs = list[list[int]]()
        self.running = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, asked: list[int]) -> Sequence[int | Exception]:
        self.runs.append(asked)
        self.running.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [ValueError(f"{one} is odd") if one % 2 else one * 2 for one in asked]

    async def alone(self, asked: int) -> int:
        (answer,) = await self.run([asked])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask_all(self, *asked: int) -> list[int | BaseException]:
        return await asyncio.gather(*map(self.together.ask, asked), return_exceptions=True)


def test_calls_of_one_tick_travel_as_one() -> None:
    async def main() -> None:
        doubler = Doubler()
        assert await doubler.ask_all(0, 2, 4, 6) == [0, 4, 8, 12]
        assert await doubler.ask_all(8) == [16]
        assert [sorted(run) for run in doubler.runs] == [[0, 2, 4, 6], [8]]

    asyncio.run(main())


def test_calls_of_later_ticks_do_not_join_what_is_under_way() -> None:
    async def main() -> None:
        doubler = Doubler()

        async def late() -> int:
            await doubler.running.wait()
            return await doubler.together.ask(2)

        assert list(await asyncio.gather(doubler.together.ask(0), late())) == [0, 4]
        assert doubler.runs == [[0], [2]]

    asyncio.run(main())


def test_each_gets_its_own_error() -> None:
    async def main() -> None:
        answers = await Doubler().ask_all(0, 1, 2, 3)
        assert [str(answer) for answer in answers] == ["0", "1 is odd", "4", "3 is odd"]
        with pytest.raises(ValueError, match="5 is odd"):
            await Doubler().together.ask(5)

    asyncio.run(main())


def test_an_outage_is_everybodys_and_each_may_write_into_his_own_error() -> None:
    async def main() -> None:
        doubler = Doubler()
        doubler.error = Unavailable("down", retry_after_s=3)
        answers = await doubler.ask_all(0, 2)
        assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
        assert answers[0] is not answers[1]
        assert [getattr(answer, "retry_after_s", None) for answer in answers] == [3, 3]

    asyncio.run(main())


@pytest.mark.parametrize("who", [0, 1, 2])
@pytest.mark.parametrize("after_ticks", [0, 1, 2, 3])
def test_the_cancellation_of_one_touches_nobody_else(who: int, after_ticks: int) -> None:
    async def main() -> None:
        doubler = Doubler()
        tasks = [asyncio.create_task(doubler.together.ask(one)) for one in (0, 2, 4)]
        await asyncio.sleep(0)
        for _ in range(after_ticks):
            await asyncio.sleep(0)
        tasks[who].cancel()
        await asyncio.wait(tasks)
        others = [task.result() for task in tasks if task is not tasks[who]]
        assert others == [one * 2 for i, one in enumerate((0, 2, 4)) if i != who]
        assert await doubler.ask_all(6) == [12]

    asyncio.run(main())


def test_a_wrong_number_of_answers_is_an_error_for_all_not_a_wait_for_ever() -> None:
    async def main() -> None:
        async def forgetful(asked: list[int]) -> list[int]:
            return asked[1:]

        async def alone(asked: int) -> int:
            return asked

        together: Together[int, int] = Together(forgetful, alone)
        answers = await asyncio.wait_for(
            asyncio.gather(together.ask(1), together.ask(2), return_exceptions=True), timeout=10
        )
        assert [type(answer) for answer in answers] == [AssertionError, AssertionError]

    asyncio.run(main())


def test_drain_waits_for_what_is_under_way() -> None:
    async def main() -> None:
        doubler = Doubler()
        tasks = [asyncio.create_task(doubler.together.ask(one)) for one in (0, 2)]
        await doubler.running.wait()
        for task in tasks:
            task.cancel()
        await doubler.together.drain()
        assert len(asyncio.all_tasks() - set(tasks)) == 1

    asyncio.run(main())
