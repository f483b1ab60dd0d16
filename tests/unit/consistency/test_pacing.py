"""An import goes as fast as the copies that answer, and a copy is not sent more at once than it can take."""

import asyncio

import pytest

from polystore.consistency import DataConsistencyManager
from polystore.errors import Unavailable
from polystore.model import Key
from tests.unit.consistency.world import World, simulated

CHUNK = 20


async def _warm(world: World, manager: DataConsistencyManager) -> None:
    for i in range(10):
        await world.put(manager, f"warm{i}", "하나", ack="applied")


async def _import(world: World, manager: DataConsistencyManager, chunks: int = 30) -> tuple[int, int]:
    """How many records at most were in hand, and owed to "search", when the import was let go on."""
    (line,) = manager.lines.values()
    in_hand = owed = 0
    for chunk in range(chunks):
        await manager.room("note")
        in_hand = max(in_hand, len(line.in_hand))
        owed = max(owed, world.servers["home"].backlog().retry.get("search", 0))
        writes = [world.write(manager, f"n{chunk}.{i}", "둘") for i in range(CHUNK)]
        await manager.write_quietly("note", writes, {})
    return in_hand, owed


def test_it_waits_for_copies_that_are_a_second_late() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1, batch_max=CHUNK // 2)
        await _warm(world, manager)
        world.copies["search"].stall_s = 0.2  # fifty a second
        in_hand, owed = await _import(world, manager)
        assert 2 * CHUNK <= in_hand <= 50 + 2 * CHUNK
        assert owed == 0

    simulated(test)


def test_it_waits_for_a_copy_that_was_left_behind() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1)
        await _warm(world, manager)
        world.copies["search"].stall_s = 1.5
        _, owed = await _import(world, manager)
        assert 0 < owed <= 5 * CHUNK
        await manager.settle(60)
        assert world.text("search", f"n0.{CHUNK - 1}") == "둘"

    simulated(test)


def test_parts_get_smaller_while_one_alone_is_too_much_and_grow_again() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1)
        await _warm(world, manager)
        sizes: list[int] = []
        for each_s in [0.002] * 9 + [0.0] * 9:
            world.copies["search"].each_s = each_s
            sizes.append(await manager.room("note") or 500)
            writes = [world.write(manager, f"n{len(sizes)}.{i}", "둘") for i in range(sizes[-1])]
            await manager.write_quietly("note", writes, {})
        assert min(sizes[:9]) < 500
        assert sizes[-1] == 500

    simulated(test)


def test_it_does_not_wait_for_a_copy_that_is_down() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1)
        await _warm(world, manager)
        world.copies["search"].down = Unavailable("no route")
        started = world.env.monotonic()
        await _import(world, manager, 100)
        assert world.env.monotonic() - started == pytest.approx(0, abs=0.5)
        assert world.servers["home"].backlog().retry["search"] > 50 * CHUNK
        world.copies["search"].down = None
        await manager.settle(120)

    simulated(test)


def test_a_copy_whose_writes_hang_while_it_answers_reads_holds_it_up_for_one_call_at_a_time() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(lanes=1)
        await _warm(world, manager)
        world.copies["search"].stall_s = 1e6
        ending = asyncio.Event()

        async def read() -> None:  # each answer tells the breaker that the store is there
            while not ending.is_set():
                await manager.stores["search"].get([Key("", "note", "warm1")])
                await asyncio.sleep(0.5)

        reading = asyncio.create_task(read())
        started = world.env.monotonic()
        await _import(world, manager)
        assert not manager.stores["search"].breaker.open
        assert world.env.monotonic() - started < 1000
        ending.set()
        await reading

    simulated(test)


def test_a_copy_that_is_too_slow_for_a_full_batch_is_sent_smaller_ones() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        search = world.copies["search"]
        search.down = Unavailable("no route")
        await _import(world, manager)
        search.down, search.each_s = None, 0.1
        await manager.settle(300)
        assert world.text("search", "n29.0") == "둘"

    simulated(test)
