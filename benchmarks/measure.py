"""Interleaved rounds, medians, spread."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

ROUNDS = 7

Round = Callable[[], Awaitable[float]]
"""One round of one contender: the seconds per operation."""


class Spread(msgspec.Struct, frozen=True):
    """Seconds per operation over the rounds of one contender."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


class Ratio(msgspec.Struct, frozen=True):
    """One line of the table. `ratio` is ours against theirs as the target says it; `low` and `high` are its spread over
    the rounds, each round against the same round of the other. `met` None: the row only informs."""

    row: int
    operation: str
    against: str
    target: str
    ratio: float
    low: float
    high: float
    met: bool | None
    ours: str
    theirs: str


async def interleaved(contenders: Mapping[str, Round], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Rounds of all contenders in turn, after a warm-up each, so that what disturbs the machine disturbs them alike."""
    for contender in contenders.values():
        await contender()
    out: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            out[name].append(await contender())
    return out


async def per_operation(operation: Callable[[int], Awaitable[object]], count: int) -> float:
    """Seconds per operation of one task that does them one after the other."""
    started = time.perf_counter()
    for i in range(count):
        await operation(i)
    return (time.perf_counter() - started) / count


async def p50(operation: Callable[[int], Awaitable[object]], count: int) -> float:
    """The median of the seconds that single operations of one task take."""
    times: list[float] = []
    for i in range(count):
        started = time.perf_counter()
        await operation(i)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


async def at_once(operation: Callable[[int], Awaitable[object]], tasks: int, count: int) -> float:
    """Seconds per operation of tasks that do `count` each at the same time."""

    async def task(first: int) -> None:
        for i in range(first, first + count):
            await operation(i)

    started = time.perf_counter()
    await asyncio.gather(*(task(number * count) for number in range(tasks)))
    return (time.perf_counter() - started) / (tasks * count)


def at_most(
    row: int, operation: str, against: str, limit: float, ours: Sequence[float], theirs: Sequence[float]
) -> Ratio:
    """Our time may be at most `limit` times theirs."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.median(pairs)
    return Ratio(
        row, operation, against, f"<= {limit:g}x", middle, min(pairs), max(pairs), middle <= limit, us(ours), us(theirs)
    )


def at_least(
    row: int, operation: str, against: str, limit: float, ours: Sequence[float], theirs: Sequence[float]
) -> Ratio:
    """Our throughput must be at least `limit` times theirs."""
    pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.median(pairs)
    return Ratio(
        row, operation, against, f">= {limit:g}x", middle, min(pairs), max(pairs), middle >= limit, us(ours), us(theirs)
    )


def below(row: int, operation: str, unit: str, limit: float, values: Sequence[float]) -> Ratio:
    """A plain number with a limit, in `unit`."""
    spread = Spread.of(values)
    return Ratio(
        row,
        operation,
        "-",
        f"<= {limit:g} {unit}",
        spread.median,
        spread.low,
        spread.high,
        spread.median <= limit,
        f"{spread.median:.1f} {unit}",
        "",
    )


def us(values: Sequence[float]) -> str:
    """Seconds per operation as text."""
    spread = Spread.of(values)
    return f"{spread.median * 1e6:.1f} us ({spread.low * 1e6:.1f}-{spread.high * 1e6:.1f})"


def load() -> str:
    """The load average of the machine, where it has one."""
    return " ".join(f"{one:.2f}" for one in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
