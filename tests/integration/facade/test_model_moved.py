"""Another model is configured: its vectors are brought to the other place of the copy, while the old ones serve. Every
question has its answer, from vectors of one model."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec.structs import replace

from polystore import (
    ConfigurationError,
    Embedder,
    Embedding,
    FullText,
    HashedEmbedder,
    HybridDataArchitecture,
    InvalidData,
    Unavailable,
    entity,
)
from polystore.consistency import Settings
from polystore.consistency.rebuild import RebuildProgress
from polystore.embedders import model_of
from polystore.embedding import pack
from polystore.model import Key
from polystore.protocols import Repository, SupportsJournal
from tests.growing import SETTINGS, Tree, busy, differences, over, stores, until

OLD = [f"t{i}" for i in range(60)]


class Model:
    """An embedder outside the process. Vectors of two models of one dimension point away from one another."""

    batch_max, chars_max = 16, 1000

    def __init__(self, name: str, dimension: int, mark: float) -> None:
        self.name, self.dimension, self.mark = name, dimension, mark
        self.refuses = ""

    async def embed(self, texts: Sequence[str], *, purpose: str) -> list[list[float]]:
        await asyncio.sleep(0.002)
        if self.refuses and any(self.refuses in text for text in texts):
            raise InvalidData("no vector of this text")
        return [[self.mark, 1.0, *[float(len(text))] * (self.dimension - 2)] for text in texts]


class Near(Model):
    """Works within the write."""

    def embed_now(self, texts: Sequence[str]) -> list[bytes]:
        return [pack([self.mark, 1.0, *[float(len(text))] * (self.dimension - 2)]) for text in texts]


M1, M2, WIDE = Model("m-1", 4, 100.0), Model("m-2", 4, -100.0), Model("m-3", 6, 100.0)
HASHED = HashedEmbedder(32)
CHANGES: dict[str, tuple[Embedder, Embedder]] = {
    "another of the same dimension": (M1, M2),
    "the hashed one for a model": (M1, HASHED),
    "of two that work within the writes": (Near("n-1", 4, 100.0), Near("n-2", 4, -100.0)),
}
PATIENT = replace(SETTINGS, worker_dead_s=2.0)
"""On a busy machine a look takes its time; nobody is to count as gone for that."""


def config(tmp_path: Path) -> dict[str, Any]:
    return stores(tmp_path, main=["home"], near=["full_text", "vector"])


def opened(tmp_path: Path, *embedders: Embedder, settings: Settings = SETTINGS) -> Any:
    """With the first as the configured one."""
    named = {"default" if i == 0 else f"other{i}": one for i, one in enumerate(embedders)}
    return HybridDataArchitecture.open(config(tmp_path), entities=[Tree], embedders=named, settings=settings)


def serving(hda: HybridDataArchitecture) -> str:
    return hda.manager.embedders.serving("tree")["text"].model


async def near(hda: HybridDataArchitecture) -> set[str]:
    """What similarity finds, which is never refused and of one model; and which store was asked."""
    trees = hda.collection(Tree)
    with hda.trace() as trace:
        hits = await trees.similar("나무 t1", limit=500)
    assert all(hit.score > 0 for hit in hits)
    assert {hit.value.id for hit in hits} >= {*OLD}
    assert {*OLD} <= {hit.value.id for hit in await trees.hybrid("나무 t1", limit=500)}
    return {step.store for step in trace.steps if step.verb == "similar"}


async def planted(tmp_path: Path, embedder: Embedder) -> None:
    async with opened(tmp_path, embedder) as hda:
        await hda.collection(Tree).put_many([Tree(id=id, text=f"나무 {id}") for id in OLD])
        await hda.settle(30)


async def kept(hda: HybridDataArchitecture) -> set[str]:
    """The models whose vectors are beside the home."""
    found = await hda.stores["main"].call(SupportsJournal.vectors, [Key("", "tree", id) for id in OLD])
    return {one.embedder for one in found}


def trees_in(tmp_path: Path, place: str) -> int:
    with contextlib.closing(sqlite3.connect(tmp_path / f"{place}.db".replace("~2.db", ".db~2"))) as db:
        there = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'tree'").fetchone()[0]
        return int(db.execute("SELECT count(*) FROM tree").fetchone()[0]) if there else 0


@contextlib.asynccontextmanager
async def asking(*hdas: HybridDataArchitecture) -> AsyncGenerator[list[set[str]]]:
    """Questions go on in each of them; which stores have answered."""
    answered: list[set[str]] = [set() for _ in hdas]
    ending = False

    async def ask(i: int) -> None:
        while not ending:
            answered[i] |= await near(hdas[i])
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(ask(i)) for i in range(len(hdas))]
    try:
        yield answered
    finally:
        ending = True
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("change", CHANGES)
def test_similarity_always_has_an_answer_of_one_model_while_the_model_changes(change: str, tmp_path: Path) -> None:
    old, new = CHANGES[change]

    async def main() -> None:
        await planted(tmp_path, old)
        async with (
            opened(tmp_path, new, old, settings=PATIENT) as one,
            opened(tmp_path, old, new, settings=PATIENT) as two,
        ):
            async with busy(one), busy(two, "v"), asking(one, two) as answered:
                await one.rebuild(Tree)
                await until(lambda: serving(two) == model_of(new))
                await over(two)
            assert answered == [{"near", "near~2"}] * 2
            assert await differences(two) == []
            for hda in (one, two):
                placement = hda.manager.placements["tree"]
                assert {*placement.facets.values()} == {"near~2"}
                assert (placement.leaving, placement.previous) == ({}, {})
            assert trees_in(tmp_path, "near") == 0
            assert await kept(one) <= {model_of(new)}
            with pytest.raises(ConfigurationError, match="nothing to go back to"):
                await two.rebuild_copies("near", rollback=True)
            assert (await one.stores["main"].call(SupportsJournal.backlog)).parked == {}

    asyncio.run(main())


def test_a_question_that_waits_while_the_model_changes_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await planted(tmp_path, M1)
        async with opened(tmp_path, M2, M1) as hda:
            trees, waits, goes_on = hda.collection(Tree), asyncio.Event(), asyncio.Event()
            caught_up = hda.manager.caught_up

            async def late(*asked: Any) -> None:
                waits.set()
                await goes_on.wait()
                await caught_up(*asked)

            monkeypatch.setattr(hda.manager, "caught_up", late)
            written = await trees.put(Tree(id="later", text="나중에 온 나무"))
            question = asyncio.create_task(trees.similar("나무", limit=500, after=written.token))
            await waits.wait()  # by now it has decided which store to ask
            rebuilding = asyncio.create_task(hda.rebuild(Tree))
            await until(lambda: serving(hda) == model_of(M2))
            goes_on.set()
            hits = await question
            assert {hit.value.id for hit in hits} == {*OLD, "later"}
            assert all(hit.score > 0 for hit in hits)
            await rebuilding

    asyncio.run(main())


def test_a_text_that_the_new_model_refuses_holds_up_nothing(tmp_path: Path) -> None:
    choosy = Model("m-2", 4, -100.0)
    choosy.refuses = "t7"

    async def main() -> None:
        await planted(tmp_path, M1)
        async with opened(tmp_path, choosy, M1) as hda:
            await hda.rebuild(Tree)
            hits = await hda.collection(Tree).similar("나무", limit=500)
            assert {hit.value.id for hit in hits} == {*OLD} - {"t7"}
            assert len(await hda.collection(Tree).search("나무", limit=500)) == len(OLD)
            assert await differences(hda) == []

    asyncio.run(main())


class Slow(Model):
    """Texts that are stored wait until it may go on."""

    goes_on: asyncio.Event

    async def embed(self, texts: Sequence[str], *, purpose: str) -> list[list[float]]:
        if purpose == "document":
            await self.goes_on.wait()
        return await super().embed(texts, purpose=purpose)


def test_what_the_new_model_refuses_the_old_one_still_finds(tmp_path: Path) -> None:
    """Nobody compares, so that the old one goes on serving."""
    old, choosy = Slow("m-1", 4, 100.0), Model("m-2", 4, -100.0)
    choosy.refuses = "나쁜"

    async def main() -> None:
        old.goes_on = asyncio.Event()
        old.goes_on.set()
        await planted(tmp_path, old)
        async with opened(tmp_path, old) as hda:
            await hda.stores["main"].call(SupportsJournal.hold_lease, "move:near~2", "somebody", 60.0)
        async with opened(tmp_path, choosy, old) as hda:
            journal, trees = hda.stores["main"], hda.collection(Tree)
            rebuilding = asyncio.create_task(hda.rebuild(Tree))
            await until(lambda: hda.manager.placements["tree"].upcoming != {})
            old.goes_on.clear()
            await trees.put(Tree(id="late", text="나쁜 나무"))
            async with asyncio.timeout(20):
                while not (await journal.call(SupportsJournal.backlog)).parked:  # noqa: ASYNC110 -- of another task
                    await asyncio.sleep(0.01)
                old.goes_on.set()
                while "late" not in {hit.value.id for hit in await trees.similar("나무", limit=500)}:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            rebuilding.cancel()
            await asyncio.gather(rebuilding, return_exceptions=True)

    asyncio.run(main())


@entity()
@dataclass(kw_only=True)
class Leaf:
    id: str
    text: Annotated[str, Embedding(embedder="text")]
    title: Annotated[str, Embedding(embedder="title")]


def test_a_model_that_serves_another_field_already_makes_what_it_has_not_made(tmp_path: Path) -> None:
    """Nothing of that field was ever owed to it."""

    def opened(text: Embedder, title: Embedder) -> Any:
        named = {"text": text, "title": title}
        return HybridDataArchitecture.open(config(tmp_path), entities=[Leaf], embedders=named, settings=SETTINGS)

    async def main() -> None:
        async with opened(M1, M2) as hda:
            await hda.collection(Leaf).put_many([Leaf(id=id, text=f"잎 {id}", title=id) for id in OLD])
            await hda.settle(30)
        async with opened(M2, M1) as hda:  # each serves what the other one served
            async with asyncio.timeout(30):
                await hda.rebuild(Leaf)
            for field in ("text", "title"):
                hits = await hda.collection(Leaf).similar("나무", field=field, limit=500)
                assert {hit.value.id for hit in hits} == {*OLD}
                assert all(hit.score > 0 for hit in hits)

    asyncio.run(main())


def test_the_configuration_decides_when_it_changes_again_in_the_middle(tmp_path: Path) -> None:
    """Nobody compares, so that a move that was begun stays where it is."""

    async def begun(embedder: Embedder, *others: Embedder) -> None:
        async with opened(tmp_path, embedder, *others) as hda:
            rebuilding = asyncio.create_task(hda.rebuild(Tree))
            words = hda.manager.placements["tree"]
            await until(lambda: "near~2" in hda.manager.placements["tree"].made)
            rebuilding.cancel()
            await asyncio.gather(rebuilding, return_exceptions=True)
            assert await near(hda) == {"near"}
            assert words.made.keys() == {"near"}

    async def compare(hda: HybridDataArchitecture, ttl_s: float) -> None:
        await hda.stores["main"].call(SupportsJournal.hold_lease, "move:near~2", "somebody", ttl_s)

    async def main() -> None:
        await planted(tmp_path, M1)
        async with opened(tmp_path, M1) as hda:
            await compare(hda, 60.0)
        await begun(M2, M1)
        async with opened(tmp_path, M1, M2) as back:  # what has not served is taken back
            assert "change over to m-2:4, as another process has begun" in back.remembered["tree"].advice[0]
            assert await back.rebuild(Tree) == {"tree": 0}
            assert back.manager.placements["tree"].upcoming == {}
            assert await kept(back) == {"m-1:4"}
            assert await near(back) == {"near"}
            assert await differences(back) == []
        await begun(M2, M1)
        async with opened(tmp_path, WIDE, M1, M2) as third:
            await third.collection(Tree).put(Tree(id="later", text="나중에 온 나무"))
            rebuilding = asyncio.create_task(third.rebuild(Tree))
            await until(lambda: "m-3" in third.manager.placements["tree"].made.get("near~2", ""))
            await compare(third, 0.0)
            await rebuilding
            assert serving(third) == "m-3:6"
            assert await kept(third) == {"m-3:6"}
            assert await near(third) == {"near~2"}
            assert await differences(third) == []

    asyncio.run(main())


def test_who_cannot_go_over_yet_brings_no_vectors_of_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its targets and the new place are known to it already, and another copy does not answer."""
    old, new = Near("n-1", 4, 100.0), Near("n-2", 4, -100.0)
    configured = stores(tmp_path, main=["home"], near=["vector"], words=["full_text"])

    def opened(*embedders: Embedder) -> Any:
        named = {"default" if i == 0 else f"other{i}": one for i, one in enumerate(embedders)}
        return HybridDataArchitecture.open(configured, entities=[Tree], embedders=named, settings=SETTINGS)

    async def main() -> None:
        async with opened(old) as hda:
            await hda.collection(Tree).put_many([Tree(id=id, text=f"나무 {id}") for id in OLD])
            await hda.settle(30)
        async with opened(new, old) as one, opened(old, new) as two:
            words = two.stores["words"]
            call = words.call

            async def silent(method: Any, *arguments: Any) -> Any:
                if method is Repository.ping:
                    raise Unavailable("it does not answer", store="words")
                return await call(method, *arguments)

            monkeypatch.setattr(words, "call", silent)
            async with busy(two, "v"):
                await one.rebuild(Tree)
            monkeypatch.undo()
            await until(lambda: serving(two) == model_of(new))
            assert await differences(two) == []

    asyncio.run(main())


@entity(name="tree")
@dataclass(kw_only=True)
class Spoken:
    """Trees before anybody asked which are near one another."""

    id: str
    text: Annotated[str, FullText()]


def test_a_rebuild_waits_until_a_copy_that_is_given_one_more_facet_serves_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with HybridDataArchitecture.open(config(tmp_path), entities=[Spoken], settings=SETTINGS) as hda:
            await hda.collection(Spoken).put_many([Spoken(id=id, text=f"나무 {id}") for id in OLD])
            await hda.settle(30)
        async with opened(tmp_path, M1, settings=SETTINGS) as hda:
            lease = "without:near~2", "somebody with another configuration"
            assert await hda.stores["main"].call(SupportsJournal.hold_lease, *lease, 60.0)
            assert hda.manager.placements["tree"].upcoming == {"full_text": "near~2"}
        async with opened(tmp_path, M2, M1, settings=SETTINGS) as hda:
            steps: list[str] = []

            def progress(now: RebuildProgress) -> None:
                steps.append(now.step)

            task = asyncio.create_task(hda.rebuild(Tree, progress=progress))
            await until(lambda: "copying" in steps or task.done())
            assert not task.done()
            assert hda.manager.placements["tree"].upcoming == {"full_text": "near~2"}
            await hda.stores["main"].call(SupportsJournal.hold_lease, *lease, 0.0)
            await task
            assert serving(hda) == model_of(M2)
            assert await near(hda) == {"near"}
            assert await differences(hda) == []

    asyncio.run(main())
