"""When a store is left alone, and how it comes back."""

import asyncio

import pytest

from polystore.errors import (
    CircuitOpen,
    Conflict,
    InvalidData,
    NotFound,
    OutcomeUnknown,
    PolystoreError,
    StoreTimeout,
    Unavailable,
)
from polystore.layers.breaker import Breaker
from tests.unit.doubles import GET, LoopEnv, Script, virtually, way


async def failing(breaker: Breaker, times: int, error: PolystoreError | None = None) -> None:
    for _ in range(times):
        with pytest.raises(PolystoreError):
            await breaker.call(GET, way(Script(error or Unavailable("down"))))


def is_open(breaker: Breaker) -> bool:
    return breaker.open


async def answered(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        assert await breaker.call(GET, way(Script())) == "done"


@pytest.mark.parametrize("error", [Unavailable("down"), StoreTimeout("slow"), OutcomeUnknown("lost")])
def test_five_transport_errors_in_a_row_open_it(error: PolystoreError) -> None:
    async def main() -> None:
        breaker = Breaker(LoopEnv(), Script())
        await failing(breaker, 4, error)
        assert not is_open(breaker)
        await failing(breaker, 1, error)
        assert is_open(breaker)
        untouched = Script()
        with pytest.raises(CircuitOpen):
            await breaker.call(GET, way(untouched))
        assert untouched.calls == 0
        await breaker.aclose()

    virtually(main)


def test_an_answer_in_between_begins_the_row_anew() -> None:
    async def main() -> None:
        breaker = Breaker(LoopEnv(), Script())
        await failing(breaker, 4)
        await answered(breaker)
        await failing(breaker, 4)
        assert not is_open(breaker)

    virtually(main)


@pytest.mark.parametrize("error", [Conflict("taken"), NotFound("gone"), InvalidData("NaN")])
def test_what_a_healthy_store_refuses_never_counts(error: PolystoreError) -> None:
    async def main() -> None:
        breaker = Breaker(LoopEnv(), Script())
        await failing(breaker, 100, error)
        assert not is_open(breaker)

    virtually(main)


def test_half_of_twenty_calls_failing_within_ten_seconds_open_it() -> None:
    async def main() -> None:
        breaker = Breaker(LoopEnv(), Script())
        for _ in range(9):
            await answered(breaker)
            await failing(breaker, 1)
        assert not is_open(breaker)  # 18 calls
        await answered(breaker)
        await failing(breaker, 1)
        assert is_open(breaker)
        await breaker.aclose()

    virtually(main)


def test_fewer_than_half_failing_leave_it_closed() -> None:
    async def main() -> None:
        breaker = Breaker(LoopEnv(), Script())
        for _ in range(100):
            await answered(breaker, 2)
            await failing(breaker, 1)
        assert not is_open(breaker)

    virtually(main)


def test_failures_of_more_than_ten_seconds_ago_are_forgotten() -> None:
    async def main() -> None:
        breaker = Breaker(LoopEnv(), Script())
        for _ in range(9):
            await answered(breaker)
            await failing(breaker, 1)
        await asyncio.sleep(11)
        for _ in range(9):
            await answered(breaker)
            await failing(breaker, 1)
        assert not is_open(breaker)

    virtually(main)


def test_failures_spread_over_the_ten_seconds_count_together() -> None:
    async def main() -> None:
        breaker = Breaker(LoopEnv(), Script())
        for _ in range(10):
            await answered(breaker)
            await failing(breaker, 1)
            await asyncio.sleep(0.9)
        assert is_open(breaker)
        await breaker.aclose()

    virtually(main)


def test_probes_go_out_every_one_to_two_seconds_until_one_succeeds() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        times, states = list[float](), list[bool]()
        script = Script(Unavailable("down"), Unavailable("down"), RuntimeError("a mistake in the adapter"))

        async def probe() -> None:
            times.append(loop.time())
            await script()

        breaker = Breaker(LoopEnv(), probe)
        breaker.on_change.append(states.append)
        await failing(breaker, 5)
        assert states == [True]
        await asyncio.sleep(20)
        assert states == [True, False]
        assert not is_open(breaker)
        assert len(times) == 4
        assert all(1 <= b - a <= 2 for a, b in zip([0.0, *times], times, strict=False))
        await answered(breaker)

    virtually(main)


def test_closed_again_it_has_forgotten_the_failures() -> None:
    async def main() -> None:
        breaker = Breaker(LoopEnv(), Script())
        await failing(breaker, 5)
        await asyncio.sleep(3)
        await failing(breaker, 4)
        assert not is_open(breaker)
        await failing(breaker, 1)
        assert is_open(breaker)
        await breaker.aclose()

    virtually(main)


def test_calls_under_way_when_it_opens_start_no_second_probe() -> None:
    async def main() -> None:
        probes = Script()
        breaker = Breaker(LoopEnv(), probes)
        await asyncio.gather(*[failing(breaker, 1) for _ in range(20)])
        await asyncio.sleep(10)
        assert probes.calls == 1

    virtually(main)


def test_aclose_ends_the_probing() -> None:
    async def main() -> None:
        probes = Script()
        breaker = Breaker(LoopEnv(), probes)
        await failing(breaker, 5)
        await breaker.aclose()
        await asyncio.sleep(10)
        assert probes.calls == 0
        assert len(asyncio.all_tasks()) == 1

    virtually(main)
