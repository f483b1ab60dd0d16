"""A record that its home cannot read any more: told, never missing, and it holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.consistency.mending import Steady
from polystore.consistency.verify import Verifier
from polystore.errors import DecodeError, Unavailable
from polystore.model import UNREADABLE, HashSpan, Key, Page, Record
from polystore.protocols import Layout
from tests.unit.consistency.test_mending import corrupt, filled
from tests.unit.consistency.test_takeover import left_behind
from tests.unit.consistency.world import Copy, World, simulated, until


class DamagedHome(MemoryRepository):
    """Records with these ids cannot be read."""

    ids: frozenset[str] = frozenset()

    async def get(self, keys: Sequence[Key]) -> list[Record | None]:
        return [self.get_now(key) for key in keys]

    def get_now(self, key: Key) -> Record | None:
        if key.id in self.ids:
            raise DecodeError(f"note {key.id!r}: the stored value of 'text' is no str")
        return super().get_now(key)

    async def scan(self, etype: str, tenant: str, span: HashSpan, cursor: str | None, limit: int) -> Page:
        page = await super().scan(etype, tenant, span, cursor, limit)
        stamps = [
            msgspec.structs.replace(one, hash=b"", fault=UNREADABLE) if one.id in self.ids else one
            for one in page.stamps
        ]
        return Page(stamps, page.cursor)


def damage(world: World, *ids: str) -> None:
    """From now on; the home must be a `DamagedHome`."""
    assert isinstance(world.home, DamagedHome)
    world.home.ids = frozenset(ids)


def damageable(world: World) -> None:
    world.home = DamagedHome(world.servers["home"], world.env)


def parked(world: World) -> list[tuple[str, str, str]]:
    return [(row.target, row.key.id, row.error) for row in world.servers["home"].parked(None, None, 100)[0]]


def owed(world: World, target: str) -> int:
    return world.servers["home"].backlog().retry.get(target, 0)


def test_a_damaged_record_that_is_the_only_one_of_its_tenant_is_parked_too() -> None:
    async def test(world: World) -> None:
        damageable(world)
        manager = await world.manager(reconcile_s=0.0)
        world.copies["search"].down = Unavailable("away")
        await world.put(manager, "a", "of a")
        alone = msgspec.structs.replace(world.write(manager, "c", "of c"), key=Key("alone", "note", "c"))
        await manager.write("note", [alone])
        damage(world, "c")
        await until(lambda: owed(world, "search") == 2)
        world.copies["search"].down = None
        await manager.settle(120)
        assert world.text("search", "a") == "of a"
        assert {(target, id) for target, id, _ in parked(world)} == {("search", "c")}

    simulated(test)


def test_a_damaged_record_is_parked_for_its_copies_and_the_others_arrive() -> None:
    """After an outage: all that is owed is loaded at the home."""

    async def test(world: World) -> None:
        damageable(world)
        manager = await world.manager(reconcile_s=0.0)
        world.copies["search"].down = Unavailable("away")
        for id in "abcdefg":
            await world.put(manager, id, f"of {id}")
        damage(world, "c")
        await until(lambda: owed(world, "search") == 7)
        world.copies["search"].down = None
        await manager.settle(120)
        assert [world.text("search", id) for id in "abcdefg"] == [None if id == "c" else f"of {id}" for id in "abcdefg"]
        ((target, id, error),) = parked(world)
        assert (target, id) == ("search", "c")
        assert "the stored value of 'text'" in error
        damage(world)
        await world.put(manager, "c", "anew")
        await manager.settle()
        assert (world.text("search", "c"), parked(world)) == ("anew", [])

    simulated(test)


def test_a_damaged_record_of_a_dead_process_does_not_keep_the_type_from_being_taken_over() -> None:
    async def test(world: World) -> None:
        damageable(world)
        await left_behind(world, 20)
        damage(world, "n007")
        manager = await world.manager()
        await manager.settle(60)
        assert [world.text("search", f"n{i:03}") is None for i in range(20)] == [i == 7 for i in range(20)]
        assert {(target, id) for target, id, _ in parked(world)} == {("search", "n007"), ("vectors", "n007")}

    simulated(test)


def test_a_type_that_this_process_cannot_read_is_left_to_others_and_nothing_is_parked() -> None:
    """It may be too old for it, or too new."""

    async def test(world: World) -> None:
        damageable(world)
        await left_behind(world, 20)
        damage(world, *(f"n{i:03}" for i in range(20)))
        manager = await world.manager()
        await asyncio.sleep(20.0)
        assert parked(world) == []
        assert any("left to other workers" in problem for problem in manager.problems)
        await manager.stop()
        damage(world)
        await (await world.manager()).settle(120)
        assert all(world.text("search", f"n{i:03}") == "하나" for i in range(20))

    simulated(test)


def test_a_new_copy_is_filled_beside_a_damaged_record() -> None:
    async def test(world: World) -> None:
        damageable(world)
        manager = await filled(world, *"abcde")
        await manager.stop()
        server = world.servers["search"] = MemoryServer(world.env)
        server.prepare([Layout(world.types["note"], False, frozenset({"full_text"}))], create=True)
        world.copies["search"] = Copy(MemoryRepository(server, world.env))
        damage(world, "d")
        again = await world.manager(reconcile_s=0.0)
        rows = again.line("note").targets
        await until(lambda: all(row.status == "active" for row in rows.rows("note")), 120.0)
        assert [world.text("search", id) for id in "abcde"] == [None if id == "d" else f"of {id}" for id in "abcde"]

    simulated(test)


def test_a_damaged_record_is_found_at_its_home_and_the_copies_of_others_are_repaired() -> None:
    async def test(world: World) -> None:
        damageable(world)
        manager = await filled(world, *"abcde")
        corrupt(world, "a")
        damage(world, "d")
        verifier = Verifier(manager.stores, manager.placements, manager.embedders)
        found = [(one.store, one.key.id, one.problem) async for one in verifier.differences("note")]
        assert sorted(found) == [("home", "d", "fault"), ("search", "a", "content")]
        job = Steady(manager.env)
        assert await manager.mender.mend("note", job)
        assert job.report.mended == {"content": 1}
        ((store, id, detail),) = [(one.store, one.key.id, one.detail) for one in job.report.shown]
        assert (store, id, "write the record again" in detail) == ("home", "d", True)
        assert (job.report.left, job.report.damaged) == (1, 1), "not once for each copy"
        assert (world.text("search", "a"), world.text("search", "d")) == ("of a", "of d")

    simulated(test)
