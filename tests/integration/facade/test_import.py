"""Imports: any amount, in whole commits, resumable."""

from __future__ import annotations

import asyncio
import math
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from polystore import AlreadyExists, HybridDataArchitecture, ImportReport, IntegrityViolation, InvalidData, Unavailable
from polystore.collection import importing
from polystore.consistency import Settings
from polystore.model import Commit
from tests.integration.facade.world import ENTITIES, SPLIT, Memory, Person, everywhere, opened, split


def people(count: int, start: int = 0) -> Iterator[Person]:
    return (Person(id=f"p{i:05}", name=f"사람 {i}") for i in range(start, start + count))


@everywhere
async def test_an_import_writes_everything_to_every_store(hda: HybridDataArchitecture) -> None:
    memories = hda.collection(Memory)
    reports: list[ImportReport] = []
    report = await memories.import_many(
        (Memory(id=f"m{i}", text=f"오늘의 {i}번째 기억") for i in range(1203)), progress=reports.append
    )
    assert report == ImportReport(read=1203, written=1203)
    assert [one.written for one in reports] == [500, 1000, 1203]
    await hda.settle(30)
    assert await memories.count() == 1203
    assert {hit.value.id for hit in await memories.search("1177번째")} == {"m1177"}
    assert (await memories.similar("오늘의 1177번째 기억", limit=1))[0].value.id == "m1177"


@split
async def test_asynchronous_sources_are_read_too(hda: HybridDataArchitecture) -> None:
    async def source() -> AsyncIterator[Person]:
        for person in people(3):
            await asyncio.sleep(0)
            yield person

    assert (await hda.collection(Person).import_many(source())).written == 3


@everywhere
async def test_a_second_import_of_the_same_writes_nothing(hda: HybridDataArchitecture) -> None:
    records = hda.collection(Person)
    await records.import_many(people(600))
    version = (await records.load("p00000")).version
    assert await records.import_many(people(601)) == ImportReport(read=601, written=1, skipped=600)
    assert (await records.load("p00000")).version == version


@everywhere
async def test_conflicts_overwrite_skip_or_are_errors(hda: HybridDataArchitecture) -> None:
    records = hda.collection(Person)
    await records.put(Person(id="p00001", name="먼저"))
    assert await records.import_many(people(3), on_conflict="skip") == ImportReport(3, 2, 1)
    assert cast(Person, await records.get("p00001")).name == "먼저"
    assert await records.import_many(people(3)) == ImportReport(3, 1, 2)
    assert cast(Person, await records.get("p00001")).name == "사람 1"
    with pytest.raises(AlreadyExists):
        await records.import_many(people(1), on_conflict="error")


@everywhere
async def test_the_same_key_twice_is_as_two_imports_one_after_the_other(hda: HybridDataArchitecture) -> None:
    records = hda.collection(Person)
    twice = [Person(id="p", name="첫째"), Person(id="q", name="x"), Person(id="p", name="둘째")]
    assert await records.import_many(twice) == ImportReport(3, 3)
    assert cast(Person, await records.get("p")).name == "둘째"
    again = [Person(id="r", name="첫째"), Person(id="r", name="둘째")]
    assert await records.import_many(again, on_conflict="skip") == ImportReport(2, 1, 1)
    assert cast(Person, await records.get("r")).name == "첫째"


def spoilt(count: int, bad: set[int]) -> Iterator[Person]:
    """People; the bad ones cannot be encoded (even numbers), or break a unique value at the home (odd ones)."""
    for i, person in enumerate(people(count)):
        if i in bad and i % 2 == 0:
            person.name = cast(Any, i)
        elif i in bad:
            person.email = "taken@example.com"
        yield person


@everywhere
async def test_bad_values_can_be_collected(hda: HybridDataArchitecture) -> None:
    records = hda.collection(Person)
    await records.put(Person(id="owner", name="x", email="taken@example.com"))
    bad = {0, 7, 8, 499, 500, 501, 777, 1099}
    report = await records.import_many(spoilt(1100, bad), on_error="collect", resume="people")
    assert (report.read, report.written, report.rejected) == (1100, 1100 - len(bad), len(bad))
    assert sorted(position for position, _ in report.errors) == sorted(bad)
    assert await records.count() == 1100 - len(bad) + 1
    messages = dict(report.errors)
    assert "Person.name" in messages[8]
    assert "email" in messages[7]
    again = await records.import_many(spoilt(1100, bad), on_error="collect", resume="people")
    assert again == ImportReport(read=1100, skipped=1100)


@everywhere
async def test_a_position_is_behind_bad_values_at_the_end_too(hda: HybridDataArchitecture) -> None:
    records = hda.collection(Person)
    await records.put(Person(id="owner", name="x", email="taken@example.com"))
    for count in (8, 9):  # the last one spoils the commit, or cannot be encoded
        name = f"up to {count}"
        assert (await records.import_many(people(count - 1), resume=name)).rejected == 0
        report = await records.import_many(spoilt(count, {count - 1}), on_error="collect", resume=name)
        assert report.rejected == 1
        again = await records.import_many(spoilt(count, {count - 1}), on_error="collect", resume=name)
        assert again == ImportReport(read=count, skipped=count)


@everywhere
async def test_stopping_at_a_bad_value_leaves_everything_before_it(hda: HybridDataArchitecture) -> None:
    records = hda.collection(Person)
    await records.put(Person(id="owner", name="x", email="taken@example.com"))
    for bad, error in ((600, InvalidData), (723, IntegrityViolation)):
        with pytest.raises(error) as caught:
            await records.import_many(spoilt(1100, {bad}), resume="people")
        assert any(f"value {bad} of the source" in note for note in caught.value.__notes__)
        assert await records.count() == bad + 1
        assert await records.exists(f"p{bad - 1:05}")
    mended = await records.import_many(people(1100), resume="people")
    assert mended == ImportReport(read=1100, written=1100 - 723, skipped=723)


@everywhere
async def test_only_the_first_hundred_errors_are_kept(hda: HybridDataArchitecture) -> None:
    report = await hda.collection(Person).import_many(spoilt(300, set(range(0, 300, 2))), on_error="collect")
    assert (report.rejected, len(report.errors), report.errors[-1][0]) == (150, 100, 198)


@everywhere
async def test_a_cancelled_import_left_whole_commits_and_goes_on(hda: HybridDataArchitecture) -> None:
    records = hda.collection(Person)
    enough = asyncio.Event()

    async def slowly() -> AsyncIterator[Person]:
        for i, person in enumerate(people(3000)):
            if i == 2100:
                enough.set()
                await asyncio.sleep(3600)
            yield person

    task = asyncio.create_task(records.import_many(slowly(), resume="people"))
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await hda.settle(10)
    written = await records.count()
    assert written % 500 == 0
    assert 1000 <= written <= 2000
    rest = await records.import_many(people(3000), resume="people")
    assert rest == ImportReport(read=3000, written=3000 - written, skipped=written)
    assert await records.count() == 3000


def test_an_outage_ends_the_import_and_a_second_run_goes_on(tmp_path: Path) -> None:
    config = f"sqlite:{tmp_path}/app.db"

    async def broken(hda: HybridDataArchitecture) -> None:
        commits = 0
        repository = cast(Any, hda.stores["main"].repository)
        plain = repository.commit

        async def third_fails(asked: object) -> object:
            nonlocal commits
            commits += 1
            if commits >= 3:
                raise Unavailable("pulled the plug")
            return await plain(asked)

        repository.commit = third_fails
        with pytest.raises(Unavailable):
            await hda.collection(Person).import_many(people(2000), resume="people")
        assert await hda.collection(Person).count() == 1000

    async def mended(hda: HybridDataArchitecture) -> None:
        report = await hda.collection(Person).import_many(people(2000), resume="people")
        assert report == ImportReport(read=2000, written=1000, skipped=1000)

    opened(broken, config)
    opened(mended, config)


@everywhere
async def test_positions_belong_to_a_name_a_type_and_a_tenant(hda: HybridDataArchitecture) -> None:
    await hda.collection(Person).import_many(people(10), resume="load")
    assert (await hda.collection(Person).import_many(people(10), resume="other")).skipped == 10
    assert (await hda.tenant("acme").collection(Person).import_many(people(10), resume="load")).written == 10
    texts = [Memory(id=str(i), text="글") for i in range(10)]
    assert (await hda.collection(Memory).import_many(texts, resume="load")).written == 10
    assert (await hda.collection(Person).import_many(people(12), resume="load")) == ImportReport(12, 2, 10)


def test_a_position_outlives_the_process(tmp_path: Path) -> None:
    config = f"sqlite:{tmp_path}/app.db"

    async def first(hda: HybridDataArchitecture) -> None:
        await hda.collection(Person).import_many(people(700), resume="people")

    async def second(hda: HybridDataArchitecture) -> None:
        report = await hda.collection(Person).import_many(people(900), resume="people")
        assert report == ImportReport(read=900, written=200, skipped=700)

    opened(first, config)
    opened(second, config)


def test_an_import_goes_no_faster_than_the_copies() -> None:
    owners: list[str | None] = []
    keys: list[list[str]] = []

    async def main() -> None:
        settings = Settings(queue_max=1000)
        async with HybridDataArchitecture.open(SPLIT, entities=ENTITIES, settings=settings) as hda:
            home, words = (cast(Any, hda.stores[name].repository) for name in ("home", "words"))
            commit, apply = home.commit, words.apply
            go = asyncio.Event()

            async def watched(commits: Sequence[Commit]) -> object:
                owners.extend(one.owner for one in commits if one.writes)
                # Others than the import's keep a note, and write nothing.
                keys.extend([write.key.id for write in one.writes] for one in commits if one.writes)
                return await commit(commits)

            async def stuck(changes: object) -> object:
                await go.wait()
                return await apply(changes)

            home.commit, words.apply = watched, stuck
            source = (Memory(id=str(min(i, 2490)), text="x") for i in range(2500))
            task = asyncio.create_task(hda.collection(Memory).import_many(source))
            while len(keys) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for _ in range(2000):  # as many turns as a third commit would need
                await asyncio.sleep(0)
            assert len(keys) == 2
            go.set()
            await task

    asyncio.run(main())
    assert None not in owners, "the lanes had room for every commit"
    assert all(len(set(commit)) == len(commit) for commit in keys), "one commit writes a record once"


@pytest.mark.parametrize(
    ("commit_s", "room", "sizes"),
    [
        (math.inf, None, [500, 500, 1000, 2000, 2000]),
        (math.inf, 500, [500] * 12),
        (math.inf, 250, [500, *[250] * 22]),
        (0.0, None, [500] * 12),
    ],
    ids=["quick and alone", "copies follow", "copies are late", "slow"],
)
def test_commits_grow_while_they_are_quick_and_no_copy_has_to_follow(
    commit_s: float, room: int | None, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "COMMIT_S", commit_s)

    async def load(hda: HybridDataArchitecture) -> None:
        async def told(etype: str) -> int | None:
            return room

        monkeypatch.setattr(hda.manager, "room", told)
        written = [0]
        await hda.collection(Person).import_many(people(6000), progress=lambda report: written.append(report.written))
        assert [after - before for before, after in pairwise(written)] == sizes
        assert await hda.collection(Person).count() == 6000

    opened(load, f"sqlite:{tmp_path}/app.db")


def test_memory_does_not_grow_with_the_size_of_values(tmp_path: Path) -> None:
    letters, bytes_all = 1 << 20, 100 << 21  # two bytes a letter

    async def load(hda: HybridDataArchitecture) -> None:
        tracemalloc.start()
        try:
            await hda.collection(Person).import_many(
                Person(id=str(i), name=f"{i}" + "가" * letters) for i in range(100)
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < bytes_all / 2

    opened(load, f"sqlite:{tmp_path}/app.db")


@split
async def test_unknown_options_are_refused(hda: HybridDataArchitecture) -> None:
    records = hda.collection(Person)
    with pytest.raises(InvalidData, match="on_conflict"):
        await records.import_many(people(1), on_conflict=cast(Any, "replace"))
    with pytest.raises(InvalidData, match="on_error"):
        await records.import_many(people(1), on_error=cast(Any, "ignore"))
    assert await records.count() == 0
