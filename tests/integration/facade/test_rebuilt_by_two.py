"""One second place: what somebody fills or serves from is not emptied, by whoever, whatever it has missed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from polystore import ConfigurationError, HybridDataArchitecture, PolystoreError, Unavailable
from polystore.model import Placement
from polystore.protocols import SupportsJournal
from tests.growing import Tree, differences, found, opening, over, stores, until

EVERY = {f"t{i}" for i in range(60)}


def test_who_cannot_follow_what_another_process_has_begun_does_not_empty_what_that_fills(tmp_path: Path) -> None:
    config = stores(tmp_path, main=["home"], words=["full_text", "vector"])

    def filled() -> int:
        with closing(sqlite3.connect(tmp_path / "words.db~2")) as db:
            return int(db.execute("SELECT count(*) FROM tree").fetchone()[0])

    async def refusing(placement: Placement, names: Collection[str]) -> None:
        raise Unavailable("it does not answer", store="words~2")

    async def main() -> None:
        async with opening(config) as one, opening(config) as two:
            await one.collection(Tree).put_many([Tree(id=f"t{i}", text=f"나무 {i}") for i in range(100)])
            await one.settle(30)
            relay: Any = two.manager.lines["main"]
            relay._task.cancel()
            two.manager.mover.prepare = refusing
            rebuilding = asyncio.create_task(one.rebuild_copies("words", rate_per_s=1.0))
            await until(lambda: (tmp_path / "words.db~2").exists() and one.manager.placements["tree"].upcoming != {})
            await until(lambda: filled() > 0)
            with pytest.raises(PolystoreError) as refused:
                await two.rebuild_copies("words")
            assert filled() > 0
            assert isinstance(refused.value, Unavailable)
            assert await one.rebuild_copies("words", rollback=True) == {"tree": "words"}  # what has not served ends
            assert await rebuilding == {"tree": "words"}
            await over(one)
            assert await differences(one) == []

    asyncio.run(main())


async def serves_every_tree(hda: HybridDataArchitecture) -> None:
    assert (await found(hda))[0] == EVERY
    assert len(await hda.collection(Tree).similar("나무 7", limit=500)) == len(EVERY)


@asynccontextmanager
async def given_vectors(tmp_path: Path) -> AsyncGenerator[HybridDataArchitecture]:
    """The copy for words is being given vectors, in its other place, which nobody compares."""
    async with opening(stores(tmp_path, main=["home", "vector"], words=["full_text"])) as hda:
        await hda.collection(Tree).put_many([Tree(id=id, text=f"나무 {id}") for id in sorted(EVERY)])
        await hda.settle(30)
        await hda.stores["main"].call(SupportsJournal.hold_lease, "move:words~2", "somebody", 60.0)
    async with opening(stores(tmp_path, main=["home"], words=["full_text", "vector"])) as hda:
        assert hda.manager.placements["tree"].upcoming == {"full_text": "words~2", "vector": "words~2"}
        yield hda


async def compared(hda: HybridDataArchitecture) -> None:
    await hda.stores["main"].call(SupportsJournal.hold_lease, "move:words~2", "somebody", 0.0)
    await over(hda)


def test_a_copy_that_is_given_a_facet_goes_back_only_when_that_has_ended_and_with_all_it_serves(tmp_path: Path) -> None:
    async def main() -> None:
        async with given_vectors(tmp_path) as hda:
            before = hda.manager.placements["tree"]
            with pytest.raises(ConfigurationError, match="full_text from 'words', vector from 'words~2'"):
                await hda.rebuild_copies("words", rollback=True)
            assert hda.manager.placements["tree"] == before
            await compared(hda)
            assert await hda.rebuild_copies("words", rollback=True) == {"tree": "words"}
            assert hda.manager.placements["tree"].facets == {"full_text": "words", "vector": "words"}
            await serves_every_tree(hda)
            assert await differences(hda) == []

    asyncio.run(asyncio.wait_for(main(), 100))


def test_a_copy_that_serves_from_both_of_its_places_is_not_emptied_and_is_brought_into_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with given_vectors(tmp_path) as hda:
            manager, before = hda.manager, hda.manager.placements["tree"]
            parted = replace(before, upcoming={"vector": "words~2"})  # as an earlier version went back
            assert await manager.mover.remember(manager.line("tree"), before, parted)
            await compared(hda)
            assert manager.placements["tree"].facets == {"full_text": "words", "vector": "words~2"}
            with pytest.raises(ConfigurationError, match="both of its places"):
                await hda.rebuild_copies("words")
            previous = replace(manager.placements["tree"], previous={"vector": "words"})
            assert await manager.mover.remember(manager.line("tree"), manager.placements["tree"], previous)
            with pytest.raises(ConfigurationError, match="'words' serves"):
                await hda.discard_copies("words")
            await serves_every_tree(hda)
        async with opening(stores(tmp_path, main=["home", "vector"], words=["full_text"])) as hda:
            await over(hda)
        async with opening(stores(tmp_path, main=["home"], words=["full_text", "vector"])) as hda:
            await over(hda)
            assert await hda.rebuild_copies("words") == {"tree": "words"}
            await serves_every_tree(hda)
            assert await differences(hda) == []

    asyncio.run(asyncio.wait_for(main(), 100))
