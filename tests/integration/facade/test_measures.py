"""Measures through the facade: points appended, read, cut into windows, kept for a time, erased with their record."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from polystore import HybridDataArchitecture, InvalidData, InvalidFilter, Measure, Point, Unavailable, ValueTooLarge
from polystore.consistency import Settings
from polystore.model import Commit, Key, Series, Span, Write, key_hash
from polystore.protocols import SupportsTimeRange
from polystore.testing.conformance import MovableEnv
from tests.integration.facade.facts import Account, Person, at, config, everywhere, run
from tests.integration.facade.world import down


@everywhere
def test_points_come_back_in_the_order_of_their_times(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        result = await people.append(Person.mood, "p", 0.5, at=at(2))
        assert (result.key, result.version, list(result.stores.values())) == ("p", None, ["committed"])
        assert await people.append_many(Person.mood, [("p", at(1), -1), ("q", at(1), 1.0), ("p", at(3), 0.25)]) == 3
        assert list(await people.series(Person.mood, "p", start=at())) == [
            Point(at(1), -1.0),
            Point(at(2), 0.5),
            Point(at(3), 0.25),
        ]
        assert [p.value for p in await people.series(Person.mood, "p", start=at(1), end=at(3))] == [-1.0, 0.5]
        newest = await people.series(Person.mood, "p", start=at(), limit=2, newest_first=True)
        assert [p.value for p in newest] == [0.25, 0.5]
        assert await people.last(Person.mood, "q") == Point(at(1), 1.0)
        assert await people.last(Person.mood, ["p", "nobody", "q"]) == [Point(at(3), 0.25), None, Point(at(1), 1.0)]
        assert await people.last(Person.mood, []) == []
        assert await hda.tenant("acme").collection(Person).last(Person.mood, "p") is None

    run(test, config(profile, tmp_path))


@everywhere
def test_values_of_every_type_come_back_as_they_were(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        await people.append_many(Person.steps, [("p", at(i), n) for i, n in enumerate((0, -(1 << 63), (1 << 63) - 1))])
        await people.append_many(Person.awake, [("p", at(i), b) for i, b in enumerate((True, False))])
        await people.append_many(Person.place, [("p", at(i), text) for i, text in enumerate(("집", "학교", ""))])
        assert [p.value for p in await people.series(Person.steps, "p", start=at())] == [0, -(1 << 63), (1 << 63) - 1]
        assert [repr(p.value) for p in await people.series(Person.awake, "p", start=at())] == ["True", "False"]
        assert [p.value for p in await people.series(Person.place, "p", start=at())] == ["집", "학교", ""]
        last = await people.series(Person.place, "p", start=at(), every="1d", aggregate="last")
        assert [p.value for p in last] == [""]
        accounts = hda.collection(Account)
        await accounts.append(Account.balance, 7, 1, at=at())
        assert await accounts.last(Account.balance, 7) == Point(at(), 1.0)

    run(test, config(profile, tmp_path))


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        (Person.mood, math.nan),
        (Person.mood, math.inf),
        (Person.mood, "sad"),
        (Person.mood, True),
        (Person.mood, None),
        (Person.steps, 1.0),
        (Person.steps, 1 << 63),
        (Person.awake, 1),
        (Person.place, "a\0b"),
        (Person.place, "\ud800"),
        (Account.balance, 1.0),
        (Measure(float), 1.0),
    ],
)
def test_what_cannot_be_a_point_is_refused_before_anything_is_sent(measure: Any, value: Any) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        with hda.trace() as trace:
            with pytest.raises(InvalidData):
                await people.append(measure, "p", value)
            with pytest.raises(InvalidData):
                await people.append_many(measure, [("p", at(), value)])
        assert trace.steps == []

    run(test)


def test_a_measure_of_another_class_is_named_with_those_of_this_one() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        with pytest.raises(InvalidData, match=r"'balance'.* is no measure of Person; its measures: Person\.mood") as e:
            await hda.collection(Person).last(Account.balance, "p")
        assert "Person.steps" in str(e.value)
        with pytest.raises(InvalidData, match="is no measure of Person"):
            await hda.collection(Person).append("mood", "p", 1.0)  # type: ignore[arg-type]

    run(test)


def test_texts_times_and_keys_have_limits() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        with pytest.raises(ValueTooLarge, match=r"Person\.place"):
            await people.append(Person.place, "p", "글" * 30_000)
        with pytest.raises(InvalidData, match=r"Person\.mood: a naive datetime"):
            await people.append(Person.mood, "p", 1.0, at=datetime(2026, 1, 1))  # noqa: DTZ001
        with pytest.raises(InvalidData, match="empty"):
            await people.append(Person.mood, "", 1.0)
        with pytest.raises(InvalidFilter, match="start="):
            await people.series(Person.mood, "p", start=datetime(2026, 1, 1))  # noqa: DTZ001
        with pytest.raises(InvalidFilter, match="limit="):
            await people.series(Person.mood, "p", start=at(), limit=0)
        with pytest.raises(
            InvalidFilter, match=r"Person\.place: aggregate='avg' of str values; possible: count, first"
        ):
            await people.series(Person.place, "p", start=at(), every="1h")
        with pytest.raises(InvalidFilter, match="possible: min, max, count"):
            await people.series(Person.awake, "p", start=at(), every="1h", aggregate="sum")
        with pytest.raises(InvalidFilter, match="every="):
            await people.series(Person.mood, "p", start=at(), every="soon")
        with pytest.raises(InvalidFilter, match="aggregate='median'"):
            await people.series(Person.mood, "p", start=at(), every="1h", aggregate="median")  # type: ignore[call-overload]

    run(test)


def test_a_bad_point_in_a_long_source_leaves_whole_batches_and_a_repeat_harms_nothing() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        points: list[tuple[str, datetime, float]] = [("p", at(i), float(i)) for i in range(10_001)]
        with pytest.raises(InvalidData):
            await people.append_many(Person.mood, [*points, ("p", at(), math.nan)])
        assert len(await people.series(Person.mood, "p", start=at())) == 10_000
        assert await people.append_many(Person.mood, points) == 10_001
        (count,) = await people.series(Person.mood, "p", start=at(), every="1y", aggregate="count")
        assert count.value == 10_001

    run(test)


def test_points_without_a_time_that_are_appended_at_once_are_all_kept() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        before = datetime.now(UTC)
        await asyncio.gather(*(people.append(Person.steps, "p", i) for i in range(200)))
        found = await people.series(Person.steps, "p", start=before - timedelta(seconds=1))
        assert sorted(p.value for p in found) == list(range(200))
        assert before <= found[0].at
        assert found[-1].at <= datetime.now(UTC) + timedelta(seconds=1)

    run(test)


# -- windows ----------------------------------------------------------------------------------------------------------


@everywhere
def test_windows_of_an_hour_leave_out_those_without_points(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        await people.append_many(
            Person.mood, [("p", at(m), v) for m, v in ((5, 1.0), (30, 3.0), (61, 5.0), (200, 7.0))]
        )
        series: Any = people.series
        hours: dict[str, Any] = {"start": at(-30), "end": at(300), "every": "1h"}
        found = await series(Person.mood, "p", **hours)
        assert list(found) == [Point(at(0), 2.0), Point(at(60), 5.0), Point(at(180), 7.0)]
        by: dict[str, list[float]] = {}
        for aggregate in ("min", "max", "sum", "count", "first", "last"):
            rows = await series(Person.mood, "p", **hours, aggregate=aggregate)
            by[aggregate] = [p.value for p in rows]
        assert by == {
            "min": [1, 5, 7],
            "max": [3, 5, 7],
            "sum": [4, 5, 7],
            "count": [2, 1, 1],
            "first": [1, 5, 7],
            "last": [3, 5, 7],
        }
        cut = await people.series(Person.mood, "p", start=at(10), end=at(61), every=timedelta(hours=1))
        assert list(cut) == [Point(at(0), 3.0)], "a window counts what lies inside the range only"

    run(test, config(profile, tmp_path))


@everywhere
def test_days_on_which_the_clocks_change_have_all_their_points(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        zone = ZoneInfo("America/New_York")
        for key, day, hours in (
            ("spring", datetime(2026, 3, 8, tzinfo=zone), 23),
            ("autumn", datetime(2026, 11, 1, tzinfo=zone), 25),
        ):
            first = day.astimezone(UTC) - timedelta(hours=5)
            await people.append_many(Person.steps, [(key, first + timedelta(hours=h), 1) for h in range(72)])
            found = await people.series(
                Person.steps, key, start=day, end=day + timedelta(days=2), every="1d", aggregate="sum", tz=zone
            )
            assert [(p.at, p.value) for p in found] == [(day, hours), (day + timedelta(days=1), 24)]
            assert [p.at.utcoffset() for p in found] == [day.utcoffset(), (day + timedelta(days=1)).utcoffset()]

    run(test, config(profile, tmp_path))


@everywhere
def test_a_day_is_that_of_the_time_zone(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        noon = datetime(2026, 5, 31, 12, tzinfo=UTC)  # in Seoul 21:00, three hours before midnight and a new month
        await people.append_many(Person.steps, [("p", noon + timedelta(hours=h), 1) for h in range(6)])
        sums: dict[str, list[tuple[str, int]]] = {}
        for tz in ("UTC", "Asia/Seoul"):
            for every in ("1d", "1mo"):
                found = await people.series(Person.steps, "p", start=noon, every=every, aggregate="sum", tz=tz)
                sums[f"{tz} {every}"] = [(p.at.isoformat(), p.value) for p in found]
        assert sums == {
            "UTC 1d": [("2026-05-31T00:00:00+00:00", 6)],
            "UTC 1mo": [("2026-05-01T00:00:00+00:00", 6)],
            "Asia/Seoul 1d": [("2026-05-31T00:00:00+09:00", 3), ("2026-06-01T00:00:00+09:00", 3)],
            "Asia/Seoul 1mo": [("2026-05-01T00:00:00+09:00", 3), ("2026-06-01T00:00:00+09:00", 3)],
        }
        fixed = await people.series(
            Person.steps, "p", start=noon, every="1d", aggregate="count", tz=timezone(timedelta(hours=9))
        )
        assert [p.value for p in fixed] == [3, 3]
        assert await people.series(Person.steps, "nobody", start=noon, every="1d") == []

    run(test, config(profile, tmp_path))


# -- retention and erasure --------------------------------------------------------------------------------------------


@everywhere
def test_points_older_than_the_retention_are_not_there_and_then_removed(profile: str, tmp_path: Path) -> None:
    env = MovableEnv()

    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        now = datetime.fromtimestamp(env.now_us() / 1e6, UTC)
        points = [("p", now - timedelta(minutes=m), m) for m in (0, 30, 61, 600)]
        await people.append_many(Person.pulse, points)
        await people.append_many(Person.steps, points)
        long_ago = now - timedelta(days=9)
        assert [p.value for p in await people.series(Person.pulse, "p", start=long_ago)] == [30, 0]
        (count,) = await people.series(Person.pulse, "p", start=long_ago, every="1y", aggregate="count")
        assert count.value == 2
        env.forward(1900)
        store = hda.stores[hda.manager.placements["person"].beside["time_series"]]
        series = Series("", "person", "pulse", "p", "int")
        async with asyncio.timeout(10):
            while len(await store.call(SupportsTimeRange.points, series, Span(0), 100, False)) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        env.forward(3600)
        assert await people.last(Person.pulse, "p") is None
        assert len(await people.series(Person.steps, "p", start=long_ago)) == 4

    run(test, config(profile, tmp_path), env=env, settings=Settings(purge_s=0.02))


@everywhere
def test_a_deleted_record_takes_its_points_along_and_begins_anew(profile: str, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        for id in ("p", "q"):
            await people.put(Person(id=id))
            await people.append_many(Person.secret, [(id, at(i), float(i)) for i in range(3)])
            await people.append(Person.mood, id, 1.0, at=at())
        await people.delete("p")
        await people.put(Person(id="p", name="anew"))
        await people.append(Person.secret, "p", 9.0, at=at(1))
        async with hda.transaction() as tx:
            tx.delete(Person, "q")
        await hda.settle(10)
        assert list(await people.series(Person.secret, "p", start=at())) == [Point(at(1), 9.0)]
        assert list(await people.series(Person.secret, "q", start=at())) == []
        assert await people.last(Person.mood, ["p", "q"]) == [Point(at(), 1.0)] * 2, "these are kept"

    run(test, config(profile, tmp_path))


def test_points_of_a_record_written_again_wait_until_those_of_the_one_before_are_erased() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people, repository = hda.collection(Person), cast(Any, hda.stores["facts"].repository)
        await people.put(Person(id="p"))
        await people.append(Person.secret, "p", 1.0, at=at())
        erase, answers = repository.erase_points, asyncio.Event()

        async def late(*about: Any) -> None:
            await answers.wait()
            await erase(*about)

        repository.erase_points = late
        await people.delete("p")
        await people.put(Person(id="p"))
        assert (await people.append(Person.secret, "p", 2.0, at=at(1))).stores == {"facts": "pending"}
        assert (await people.append(Person.secret, "q", 3.0, at=at(1))).stores == {"facts": "committed"}
        answers.set()
        await hda.settle(10)
        assert list(await people.series(Person.secret, "p", start=at())) == [Point(at(1), 2.0)]

    run(test)


def test_the_points_of_a_record_whose_time_is_over_are_erased_with_it() -> None:
    env = MovableEnv()

    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        await people.put(Person(id="p"), ttl_s=5)
        await people.append(Person.secret, "p", 1.0)
        env.forward(6)
        async with asyncio.timeout(10):
            while await people.last(Person.secret, "p") is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(test, env=env)


@everywhere
def test_a_sweep_that_comes_too_late_leaves_the_points_of_the_record_written_again(
    profile: str, tmp_path: Path
) -> None:
    """It read that the record is over, and commits when it lives again: of two processes that sweep, one always is."""

    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        await people.put(Person(id="p"))
        await people.append(Person.secret, "p", 1.0, at=at())
        late = [Write("expire", Key("", "person", "p"), key_hash("", "person", "p"), None)]
        line = hda.manager.line("person")
        await line.home.commit(Commit(late, spills=hda.manager.erasures.of(late)))
        await hda.settle(10)
        assert list(await people.series(Person.secret, "p", start=at())) == [Point(at(), 1.0)]

    run(test, config(profile, tmp_path))


def test_an_outage_is_never_an_empty_answer() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        await people.append(Person.mood, "p", 1.0)
        verbs = [name for name in vars(SupportsTimeRange) if not name.startswith("_")]
        with down(hda.stores["facts"], *verbs):
            for ask in (
                people.last(Person.mood, "p"),
                people.series(Person.mood, "p", start=at()),
                people.series(Person.mood, "p", start=at(), every="1h"),
            ):
                with pytest.raises(Unavailable, match="facts"):
                    await ask

    run(test)
