"""Rate limits as arithmetic: what a limiter remembers of the past, and what it allows now.

Pure functions of integers, for stores whose adapter does the step itself under a lock; a store with a language of its
own (Lua in Redis) does the same there. `past` is a list of integers that only these functions read; an empty one is a
limiter that was never asked. `now_us` is the store's clock.

A clock that is set back frees nothing early: what was taken "in the future" counts as taken now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

RateKind = Literal["sliding_window", "token_bucket"]

LIMIT_MAX = 1_000_000
PER_S_MAX = 31 * 86_400
"""With `LIMIT_MAX` all numbers stay below 2^63."""
MERGED = 100
"""Takes within the same hundredth of a window are remembered as one."""


class Rate(msgspec.Struct, frozen=True, gc=False):
    """sliding_window: at most `limit` in any `per_us` microseconds. token_bucket: a bucket of `burst` tokens, full at
    first, that gains `limit` of them in `per_us`. `burst` of a window is its limit."""

    kind: RateKind
    limit: int
    per_us: int
    burst: int


class Allowance(msgspec.Struct, frozen=True, gc=False):
    """Whether what was asked for is allowed (and is then taken), how much more would be now, and, when it is not
    allowed, in how many seconds it would be if nobody else takes anything."""

    allowed: bool
    remaining: int
    retry_after_s: float


class Step(msgspec.Struct, frozen=True, gc=False):
    """The answer; what to remember from now on; and when that may be forgotten, because nothing is left of it."""

    allowance: Allowance
    past: list[int]
    expires_us: int


def step(rate: Rate, cost: int, past: Sequence[int], now_us: int) -> Step:
    """Take `cost` if that is allowed, else nothing; with a cost of 0, only say whether 1 would be."""
    return (_window if rate.kind == "sliding_window" else _bucket)(rate, cost, past, now_us)


def _window(rate: Rate, cost: int, past: Sequence[int], now_us: int) -> Step:
    """The sliding window log, whose near entries are merged at the later one's time: a take may count 1 % longer than
    the window, never shorter, and at most 102 entries are kept whatever the limit. `past`: time, amount, and so on."""
    pairs = zip(past[::2], past[1::2], strict=True)
    log = [(min(at, now_us), n) for at, n in pairs if min(at, now_us) + rate.per_us > now_us]
    free = rate.limit - sum(n for _, n in log)
    needed = max(cost, 1)
    allowed, wait_us = needed <= free, 0
    if allowed and cost:
        merged = max(rate.per_us // MERGED, 1)
        before = log.pop()[1] if log and log[-1][0] // merged == now_us // merged else 0
        log.append((now_us, before + cost))
        free -= cost
    elif not allowed:
        missing = needed - free
        for at, n in log:
            missing -= n
            wait_us = at + rate.per_us - now_us
            if missing <= 0:
                break
    flat = [number for pair in log for number in pair]
    expires_us = log[-1][0] + rate.per_us if log else now_us
    return Step(Allowance(allowed, max(free, 0), wait_us / 1e6), flat, expires_us)


def _bucket(rate: Rate, cost: int, past: Sequence[int], now_us: int) -> Step:
    """The token bucket, exact: its level is counted in tokens times `per_us`, of which it gains `limit` in each
    microsecond. `past`: level, the `per_us` of its unit, time."""
    full = rate.burst * rate.per_us
    level, per_us, at_us = past or (full, rate.per_us, now_us)
    if per_us != rate.per_us:  # the limiter was declared anew
        level = level * rate.per_us // per_us
    level = min(full, level + max(now_us - at_us, 0) * rate.limit)
    needed = max(cost, 1) * rate.per_us
    allowed = needed <= level
    wait_us = 0 if allowed else -((level - needed) // rate.limit)
    if allowed:
        level -= cost * rate.per_us
    expires_us = now_us - (level - full) // rate.limit
    return Step(Allowance(allowed, level // rate.per_us, wait_us / 1e6), [level, rate.per_us, now_us], expires_us)
