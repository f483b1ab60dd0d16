"""What the simulation found in moves of a copy (seeds of `polystore.testing.simulate` that grow)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

import pytest
from msgspec.structs import replace
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.entity import entity, entity_types
from polystore.errors import ConfigurationError, Unavailable
from polystore.facets import FullText
from polystore.model import Placement
from polystore.opening.placing import remember
from polystore.protocols import Layout
from polystore.selection import Remembered, reconcile
from polystore.selection.moves import write_moves
from polystore.store import Store
from tests.unit.consistency.world import Copy, World, simulated, until


@entity()
@dataclass
class Word:
    id: str
    text: Annotated[str, FullText()]


def beside(world: World, name: str) -> Copy:
    """One more store that full text may move to."""
    world.servers[name] = MemoryServer(world.env)
    world.servers[name].prepare([Layout(world.types["note"], False, frozenset({"full_text"}))], create=True)
    world.copies[name] = Copy(MemoryRepository(world.servers[name], world.env))
    return world.copies[name]


def gone_over(placement: Placement, name: str) -> Placement:
    """As another process has it once `name` serves and `search` is left."""
    return replace(placement, facets={**placement.facets, "full_text": name}, leaving={"full_text": "search"})


def test_who_cannot_go_over_asks_what_leaves_only_as_long_as_that_is_waited_for() -> None:
    async def test(world: World) -> None:
        words = beside(world, "words")
        manager = await world.manager()
        text = reconcile(None, world.placement, []).json
        await world.home.remember("note", text)
        await asyncio.sleep(3)  # it has looked, and serves as all do
        words.down = Unavailable("gone", store="words")
        await world.home.remember("note", write_moves(text, gone_over(world.placement, "words")))
        await until(lambda: any("could not be placed" in problem for problem in manager.problems))
        manager.readable("note", "search")
        await until(lambda: manager.mover.late("note"))
        assert manager.placements["note"] == world.placement
        with pytest.raises(Unavailable, match="could not go over"):
            manager.readable("note", "search")
        manager.readable("note", "search", whole=False)  # an old answer rather than none
        words.down = None
        await until(lambda: manager.placements["note"].facets["full_text"] == "words")

    simulated(test)


def test_a_look_that_ends_after_a_later_one_makes_nobody_late() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        text = reconcile(None, world.placement, []).json
        await world.home.remember("note", text)
        line = manager.line("note")
        await manager.stop()  # perhaps after a look of its own
        ended = world.env.monotonic()
        await manager.mover.follow(line, {"note": text}, ended)
        await asyncio.sleep(100)
        before = write_moves(text, gone_over(world.placement, "words"))
        await manager.mover.follow(line, {"note": before}, ended - 1)
        assert not manager.mover.late("note")
        await manager.mover.follow(line, {"note": before}, ended + 1)
        assert manager.mover.late("note")

    simulated(test)


def test_a_move_that_began_while_a_process_was_opened_is_not_taken_back() -> None:
    async def test(world: World) -> None:
        stores = {"home": Store("home", world.home, env=world.env)}
        first = reconcile(None, world.placement, [])
        begun = write_moves(first.json, replace(world.placement, upcoming={"full_text": "words"}))
        await world.home.remember("note", begun)
        with pytest.raises(ConfigurationError, match="open it again"):
            await remember(stores, {"note": first}, None, {})
        assert (await world.home.placements())["note"] == begun
        same = Remembered(world.placement, begun, True)
        await remember(stores, {"note": same}, None, {"note": first.json})  # somebody with the same configuration
        await remember(stores, {"note": first}, None, {"note": begun})  # who has read it decides
        assert (await world.home.placements())["note"] == first.json
        await stores["home"].aclose()

    simulated(test)


def test_a_rebuild_empties_no_place_that_another_process_has_just_left() -> None:
    async def test(world: World) -> None:
        beside(world, "search~2")
        manager = await world.manager()
        text = reconcile(None, world.placement, []).json
        await world.home.remember("note", write_moves(text, gone_over(world.placement, "search~2")))
        emptied: list[str] = []
        inner = world.copies["search"].inner

        async def clear(etype: str) -> None:
            emptied.append((await world.home.placements())["note"])
            await inner.clear(etype)

        async def prepare(placement: Placement, names: Collection[str]) -> None:
            for name in names:
                layout = Layout(world.types["note"], False, frozenset({"full_text"}))
                world.servers[name].prepare([layout], create=True)

        vars(world.copies["search"])["clear"] = clear
        manager.mover.prepare = prepare
        await manager.renewer.rebuild("search", lambda _: None)
        assert len(emptied) == 1
        assert "leaving" not in emptied[0]

    simulated(test)


def test_what_a_copy_is_owed_of_a_type_that_it_serves_no_more_holds_up_no_other_type() -> None:
    async def test(world: World) -> None:
        world.types |= entity_types([Word])
        placed = {"note": world.placement, "word": Placement("word", "home", {"full_text": "search"})}
        word = world.types["word"]
        world.servers["home"].prepare([Layout(word, True, frozenset())], create=True)
        world.servers["search"].prepare([Layout(word, False, frozenset({"full_text"}))], create=True)
        manager = await world.manager(placements=placed)
        world.copies["search"].down = Unavailable("gone", store="search")
        await world.put(manager, "a", "owed")
        await until(lambda: "search" in world.servers["home"].backlog().retry)
        await manager.stop()
        world.copies["search"].down = None
        left = replace(world.placement, facets={"vector": "vectors"})
        manager = await world.manager(placements={**placed, "note": left})
        await manager.settle(60)

    simulated(test)
