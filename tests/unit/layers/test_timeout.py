"""One deadline per operation, and what a cancellation means at its side."""

import asyncio

import pytest

from polystore.errors import OutcomeUnknown, StoreTimeout
from polystore.layers.timeout import Timeout
from tests.unit.doubles import COMMIT, GET, virtually, way


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_read_that_takes_too_long_is_a_timeout_at_the_deadline() -> None:
    async def main() -> None:
        with pytest.raises(StoreTimeout, match="no answer within 3 s"):
            await Timeout(3).call(GET, way(forever))
        assert asyncio.get_running_loop().time() == pytest.approx(3)

    virtually(main)


def test_a_commit_that_takes_too_long_may_or_may_not_have_happened() -> None:
    async def main() -> None:
        with pytest.raises(OutcomeUnknown):
            await Timeout(3).call(COMMIT, way(forever))

    virtually(main)


def test_a_task_that_timed_out_goes_on_uncancelled() -> None:
    async def main() -> None:
        timeout = Timeout(3)
        for _ in range(2):
            with pytest.raises(StoreTimeout):
                await timeout.call(GET, way(forever))
        await asyncio.sleep(1)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    virtually(main)


def test_one_timer_serves_calls_that_began_at_different_times() -> None:
    async def main() -> None:
        timeout, ends = Timeout(3), list[float]()

        async def caller(begin_s: float) -> None:
            await asyncio.sleep(begin_s)
            with pytest.raises(StoreTimeout):
                await timeout.call(GET, way(forever))
            ends.append(asyncio.get_running_loop().time())

        async def quick() -> None:
            await timeout.call(GET, way(lambda: asyncio.sleep(2.5)))

        await asyncio.gather(caller(0), quick(), caller(1), caller(2.9), caller(8))
        assert ends == pytest.approx([3, 4, 5.9, 11])

    virtually(main)


def test_the_callers_own_cancellation_stays_one() -> None:
    async def main() -> None:
        timeout = Timeout(3)
        task = asyncio.create_task(timeout.call(GET, way(forever)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(5)
        assert await timeout.call(GET, way(lambda: asyncio.sleep(2, "answer"))) == "answer"

    virtually(main)


def test_a_cancellation_in_the_same_moment_as_the_deadline_wins() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(Timeout(3).call(GET, way(forever)))
        await asyncio.sleep(0)
        loop.call_at(3, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    virtually(main)


def test_an_answer_given_in_spite_of_the_cancellation_counts() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "answer"
        return "late"

    async def main() -> None:
        assert await Timeout(3).call(GET, way(stubborn)) == "answer"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    virtually(main)
