"""`on_delete="detach"`: whoever refers to a deleted record soon refers to it no more, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from polystore import (
    Edge,
    EntityError,
    HybridDataArchitecture,
    InvalidData,
    Relation,
    entity,
)
from polystore.consistency import detach
from polystore.consistency.targets import DETACH
from polystore.consistency.verify import Verifier
from polystore.model import Key, Settlement, Write
from polystore.protocols import SupportsJournal
from polystore.results import WriteResult
from tests.integration.facade.world import PROMPT, SPLIT, behind, config_of, down, profiles


@entity()
@dataclass(kw_only=True)
class City:
    id: str
    name: str = ""


@dataclass
class Visit:
    year: int


@entity()
@dataclass(kw_only=True)
class Trip:
    """A reference of every kind that can be let go, and one that is kept."""

    id: str
    note: str = ""
    start: Annotated[str | None, Relation("START", to=City, on_delete="detach")] = None
    over: Annotated[list[str], Relation("OVER", to=City, on_delete="detach")] = field(default_factory=list[str])
    seen: Annotated[list[Edge[Visit]], Relation("SEEN", to=City, on_delete="detach")] = field(
        default_factory=list[Edge[Visit]]
    )
    home: Annotated[str | None, Relation("HOME", to=City)] = None


@entity()
@dataclass(kw_only=True)
class Guide:
    """Another source, with an edge type that the first has too."""

    id: str
    covers: Annotated[list[str], Relation("OVER", to=City, on_delete="detach")] = field(default_factory=list[str])
    follows: Annotated[str | None, Relation("FOLLOWS", to="Guide", on_delete="detach")] = None


ENTITIES = [City, Trip, Guide]
WRONG: Any = "cascade"


async def tell(hda: HybridDataArchitecture) -> None:
    await hda.collection(City).put_many([City(id="서울"), City(id="부산"), City(id="제주")])
    await hda.collection(Trip).put_many(
        [
            Trip(
                id="t1",
                start="서울",
                over=["부산", "서울", "제주", "서울"],
                seen=[Edge("서울", Visit(1)), Edge("제주", Visit(2))],
                home="서울",
            ),
            Trip(id="t2", start="부산", over=["제주"]),
            Trip(id="t3", over=["서울"]),
        ]
    )
    await hda.collection(Guide).put(Guide(id="g1", covers=["서울", "부산"]))
    await hda.settle(10)


async def consistent(hda: HybridDataArchitecture) -> None:
    await hda.settle(20)
    verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
    for one in ("city", "trip", "guide"):
        assert [difference async for difference in verifier.differences(one)] == []


@pytest.mark.parametrize("profile", profiles())
def test_references_of_every_kind_go_and_nothing_else_changes(profile: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(config_of(profile, tmp_path), entities=ENTITIES, settings=PROMPT) as hda:
            await tell(hda)
            trips = hda.collection(Trip)
            before = {id: (await trips.load(id)).version for id in ("t1", "t2", "t3")}
            await hda.collection(City).delete("서울")
            await hda.settle(20)
            assert await trips.get("t1") == Trip(
                id="t1", over=["부산", "제주"], seen=[Edge("제주", Visit(2))], home="서울"
            )
            assert await trips.get("t2") == Trip(id="t2", start="부산", over=["제주"])
            assert await trips.get("t3") == Trip(id="t3")
            assert await hda.collection(Guide).get("g1") == Guide(id="g1", covers=["부산"])
            after = {id: (await trips.load(id)).version for id in ("t1", "t2", "t3")}
            assert [after[id] > before[id] for id in ("t1", "t2", "t3")] == [True, False, True]
            found = await trips.related("t1", ["OVER", "START", "SEEN"], into=City)
            assert [r.value.id for r in found] == ["부산", "제주"]
            assert await trips.paths("t1", "서울", ["OVER", "START", "SEEN"]) == []
            await consistent(hda)

    asyncio.run(main())


def test_a_record_that_was_written_again_by_then_keeps_its_references() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(SPLIT, entities=ENTITIES, settings=PROMPT) as hda:
            await tell(hda)
            trips, cities = hda.collection(Trip), hda.collection(City)
            before = await trips.load("t3")
            with down(hda.stores["ties"], "traverse"):  # the stage cannot work
                await cities.delete("서울")
                await owed(hda, 1)
                await cities.put(City(id="서울", name="new"))
            await hda.settle(20)
            assert await trips.load("t3") == before
            assert [c.value.name for c in await trips.related("t3", "OVER", into=City)] == ["new"]
            await cities.delete("서울")
            await hda.settle(20)
            assert await trips.get("t3") == Trip(id="t3")

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_reference_made_after_the_record_was_written_again_is_never_taken(moment: str) -> None:
    """The end and then the source are written before, or just after, the stage reads the source."""

    async def main() -> None:
        async with HybridDataArchitecture.open("memory:", entities=ENTITIES, settings=PROMPT) as hda:
            await tell(hda)
            trips, cities = hda.collection(Trip), hda.collection(City)
            repository: Any = hda.stores["main"].repository
            inner, done = repository.get, False

            async def get(keys: Sequence[Key]) -> Any:
                nonlocal done
                hit = not done and Key("", "trip", "t3") in keys
                done = done or hit
                if hit and moment == "before":
                    await again()
                answer = await inner(keys)
                if hit and moment == "after":
                    await again()
                return answer

            async def again() -> None:
                await cities.put(City(id="서울", name="new"))
                await trips.put(Trip(id="t3", note="mine", over=["서울"]))

            repository.get = get
            await cities.delete("서울")
            await hda.settle(20)
            assert done
            assert await trips.get("t3") == Trip(id="t3", note="mine", over=["서울"])

    asyncio.run(main())


def test_a_source_that_is_edited_at_the_same_time_loses_neither_edit() -> None:
    """Between the stage's look at the source and its write, somebody else writes the source: three times."""

    async def main() -> None:
        async with HybridDataArchitecture.open("memory:", entities=ENTITIES, settings=PROMPT) as hda:
            await tell(hda)
            trips = hda.collection(Trip)
            commit, edits = hda.manager.detach.commit, 0

            async def late(etype: str, writes: Sequence[Write], **options: Any) -> list[WriteResult]:
                nonlocal edits
                if edits < 3 and writes[0].key.id == "t3":
                    edits += 1
                    await trips.update("t3", {"note": f"edit {edits}", "over": ["서울", "부산"]})
                return await commit(etype, writes, **options)

            hda.manager.detach.commit = late
            await hda.collection(City).delete("서울")
            await hda.settle(20)
            assert edits == 3
            assert await trips.get("t3") == Trip(id="t3", note="edit 3", over=["부산"])
            await consistent(hda)

    asyncio.run(main())


def test_many_sources_are_let_go_in_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(detach, "BATCH", 20)
    monkeypatch.setattr(detach, "WINDOW", 40)

    async def main() -> None:
        config = config_of("embedded", tmp_path)
        async with HybridDataArchitecture.open(config, entities=ENTITIES, settings=PROMPT) as hda:
            trips = hda.collection(Trip)
            await hda.collection(City).put_many([City(id="서울"), City(id="부산")])
            await trips.put_many([Trip(id=f"t{i:03}", over=["서울", "부산"], home="서울") for i in range(150)])
            await hda.settle(20)
            sizes: list[int] = []
            source = hda.stores["home"].repository
            inner = source.get

            async def get(keys: Sequence[Key]) -> Any:
                sizes.append(len(keys))
                return await inner(keys)

            vars(source)["get"] = get
            await hda.collection(City).delete("서울")
            await hda.settle(30)
            assert [t.over async for t in trips.stream()] == [["부산"]] * 150
            assert len(sizes) >= 150 / 20
            assert max(sizes) <= 20
            await consistent(hda)

    asyncio.run(main())


def test_sources_are_found_behind_others_that_have_such_edges_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detach, "WINDOW", 5)

    async def main() -> None:
        async with HybridDataArchitecture.open("memory:", entities=ENTITIES, settings=PROMPT) as hda:
            await tell(hda)
            guides = hda.collection(Guide)
            await guides.put_many([Guide(id=f"g{i:02}", covers=["서울"]) for i in range(20)])
            await hda.collection(City).delete("서울")
            await hda.settle(20)
            assert await hda.collection(Trip).get("t3") == Trip(id="t3")
            assert not any([one.covers async for one in guides.stream() if one.id != "g1"])

    asyncio.run(main())


def test_only_deletes_are_work() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open("memory:", entities=ENTITIES, settings=PROMPT) as hda:
            home: Any = hda.stores["main"].repository
            settle, owed = home.settle, list[str]()

            async def recorded(settlement: Settlement) -> None:
                owed.extend(row.key.id for row in settlement.owed if row.target == DETACH)
                await settle(settlement)

            home.settle = recorded
            cities = hda.collection(City)
            await cities.put_many([City(id="서울"), City(id="부산")])
            await cities.update("부산", {"name": "new"})
            await hda.settle(10)
            assert owed == []
            await cities.delete("부산")
            await hda.settle(10)
            assert owed == ["부산"]

    asyncio.run(main())


def test_what_was_written_before_the_delete_is_found_though_the_copy_was_behind() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(SPLIT, entities=ENTITIES, settings=PROMPT) as hda:
            await tell(hda)
            trips, asked = hda.collection(Trip), asyncio.Event()
            ties: Any = hda.stores["ties"].repository
            inner = ties.traverse

            async def traverse(*args: Any) -> Any:
                found = await inner(*args)
                if args[-3] == 1:
                    asked.set()
                return found

            ties.traverse = traverse
            await hda.collection(City).put(City(id="대전"))
            with behind(hda.stores["ties"]):
                await trips.put(Trip(id="late", over=["대전"]))
                await hda.collection(City).delete("대전")
                async with asyncio.timeout(30):
                    await asked.wait()
                await asyncio.sleep(0.05)
            await hda.settle(20)
            assert await trips.get("late") == Trip(id="late")

    asyncio.run(main())


def test_a_source_that_refuses_is_a_dead_letter_and_the_others_are_let_go() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open("memory:", entities=ENTITIES, settings=PROMPT) as hda:
            await tell(hda)
            commit, refuses = hda.manager.detach.commit, True

            async def refusing(etype: str, writes: Sequence[Write], **options: Any) -> list[WriteResult]:
                if refuses and writes[0].key.id == "t1":
                    raise InvalidData("not this one")
                return await commit(etype, writes, **options)

            hda.manager.detach.commit = refusing
            await hda.collection(City).delete("서울")
            await hda.settle(20)
            home = hda.stores["main"]
            (row,), _ = await home.call(SupportsJournal.parked, None, None, 10)
            assert (row.target, row.key) == (DETACH, Key("", "city", "서울"))
            trips = hda.collection(Trip)
            assert await trips.get("t3") == Trip(id="t3")
            refuses = False
            await home.call(SupportsJournal.redrive, None, None)
            hda.manager.lines["main"].retries.wake(DETACH)
            await hda.settle(20)
            letting_go = await trips.get("t1")
            assert letting_go is not None
            assert letting_go.start is None

    asyncio.run(main())


def test_a_relation_declared_later_lets_go_of_what_is_deleted_from_then_on(tmp_path: Path) -> None:
    @entity(name="trip")
    @dataclass(kw_only=True)
    class Before:
        id: str
        over: Annotated[list[str], Relation("OVER", to=City)] = field(default_factory=list[str])

    @entity(name="trip")
    @dataclass(kw_only=True)
    class Now:
        id: str
        over: Annotated[list[str], Relation("OVER", to=City, on_delete="detach")] = field(default_factory=list[str])

    config = config_of("sqlite", tmp_path)

    async def main() -> None:
        async with HybridDataArchitecture.open(config, entities=[City, Before], settings=PROMPT) as hda:
            await hda.collection(City).put_many([City(id="서울"), City(id="부산")])
            await hda.collection(Before).put(Before(id="t", over=["서울", "부산"]))
            await hda.collection(City).delete("서울")
            await hda.settle(10)
        async with HybridDataArchitecture.open(config, entities=[City, Now], settings=PROMPT) as hda:
            await hda.settle(10)
            assert await hda.collection(Now).get("t") == Now(id="t", over=["서울", "부산"])
            await hda.collection(City).delete("부산")
            await hda.settle(10)
            assert await hda.collection(Now).get("t") == Now(id="t", over=["서울"])

    asyncio.run(main())


def test_records_that_refer_to_one_another_are_deleted_in_any_order() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(SPLIT, entities=ENTITIES, settings=PROMPT) as hda:
            guides = hda.collection(Guide)
            await guides.put_many([Guide(id="a", follows="b"), Guide(id="b", follows="c"), Guide(id="c", follows="c")])
            await hda.settle(10)
            async with hda.transaction() as tx:
                tx.delete(Guide, "b")
                tx.delete(Guide, "c")
            await hda.settle(20)
            assert [one async for one in guides.stream()] == [Guide(id="a")]
            await consistent(hda)

    asyncio.run(main())


def test_tenants_keep_their_references_to_ids_that_another_deletes() -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(SPLIT, entities=ENTITIES, settings=PROMPT) as hda:
            await tell(hda)
            acme = hda.tenant("acme").collection(Trip)
            await acme.put(Trip(id="t3", over=["서울"]))
            await hda.collection(City).delete("서울")
            await hda.settle(20)
            assert await acme.get("t3") == Trip(id="t3", over=["서울"])

    asyncio.run(main())


def test_a_record_whose_time_is_over_is_let_go_of_as_a_deleted_one() -> None:
    async def main() -> None:
        prompt = msgspec.structs.replace(PROMPT, poll_s=0.02)
        async with HybridDataArchitecture.open(SPLIT, entities=ENTITIES, settings=prompt) as hda:
            await tell(hda)
            await hda.collection(City).touch("서울", ttl_s=0.05)
            async with asyncio.timeout(30):
                while await hda.collection(Trip).get("t3") != Trip(id="t3"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await consistent(hda)

    asyncio.run(main())


def test_sources_with_another_home_are_let_go_and_waited_for() -> None:
    config = {
        "stores": {
            "places": {"url": "memory:", "roles": ["home"]},
            "trips": {"url": "memory:", "roles": ["home"]},
            "ties": {"url": "memory:", "roles": ["graph"]},
        },
        "pins": {"city": {"home": "places"}, "trip": {"home": "trips"}, "guide": {"home": "trips"}},
    }

    async def main() -> None:
        async with HybridDataArchitecture.open(config, entities=[Trip, Guide, City], settings=PROMPT) as hda:
            await tell(hda)
            trips = hda.collection(Trip)
            with behind(hda.stores["ties"]):
                await hda.collection(City).delete("서울")
                settling = asyncio.create_task(hda.settle(30))
                await owed(hda, 1)
                await owed(hda, 0)
                assert await trips.get("t3") == Trip(id="t3")
                await asyncio.sleep(0.05)
                assert not settling.done(), "the copy lacks what was let go"
            await settling
            await consistent(hda)

    asyncio.run(main())


def test_a_reference_that_cannot_be_empty_cannot_be_let_go() -> None:
    with pytest.raises(EntityError, match=r"Leg\.to: Relation\(on_delete='detach'\) empties the field"):

        @entity()
        @dataclass
        class Leg:  # pyright: ignore[reportUnusedClass]
            id: str
            to: Annotated[str, Relation("TO", to=City, on_delete="detach")]

    with pytest.raises(EntityError, match=r"Hop\.to: Relation\(on_delete='cascade'\): use 'keep' or 'detach'"):

        @entity()
        @dataclass
        class Hop:  # pyright: ignore[reportUnusedClass]
            id: str
            to: Annotated[str | None, Relation("TO", to=City, on_delete=WRONG)] = None


async def owed(hda: HybridDataArchitecture, wanted: int) -> None:
    """Wait until this many deletes are owed to the stage."""
    home = hda.manager.lines[hda.manager.placements["city"].home].home
    for _ in range(500):
        backlog = await home.call(SupportsJournal.backlog)
        if backlog.retry.get(DETACH, 0) == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the delete did not reach the stage")
