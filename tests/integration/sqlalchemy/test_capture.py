"""`capture`: whatever a session writes is followed, in its own transaction; what nobody could follow is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from polystore import ConfigurationError, HybridDataArchitecture, SchemaMismatch, UnsupportedOperation
from polystore.sqlalchemy import capture, entity_of, install_trigger, remove_trigger
from tests.integration.sqlalchemy import models
from tests.integration.sqlalchemy.application import load
from tests.integration.sqlalchemy.models import add, differences, made, opened

# Classes of its own: what is captured here stays captured for the process.
OWN: Any = load(Path(models.__file__))
Base, Book, Page, Shelf = OWN.Base, OWN.Book, OWN.Page, OWN.Shelf


@asynccontextmanager
async def world(
    directory: Path, *, split: bool = False
) -> AsyncGenerator[tuple[HybridDataArchitecture, sessionmaker[Session]]]:
    engine = made(directory)
    sessions = sessionmaker(engine)
    capture(sessions, [Book, Page])
    async with opened(directory, Book, Page, split=split) as hda:
        yield hda, sessions
    engine.dispose()


async def titles(hda: HybridDataArchitecture, words: str) -> list[str]:
    return sorted(hit.value.title for hit in await hda.collection(Book).search(words))


@pytest.mark.parametrize("split", [False, True])
def test_all_that_a_session_writes_is_followed(tmp_path: Path, split: bool) -> None:
    async def scenario() -> None:
        async with world(tmp_path, split=split) as (hda, sessions):
            with sessions.begin() as session:
                pages = [Page(text="첫 쪽"), Page(text="다음 쪽")]
                session.add(
                    Shelf(id=1, books=[Book(id=1, title="산 이야기", pages=pages), Book(id=2, title="물 이야기")])
                )
            assert await differences(hda) == []
            assert await titles(hda, "이야기") == ["물 이야기", "산 이야기"]
            assert len(await hda.collection(Page).search("쪽")) == 2

            with sessions.begin() as session:  # a relationship empties the foreign keys of the books
                session.delete(session.get_one(Shelf, 1))
            with sessions.begin() as session:  # the ORM cascades
                session.delete(session.get_one(Book, 1))
            assert await differences(hda) == []
            found = await hda.collection(Book).get(2)
            assert found is not None
            assert found.shelf_id is None
            assert await hda.collection(Page).count() == 0
            assert await titles(hda, "산") == []

            with sessions.begin() as session:
                session.get_one(Book, 2).id = 20  # even a key
            assert await differences(hda) == []
            assert [hit.value.id for hit in await hda.collection(Book).similar("물 이야기", limit=1)] == [20]

    asyncio.run(scenario())


STATEMENTS: dict[str, Callable[[Session], object]] = {
    "update where": lambda s: s.execute(sa.update(Book).where(Book.title.like("%2")).values(title="neu 2")),
    "update all": lambda s: s.execute(sa.update(Book).values(title="neu")),
    "update by key": lambda s: s.execute(sa.update(Book), [{"id": 1, "title": "neu 1"}, {"id": 3, "title": "neu 3"}]),
    "update of a subquery": lambda s: s.execute(
        sa.update(Book).where(Book.id.in_(sa.select(Book.id).where(Book.id > 1))).values(title="neu")
    ),
    "delete": lambda s: s.execute(sa.delete(Book).where(Book.id > 1)),
    "query.update": lambda s: s.query(Book).filter(Book.id == 2).update({"title": "neu 2"}),
    "query.delete": lambda s: s.query(Book).filter_by(id=2).delete(),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements_of_a_class_are_followed(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, sessions):
            with sessions.begin() as session:
                session.add_all([Book(id=i, title=f"alt {i}") for i in (1, 2, 3)])
            with sessions.begin() as session:
                STATEMENTS[name](session)
            assert await differences(hda) == []
            with sessions() as session:
                standing = session.scalars(sa.select(Book.title)).all()
            assert await titles(hda, "neu") == sorted(one for one in standing if "neu" in one)
            assert await titles(hda, "alt") == sorted(one for one in standing if "alt" in one)

    asyncio.run(scenario())


def test_async_sessions_are_followed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, _):
            engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
            makers: list[Any] = [async_sessionmaker(engine), own(engine)]
            for i, sessions in enumerate(makers):
                capture(sessions, [Book])
                async with sessions() as session, session.begin():
                    session.add(Book(id=i, title=f"비동기 {i}"))
                async with sessions() as session, session.begin():
                    await session.execute(sa.update(Book).where(Book.id == i).values(title=f"바꾼 것 {i}"))
                assert await differences(hda) == []
                assert await titles(hda, f"바꾼 것 {i}") == [f"바꾼 것 {i}"]
            await engine.dispose()

    def own(engine: AsyncEngine) -> Callable[[], AsyncSession]:
        class Sync(Session):
            pass

        class Own(AsyncSession):
            sync_session_class = Sync

            def __init__(self) -> None:
                super().__init__(engine)

        return Own

    asyncio.run(scenario())


def test_sessions_of_a_class_and_scoped_ones_are_followed(tmp_path: Path) -> None:
    class Own(Session):
        pass

    async def scenario() -> None:
        async with world(tmp_path) as (hda, _):
            engine = sa.create_engine(f"sqlite:///{tmp_path}/app.db")
            scoped = scoped_session(sessionmaker(engine))
            capture(Own, [Book])
            capture(scoped, [Book])
            with Own(engine) as session, session.begin():
                session.add(Book(id=1, title="eigen"))
            scoped.add(Book(id=2, title="geteilt"))
            scoped.commit()
            scoped.remove()
            assert await differences(hda) == []
            assert await titles(hda, "eigen") == ["eigen"]
            assert await titles(hda, "geteilt") == ["geteilt"]
            engine.dispose()

    asyncio.run(scenario())


def test_what_is_rolled_back_was_never_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, sessions):
            with sessions() as session:
                session.add(Book(id=1, title="weg"))
                session.flush()
                session.rollback()
                session.add(Book(id=2))  # has no title
                with pytest.raises(IntegrityError):
                    session.flush()
                session.rollback()
                session.add(Book(id=3, title="da"))
                nested = session.begin_nested()
                session.add(Book(id=4, title="weg"))
                session.flush()
                nested.rollback()
                session.commit()
            with sessions() as session, pytest.raises(UnsupportedOperation):  # a failed flush lets nothing through
                session.execute(sa.insert(Book), [{"title": "x"}])
            assert await differences(hda) == []
            assert [one.id async for one in hda.collection(Book).stream()] == [3]

    asyncio.run(scenario())


BOOKS = cast("sa.Table[Any]", Book.__table__)
WRITES: dict[str, Callable[[Session], object]] = {
    "core insert": lambda s: s.connection().execute(sa.insert(BOOKS), [{"title": "x"}]),
    "core update": lambda s: s.connection().execute(sa.update(BOOKS).values(title="x")),
    "core delete": lambda s: s.connection().execute(sa.delete(BOOKS)),
    "orm insert": lambda s: s.execute(sa.insert(Book), [{"title": "x"}]),
    "bulk_save_objects": lambda s: s.bulk_save_objects([Book(title="x")]),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(sa.inspect(Book), [{"title": "x"}]),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_nobody_could_follow_is_refused_before_it_happens_unless_the_trigger_is_installed(
    tmp_path: Path, name: str
) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as (hda, sessions):
            with sessions.begin() as session:
                session.add(Book(id=1, title="vorher"))
            with sessions() as session, pytest.raises(UnsupportedOperation, match=r"Book is captured.*install_trigger"):
                WRITES[name](session)
            assert await titles(hda, "vorher") == ["vorher"]
            engine = sessions.kw["bind"]
            install_trigger(engine, [Book])
            with sessions.begin() as session:
                WRITES[name](session)
            assert await differences(hda) == []
            assert len(await titles(hda, "x")) == (0 if name == "core delete" else 1)
            remove_trigger(engine, [Book])
            with sessions() as session, pytest.raises(UnsupportedOperation):
                WRITES[name](session)

    asyncio.run(scenario())


def test_the_trigger_hears_of_every_writer_also_of_cascades(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE pages")
            connection.exec_driver_sql(
                "CREATE TABLE pages (id CHAR(32) PRIMARY KEY, text VARCHAR NOT NULL, "
                "book_id INTEGER NOT NULL REFERENCES books (id) ON DELETE CASCADE)"
            )
        install_trigger(engine, [Book, Page])
        add(engine, Book(id=1, title="에누리", pages=[Page(text="한 쪽")]))
        async with opened(tmp_path, Book, Page) as hda:
            with engine.begin() as connection:
                connection.exec_driver_sql("PRAGMA foreign_keys=ON")
                connection.execute(
                    sa.text("INSERT INTO books (id, title, mood, lent, isbn) VALUES (2, '손으로', 'CALM', 0, :isbn)"),
                    {"isbn": "0" * 32},
                )
                connection.execute(sa.text("UPDATE books SET title = '고친 것' WHERE id = 1"))
            assert await differences(hda) == []
            assert await titles(hda, "손으로") == ["손으로"]
            assert await titles(hda, "고친 것") == ["고친 것"]
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA foreign_keys=ON")
                connection.execute(sa.text("DELETE FROM books WHERE id = 1"))
                connection.commit()
            assert await differences(hda) == []
            assert await hda.collection(Page).count() == 0
            assert not await hda.collection(Page).search("쪽")
            # What polystore writes itself is not taken for somebody else's.
            before = (await hda.collection(Book).put(Book(id=3, title="우리"))).version
            await hda.settle()
            assert (await hda.collection(Book).load(3)).version == before
        engine.dispose()

    asyncio.run(scenario())


def test_a_database_that_polystore_does_not_know_is_left_alone(tmp_path: Path) -> None:
    """The application may run before, and elsewhere, without it: its tests, for instance."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    capture(sessions, [Book])
    with sessions.begin() as session:
        session.add(Book(title="x"))
        session.connection().execute(sa.insert(BOOKS), [{"title": "y"}])
    with sessions() as session:
        assert session.scalar(sa.select(sa.func.count(Book.id))) == 2
    assert not [name for name in sa.inspect(engine).get_table_names() if name.startswith("ps_")]
    engine.dispose()


def test_a_class_of_another_age_is_refused_rather_than_followed_wrongly(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        async with opened(tmp_path, Page):
            pass
        newer = entity_of(Page.__table__, name="page")  # without full text
        sessions = sessionmaker(engine)
        capture(sessions, [newer])
        with sessions() as session:
            session.add(newer(id=UUID(int=1), text="x", book_id=1))
            with pytest.raises(SchemaMismatch, match="polystore init"):
                session.flush()
        engine.dispose()

    asyncio.run(scenario())


def test_only_sessions_and_mapped_entities_are_taken() -> None:
    with pytest.raises(ConfigurationError, match="makes sessions"):
        capture("x", [Book])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Shelf is not an entity"):
        capture(sessionmaker(), [Shelf])
    with pytest.raises(ConfigurationError, match="sync Engine"):
        install_trigger("x", [Book])  # type: ignore[arg-type]
