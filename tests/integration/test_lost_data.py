"""What happens when a file of a store is lost, or comes back older than it was."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from polystore import ConfigurationError, Embedding, FullText, HybridDataArchitecture, StoreCorrupt, Unavailable, entity
from polystore.consistency import Settings
from polystore.consistency.verify import Verifier


@entity()
@dataclass(kw_only=True)
class Leaf:
    id: str
    text: Annotated[str, FullText(), Embedding()]


async def write(directory: Path, count: int, text: str) -> None:
    async with HybridDataArchitecture.open(f"embedded:{directory}", entities=[Leaf]) as hda:
        for i in range(count):
            await hda.collection(Leaf).put(Leaf(id=f"l{i}", text=f"{text} {i}"))
        await hda.settle(30)


async def complete(directory: Path, count: int) -> None:
    """Every copy is there again, answers, and equals its home."""
    opening = HybridDataArchitecture.open(f"embedded:{directory}", entities=[Leaf], settings=Settings(poll_s=0.05))
    async with opening as hda:
        async with asyncio.timeout(30):
            while True:
                try:
                    await hda.collection(Leaf).search("나뭇잎")
                    await hda.collection(Leaf).similar("나뭇잎 1")
                    break
                except Unavailable:
                    await asyncio.sleep(0.02)
        assert len(await hda.collection(Leaf).search("나뭇잎", limit=100)) == count
        assert len(await hda.collection(Leaf).similar("나뭇잎 1", limit=100)) == count
        verifier = Verifier(hda.stores, hda.manager.placements, hda.manager.embedders)
        assert [one async for one in verifier.differences("leaf")] == []


@pytest.mark.parametrize("lost", [["full_text"], ["vector"], ["full_text", "vector", "graph"]])
def test_a_copy_whose_file_was_deleted_is_filled_again_and_not_asked_before(lost: list[str], tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 40, "나뭇잎"))
    for name in lost:
        for file in tmp_path.glob(f"{name}.db*"):
            file.unlink()
    asyncio.run(complete(tmp_path, 40))


def test_a_home_restored_to_the_past_is_noticed_and_nothing_is_written(tmp_path: Path) -> None:
    directory, backup = tmp_path / "data", tmp_path / "backup"
    asyncio.run(write(directory, 5, "나뭇잎"))
    shutil.copytree(directory, backup)
    asyncio.run(write(directory, 5, "꽃잎"))
    shutil.copyfile(backup / "home.db", directory / "home.db")
    before = (directory / "home.db").read_bytes()
    with pytest.raises(StoreCorrupt, match=r"restored to the past.*delete the data of"):
        asyncio.run(write(directory, 1, "새"))
    assert (directory / "home.db").read_bytes() == before
    for name in ("full_text", "vector"):  # what the message says
        for file in directory.glob(f"{name}.db*"):
            file.unlink()
    asyncio.run(complete(directory, 5))


def test_a_copy_that_lives_in_one_process_is_refused_for_a_home_that_others_share(tmp_path: Path) -> None:
    stores = {
        "home": {"url": f"sqlite:{tmp_path}/home.db", "roles": ["home", "journal", "vector"]},
        "search": {"url": "memory:", "roles": ["full_text"]},
    }

    async def main() -> None:
        async with HybridDataArchitecture.open({"stores": stores}, entities=[Leaf]):
            pass

    with pytest.raises(ConfigurationError, match="'search' forgets its data"):
        asyncio.run(main())
