"""What is held against a record when workers die: only that it was under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from polystore.model import Change, Outcome
from tests.unit.consistency.world import World, simulated, until

DEAD_S = 6.0
"""Longer than the others believe that a silent worker lives."""


async def left_behind(world: World, records: int) -> None:
    """Records that a process committed, and died before it delivered one of them."""
    manager = await world.manager()
    await die(world)
    for i in range(records):
        await world.put(manager, f"n{i:03}", "하나")


async def die(world: World) -> None:
    """The newest process ends as by SIGKILL, and the others notice."""
    for line in world.managers[-1].lines.values():
        await line.stop()
    await asyncio.sleep(DEAD_S)


def test_processes_that_are_killed_again_and_again_park_nothing() -> None:
    async def test(world: World) -> None:
        await left_behind(world, 100)
        world.copies["search"].stall_s = world.copies["vectors"].stall_s = 0.05
        kills = 0
        while world.servers["home"].backlog().outbox:
            await world.manager(lanes=1, batch_max=10)
            await asyncio.sleep(0.12)
            await die(world)
            kills += 1
        assert world.servers["home"].backlog().parked == {}
        assert kills > 20
        assert all(world.text("search", f"n{i:03}") == "하나" for i in range(100))

    simulated(test)


def test_a_record_that_ends_its_process_is_parked_alone() -> None:
    async def test(world: World) -> None:
        await left_behind(world, 40)
        copy = world.copies["search"]
        deadly = asyncio.Event()
        apply = copy.apply

        async def ending(changes: Sequence[Change]) -> list[Outcome]:
            if any(change.key.id == "n025" for change in changes):
                deadly.set()
                await asyncio.Event().wait()
            return await apply(changes)

        copy.apply = ending  # type: ignore[method-assign]
        while True:
            manager = await world.manager()
            await until(lambda: deadly.is_set() or not world.servers["home"].backlog().outbox)
            if not deadly.is_set():
                break
            deadly.clear()
            await die(world)
        await manager.settle(10)
        parked = world.servers["home"].parked(None, None, 100)[0]
        assert {(row.target, row.key.id) for row in parked} == {("search", "n025"), ("vectors", "n025")}
        assert all(world.text("search", f"n{i:03}") == "하나" for i in range(40) if i != 25)

    simulated(test)
