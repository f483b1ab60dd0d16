"""Points of measures: a million appended, and a day of them cut into minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from benchmarks.measure import Ratio, below
from polystore import HybridDataArchitecture, Measure, entity

POINTS = 1_000_000
ROUNDS = 10
START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@entity()
@dataclass
class Sensor:
    id: str
    heat: ClassVar[Measure[float]] = Measure(float)


async def points(directory: Path) -> list[Ratio]:
    """Row 23: one sensor, a point each second for eleven and a half days, in a file of its own."""
    async with HybridDataArchitecture.open(f"embedded:{directory}/data", entities=[Sensor]) as hda:
        sensors = hda.collection(Sensor)
        part = POINTS // ROUNDS
        appended: list[float] = []
        for number in range(ROUNDS):
            given = list(_points(number * part, part))
            started = time.perf_counter()
            await sensors.append_many(Sensor.heat, given)
            appended.append((time.perf_counter() - started) / part * 1e6)
        windows: list[float] = []
        for day in range(1, ROUNDS + 1):
            start = START + timedelta(days=day)
            started = time.perf_counter()
            found = await sensors.series(Sensor.heat, "s", start=start, end=start + timedelta(days=1), every="1m")
            windows.append((time.perf_counter() - started) * 1e3)
            assert len(found) == 1440
    return [
        below(23, "append a point, a million in batches of 10,000", "us", 10, appended),
        below(23, "a day of minute windows out of a million points", "ms", 50, windows),
    ]


def _points(first: int, count: int) -> Iterator[tuple[str, datetime, float]]:
    for i in range(first, first + count):
        yield "s", START + i * SECOND, (i % 977) / 10
