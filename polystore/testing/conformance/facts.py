"""Points of measures: appended once however often, cut exactly at the ends, aggregated as arithmetic says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Protocol, get_args

import pytest

from polystore.errors import InvalidData
from polystore.model import Aggregate, Key, PointRow, PointValue, Series, Span, Windows
from polystore.protocols import FACTS_MAX, Repository, SupportsTimeRange
from polystore.testing.conformance.base import Conformance

MINUTE = 60_000_000
START = 1_767_225_600_000_000 + 17
"""2026-01-01, and a little: no window begins there by accident."""
MOOD = Series("", "thing", "mood", "t1")
EVER = Span(-(1 << 62))
FAR = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""The first and last microsecond that a datetime can say."""
NEAR = (-8_520_336_000_000_000, 9_151_488_000_000_000)
"""1700 and 2260, which nanoseconds in 64 bits can say."""


class Measuring(Repository, SupportsTimeRange, Protocol):
    pass


def rows(series: Series, values: Sequence[PointValue], *, start: int = START, step: int = 1_000_000) -> list[PointRow]:
    return [PointRow(series, start + i * step, value) for i, value in enumerate(values)]


def reference(points: Sequence[PointRow], windows: Windows, aggregate: Aggregate) -> list[tuple[int, PointValue]]:
    """What the windows hold, the slow way."""
    cut: dict[int, list[PointValue]] = {}
    for point in sorted(points, key=lambda one: one.at_us):
        if windows.edges:
            begin = max((edge for edge in windows.edges[:-1] if edge <= point.at_us), default=None)
            if begin is None or point.at_us >= windows.edges[-1]:
                continue
        else:
            begin = point.at_us - (point.at_us - windows.origin_us) % windows.width_us
        cut.setdefault(begin, []).append(point.value)
    return [(begin, _aggregated(aggregate, values)) for begin, values in sorted(cut.items())]


def _aggregated(aggregate: Aggregate, values: Sequence[PointValue]) -> PointValue:
    numbers = [value for value in values if not isinstance(value, str)]
    match aggregate:
        case "count":
            return len(values)
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case "min":
            return min(numbers)
        case "max":
            return max(numbers)
        case "sum":
            return math.fsum(numbers) if any(isinstance(one, float) for one in numbers) else sum(numbers)
        case "avg":
            return math.fsum(numbers) / len(numbers)


class TimeRangeConformance(Conformance):
    """`append_points`, `points`, `last_points`, `windows`, `erase_points`, `expire_points`."""

    protocol = SupportsTimeRange
    types = ()  # a store of points need not hold records

    async def all(self, store: Measuring, series: Series = MOOD) -> list[tuple[int, PointValue]]:
        return [(row.at_us, row.value) for row in await store.points(series, EVER, FACTS_MAX, False)]

    # -- append -----------------------------------------------------------------------------------------------

    async def test_a_point_appended_again_is_one_point(self) -> None:
        store: Measuring = await self.open()
        points = rows(MOOD, [0.5, -1.0, 0.25])
        await store.append_points(points)
        await store.append_points([points[1], *points, points[2]])
        assert await self.all(store) == [(point.at_us, point.value) for point in points]

    async def test_of_two_values_for_one_time_one_stays(self) -> None:
        store: Measuring = await self.open()
        await store.append_points(rows(MOOD, [1.0]))
        await store.append_points(rows(MOOD, [2.0]))
        ((at, value),) = await self.all(store)
        assert at == START
        assert value in (1.0, 2.0)

    async def test_other_connections_see_what_was_appended(self) -> None:
        store: Measuring = await self.open()
        other: Measuring = await self.open()
        await store.append_points(rows(MOOD, [1.5]))
        assert await self.all(other) == [(START, 1.5)]

    async def test_the_largest_batch_of_many_series(self) -> None:
        store: Measuring = await self.open()
        many = [Series("", "thing", "mood", f"t{i % 50}") for i in range(FACTS_MAX)]
        await store.append_points([PointRow(one, START + i, float(i)) for i, one in enumerate(many)])
        assert len(await self.all(store, many[7])) == FACTS_MAX // 50
        assert (await self.all(store, many[7]))[-1] == (START + 9957, 9957.0)
        await store.append_points([])

    @pytest.mark.parametrize(
        ("kind", "values"),
        [
            ("float", [0.1, -2.5e300, 5e-324, 0.0, 1.0]),
            ("int", [0, -(1 << 63), (1 << 63) - 1, 9_007_199_254_740_993]),
            ("bool", [True, False]),
            ("str", ["", "학교에서", "a'b\"c\\", "true", "1"]),
        ],
    )
    async def test_values_come_back_as_they_were(self, kind: str, values: list[PointValue]) -> None:
        store: Measuring = await self.open()
        series = Series("", "thing", f"m_{kind}", "t1", kind)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await store.append_points(rows(series, values))
        found = [row.value for row in await store.points(series, EVER, 100, False)]
        assert [(type(one), one) for one in found] == [(type(one), one) for one in values]
        (last,) = await store.last_points([series], None)
        assert last is not None
        assert (type(last.value), last.value) == (type(values[-1]), values[-1])

    async def test_a_measure_of_ints_may_become_one_of_floats(self) -> None:
        store: Measuring = await self.open()
        ints = Series("", "thing", "steps", "t1", "int")
        floats = Series("", "thing", "steps", "t1", "float")
        await store.append_points(rows(ints, [1, 2]))
        await store.append_points(rows(floats, [0.5], start=START + 9_000_000))
        found = [row.value for row in await store.points(floats, EVER, 100, False)]
        assert [(type(one), one) for one in found] == [(float, 1.0), (float, 2.0), (float, 0.5)]

    async def test_times_from_the_first_to_the_last_year(self) -> None:
        """Those that a store cannot say it refuses before it keeps anything of the call; the last 300 years it can."""
        store: Measuring = await self.open()
        kept = [NEAR[0], -1, 0, NEAR[1]]
        await store.append_points([PointRow(MOOD, at, float(i)) for i, at in enumerate(kept)])
        for at in FAR:
            try:
                await store.append_points([PointRow(MOOD, 1, 1.0), PointRow(MOOD, at, 1.0)])
                kept += [1, at]
            except InvalidData:
                pass
        assert [at for at, _ in await self.all(store)] == sorted(set(kept))

    async def test_tenants_entities_measures_and_records_are_apart(self) -> None:
        store: Measuring = await self.open()
        places = [
            Series(tenant, etype, measure, id)
            for tenant in ("", "acme")
            for etype in ("thing", "other")
            for measure in ("mood", "pulse")
            for id in ("t1", "t2")
        ]
        await store.append_points([PointRow(one, START, float(i)) for i, one in enumerate(places)])
        for i, one in enumerate(places):
            assert await self.all(store, one) == [(START, float(i))]

    # -- ranges -----------------------------------------------------------------------------------------------

    async def test_a_range_has_its_start_and_not_its_end(self) -> None:
        store: Measuring = await self.open()
        points = rows(MOOD, [float(i) for i in range(10)])
        await store.append_points(points[::-1])
        span = Span(points[2].at_us, points[7].at_us)
        assert [row.value for row in await store.points(MOOD, span, 100, False)] == [2.0, 3.0, 4.0, 5.0, 6.0]
        assert [row.value for row in await store.points(MOOD, span, 100, True)] == [6.0, 5.0, 4.0, 3.0, 2.0]
        assert [row.value for row in await store.points(MOOD, span, 2, False)] == [2.0, 3.0]
        assert [row.value for row in await store.points(MOOD, span, 2, True)] == [6.0, 5.0]
        assert [row.value for row in await store.points(MOOD, Span(points[8].at_us), 100, False)] == [8.0, 9.0]
        assert await store.points(MOOD, Span(START, START), 100, False) == []
        assert await store.points(Series("", "thing", "mood", "nobody"), EVER, 100, False) == []

    async def test_the_last_of_several_series_in_the_order_asked(self) -> None:
        store: Measuring = await self.open()
        second = Series("", "thing", "mood", "t2")
        await store.append_points([*rows(MOOD, [1.0, 2.0, 3.0])[::-1], *rows(second, [9.0])])
        nobody = Series("", "thing", "mood", "nobody")
        found = await store.last_points([second, nobody, MOOD, second], None)
        assert [None if row is None else (row.at_us, row.value) for row in found] == [
            (START, 9.0),
            None,
            (START + 2_000_000, 3.0),
            (START, 9.0),
        ]
        assert await store.last_points([], None) == []

    # -- windows ----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("aggregate", get_args(Aggregate))
    async def test_windows_are_what_arithmetic_says(self, aggregate: Aggregate) -> None:
        store: Measuring = await self.open()
        rng = random.Random(aggregate)
        for kind in ("float", "int"):
            series = Series("", "thing", f"of_{kind}", "t1", kind)
            times = sorted(rng.sample(range(START, START + 600 * MINUTE), 400))
            points = [
                PointRow(series, at, rng.uniform(-9, 9) if kind == "float" else rng.randint(-9, 9)) for at in times
            ]
            await store.append_points(points)
            for windows in (
                Windows(7 * MINUTE, 3),
                Windows(60 * MINUTE, START + 5_000 * MINUTE),
                Windows(edges=[START + m * MINUTE for m in (10, 11, 200, 201, 500)]),
            ):
                span = Span(START + 15 * MINUTE, START + 450 * MINUTE)
                inside = [p for p in points if span.start_us <= p.at_us < (span.end_us or 0)]
                wanted = reference(inside, windows, aggregate)
                found = await store.windows(series, span, windows, aggregate, FACTS_MAX)
                assert [begin for begin, _ in found] == [begin for begin, _ in wanted]
                for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
                    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)
                    assert isinstance(ours, float) == (aggregate == "avg" or isinstance(theirs, float))
                assert await store.windows(series, span, windows, aggregate, 2) == found[:2]

    async def test_windows_without_points_are_left_out(self) -> None:
        store: Measuring = await self.open()
        far = START + 40 * 365 * 86_400_000_000
        await store.append_points([PointRow(MOOD, START, 1.0), PointRow(MOOD, far, 2.0)])
        found = await store.windows(MOOD, EVER, Windows(1_000_000), "count", 100)
        assert found == [(START - START % 1_000_000, 1), (far - far % 1_000_000, 1)]
        assert await store.windows(Series("", "thing", "mood", "x"), EVER, Windows(MINUTE), "avg", 10) == []
        assert await store.windows(MOOD, EVER, Windows(edges=[0, 1, START]), "count", 10) == []

    async def test_the_sum_of_ints_is_exact(self) -> None:
        store: Measuring = await self.open()
        series = Series("", "thing", "steps", "t1", "int")
        values = [(1 << 63) - 1, (1 << 63) - 1, -5, 9_007_199_254_740_993]
        await store.append_points(rows(series, values))
        ((_, found),) = await store.windows(series, EVER, Windows(60 * MINUTE), "sum", 10)
        assert found == sum(values)

    async def test_texts_and_truths_are_counted_first_and_last(self) -> None:
        store: Measuring = await self.open()
        words = Series("", "thing", "word", "t1", "str")
        flags = Series("", "thing", "flag", "t1", "bool")
        await store.append_points([*rows(words, ["가", "나", "다"]), *rows(flags, [True, False, True])])
        for aggregate, word, flag in (("count", 3, 3), ("first", "가", True), ("last", "다", True)):
            for series, wanted in ((words, word), (flags, flag)):
                ((_, found),) = await store.windows(series, EVER, Windows(60 * MINUTE), aggregate, 10)  # type: ignore[arg-type]
                assert (type(found), found) == (type(wanted), wanted)
        assert await store.windows(flags, EVER, Windows(60 * MINUTE), "min", 1) == [(START // MINUTE * MINUTE, False)]

    # -- gone -------------------------------------------------------------------------------------------------

    async def test_points_that_are_too_old_are_not_there_and_then_removed(self) -> None:
        store: Measuring = await self.open()
        now = self.env.now_us()
        other = Series("acme", "thing", "mood", "t2")
        kept = Series("", "thing", "pulse", "t1")
        old = [now - 100_000_000 - i for i in range(5)]
        for series in (MOOD, other, kept):
            await store.append_points([PointRow(series, at, 1.0) for at in (*old, now - 10_000_000)])
        age = 60_000_000
        assert len(await store.points(MOOD, Span(0, None, age), 100, False)) == 1
        assert await store.windows(MOOD, Span(0, None, age), Windows(1 << 60), "count", 10) == [(0, 1)]
        assert [row is not None for row in await store.last_points([MOOD], age)] == [True]
        assert await store.last_points([MOOD], 1_000_000) == [None]
        removed = [await store.expire_points("thing", "mood", age, 7) for _ in range(3)]
        assert removed == [7, 3, 0]
        assert [len(await self.all(store, series)) for series in (MOOD, other, kept)] == [1, 1, 6]
        self.env.forward(60)
        assert await store.points(MOOD, Span(0, None, age), 100, False) == [], "the clock of the store says what is old"

    async def test_erased_points_are_gone_and_the_record_begins_anew(self) -> None:
        store: Measuring = await self.open()
        places = [Series(t, "thing", m, id) for t in ("", "acme") for m in ("mood", "pulse", "kept") for id in "ab"]
        await store.append_points([PointRow(one, START, 1.0) for one in places])
        for _ in range(2):
            await store.erase_points(Key("", "thing", "a"), ["mood", "pulse"])
        left = [one for one in places if await self.all(store, one)]
        gone = [Series("", "thing", "mood", "a"), Series("", "thing", "pulse", "a")]
        assert left == [one for one in places if one not in gone]
        await store.append_points([PointRow(gone[0], START + 1, 2.0)])
        assert await self.all(store, gone[0]) == [(START + 1, 2.0)]
