"""What the simulation found in moves of a copy (seeds of `polystore.testing.simulate` that grow)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

import pytest
from msgspec.structs import replace
from polystore_adapters.memory import MemoryRepository, MemoryServer

from polystore.config import load_config
from polystore.embedders import Made, made, read_made, write_made
from polystore.entity import entity, entity_types
from polystore.errors import ConfigurationError, Unavailable
from polystore.facets import Embedding, FullText
from polystore.model import Instance, Placement
from polystore.opening.placing import placed, remember
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


@entity(name="note", renamed={"words": "text"})
@dataclass
class Renamed:
    id: str
    words: Annotated[str, FullText(), Embedding()]


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


def test_a_store_that_hangs_while_a_facet_moves_holds_up_no_write() -> None:
    async def test(world: World) -> None:
        manager = await world.manager()
        text = reconcile(None, world.placement, []).json
        await world.home.remember("note", text)
        hangs, prepared = True, list[str]()

        async def pinged() -> Instance:
            await asyncio.sleep(1e6 if hangs else 0.0)
            return await world.copies["search"].inner.ping()

        async def prepare(placement: Placement, names: Collection[str]) -> None:
            await asyncio.sleep(1e6 if hangs else 0.0)
            prepared.extend(names)

        vars(world.copies["search"])["ping"] = pinged
        manager.mover.prepare = prepare
        moving = replace(world.placement, upcoming={"vector": "search"})
        await world.home.remember("note", write_moves(text, moving))
        for i in range(30):
            async with asyncio.timeout(5.0):
                await world.put(manager, f"n{i}", "글")
            await asyncio.sleep(1.0)
        assert not prepared
        hangs = False
        await until(lambda: "search" in prepared)
        await until(lambda: manager.placements["note"].held("search") == frozenset({"full_text", "vector"}))

    simulated(test)


def test_a_field_that_is_renamed_while_its_model_changes_keeps_the_model_that_it_changes_to() -> None:
    async def test(world: World) -> None:
        new = {"text": Made("other:4", 4, "cosine")}
        old = made(world.types["note"], {"default": world.embedder})
        first = reconcile(None, world.placement, [], made_of={"vector": write_made(old)})
        made_so = {"vectors": write_made(old), "vectors~2": write_made(new)}
        begun = write_moves(first.json, replace(world.placement, upcoming={"vector": "vectors~2"}, made=made_so))
        roles = {"home": ["home", "journal"], "search": ["full_text"], "vectors": ["vector"]}
        config = load_config({"stores": {name: {"url": "memory:", "roles": some} for name, some in roles.items()}})
        stores, types = {"home": Store("home", world.home, env=world.env)}, entity_types([Renamed])
        found = await placed(config, types, types, stores, {"note": begun}, {"default": world.embedder})
        placement = found["note"].placement
        assert placement.upcoming == {"vector": "vectors~2"}
        assert read_made(placement.made["vectors~2"]) == {"words": new["text"]}
        assert read_made(placement.made["vectors"]) == {"words": old["text"]}
        again = await placed(config, types, types, stores, {"note": found["note"].json}, {"default": world.embedder})
        assert not again["note"].changed
        await stores["home"].aclose()

    simulated(test)
