"""What a copy that was restarted has lost of what it acknowledged, and who brings it again."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from polystore.consistency import DataConsistencyManager, Settings
from polystore.entity import entity_types
from polystore.model import Commit, Instance, Placement, TargetRow
from polystore.protocols import Layout
from tests.unit.consistency.test_filling import Word
from tests.unit.consistency.world import World, simulated, until

KEPT_S = 20.0


def restarts(world: World, *lost: str) -> None:
    """`search` begins a new run, without some of the records that it held."""
    copy, server = world.copies["search"], world.servers["search"]
    for id in lost:
        del server.part("note", "").rows[id]
    ping = copy.inner.ping

    async def pinged() -> Instance:
        return replace(await ping(), run_id="another run")

    vars(copy)["ping"] = pinged


def test_a_record_that_lay_in_the_outbox_for_longer_than_is_looked_back_is_brought_again() -> None:
    """Of a process that lives and does not deliver: what came after it went on."""

    async def test(world: World) -> None:
        manager = await world.manager(kept_s=KEPT_S, reconcile_s=0.0)
        home = world.servers["home"]
        home.beat("slow")
        home.commit([Commit([world.write(manager, "late", "늦은 글")], owner="slow")])
        for i in range(int(2 * KEPT_S)):
            home.beat("slow")
            await world.put(manager, f"n{i}", "글")
            await asyncio.sleep(1.0)
        assert world.held("search", "late") is None
        home.retire("slow")
        await until(lambda: world.held("search", "late") is not None)
        restarts(world, "late")
        await until(lambda: world.held("search", "late") is not None)

    simulated(test)


def test_types_that_only_other_processes_know_are_left_to_them() -> None:
    async def test(world: World) -> None:
        await world.home.set_target(TargetRow("aaa", "search", 0, "active", data_id="theirs"))
        manager = await world.manager(kept_s=KEPT_S, reconcile_s=0.0)
        await world.put(manager, "a", "글")
        await until(lambda: world.held("search", "a") is not None)
        await asyncio.sleep(manager.settings.look_s + 2)
        restarts(world, "a")
        await until(lambda: world.held("search", "a") is not None)
        assert not [problem for problem in manager.problems if "could not work" in problem]

    simulated(test)


def test_what_one_process_has_seen_to_hides_no_type_that_another_one_knows() -> None:
    async def test(world: World) -> None:
        manager = await world.manager(kept_s=KEPT_S, reconcile_s=0.0, look_s=30.0)
        types = entity_types([Word])
        world.servers["home"].prepare([Layout(types["word"], True, frozenset())], create=True)
        world.servers["search"].prepare([Layout(types["word"], False, frozenset({"full_text"}))], create=True)
        placed = {"word": Placement("word", "home", {"full_text": "search"})}
        quick = Settings(look_s=1.0, kept_s=KEPT_S, reconcile_s=0.0)
        other = DataConsistencyManager(world.env, types, manager.stores, placed, {}, quick)
        await other.start()
        await world.put(manager, "a", "글")
        await asyncio.sleep(35)
        restarts(world, "a")
        await until(lambda: world.held("search", "a") is not None)
        assert any("search was restarted" in problem for problem in other.problems)
        await other.stop()

    simulated(test)
