"""How fast a new copy is filled, and how much it is owed at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec.structs import replace

from polystore.consistency import DataConsistencyManager
from polystore.entity import entity, entity_types
from polystore.errors import Unavailable
from polystore.facets import FullText
from polystore.model import Commit, Instance, Page, Placement, TargetRow
from polystore.protocols import Layout
from tests.unit.consistency.test_stage import Service
from tests.unit.consistency.world import World, simulated, until

COUNT, CHUNK, BATCH, POLL_S = 400, 20, 10, 1.0
SEARCH_ONLY = Placement("note", "home", {"full_text": "search"})


async def joined(world: World) -> DataConsistencyManager:
    """A manager that was just opened with one more copy, `vectors`, of a home with records."""
    before = await world.manager(placement=SEARCH_ONLY)
    await before.write("note", [world.write(before, f"n{i:03}", f"글 {i}") for i in range(COUNT)])
    await before.settle(60)
    await before.stop()
    return await world.manager(backfill_chunk=CHUNK, batch_max=BATCH, poll_s=POLL_S)


def owed(world: World) -> int:
    return world.servers["home"].backlog().retry.get("vectors", 0)


async def filled(world: World, manager: DataConsistencyManager) -> float:
    """How long it took, in seconds of virtual time."""
    begun = world.env.monotonic()
    rows = manager.line("note").targets.rows
    await until(lambda: [row.status for row in rows("note") if row.name == "vectors"] == ["active"])
    assert len(world.servers["vectors"].part("note", "").rows) == COUNT
    return world.env.monotonic() - begun


def test_a_new_copy_is_filled_as_fast_as_it_takes_what_it_is_owed() -> None:
    """Not by polls, of which it would take dozens; and what live changes come to owe it never waits behind much."""

    async def test(world: World) -> None:
        manager = await joined(world)
        most, bring = 0, world.copies["vectors"].apply

        async def apply(changes: Any) -> Any:
            nonlocal most
            most = max(most, owed(world))
            await asyncio.sleep(0.01)
            return await bring(changes)

        vars(world.copies["vectors"])["apply"] = apply
        assert await filled(world, manager) < COUNT / BATCH * 0.01 + 2 * POLL_S
        assert BATCH < most <= BATCH + CHUNK

    simulated(test)


def test_a_copy_is_filled_no_faster_than_the_rate_says() -> None:
    async def test(world: World) -> None:
        manager = await joined(world)
        manager.line("note").filling.rates = {("note", "vectors"): 100.0}
        assert COUNT / 100.0 - 2 * POLL_S < await filled(world, manager) < COUNT / 100.0 + 3 * POLL_S

    simulated(test)


def test_filling_ends_though_records_are_deleted_while_is_looked_for_leftovers() -> None:
    """What was deleted since is owed to the copy by its delete, and no reason to look at all of it once more."""

    async def test(world: World) -> None:
        copy, looked = world.copies["vectors"], 0
        manager = await joined(world)
        scanned = copy.inner.scan

        async def scan(etype: str, tenant: str, span: Any, cursor: str | None, limit: int) -> Page:
            nonlocal looked
            page = await scanned(etype, tenant, span, cursor, limit)
            looked += cursor is None
            await world.put(manager, page.stamps[0].id, None)  # and is still on its way when the home is asked
            await world.put(manager, f"new{page.stamps[0].id}", "새 글")
            return page

        vars(copy)["scan"] = scan
        await filled(world, manager)
        assert looked == 1

    simulated(test)


def test_a_copy_of_a_type_that_this_process_does_not_know_holds_up_no_other() -> None:
    """Who was opened with it fills it; until then neither the others nor `settle` wait for that."""

    async def test(world: World) -> None:
        foreign = TargetRow("aaa", "vectors", 0, "backfilling")
        await world.home.set_target(foreign)
        manager = await joined(world)
        await filled(world, manager)
        await manager.settle(10)
        assert foreign in await world.home.targets()

    simulated(test)


def test_a_copy_that_begins_anew_while_it_is_filled_is_filled_from_the_beginning() -> None:
    async def test(world: World) -> None:
        manager = await joined(world)
        home = world.servers["home"]
        backfill, begun = home.backfill, False

        def late(row: TargetRow, limit: int) -> TargetRow:
            nonlocal begun
            if row.name == "vectors" and row.cursor and not begun:
                begun = True  # somebody has decided so after the copies were read
                home.set_target(replace(row, cursor=None))
                world.servers["vectors"].part("note", "").rows.clear()
            return backfill(row, limit)

        vars(home)["backfill"] = late
        await filled(world, manager)
        assert begun

    simulated(test)


def test_a_process_that_was_slow_to_register_begins_no_filling_anew() -> None:
    """What it has read of the copies is old by then: others have registered them, and filled them."""

    async def test(world: World) -> None:
        before = await world.manager(placement=Placement("note", "home", {}))
        await before.write("note", [world.write(before, f"n{i}", "글") for i in range(20)])
        await before.stop()
        ping, slow = world.copies["search"].inner.ping, True

        async def pinged() -> Instance:
            nonlocal slow
            waits, slow = slow, False
            await asyncio.sleep(8.0 if waits else 0.0)
            return await ping()

        vars(world.copies["search"])["ping"] = pinged
        opening = asyncio.create_task(world.manager())
        await asyncio.sleep(1.0)
        await world.manager()
        complete = {"search": "active", "vectors": "active"}

        def statuses() -> dict[str, str]:
            return {row.name: row.status for row in world.servers["home"].targets()}

        await until(lambda: statuses() == complete)
        assert not opening.done()
        await opening
        assert statuses() == complete

    simulated(test)


@entity()
@dataclass
class Word:
    id: str
    text: Annotated[str, FullText()]


def test_what_waits_for_an_embedder_holds_up_no_filling_of_another_type() -> None:
    service = Service()
    service.error = ConnectionError("refused")

    async def test(world: World) -> None:
        world.types |= entity_types([Word])
        word = world.types["word"]
        world.servers["home"].prepare([Layout(word, True, frozenset())], create=True)
        world.servers["vectors"].prepare([Layout(word, False, frozenset({"full_text"}))], create=True)
        before = await world.manager(placements={"word": Placement("word", "home", {})}, batch_max=BATCH)
        for i in range(3 * BATCH):
            await world.put(before, f"n{i}", f"글 {i}")
            write = world.write(before, f"w{i}", "말")
            await before.write("word", [replace(write, key=replace(write.key, etype="word"))])
        await before.stop()
        placed = {"word": Placement("word", "home", {"full_text": "vectors"})}
        manager = await world.manager(placements=placed, batch_max=BATCH, backfill_chunk=CHUNK)
        rows = manager.line("word").targets.rows
        await until(lambda: [row.status for row in rows("word")] == ["active"])
        assert world.servers["home"].backlog().owed["note", "vectors"] > BATCH
        assert len(world.servers["vectors"].part("word", "").rows) == 3 * BATCH

    simulated(test, embedder=service)


def test_processes_do_not_take_turns_at_a_copy_that_needs_longer_for_a_page_than_a_lease_lasts() -> None:
    async def test(world: World) -> None:
        copy, pages = world.copies["vectors"], 0
        manager = await joined(world)
        other = await world.manager(batch_max=COUNT // 4)
        scanned = copy.inner.scan

        async def scan(etype: str, tenant: str, span: Any, cursor: str | None, limit: int) -> Page:
            nonlocal pages
            pages += 1
            await asyncio.sleep(manager.settings.worker_dead_s + 2.0)
            return await scanned(etype, tenant, span, cursor, COUNT // 4)

        vars(copy)["scan"] = scan
        await filled(world, manager)
        assert pages <= 5
        assert not other.problems

    simulated(test)


def test_what_was_deleted_between_two_fillings_of_a_copy_is_looked_for_by_who_has_seen_only_the_first() -> None:
    async def test(world: World) -> None:
        home, copy = world.servers["home"], world.copies["vectors"]
        held_up = Unavailable("it does not take this one", store="vectors")
        copy.refuses = lambda change: held_up if change.key.id == "n399" else None
        manager = await joined(world)
        await until(lambda: len(world.servers["vectors"].part("note", "").rows) == COUNT - 1)
        await asyncio.sleep(3 * POLL_S)  # it has seen the end of the first filling
        row = next(row for row in home.targets() if row.name == "vectors")
        home.set_target(replace(row, status="off", cursor=None))
        home.commit([Commit([world.write(manager, "n000", None)])])
        home.set_target(replace(row, cursor=None))
        again = home.backfill(replace(row, cursor=None), COUNT)  # by another process, between two looks of this one
        assert again.cursor == ""
        copy.refuses = lambda change: None
        rows = manager.line("note").targets.rows
        await until(lambda: [row.status for row in rows("note") if row.name == "vectors"] == ["active"])
        assert world.text("vectors", "n000") is None

    simulated(test)
