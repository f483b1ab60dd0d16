"""Repair and the periodic reconcile, on stores that are corrupted and fail as told, and in virtual time."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from polystore_adapters.memory.tables import Row

from polystore.consistency import DataConsistencyManager
from polystore.consistency.mending import SIZE_MIN, RepairReport, Steady
from polystore.consistency.verify import PAGE
from polystore.errors import ConfigurationError, InvalidData, Unavailable
from polystore.model import Change, HashSpan, Key, Outcome, Page, key_hash
from polystore.protocols import SupportsJournal
from tests.unit.consistency.world import World, simulated, until

HOUR_S = 3600.0
PERIODS: Mapping[str, Any] = {"reconcile_s": 10.0, "reconcile_full_s": 80.0}
"""Eight parts, and all of them in 80 s."""
ROUND_S = 100.0


async def repaired(manager: DataConsistencyManager, *copies: str, dry_run: bool = False) -> RepairReport:
    job = Steady(manager.env, dry_run=dry_run)
    assert await manager.mender.mend("note", job, frozenset(copies) or None)
    return job.report


async def filled(world: World, *ids: str, **settings: Any) -> DataConsistencyManager:
    known: Mapping[str, Any] = {"reconcile_s": 0.0, **settings}
    manager = await world.manager(**known)
    for id in ids:
        await world.put(manager, id, f"of {id}")
    await manager.settle()
    return manager


def row(world: World, id: str, store: str = "search") -> Row:
    return world.servers[store].part("note", "").rows[id]


def corrupt(world: World, id: str, text: str = "wrong", *, older: int = 0, store: str = "search") -> None:
    """Another text at the same version, or a version that is so much older; newer where that is negative."""
    old = row(world, id, store)
    new = msgspec.structs.replace(old, version=old.version - older, body={**old.body, "text": text})
    world.servers[store].install(Key("", "note", id), new)


def counted(manager: DataConsistencyManager) -> list[str]:
    """A name for each comparison from now on."""
    names: list[str] = []
    mender: Any = manager.mender
    mend = mender.mend

    async def noted(etype: str, *given: object) -> object:
        names.append(etype)
        return await mend(etype, *given)

    mender.mend = noted
    return names


def add(world: World, id: str, version: int, store: str = "search") -> None:
    """A record that only the copy has."""
    h = key_hash("", "note", id)
    body = {"id": id, "text": "nobody's"}
    world.servers[store].apply([Change(Key("", "note", id), version, h, body, b"", 1)])


def test_every_way_in_which_a_copy_can_be_wrong_is_repaired() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, *"abcdef")
        vectors = row(world, "d", "vectors").vectors["text"]
        corrupt(world, "a")
        corrupt(world, "b", older=1)
        world.servers["search"].remove(Key("", "note", "c"))
        spoiled = {"text": array("f", [9.0] * len(vectors))}
        world.servers["vectors"].install(
            Key("", "note", "d"), msgspec.structs.replace(row(world, "d", "vectors"), vectors=spoiled)
        )
        add(world, "x", row(world, "e").version)
        looked = await repaired(manager, dry_run=True)
        assert (looked.left, looked.mended, world.text("search", "a")) == (5, {}, "wrong")
        report = await repaired(manager)
        assert report.mended == {"content": 1, "older": 1, "missing": 1, "vector": 1, "extra": 1}
        assert (report.left, report.owed, report.skipped) == (0, 0, {})
        assert [world.text("search", id) for id in "abcx"] == ["of a", "of b", "of c", None]
        assert row(world, "d", "vectors").vectors["text"] == vectors
        assert (await repaired(manager)).found == 0

    simulated(test)


def test_a_repair_that_the_copy_refused_overwrites_when_it_is_redriven() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, "a", repair_wait_s=5.0)
        corrupt(world, "a")
        world.copies["search"].refuses = lambda change: InvalidData("too strange")
        assert (await repaired(manager)).owed == 1
        await until(lambda: world.servers["home"].backlog().parked == {"search": 1})
        world.copies["search"].refuses = lambda change: None
        assert world.servers["home"].redrive("search", None) == 1
        await manager.settle()
        assert world.text("search", "a") == "of a"

    simulated(test)


def test_what_is_newer_than_anything_the_home_has_given_out_is_told_and_never_touched() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, *"abc")
        await world.put(manager, "b", None)
        await manager.settle()
        ahead = world.servers["home"].newest("note") + 5
        corrupt(world, "a", older=-5)
        add(world, "b", ahead)
        add(world, "x", ahead)
        report = await repaired(manager)
        assert [(one.key.id, one.problem) for one in sorted(report.shown, key=lambda one: one.key.id)] == [
            *(("a", "newer"), ("b", "newer"), ("x", "newer"))
        ]
        assert all("polystore epoch bump" in one.detail for one in report.shown)
        assert (report.left, report.mended, world.text("search", "a")) == (3, {}, "wrong")

    simulated(test)


def test_what_is_on_its_way_is_no_difference() -> None:
    """Nothing that a stalled copy is owed, and nothing that changes between the looks, is repaired."""

    async def test(world: World) -> None:
        manager = await filled(world, *"abc")
        world.copies["search"].stall_s = 3.0
        await world.put(manager, "a", "new")
        await world.put(manager, "b", None)
        await world.put(manager, "d", "created")
        report = await repaired(manager, "search")
        assert (report.found, report.compared > 0) == (0, True)
        await manager.settle()
        assert [world.text("search", id) for id in "abd"] == ["new", None, "created"]

    simulated(test)


def test_a_record_that_comes_back_while_it_is_deleted_in_the_copy_stays() -> None:
    """Between the look at the home and the delete, the home gets the record: the delete is of the version that was
    seen, and the home is asked again."""

    async def test(world: World) -> None:
        manager = await filled(world, "a")
        add(world, "x", row(world, "a").version)
        world.copies["search"].stall_s = 1.0
        work = asyncio.create_task(repaired(manager, "search"))
        await asyncio.sleep(0.5)
        await world.put(manager, "x", "the home's")
        await work
        await manager.settle()
        assert world.text("search", "x") == "the home's"

    simulated(test)


def test_a_copy_that_goes_down_is_owed_the_rest_and_gets_it_without_being_asked_again() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, *"abc", repair_wait_s=1.0)
        for id in "abc":
            corrupt(world, id)
        copy = world.copies["search"]
        copy.down = Unavailable("down", store="search")  # for changes; reads go on
        report = await repaired(manager, "search")
        assert (report.mended, report.owed) == ({}, 3)
        copy.down = None
        await manager.settle()
        assert [world.text("search", id) for id in "abc"] == ["of a", "of b", "of c"]
        assert (await repaired(manager)).found == 0

    simulated(test)


def test_what_a_repair_owed_survives_whoever_began_it() -> None:
    async def test(world: World) -> None:
        first = await filled(world, "a", worker_dead_s=5.0)
        corrupt(world, "a")
        world.copies["search"].stall_s = HOUR_S
        work = asyncio.create_task(repaired(first, "search"))
        await until(lambda: bool(world.servers["home"].backlog().retry))
        work.cancel()
        await first.stop()
        world.copies["search"].stall_s = 0.0
        await (await world.manager(reconcile_s=0.0)).settle()
        assert world.text("search", "a") == "of a"

    simulated(test)


def test_a_copy_that_is_being_filled_is_not_compared() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, "a")
        (target,) = [one for one in world.servers["home"].targets() if one.name == "search"]
        world.copies["search"].stall_s = HOUR_S
        await manager.lines["home"].home.call(
            SupportsJournal.set_target, msgspec.structs.replace(target, status="backfilling", cursor=None)
        )
        report = await repaired(manager)
        assert report.skipped == {"note at search": "it is being filled"}
        assert report.found == 0

    simulated(test)


def test_names_are_entities_and_stores() -> None:
    async def test(world: World) -> None:
        mender = (await world.manager(reconcile_s=0.0)).mender
        assert mender.named(()) == (["note"], None)
        assert mender.named(("note", "search")) == (["note"], frozenset({"search"}))
        with pytest.raises(ConfigurationError, match="did you mean 'search'"):
            mender.named(("serach",))

    simulated(test)


def test_a_rate_is_kept() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, *(str(i) for i in range(30)))
        began = world.env.monotonic()
        job = Steady(world.env, rate_per_s=10)
        assert await manager.mender.mend("note", job)
        assert job.report.compared == 60
        assert 5.5 <= world.env.monotonic() - began <= 6.5

    simulated(test)


async def _slowly(world: World, scanned: list[int]) -> None:
    """The copy does one thing at a time, and takes 0.5 ms for each record that is read, and 2 ms for one written."""
    copy, one_at_a_time = world.copies["search"], asyncio.Lock()
    scan, apply = copy.inner.scan, copy.inner.apply

    async def slow_scan(etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        async with one_at_a_time:
            page = await scan(etype, tenant, span, cursor, limit)
            scanned.append(len(page.stamps))
            await asyncio.sleep(0.0005 * len(page.stamps))
            return page

    async def slow_apply(changes: Sequence[Change]) -> list[Outcome]:
        async with one_at_a_time:
            await asyncio.sleep(0.002 * len(changes))
            return await apply(changes)

    vars(copy).update(scan=slow_scan, apply=slow_apply)


def test_a_copy_that_is_slow_is_compared_in_smaller_parts_and_live_changes_come_between() -> None:
    async def test(world: World) -> None:
        manager = await filled(world)
        await manager.write("note", [world.write(manager, f"n{i}", "글") for i in range(2_500)])
        await manager.settle(60)
        scanned: list[int] = []
        await _slowly(world, scanned)
        repairing = asyncio.create_task(repaired(manager, "search"))
        late: list[float] = []
        while not repairing.done():
            began = world.env.monotonic()
            await world.put(manager, f"n{len(late)}", "새 글", ack="applied")
            late.append(world.env.monotonic() - began)
        assert (await repairing).found == 0
        assert SIZE_MIN <= max(scanned) < PAGE
        assert max(late) < 0.3 < PAGE * 0.0005

    simulated(test)


def test_many_records_of_one_hash_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a page of them: a window cannot end among them."""
    for module in ("polystore.consistency.verify", "polystore.consistency.mending"):
        monkeypatch.setattr(f"{module}.PAGE", 3)
    for module in ("tests.unit.consistency.world", "polystore.consistency.loading", "polystore.consistency.mending"):
        monkeypatch.setattr(f"{module}.key_hash", seven)

    async def test(world: World) -> None:
        manager = await filled(world, *(f"{i:02}" for i in range(20)))
        corrupt(world, "11")
        corrupt(world, "19", older=1)
        report = await repaired(manager, "search")
        assert (report.compared, report.mended) == (20, {"content": 1, "older": 1})

    simulated(test)
    assert PAGE > 3


def seven(*_key: str) -> int:
    return 7


# -- by and by ----------------------------------------------------------------------------------------------------


def test_all_is_compared_in_a_round_and_the_rest_at_once_when_a_part_was_wrong() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, *(str(i) for i in range(40)), **PERIODS)
        for i in range(40):
            corrupt(world, str(i))
        await asyncio.sleep(25.0)  # one or two parts of eight: some of the 40 records are in them
        assert {world.text("search", str(i)) for i in range(40)} == {f"of {i}" for i in range(40)}
        state = await manager.reconciler.state("note")
        assert state.last[1:] == (40, 0)
        corrupt(world, "7")
        await asyncio.sleep(ROUND_S)
        assert world.text("search", "7") == "of 7"

    simulated(test)


def test_one_process_at_a_time_compares_and_another_goes_on_when_it_dies() -> None:
    async def test(world: World) -> None:
        first = await filled(world, *(str(i) for i in range(40)), **PERIODS)
        second = await world.manager(**PERIODS)
        jobs = [counted(manager) for manager in (first, second)]
        await asyncio.sleep(ROUND_S)
        assert 5 <= len(jobs[0]) + len(jobs[1]) <= 11
        await first.stop()
        before = len(jobs[1])
        await asyncio.sleep(ROUND_S)
        assert 5 <= len(jobs[1]) - before <= 11

    simulated(test)


def test_what_nobody_was_there_for_is_made_up_for() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, *(str(i) for i in range(40)), **PERIODS)
        await asyncio.sleep(20.0)
        await manager.stop()
        for i in range(40):
            corrupt(world, str(i))
        await asyncio.sleep(2 * ROUND_S)
        later = await world.manager(**PERIODS)
        await asyncio.sleep(15.0)
        assert {world.text("search", str(i)) for i in range(40)} == {f"of {i}" for i in range(40)}
        await later.settle()

    simulated(test)


def test_a_copy_that_was_started_again_is_compared_whole_soon() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, *(str(i) for i in range(40)), **PERIODS)
        await asyncio.sleep(7.0)  # the first part is done
        for i in range(40):
            corrupt(world, str(i), older=1)
        await manager.reconciler.ask("search")
        await asyncio.sleep(6.5)
        assert {world.text("search", str(i)) for i in range(40)} == {f"of {i}" for i in range(40)}
        assert not (await manager.reconciler.state("note")).whole

    simulated(test)


def test_a_copy_that_is_started_again_while_a_part_is_compared_is_compared_whole_all_the_same() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, *(str(i) for i in range(40)), **PERIODS)
        mender: Any = manager.mender
        mend = mender.mend

        async def interrupted(*given: object) -> object:
            mender.mend = mend
            ended = await mend(*given)
            for i in range(40):
                corrupt(world, str(i), older=1)
            await manager.reconciler.ask("search")
            return ended

        mender.mend = interrupted
        await asyncio.sleep(9.0)  # before the second part is due
        assert {world.text("search", str(i)) for i in range(40)} == {f"of {i}" for i in range(40)}

    simulated(test)


def test_nothing_is_compared_when_it_is_switched_off() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, "a")
        corrupt(world, "a")
        await asyncio.sleep(2 * ROUND_S)
        assert world.text("search", "a") == "wrong"
        assert not (await manager.reconciler.state("note")).ended_us

    simulated(test)


def test_nobody_else_compares_while_a_repair_waits_for_its_copy() -> None:
    async def test(world: World) -> None:
        manager = await filled(world, "a")
        another = await world.manager(reconcile_s=0.0)
        corrupt(world, "a")
        world.copies["search"].down = Unavailable("away")
        comparing = asyncio.create_task(manager.reconciler.compare("note"))
        for _ in range(5):
            await asyncio.sleep(5.0)
            assert not comparing.done()
            assert await another.reconciler.compare("note") is None
        world.copies["search"].down = None
        report = await comparing
        assert report is not None
        assert report.found == 1
        assert await another.reconciler.compare("note") is not None

    simulated(test)
