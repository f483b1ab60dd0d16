"""Blobs in a SQLite file: short transactions, damage, files of an earlier version."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import sqlite3
from pathlib import Path

import pytest
from polystore_adapters.sqlite import connect, objects
from polystore_adapters.sqlite.repository import SqliteRepository

from polystore import NotFound, SchemaMismatch, StoreCorrupt, StoreFull
from polystore.env import Env
from polystore.model import StoredObject, Upload
from polystore.testing.conformance.base import layouts
from polystore.testing.conformance.file_claims import ALBUM

PART = objects.PART_BYTES


async def opened(path: Path, **options: object) -> SqliteRepository:
    repository = await connect(f"sqlite:{path}", options, Env())
    await repository.prepare([], create=True)
    return repository


async def save(repository: SqliteRepository, key: str, data: bytes) -> None:
    upload = Upload(key, f"upload {key}")
    for index, start in enumerate(range(0, len(data), PART)):
        await repository.put_part(upload, index, data[start : start + PART])
    made = StoredObject(key, len(data), hashlib.sha256(data).hexdigest(), "text/plain")
    await repository.finish_object(upload, made)


def by_hand(path: Path, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path, isolation_level=None) as db:
        rows = db.execute(sql).fetchall()
    db.close()
    return rows


def test_an_upload_under_way_holds_nobody_up(tmp_path: Path) -> None:
    """Between two parts the file is free, for another program too that does not wait at all."""

    async def main() -> None:
        repository = await opened(tmp_path / "a.db")
        upload = Upload("a", "upload")
        for index in range(3):
            await repository.put_part(upload, index, bytes(PART))
            other = sqlite3.connect(tmp_path / "a.db", timeout=0, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
            other.close()
        await repository.aclose()

    asyncio.run(main())


def test_large_content_is_freed_in_short_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FREED_MAX", 2)
    monkeypatch.setattr(objects, "ROUNDS_MAX", 2)
    left: list[int] = []

    def count() -> int:
        left.append(int(str(by_hand(tmp_path / "a.db", "SELECT count(*) FROM ps_part")[0][0])))
        return left[-1]

    async def main() -> None:
        repository = await opened(tmp_path / "a.db")
        await save(repository, "a", bytes(11 * PART))
        await save(repository, "b", bytes(3 * PART))
        await repository.remove_objects(["a"])
        with pytest.raises(NotFound):
            await repository.read_object("a", 0, 1)
        assert count() == 10  # of 14
        while await repository.discard_parts(10**15):
            count()
        assert count() == 3
        assert len(await repository.read_object("b", 2 * PART, 3 * PART)) == PART
        await repository.aclose()

    asyncio.run(main())
    assert left == sorted(left, reverse=True)
    assert max(a - b for a, b in itertools.pairwise(left)) <= 4
    assert by_hand(tmp_path / "a.db", "SELECT count(*) FROM ps_upload") == [(0,)]


@pytest.mark.parametrize(
    ("part", "damage"),
    [(1, "DELETE FROM ps_part WHERE place % 4 = 1"), (2, "UPDATE ps_part SET data = x'00' WHERE place % 4 = 2")],
)
def test_missing_and_short_parts_are_corrupt(tmp_path: Path, part: int, damage: str) -> None:
    async def main() -> None:
        repository = await opened(tmp_path / "a.db")
        await save(repository, "a", bytes(4 * PART))
        by_hand(tmp_path / "a.db", damage)
        assert await repository.read_object("a", 0, 5) == bytes(5)
        with pytest.raises(StoreCorrupt, match="restore the file"):
            await repository.read_object("a", part * PART, (part + 1) * PART)
        await repository.aclose()

    asyncio.run(main())


def test_a_full_file_takes_no_part_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async def main() -> None:
        repository = await opened(tmp_path / "a.db", page_limit=500)
        await save(repository, "a", bytes(PART))
        with pytest.raises(StoreFull):
            await save(repository, "b", bytes(20 * PART))
        await repository.abandon_object(Upload("b", "upload b"))
        await save(repository, "c", bytes(2 * PART))
        assert [one.key for one in (await repository.list_objects("", "", 9)).objects] == ["a", "c"]
        await repository.aclose()

    asyncio.run(main())


def test_a_file_from_before_there_were_files_gets_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def make(*, create: bool) -> None:
        repository = await connect(f"sqlite:{path}", {}, Env())
        try:
            await repository.prepare(layouts(repository, [ALBUM], home=True), create=create)
            if create:
                await save(repository, "a", b"x")
        finally:
            await repository.aclose()

    asyncio.run(make(create=True))
    for table in ("ps_file", "ps_object", "ps_part", "ps_upload"):
        by_hand(path, f"DROP TABLE {table}")
    with pytest.raises(SchemaMismatch, match="polystore init"):
        asyncio.run(make(create=False))
    asyncio.run(make(create=True))
    asyncio.run(make(create=False))
