"""`hda.transaction(join=...)`: written in the caller's transaction, durable with it, gone with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from polystore import (
    AlreadyExists,
    ConfigurationError,
    FullText,
    HybridDataArchitecture,
    Index,
    Measure,
    NotFound,
    UnsupportedOperation,
    entity,
)
from tests.integration.sqlalchemy.models import Book, Mood, Page, Shelf, add, differences, made, opened


@entity(name="note")
@dataclass
class Note:
    """An ordinary record in the application's file; its index needs a collation of ours."""

    id: str
    text: Annotated[str, FullText()]
    price: Annotated[Decimal, Index()] = Decimal("1.50")


@entity(name="reader")
@dataclass
class Reader:
    id: str
    reads: ClassVar[Measure[int]] = Measure(int, on_delete="erase")


@asynccontextmanager
async def world(directory: Path, *, split: bool = False) -> AsyncGenerator[tuple[HybridDataArchitecture, AsyncEngine]]:
    made(directory).dispose()
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory}/app.db")
    async with opened(directory, Book, Page, Note, split=split) as hda:
        yield hda, engine
    await engine.dispose()


@pytest.mark.parametrize("split", [False, True])
def test_objects_and_records_are_one_transaction_with_the_caller_s_own_writes(tmp_path: Path, split: bool) -> None:
    async def scenario() -> None:
        async with world(tmp_path, split=split) as (hda, engine), AsyncSession(engine) as session:
            session.add(Shelf(id=7))
            book = Book(title="함께 쓴 책", shelf_id=7)
            async with hda.transaction(join=session) as tx:
                tx.put(book)
                tx.put(Note("n", "함께 쓴 메모"))
            assert book.id == 1  # the session has flushed
            assert [one.stores[home(hda)] for one in tx.result] == ["pending", "pending"]
            assert await hda.collection(Note).get("n") is None
            await session.commit()
            assert [one.stores[home(hda)] for one in tx.result] == ["committed", "committed"]
            found = await hda.collection(Book).load(1, after=tx.result[0].token)
            assert found.version == tx.result[0].version
            assert await differences(hda) == []
            assert [hit.value.id for hit in await hda.collection(Book).search("함께")] == [1]
            assert [hit.value.id for hit in await hda.collection(Note).search("함께")] == ["n"]

    asyncio.run(scenario())


def test_a_rollback_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, engine), AsyncSession(engine) as session:
            await hda.collection(Note).put(Note("n", "vorher"))
            async with hda.transaction(join=session) as tx:
                tx.put(Book(title="Nichts"))
                tx.delete(Note, "n")
            await session.rollback()
            with pytest.raises(UnsupportedOperation, match="rolled back"):
                _ = tx.result
            assert await hda.collection(Book).count() == 0
            assert await hda.collection(Note).get("n") == Note("n", "vorher")
            assert await differences(hda) == []

    asyncio.run(scenario())


def test_a_savepoint_takes_only_its_own_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, engine), AsyncSession(engine) as session:
            async with hda.transaction(join=session) as kept:
                kept.put(Book(id=1, title="bleibt"))
            nested = await session.begin_nested()
            async with hda.transaction(join=session) as gone:
                gone.put(Book(id=2, title="geht"))
                gone.put(Note("n", "geht"))
            await nested.rollback()
            async with session.begin_nested(), hda.transaction(join=session) as inner:
                inner.put(Note("m", "bleibt"))
            assert inner.result[0].stores["main"] == "pending"
            await session.commit()
            assert [tx.result[0].stores["main"] for tx in (kept, inner)] == ["committed", "committed"]
            with pytest.raises(UnsupportedOperation, match="rolled back"):
                _ = gone.result
            assert await hda.collection(Book).count() == 1
            assert await hda.collection(Note).get("n") is None
            assert await differences(hda) == []

    asyncio.run(scenario())


def test_create_update_and_delete_of_objects(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, engine), AsyncSession(engine, expire_on_commit=False) as session:
            books = hda.collection(Book)
            await books.put(Book(id=1, title="eins"))
            await books.put(Book(id=2, title="zwei"))
            async with hda.transaction(join=session) as tx:
                tx.update(Book, 1, {"mood": Mood.WILD})
                tx.delete(Book, 2)
                tx.delete(Book, 99)
                tx.create(Book(id=3, title="drei"))
                tx.put(Book(id=1, title="eins und mehr"))
            await session.commit()
            assert [one.existed for one in tx.result] == [True, True, False, False, True]
            assert [one.key for one in tx.result] == ["1", "2", "99", "3", "1"]
            assert tx.result[2].version is None
            assert sorted([one.title async for one in books.stream()]) == ["drei", "eins und mehr"]
            with pytest.raises(AlreadyExists):
                async with hda.transaction(join=session) as tx:
                    tx.create(Book(id=3, title="x"))
            await session.rollback()
            with pytest.raises(NotFound):
                async with hda.transaction(join=session) as tx:
                    tx.update(Book, 99, {"title": "x"})
            await session.rollback()
            assert await differences(hda) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["async connection", "session", "connection"])
def test_whatever_sqlalchemy_has_a_transaction_in_can_be_joined(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, engine):
            sync = sa.create_engine(f"sqlite:///{tmp_path}/app.db")
            if kind == "async connection":
                async with engine.connect() as connection:
                    await write(hda, connection)
                    await connection.commit()
            elif kind == "session":
                with Session(sync) as session:
                    await write(hda, session)
                    session.commit()
            else:
                with sync.connect() as connection:
                    await write(hda, connection)
                    connection.commit()
            assert await hda.collection(Book).count() == 1
            assert await hda.collection(Note).get("n") == Note("n", "text")
            assert await differences(hda) == []
            assert [hit.value.id for hit in await hda.collection(Book).similar("ein Buch")] == [1]
            sync.dispose()

    async def write(hda: HybridDataArchitecture, join: object) -> None:
        async with hda.transaction(join=join) as tx:  # type: ignore[arg-type]
            tx.put(Book(id=1, title="ein Buch"))
            tx.create(Note("n", "text"))

    asyncio.run(scenario())


def test_what_cannot_be_joined_is_refused_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, engine):
            with pytest.raises(ConfigurationError, match="takes a Session"):
                hda.transaction(join="x")  # type: ignore[arg-type]
            other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
            async with AsyncSession(other) as session:
                with pytest.raises(ConfigurationError, match=r"to .*other\.db, the home is .*app\.db"):
                    async with hda.transaction(join=session) as tx:
                        tx.put(Note("n", "x"))
            await other.dispose()
            async with AsyncSession(engine) as session:
                with pytest.raises(ConfigurationError, match="ack="):
                    hda.transaction(join=session, ack="applied")
                with pytest.raises(UnsupportedOperation, match="expect_version="):
                    async with hda.transaction(join=session) as tx:
                        tx.put(Book(id=1, title="x"), expect_version=1)
                async with hda.transaction(join=session) as tx:
                    pass
                assert tx.result == ()
        async with HybridDataArchitecture.open("memory:", entities=[Note]) as hda:
            plain = Session(sa.create_engine("sqlite://"))
            with pytest.raises(UnsupportedOperation, match="cannot be joined"):
                async with hda.transaction(join=plain) as tx:
                    tx.put(Note("n", "x"))

    asyncio.run(scenario())


def test_a_deleted_record_takes_its_points_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
        async with opened(tmp_path, Reader) as hda, AsyncSession(engine) as session:
            readers = hda.collection(Reader)
            start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
            for id in ("gone", "kept"):
                await readers.put(Reader(id))
                await readers.append(Reader.reads, id, 1, at=start)
            async with hda.transaction(join=session) as tx:
                tx.delete(Reader, "gone")
            await session.commit()
            async with hda.transaction(join=session) as tx:
                tx.delete(Reader, "kept")
            await session.rollback()
            await hda.settle()
            left = [await readers.series(Reader.reads, id, start=start, end=end) for id in ("gone", "kept")]
            assert [len(points) for points in left] == [0, 1]
        await engine.dispose()

    asyncio.run(scenario())


def test_what_was_there_unheard_is_taken_over_by_the_write(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, engine), AsyncSession(engine) as session:
            add(sa.create_engine(f"sqlite:///{tmp_path}/app.db"), Book(id=5, title="heimlich"))
            async with hda.transaction(join=session) as tx:
                tx.update(Book, 5, {"title": "offen"})
            await session.commit()
            assert await differences(hda) == []
            assert [hit.value.id for hit in await hda.collection(Book).search("offen")] == [5]

    asyncio.run(scenario())


def home(hda: HybridDataArchitecture) -> str:
    return hda.manager.placements["note"].home
