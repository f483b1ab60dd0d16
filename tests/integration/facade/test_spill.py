"""Facts while their store is down: kept by the journal, delivered later, bounded, never lost silently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from polystore_adapters.memory import MemoryRepository

from polystore import (
    Backpressure,
    CircuitOpen,
    Collection,
    ConfigurationError,
    HybridDataArchitecture,
    InvalidData,
    OutcomeUnknown,
    Point,
    StalenessTimeout,
    Unavailable,
)
from polystore.consistency import Settings
from polystore.protocols import SupportsSpill
from tests.integration.facade.facts import ENTITIES, PROMPT, SPLIT, Event, Person, at, run
from tests.integration.facade.world import down

T = TypeVar("T")
POINTS = [("p", at(i), float(i)) for i in range(25)]


def split_files(directory: Path) -> Mapping[str, Any]:
    roles = {"home": ["home", "journal"], "facts": ["time_series"], "words": ["full_text"]}
    return {"stores": {name: {"url": f"sqlite:{directory}/{name}.db", "roles": of} for name, of in roles.items()}}


async def kept(hda: HybridDataArchitecture) -> dict[str, int]:
    return {one.store: one.facts for one in await hda.stores["home"].call(SupportsSpill.spills)}


@pytest.mark.parametrize("durable", [False, True])
def test_points_and_lines_are_kept_and_delivered_when_the_store_is_back(durable: bool, tmp_path: Path) -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people, log = hda.collection(Person), hda.log(Event)
        line = Event(id="e", at=at(), text="학교에서", level=2)
        with down(hda.stores["facts"], "append_points", "last_points"), down(hda.stores["words"], "append_lines"):
            result = await people.append(Person.mood, "p", 9.0, at=at(-1))
            assert result.stores == {"facts": "pending"}
            assert await people.append_many(Person.mood, POINTS) == 25
            assert await people.append_many(Person.place, [("p", at(), "집")]) == 1
            assert (await log.append(line)).stores == {"words": "pending"}
            assert await kept(hda) == {"facts": 27, "words": 1}
            with pytest.raises(StalenessTimeout, match="home still keeps 27 facts in 3 rows for facts"):
                await hda.settle(0.1)
            with pytest.raises(Unavailable):
                await people.last(Person.mood, "p")
        await hda.settle(10)
        assert await kept(hda) == {}
        found = await people.series(Person.mood, "p", start=at(-1))
        assert list(found) == [Point(at(-1), 9.0), *(Point(moment, value) for _, moment, value in POINTS)]
        assert await people.last(Person.place, "p") == Point(at(), "집")
        assert list(await log.search("학교")) == [line]

    run(test, split_files(tmp_path) if durable else SPLIT)


def test_what_was_carried_out_without_an_answer_is_there_once() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        repository: Any = hda.stores["facts"].repository
        append = repository.append_points
        silent = True

        async def unanswered(points: Any) -> None:
            await append(points)
            if silent:
                raise OutcomeUnknown("the line went dead")

        repository.append_points = unanswered
        assert (await people.append(Person.mood, "p", 1.0, at=at())).stores == {"facts": "pending"}
        silent = False
        await hda.settle(10)
        assert list(await people.series(Person.mood, "p", start=at())) == [Point(at(), 1.0)]

    run(test)


async def appended(people: Collection[Person], moment: datetime) -> bool:
    """Whether there was room for a point."""
    try:
        await people.append(Person.mood, "p", 1.0, at=moment)
    except Backpressure as e:
        assert "spill_bytes_max is 500. Nothing was appended" in str(e)  # noqa: PT017
        return False
    return True


def test_the_bound_is_named_and_nothing_beyond_it_is_kept() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        with down(hda.stores["facts"], "append_points"):
            count = 0
            while await appended(people, at(count)):
                count += 1
            assert 1 < count < 100
            assert await kept(hda) == {"facts": count}
        await hda.settle(10)
        assert len(await people.series(Person.mood, "p", start=at())) == count
        await people.append(Person.mood, "p", 1.0)

    run(test, settings=Settings(poll_s=0.02, retry_max_s=0.02, spill_bytes_max=500))


def test_where_the_journal_is_the_same_store_an_outage_is_raised() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        (store,) = hda.stores.values()
        with down(store, "append_points", "append_lines"):
            with pytest.raises(Unavailable):
                await hda.collection(Person).append(Person.mood, "p", 1.0)
            with pytest.raises(Unavailable):
                await hda.log(Event).append(Event(text="x"))
        assert await store.call(SupportsSpill.spills) == []

    run(test, "memory:")


def test_when_the_journal_is_down_too_the_outage_of_the_facts_is_raised() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        with down(hda.stores["facts"], "append_points"), down(hda.stores["home"], "spill"):
            failed = await asyncio.gather(people.append(Person.mood, "p", 1.0), return_exceptions=True)
        assert isinstance(failed[0], Unavailable)
        assert str(failed[0]).startswith("facts append_points")

    run(test)


def test_a_log_without_any_journal_raises() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        with down(hda.stores["words"], "append_lines"), pytest.raises(Unavailable):
            await hda.log(Event).append(Event(text="x"))

    only = {"stores": {"words": {"url": "memory:", "roles": ["full_text"]}}}
    run(test, only, entities=[Event])


def test_facts_that_the_store_refuses_are_put_aside_told_and_hold_up_no_others() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        repository: Any = hda.stores["facts"].repository
        append = repository.append_points
        with down(hda.stores["facts"], "append_points"):
            for i in range(4):
                await people.append(Person.mood, "p", float(i), at=at(i))

        async def picky(points: Any) -> None:
            if any(point.value == 2.0 for point in points):
                raise InvalidData("no twos")
            await append(points)

        repository.append_points = picky
        await hda.settle(10)
        assert [p.value for p in await people.series(Person.mood, "p", start=at())] == [0.0, 1.0, 3.0]
        (count,) = await hda.stores["home"].call(SupportsSpill.spills)
        assert (count.rows, count.aside, count.facts) == (1, 1, 1)
        assert "no twos" in count.error
        assert any("facts refuses 1 facts of person" in problem for problem in hda.manager.problems)

    run(test)


def test_facts_for_an_optional_store_that_did_not_answer_at_open_wait_for_one_who_reaches_it(tmp_path: Path) -> None:
    config = {"stores": dict(split_files(tmp_path)["stores"])}

    async def create(hda: HybridDataArchitecture) -> None:
        await hda.collection(Person).append(Person.mood, "p", 0.0, at=at())

    run(create, config)
    (tmp_path / "facts.db").rename(tmp_path / "away.db")
    (tmp_path / "facts.db").mkdir()
    without = {"stores": {**config["stores"], "facts": {**config["stores"]["facts"], "required": False}}}

    async def append(hda: HybridDataArchitecture) -> None:
        assert "facts" not in hda.stores
        people = hda.collection(Person)
        assert (await people.append(Person.mood, "p", 1.0, at=at(1))).stores == {"facts": "pending"}
        with pytest.raises(Unavailable, match="facts"):
            await people.last(Person.mood, "p")
        await hda.settle(1)

    run(append, without)
    (tmp_path / "facts.db").rmdir()
    (tmp_path / "away.db").rename(tmp_path / "facts.db")

    async def read(hda: HybridDataArchitecture) -> None:
        await hda.settle(10)
        assert [p.value for p in await hda.collection(Person).series(Person.mood, "p", start=at())] == [0.0, 1.0]

    run(read, config)


async def read_again(read: Callable[[], Awaitable[Sequence[T]]]) -> Sequence[T]:
    """Where the other process has delivered, this one's breaker may not know yet that the store is back."""
    for _ in range(200):
        try:
            return await read()
        except CircuitOpen:
            await asyncio.sleep(0.05)
    raise AssertionError("the breaker stays open")


def test_two_processes_deliver_what_either_has_kept(tmp_path: Path) -> None:
    async def test(one: HybridDataArchitecture) -> None:
        opening = HybridDataArchitecture.open(split_files(tmp_path), entities=ENTITIES, settings=PROMPT)
        async with opening as other:
            writers = [hda.collection(Person) for hda in (one, other)]
            with down(one.stores["facts"], "append_points"), down(other.stores["facts"], "append_points"):
                for i in range(40):
                    await writers[i % 2].append(Person.steps, "p", i, at=at(i))
            await asyncio.gather(one.settle(20), other.settle(20))
            found = await read_again(lambda: writers[0].series(Person.steps, "p", start=at()))
            assert [p.value for p in found] == list(range(40))

    run(test, split_files(tmp_path))


def test_erasing_needs_a_home_that_keeps_the_duty() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        raise AssertionError("it was opened")

    able = MemoryRepository.capabilities
    MemoryRepository.capabilities = able - {SupportsSpill}
    try:
        with pytest.raises(ConfigurationError, match=r"Person: Measure\(on_delete='erase'\) needs a home"):
            run(test)
    finally:
        MemoryRepository.capabilities = able


def test_kept_facts_are_delivered_in_the_order_of_deletes_and_appends() -> None:
    async def test(hda: HybridDataArchitecture) -> None:
        people = hda.collection(Person)
        with down(hda.stores["facts"], "append_points", "erase_points"):
            for generation in range(4):
                await people.put(Person(id="p"))
                await people.append(Person.secret, "p", float(generation), at=at() + timedelta(seconds=generation))
                if generation < 3:
                    await people.delete("p")
        await hda.settle(10)
        assert [p.value for p in await people.series(Person.secret, "p", start=at())] == [3.0]

    run(test)
