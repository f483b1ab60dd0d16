"""What is tried again, when, and how often."""

import asyncio
import itertools

import pytest

from polystore.errors import (
    Conflict,
    InvalidData,
    OutcomeUnknown,
    PolystoreError,
    RateLimited,
    StoreCorrupt,
    StoreFull,
    StoreTimeout,
    Unavailable,
)
from polystore.layers.retry import Retry
from tests.unit.doubles import COMMIT, GET, LoopEnv, Script, virtually, way


@pytest.mark.parametrize("error", [Unavailable("down"), StoreTimeout("slow"), StoreFull("full"), RateLimited("slowly")])
def test_what_may_succeed_later_is_tried_again(error: PolystoreError) -> None:
    async def main() -> None:
        script = Script(error, error)
        assert await Retry(LoopEnv(), 4, 10).call(COMMIT, way(script)) == "done"
        assert script.calls == 3

    virtually(main)


@pytest.mark.parametrize("error", [Conflict("taken"), InvalidData("NaN"), StoreCorrupt("torn"), ValueError("bug")])
def test_what_cannot_succeed_later_is_not_tried_again(error: Exception) -> None:
    async def main() -> None:
        script = Script(error)
        with pytest.raises(type(error)):
            await Retry(LoopEnv(), 4, 10).call(GET, way(script))
        assert script.calls == 1

    virtually(main)


def test_after_an_unknown_outcome_only_what_may_be_repeated_is_tried_again() -> None:
    async def main() -> None:
        read, write = Script(OutcomeUnknown("lost")), Script(OutcomeUnknown("lost"))
        retry = Retry(LoopEnv(), 4, 10)
        assert await retry.call(GET, way(read)) == "done"
        with pytest.raises(OutcomeUnknown):
            await retry.call(COMMIT, way(write))
        assert (read.calls, write.calls) == (2, 1)

    virtually(main)


def test_the_last_error_is_raised_after_the_last_attempt() -> None:
    async def main() -> None:
        script = Script(*[Unavailable(f"down {i}") for i in range(9)])
        with pytest.raises(Unavailable, match="down 3"):
            await Retry(LoopEnv(), 4, 10).call(GET, way(script))
        assert script.calls == 4

    virtually(main)


def test_pauses_are_random_and_double_their_bound() -> None:
    async def pauses_ms() -> list[float]:
        times = list[float]()

        async def note() -> None:
            times.append(asyncio.get_running_loop().time() * 1000)
            raise Unavailable("down")

        env = LoopEnv()
        env.random.seed()
        with pytest.raises(Unavailable):
            await Retry(env, 6, 1000).call(GET, way(note))
        return [b - a for a, b in itertools.pairwise(times)]

    runs = [virtually(pauses_ms) for _ in range(300)]
    for i, bound_ms in enumerate([50, 100, 200, 400, 800]):
        seen = [pauses[i] for pauses in runs]
        assert min(seen) < bound_ms * 0.1
        assert bound_ms * 0.9 < max(seen) <= bound_ms


def test_a_pause_is_at_least_what_the_store_asked_for() -> None:
    async def main() -> None:
        assert await Retry(LoopEnv(), 4, 10).call(GET, way(Script(RateLimited("slowly", retry_after_s=2.5)))) == "done"
        assert asyncio.get_running_loop().time() == pytest.approx(2.5)

    virtually(main)


def test_no_pause_reaches_beyond_the_deadline() -> None:
    async def main() -> None:
        script = Script(Unavailable("soon", retry_after_s=6), Unavailable("later", retry_after_s=6))
        with pytest.raises(Unavailable, match="later"):
            await Retry(LoopEnv(), 4, 10).call(GET, way(script))
        assert asyncio.get_running_loop().time() == pytest.approx(6)

    virtually(main)


def test_a_cancelled_pause_ends_at_once() -> None:
    async def main() -> None:
        script = Script(Unavailable("soon", retry_after_s=6))
        task = asyncio.create_task(Retry(LoopEnv(), 4, 10).call(GET, way(script)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert script.calls == 1

    virtually(main)
