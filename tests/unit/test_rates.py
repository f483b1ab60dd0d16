"""Rate limits as arithmetic, on a clock that the test holds: never too much, and not much too little."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polystore.rates import LIMIT_MAX, MERGED, PER_S_MAX, Allowance, Rate, RateKind, step

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND


class Limiter:
    """The functions with a memory."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.past: list[int] = []

    def take(self, at_us: int, cost: int = 1) -> Allowance:
        done = step(self.rate, cost, self.past, at_us)
        self.past = done.past
        return done.allowance


def window(limit: int, per_us: int = SECOND) -> Rate:
    return Rate("sliding_window", limit, per_us, limit)


def bucket(limit: int, burst: int, per_us: int = SECOND) -> Rate:
    return Rate("token_bucket", limit, per_us, burst)


calls = st.lists(st.tuples(st.integers(0, 1_500_000), st.integers(1, 4)), max_size=150)
"""Pauses in microseconds, and costs."""


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 12), st.sampled_from([1_000, SECOND, 999_983]), calls)
def test_a_window_never_holds_more_than_the_limit_and_little_less(
    limit: int, per_us: int, asked: list[tuple[int, int]]
) -> None:
    limiter, now, taken = Limiter(window(limit, per_us)), NOW, list[tuple[int, int]]()
    for pause, cost in asked:
        now += pause * per_us // SECOND
        inside = sum(n for at, n in taken if at > now - per_us)
        longer = sum(n for at, n in taken if at > now - per_us - per_us // MERGED - 1)
        answer = limiter.take(now, cost)
        if answer.allowed:
            taken.append((now, cost))
            assert inside + cost <= limit
            assert answer.remaining <= limit - inside - cost
        else:
            assert longer + cost > limit
        assert len(limiter.past) <= 2 * (MERGED + 2)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), calls)
def test_a_bucket_is_exact(limit: int, burst: int, asked: list[tuple[int, int]]) -> None:
    limiter, now, level = Limiter(bucket(limit, burst)), NOW, Fraction(burst)
    for pause, cost in asked:
        now += pause
        level = min(Fraction(burst), level + Fraction(pause * limit, SECOND))
        answer = limiter.take(now, cost)
        assert answer.allowed == (cost <= level)
        level -= cost if answer.allowed else 0
        assert answer.remaining == int(level)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([window(5), bucket(5, 3), bucket(3, 7, 999_983)]), calls, st.integers(1, 3))
def test_after_the_time_it_names_it_allows_and_a_moment_before_it_does_not(
    rate: Rate, asked: list[tuple[int, int]], cost: int
) -> None:
    limiter, now = Limiter(rate), NOW
    for pause, one in asked:
        now += pause
        limiter.take(now, min(one, rate.burst))
    answer = step(rate, cost, limiter.past, now).allowance
    if not answer.allowed:
        wait_us = round(answer.retry_after_s * SECOND)
        assert not step(rate, cost, limiter.past, now + wait_us - 1).allowance.allowed
        assert step(rate, cost, limiter.past, now + wait_us).allowance.allowed


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([window(5), bucket(5, 3)]), calls)
def test_what_may_be_forgotten_makes_no_difference(rate: Rate, asked: list[tuple[int, int]]) -> None:
    limiter, now = Limiter(rate), NOW
    for pause, cost in asked:
        now += pause
        done = step(rate, min(cost, 3), limiter.past, now)
        limiter.past = done.past
        now = max(now, done.expires_us) if cost == 4 else now
        if now >= done.expires_us:
            for ask in (0, 1, rate.burst):
                assert step(rate, ask, limiter.past, now).allowance == step(rate, ask, [], now).allowance


def test_to_ask_is_not_to_take() -> None:
    for rate in (window(2), bucket(2, 2)):
        limiter = Limiter(rate)
        for _ in range(5):
            assert limiter.take(NOW, 0) == Allowance(True, 2, 0.0)
        assert limiter.take(NOW, 2) == Allowance(True, 0, 0.0)
        asked = limiter.take(NOW + 1, 0)
        assert (asked.allowed, asked.remaining, asked.retry_after_s > 0) == (False, 0, True)


@pytest.mark.parametrize("back_us", [1, SECOND // 2, 3_600 * SECOND])
def test_a_clock_that_is_set_back_frees_nothing_and_holds_up_no_longer_than_a_window(back_us: int) -> None:
    for rate in (window(3), bucket(3, 3)):
        limiter = Limiter(rate)
        assert limiter.take(NOW, 3).allowed
        assert not limiter.take(NOW - back_us).allowed
        assert not limiter.take(NOW - back_us + SECOND // 4).allowed
        assert limiter.take(NOW - back_us + SECOND).allowed


def test_a_rate_may_change_while_it_is_remembered() -> None:
    limiter = Limiter(window(10))
    assert limiter.take(NOW, 8).allowed
    limiter.rate = window(5)
    assert limiter.take(NOW) == Allowance(False, 0, 1.0)
    limiter = Limiter(bucket(10, 10))
    assert limiter.take(NOW, 5).allowed
    limiter.rate = bucket(10, 10, 60 * SECOND)
    assert limiter.take(NOW, 5) == Allowance(True, 0, 0.0)
    assert limiter.take(NOW) == Allowance(False, 0, 6.0)


@pytest.mark.parametrize("kind", ["sliding_window", "token_bucket"])
def test_the_largest_numbers_fit_64_bits(kind: RateKind) -> None:
    limiter = Limiter(Rate(kind, LIMIT_MAX, PER_S_MAX * SECOND, LIMIT_MAX))
    for n in range(300):
        limiter.take(NOW + n * PER_S_MAX * SECOND // 250, LIMIT_MAX // 150)
        assert all(0 <= number < 1 << 63 for number in limiter.past)
