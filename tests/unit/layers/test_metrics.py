"""Counts and durations per verb."""

import asyncio

import pytest

from polystore.errors import Unavailable
from polystore.layers.metrics import Metrics, VerbMetrics
from tests.unit.doubles import COMMIT, GET, LoopEnv, Script, virtually, way


def test_calls_errors_and_durations_are_counted_by_verb() -> None:
    async def main() -> None:
        metrics = Metrics(LoopEnv().monotonic)
        await metrics.call(GET, way(lambda: asyncio.sleep(0.25)))
        await metrics.call(GET, way(lambda: asyncio.sleep(0.75)))
        with pytest.raises(Unavailable):
            await metrics.call(COMMIT, way(Script(Unavailable("down"))))
        get = metrics.verbs["get"]
        assert (get.count, get.errors, get.ms_max) == (2, 0, 750)
        assert get.ms_total == pytest.approx(1000)
        assert (metrics.of("commit").count, metrics.of("commit").errors) == (1, 1)

    virtually(main)


def test_a_cancelled_call_is_counted_and_is_no_error() -> None:
    async def main() -> None:
        metrics = Metrics(LoopEnv().monotonic)
        task = asyncio.create_task(metrics.call(GET, way(lambda: asyncio.sleep(9))))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert (metrics.of("get").count, metrics.of("get").errors) == (1, 0)

    virtually(main)


def test_a_quantile_is_at_most_double_the_true_one_and_never_below_it() -> None:
    verb = VerbMetrics()
    for us in range(1, 1001):
        verb.add(us / 1_000_000, False)
    for q in (0.01, 0.5, 0.9, 0.99):
        assert q <= verb.quantile_ms(q) <= 2 * q
    assert verb.quantile_ms(1) == verb.ms_max == 1.0


def test_durations_beyond_the_last_bucket_are_kept() -> None:
    verb = VerbMetrics()
    verb.add(1e9, False)
    assert sum(verb.histogram) == 1
    assert verb.quantile_ms(0.5) == 1e12


def test_nothing_measured_is_zero() -> None:
    assert VerbMetrics().quantile_ms(0.5) == 0
