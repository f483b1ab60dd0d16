"""A store joins a running system: who served goes on serving until the new one is complete, then all go over."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec.structs import replace

from polystore import Collection, ConfigurationError, Embedding, FullText, HybridDataArchitecture, Relation, entity
from polystore.errors import StoreError, Unavailable
from polystore.model import Backlog, Key
from polystore.protocols import SupportsJournal
from tests.growing import SETTINGS, Tree, busy, differences, found, gone_over, opening, over, stores, until


def test_a_new_store_takes_over_from_the_home_or_a_copy_while_writes_and_searches_go_on(tmp_path: Path) -> None:
    old = [f"t{i}" for i in range(200)]
    steps = [
        stores(tmp_path, main=["home", "full_text", "vector"]),
        stores(tmp_path, main=["home", "vector"], words=["full_text"]),
        stores(tmp_path, main=["home", "vector"], words=["document"], other=["full_text"]),
    ]

    async def main() -> None:
        async with opening(steps[0]) as hda:
            await hda.collection(Tree).put_many([Tree(id=id, text=f"나무 {id}") for id in old])
            await hda.settle(30)
        for config, before, after in zip(steps[1:], ("main", "words"), ("words", "other"), strict=True):
            async with opening(config) as one, opening(config) as two, busy(one):
                asked: set[str] = set()
                while asked < {before, after}:
                    for hda in (one, two):
                        ids, store = await found(hda)  # never Unavailable, and never less than what was there
                        assert ids >= {*old}
                        asked.add(store)
                for hda in (one, two):
                    await gone_over(hda, after)
                    await over(hda)
                    assert (await found(hda))[1] == after
            async with opening(config) as hda:
                placement = hda.manager.placements["tree"]
                assert (placement.facets["full_text"], placement.upcoming, placement.leaving) == (after, {}, {})
                assert await differences(hda) == []
                live = {tree.id async for tree in hda.collection(Tree).stream()}
                assert (await found(hda))[0] == live
                rows = await hda.stores["main"].call(SupportsJournal.targets)
                assert {row.name for row in rows if row.status == "active"} == {after}

    asyncio.run(main())


def test_nobody_goes_over_while_a_process_runs_that_does_not_know_the_new_store(tmp_path: Path) -> None:
    old = stores(tmp_path, main=["home", "full_text", "vector"])
    new = stores(tmp_path, main=["home", "vector"], words=["full_text"])

    async def main() -> None:
        async with opening(new) as one:
            async with opening(old) as straggler:  # opened last: the move is taken back
                await straggler.collection(Tree).put(Tree(id="a", text="나무"))
                assert await found(straggler) == ({"a"}, "main")
            assert one.manager.placements["tree"].facets["full_text"] in ("main", "words")
        # On a busy machine a look takes its time; nobody is to count as gone for that.
        patient = replace(SETTINGS, worker_dead_s=2.0)
        async with opening(old, patient) as straggler, opening(new, patient) as one:
            await until(lambda: one.manager.placements["tree"].upcoming == {"full_text": "words"})
            await one.settle(30)
            for _ in range(12):
                await asyncio.sleep(0.05)
                assert await found(straggler) == ({"a"}, "main")
                assert await found(one) == ({"a"}, "main")
            await straggler.close()
            await gone_over(one, "words")
            assert await found(one) == ({"a"}, "words")

    asyncio.run(main())


def test_who_is_started_with_the_configuration_of_before_turns_off_nothing_that_others_ask(tmp_path: Path) -> None:
    old = stores(tmp_path, main=["home", "vector"], words=["full_text"])
    new = stores(tmp_path, main=["home", "vector"], words=["document"], other=["full_text"])
    patient = replace(SETTINGS, worker_dead_s=1.0)
    ids = {f"t{i}" for i in range(100)}

    async def main() -> None:
        async with opening(old) as hda:
            await hda.collection(Tree).put_many([Tree(id=id, text=f"나무 {id}") for id in ids])
            await hda.settle(30)
        async with opening(new, patient) as one:
            await gone_over(one, "other")
            async with opening(old, patient) as straggler, busy(straggler):
                placement = straggler.manager.placements["tree"]
                assert (placement.facets["full_text"], placement.upcoming) == ("other", {"full_text": "words"})
                with pytest.raises(Unavailable):
                    await found(straggler)
                asked: set[str] = set()
                async with asyncio.timeout(60):
                    while "words" not in asked:
                        hits, store = await found(one)  # never Unavailable, and never less than what was there
                        assert hits >= ids
                        asked.add(store)
                await gone_over(straggler, "words")
                assert (await found(straggler))[0] >= ids
                await over(straggler)
            assert asked == {"other", "words"}
            assert await differences(one) == []

    asyncio.run(main())


def test_a_copy_is_rebuilt_beside_itself_while_all_goes_on_and_there_is_a_way_back(tmp_path: Path) -> None:
    config = stores(tmp_path, main=["home"], words=["full_text", "vector"])

    async def main() -> None:
        async with opening(config) as one, opening(config) as two:
            trees = one.collection(Tree)
            await trees.put_many([Tree(id=f"t{i}", text=f"나무 {i}") for i in range(200)])
            await one.settle(30)
            with sqlite3.connect(tmp_path / "words.db") as db:  # what nobody knows of: the rebuilt copy has it right
                db.execute("UPDATE tree SET text = '풀' WHERE id = 't7'")
            async with busy(one):
                steps: list[str] = []
                task = asyncio.create_task(one.rebuild_copies("words", progress=lambda now: steps.append(now.step)))
                while not task.done():
                    assert len((await found(two))[0]) >= 199
                    await asyncio.sleep(0.005)
                assert await task == {"tree": "words~2"}
                assert steps[-1] == "done"
                await gone_over(two, "words~2")
                assert (await found(two))[1] == "words~2"
            assert await differences(one) == []
            assert "t7" in (await found(one))[0]
        async with opening(config) as one, opening(config) as two:
            assert (await found(one))[1] == "words~2"
            await one.collection(Tree).delete("t0")
            await one.collection(Tree).put(Tree(id="new", text="새 나무"))
            async with busy(two):
                assert await one.rebuild_copies("words", rollback=True, rate_per_s=2000) == {"tree": "words"}
                await gone_over(two, "words")
            assert await differences(two) == []
            ids = (await found(two))[0]
            assert "t0" not in ids
            assert "new" in ids
            assert await one.rebuild_copies("words") == {"tree": "words~2"}
            await gone_over(two, "words~2")
            assert await differences(two) == []
            assert await two.discard_copies("words") == ["words"]
            with pytest.raises(ConfigurationError, match="nothing to go back to"):
                await two.rebuild_copies("words", rollback=True)
            with pytest.raises(ConfigurationError, match="'main' serves no copy"):
                await two.rebuild_copies("main")

    asyncio.run(main())


def test_a_copy_serves_what_it_has_while_it_is_given_another_facet(tmp_path: Path) -> None:
    old = stores(tmp_path, main=["home", "vector"], words=["full_text"])
    new = stores(tmp_path, main=["home"], words=["full_text", "vector"])

    async def main() -> None:
        async with opening(old) as hda:
            await hda.collection(Tree).put_many([Tree(id=f"t{i}", text=f"나무 {i}") for i in range(100)])
            await hda.settle(30)
        async with opening(new) as one, opening(new) as two, busy(one):
            placement = one.manager.placements["tree"]
            assert placement.facets == {"full_text": "words", "vector": "main"}
            assert placement.held("words") == {"full_text"}
            async with asyncio.timeout(60):
                while one.manager.placements["tree"].facets["vector"] != "words~2":
                    for hda in (one, two):
                        assert len((await found(hda))[0]) >= 100
                        assert len(await hda.collection(Tree).similar("나무 7", limit=500)) >= 100
            await over(one)
            await gone_over(two, "words~2")
            assert (await found(two))[1] == "words~2"
        async with opening(new) as hda:
            assert await differences(hda) == []
            assert await hda.rebuild_copies("words") == {"tree": "words"}
            assert len((await found(hda))[0]) >= 100

    asyncio.run(main())


def test_a_rebuild_ends_beside_a_damaged_record_and_says_when_what_was_built_cannot_serve(tmp_path: Path) -> None:
    config = stores(tmp_path, main=["home"], words=["full_text", "vector"])

    async def main() -> None:
        async with opening(config) as hda:
            await hda.collection(Tree).put_many([Tree(id=f"t{i}", text=f"나무 {i}") for i in range(60)])
            await hda.settle(30)
            with contextlib.closing(sqlite3.connect(tmp_path / "main.db")) as db, db:
                db.execute("UPDATE tree SET text = CAST(? AS TEXT) WHERE id = 't7'", (b"\xff",))
            assert await hda.rebuild_copies("words") == {"tree": "words~2"}
            hold = SupportsJournal.hold_lease
            await hda.stores["main"].call(hold, "move:words", "somebody", 60.0)  # nobody compares
            again = asyncio.create_task(hda.rebuild_copies("words"))
            await until(lambda: hda.manager.placements["tree"].upcoming == {"full_text": "words", "vector": "words"})
            async with asyncio.timeout(60):
                while await hda.stores["words"].get([Key("", "tree", "t1")]) == [None]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            with contextlib.closing(sqlite3.connect(tmp_path / "words.db")) as db, db:
                db.execute("UPDATE tree SET ps_version = 1 << 50 WHERE id = 't1'")
            await hda.stores["main"].call(hold, "move:words", "somebody", 0.0)
            with pytest.raises(StoreError, match="could not be mended; the first is 't1': newer"):
                await again
            assert (await found(hda))[1] == "words~2"

    asyncio.run(main())


def test_what_another_process_has_remembered_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stores(tmp_path, main=["home", "vector"], words=["full_text"])

    def another(crashpoint: str) -> None:
        if crashpoint == "move.remember":
            with contextlib.closing(sqlite3.connect(tmp_path / "main.db")) as db, db:
                db.execute("UPDATE ps_placement SET placement = placement || ' ' WHERE etype = 'tree'")

    async def main() -> None:
        async with opening(config) as hda:
            manager, before = hda.manager, hda.manager.placements["tree"]
            monkeypatch.setattr(manager.env, "crashpoint", another)
            now = replace(before, upcoming={"full_text": "words~2"})
            assert not await manager.mover.remember(manager.line("tree"), before, now)
            assert manager.placements["tree"] == before
            text = (await hda.stores["main"].call(SupportsJournal.placements))["tree"]
            assert (text[-1], "upcoming" in text) == (" ", False)

    asyncio.run(main())


def test_two_processes_that_rebuild_the_same_copy_at_once_do_so_together(tmp_path: Path) -> None:
    config = stores(tmp_path, main=["home"], words=["full_text", "vector"])

    async def main() -> None:
        async with opening(config) as one, opening(config) as two:
            every = {f"t{i}" for i in range(60)}
            await one.collection(Tree).put_many([Tree(id=id, text=f"나무 {id}") for id in every])
            await one.settle(30)
            mover, placed = two.manager.mover, one.manager.placements
            right = mover.reach

            async def late(name: str) -> None:
                await right(name)
                with contextlib.suppress(TimeoutError):
                    await until(lambda: bool(placed["tree"].upcoming or placed["tree"].leaving), 0.5)

            mover.reach = late
            async with asyncio.timeout(30):
                await asyncio.gather(one.rebuild_copies("words"), two.rebuild_copies("words"))
            for hda in (one, two):
                await over(hda)
                assert (await found(hda))[0] == every
            assert await differences(two) == []

    asyncio.run(main())


@entity()
@dataclass(kw_only=True)
class Root:
    id: str
    text: Annotated[str, FullText(), Embedding()] = ""
    under: Annotated[list[str], Relation("UNDER", to="Root")] = field(default_factory=list[str])


async def by_words(roots: Collection[Root]) -> list[str]:
    return [hit.value.id for hit in await roots.search("나무")]


async def by_both(roots: Collection[Root]) -> list[str]:
    return [hit.value.id for hit in await roots.hybrid("나무", limit=1)]


async def by_edges(roots: Collection[Root]) -> list[str]:
    return [one.value.id for one in await roots.related("b", "UNDER", into=Root)]


async def by_path(roots: Collection[Root]) -> list[str]:
    return [to for _, _, to in await roots.path("b", "a", "UNDER")]


@pytest.mark.parametrize("ask", [by_words, by_both, by_edges, by_path])
def test_a_process_that_was_held_up_while_all_others_went_over_follows_when_it_is_asked(
    ask: Callable[[Collection[Root]], Awaitable[list[str]]], tmp_path: Path
) -> None:
    old = stores(tmp_path, main=["home", "full_text", "vector", "graph"])
    new = stores(tmp_path, main=["home", "vector"], words=["full_text", "graph"])

    def opened(config: dict[str, Any]) -> Any:
        return HybridDataArchitecture.open(config, entities=[Root], settings=SETTINGS)

    async def main() -> None:
        async with opened(old) as hda:
            await hda.collection(Root).put_many([Root(id="a", text="나무"), Root(id="b", under=["a"])])
            journal = hda.stores["main"]
            await journal.call(SupportsJournal.hold_lease, "without:words", "somebody", 60.0)  # until both are there
        async with opened(new) as one, opened(new) as two:
            relay: Any = two.manager.lines["main"]
            relay._task.cancel()
            journal = one.stores["main"]
            await journal.call(SupportsJournal.hold_lease, "without:words", "somebody", 0.0)
            moved = {"full_text": "words", "graph": "words", "vector": "main"}
            here, there = one.manager.placements, two.manager.placements
            await until(lambda: here["root"].facets == moved and not here["root"].leaving)
            assert set(there["root"].facets.values()) == {"main"}
            assert await ask(two.collection(Root)) == ["a"]
            assert there["root"].facets == moved

    asyncio.run(main())


def test_a_store_that_is_taken_out_for_good_holds_up_no_start_in_the_middle_of_its_move(
    tmp_path: Path,
) -> None:
    """It was said that deliveries to it were not done, which nobody could do."""
    old = stores(tmp_path, main=["home", "vector"], words=["full_text"])
    new = stores(tmp_path, main=["home", "vector"], other=["full_text"])

    async def main() -> None:
        async with opening(old) as hda:
            await hda.collection(Tree).put_many([Tree(id=f"t{i}", text="나무") for i in range(50)])
            await hda.settle(30)
        async with opening(new, replace(SETTINGS, worker_dead_s=30.0)) as hda:
            await hda.collection(Tree).put(Tree(id="x", text="나무"))
            await gone_over(hda, "other")
            backlog: Backlog = await hda.stores["main"].call(SupportsJournal.backlog)
            assert backlog.owed == {("tree", "words"): 1}
        async with opening(new) as hda:
            await over(hda)
            assert len((await found(hda))[0]) == 51
        async with opening(old) as hda:
            await gone_over(hda, "words")
            assert await differences(hda) == []

    asyncio.run(main())


def test_a_store_that_never_answers_again_can_be_taken_out_as_the_error_says(tmp_path: Path) -> None:
    stores = {"main": {"url": f"sqlite:{tmp_path}/main.db", "roles": ["home", "vector"]}}
    lost = {"words": {"url": "elasticsearch://127.0.0.1:1", "roles": ["full_text"], "required": False}}
    before = {"stores": stores | {"words": {"url": f"sqlite:{tmp_path}/words.db", "roles": ["full_text"]}}}
    alone = {"stores": {"main": {"url": f"sqlite:{tmp_path}/main.db"}}}

    async def main() -> None:
        async with opening(before) as hda:
            await hda.collection(Tree).put(Tree(id="a", text="나무"))
            await hda.settle(30)
        async with opening({"stores": stores | lost}) as hda:
            await hda.collection(Tree).put(Tree(id="b", text="나무"))
        with pytest.raises(ConfigurationError, match=r"'words' is not configured.*\[pins.tree\]: full_text = \"main\""):
            await opening(alone)
        async with opening({"stores": alone["stores"] | lost, "pins": {"tree": {"full_text": "main"}}}) as hda:
            assert await found(hda) == ({"a", "b"}, "main")
        async with opening(alone) as hda:
            assert await found(hda) == ({"a", "b"}, "main")

    asyncio.run(main())


@entity()
@dataclass(kw_only=True)
class Spot:
    id: str


@entity()
@dataclass(kw_only=True)
class Bird:
    id: str
    nests_in: Annotated[list[str], Relation("LIVES", to=Spot)] = field(default_factory=list[str])


@entity()
@dataclass(kw_only=True)
class Bug:
    id: str
    nests_in: Annotated[list[str], Relation("LIVES", to=Spot)] = field(default_factory=list[str])


def test_edges_of_several_types_are_walked_all_the_time_while_they_move(tmp_path: Path) -> None:
    old = stores(tmp_path, main=["home"], ties=["graph"], spare=["document"])
    new = stores(tmp_path, main=["home"], ties=["document"], spare=["graph"])

    def open_both(config: dict[str, Any]) -> Any:
        return HybridDataArchitecture.open(config, entities=[Bird, Bug, Spot], settings=SETTINGS)

    async def main() -> None:
        async with open_both(old) as hda:
            # One type has far more to compare than the other, which goes over first.
            await hda.collection(Spot).put(Spot(id="t"))
            await hda.collection(Bird).put_many([Bird(id=f"b{i}", nests_in=["t"]) for i in range(3)])
            await hda.collection(Bug).put_many([Bug(id=f"c{i}", nests_in=["t"]) for i in range(300)])
            await hda.settle(30)
        async with open_both(new) as hda:
            placements = hda.manager.placements
            while any(
                placements[name].facets["graph"] != "spare" or placements[name].leaving for name in ("bird", "bug")
            ):
                found = await hda.collection(Spot).related("t", "LIVES", direction="in", limit=500)
                assert len(found) == 303
            found = await hda.collection(Spot).related("t", "LIVES", direction="in", limit=500)
            assert len(found) == 303

    asyncio.run(main())
