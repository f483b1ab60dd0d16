"""A copy that cannot compare and write in one step: one process at a time writes to it, and another one takes over."""

import asyncio
from math import inf
from typing import Any, cast

import pytest

from polystore.consistency import Settings
from polystore.consistency.leases import Leases
from polystore.errors import Unavailable
from polystore.model import Change, Key, Limits, key_hash
from polystore.protocols import Repository
from polystore.store import Store
from tests.unit.consistency.world import World, simulated

BOUND_S = 5.0 + 0.5 + 1.2
"""Until a dead process is taken over: its lease, a refusal that is remembered, and a poll."""


def unguarded(world: World) -> None:
    world.copies["vectors"].inner.limits = Limits(guarded=False)


def change(version: int) -> Change:
    key = Key("", "note", "a")
    return Change(key, version, key_hash("", "note", "a"), {"id": "a", "text": "가"}, b"h", 1)


def slow(world: World, write_s: float) -> tuple[Leases, Leases, Store]:
    """The leases of "mine" and "other", two processes, and the copy, to which a write takes so long."""
    unguarded(world)
    world.copies["vectors"].stall_s = write_s
    home = Store("home", cast(Repository, world.home), env=world.env)
    copy = Store("vectors", cast(Repository, world.copies["vectors"]), env=world.env)
    mine, other = (Leases(world.env, home, worker, Settings()) for worker in ("mine", "other"))
    return mine, other, copy


def cut_off(world: World, process: str, for_s: float = inf) -> None:
    """The home does not answer this one, from the next moment on."""
    right, began = world.home.hold_lease, world.env.monotonic()

    async def hold_lease(name: str, worker: str, ttl_s: float) -> bool:
        if worker == process and 0 < world.env.monotonic() - began < for_s:
            raise Unavailable("no route")
        return await right(name, worker, ttl_s)

    cast(Any, world.home).hold_lease = hold_lease


def test_one_process_writes_and_delivers_what_the_others_leave_to_it() -> None:
    async def main(world: World) -> None:
        unguarded(world)
        first, second = await world.manager(), await world.manager()
        await world.put(first, "a", "가", ack=["vectors"])
        calls = world.copies["vectors"].calls
        await world.put(second, "a", "나")
        await asyncio.sleep(0.1)
        assert (world.text("search", "a"), world.text("vectors", "a")) == ("나", "가")
        assert world.copies["vectors"].calls == calls
        await second.settle(3.0)
        assert world.text("vectors", "a") == "나"
        held = [one.lines["home"].delivery.leases.held(one.stores["vectors"]) for one in (first, second)]
        assert [await one for one in held] == [True, False]

    simulated(main)


def test_a_dead_process_is_taken_over_within_the_bound() -> None:
    async def main(world: World) -> None:
        unguarded(world)
        first, second = await world.manager(), await world.manager()
        await world.put(first, "a", "가", ack=["vectors"])
        await first.lines["home"].stop()  # without a word to the journal
        await world.put(second, "a", "나")
        died = world.env.monotonic()
        await second.settle(30.0)
        assert world.text("vectors", "a") == "나"
        assert 3.0 < world.env.monotonic() - died <= BOUND_S

    simulated(main)


def test_who_leaves_in_good_order_is_taken_over_at_once() -> None:
    async def main(world: World) -> None:
        unguarded(world)
        first, second = await world.manager(), await world.manager()
        await world.put(first, "a", "가", ack=["vectors"])
        await first.stop()
        (result,) = await second.write("note", [world.write(second, "b", "나")], ack=["vectors"], ack_timeout_s=1.0)
        assert result.stores["vectors"] == "applied"

    simulated(main)


def test_a_lease_is_held_as_long_as_a_write_is_under_way() -> None:
    async def main(world: World) -> None:
        mine, other, copy = slow(world, 9.0)
        writing = asyncio.create_task(mine.deliver(copy, [change(5)]))
        await asyncio.sleep(1.0)
        while not writing.done():
            assert not await other.held(copy)
            await asyncio.sleep(0.6)
        assert [one.status for one in await writing] == ["applied"]

    simulated(main)


def test_a_write_that_ends_after_its_lease_has_failed() -> None:
    """The home does not answer its owner meanwhile: somebody else may have written something newer, and not seen it."""

    async def main(world: World) -> None:
        mine, other, copy = slow(world, 9.0)
        cut_off(world, "mine")
        with pytest.raises(Unavailable, match="after the lease was over"):
            await mine.deliver(copy, [change(5)])
        assert await other.held(copy)
        await mine.give_up()
        assert await other.held(copy)

    simulated(main)


def test_a_write_during_which_its_lease_was_over_for_a_while_has_failed() -> None:
    """Held again when it ends; but in between somebody else may have come and gone."""

    async def main(world: World) -> None:
        mine, other, copy = slow(world, 9.0)
        cut_off(world, "mine", 6.5)
        writing = asyncio.create_task(mine.deliver(copy, [change(5)]))
        await asyncio.sleep(5.5)
        assert await other.held(copy)
        await other.give_up()
        with pytest.raises(Unavailable, match="after the lease was over"):
            await writing
        assert await mine.held(copy)

    simulated(main)


def test_a_process_that_was_cut_off_in_a_write_keeps_the_lease_when_it_leaves() -> None:
    async def main(world: World) -> None:
        mine, other, copy = slow(world, 1.0)
        writing = asyncio.create_task(mine.deliver(copy, [change(5)]))
        await asyncio.sleep(0.1)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await mine.give_up()
        assert not await other.held(copy)
        await asyncio.sleep(5.0)
        assert await other.held(copy)

    simulated(main)
