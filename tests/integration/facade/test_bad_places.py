"""Places where data cannot be: each is a clear error that names the store, and nothing is written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polystore import (
    ConfigurationError,
    HybridDataArchitecture,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    StoreCorrupt,
    StoreFull,
)
from tests.integration.facade.world import ENTITIES, Memory, Person

open_hda = HybridDataArchitecture.open


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def made(directory: Path) -> None:
    async with open_hda(f"embedded:{directory}", entities=ENTITIES) as hda:
        await hda.collection(Person).put_many([Person(id=str(i), name="가나다" * 50) for i in range(200)])


def a_text_file(directory: Path) -> None:
    (directory / "home.db").write_text("Dear diary, this is no database. " * 40)


def a_truncated_one(directory: Path) -> None:
    asyncio.run(made(directory))
    content = (directory / "home.db").read_bytes()
    (directory / "home.db").write_bytes(content[: len(content) // 2 - 100])


def a_newer_one(directory: Path) -> None:
    asyncio.run(made(directory))
    with sqlite3.connect(directory / "home.db") as db:
        db.execute("UPDATE ps_meta SET v = 999 WHERE k = 'schema'")
    db.close()


def anothers(directory: Path) -> None:
    with sqlite3.connect(directory / "home.db") as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()


def a_directory(directory: Path) -> None:
    (directory / "home.db").mkdir()


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (a_text_file, StoreCorrupt, "home"),
        (a_truncated_one, StoreCorrupt, "home.*damaged"),
        (a_newer_one, SchemaMismatch, "newer polystore"),
        (anothers, SchemaMismatch, "another program"),
        (a_directory, PolystoreError, "home"),
    ],
)
def test_a_file_that_is_no_home_is_left_as_it_is(
    spoil: Callable[[Path], None], error: type[Exception], match: str, tmp_path: Path
) -> None:
    spoil(tmp_path)
    before = files(tmp_path)
    with pytest.raises(error, match=match):
        asyncio.run(made(tmp_path))
    after = files(tmp_path)
    assert {name: after.get(name) for name in before if name.endswith(".db")} == {
        name: content for name, content in before.items() if name.endswith(".db")
    }
    assert {name for name in after if name.endswith(".db")} == {name for name in before if name.endswith(".db")}


def test_a_directory_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((PermissionDenied, ConfigurationError), match="file"):
        asyncio.run(made(tmp_path / "file" / "data"))
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_refuses_the_write_and_keeps_what_is_there(tmp_path: Path) -> None:
    config: dict[str, Any] = {"stores": {"main": {"url": f"sqlite:{tmp_path}/app.db", "options": {"page_limit": 200}}}}

    async def main() -> None:
        async with open_hda(config, entities=ENTITIES) as hda:
            memories = hda.collection(Memory)
            await memories.put(Memory(id="first", text="아직 자리가 있다"))
            with pytest.raises(StoreFull, match="main"):
                await memories.put(Memory(id="big", text="가나다라" * 200_000))
            assert not await memories.exists("big")
            assert [hit.value.id for hit in await memories.search("자리")] == ["first"]
            await memories.put(Memory(id="second", text="작은 것은 들어간다"))
            assert await memories.count() == 2

    asyncio.run(main())
