"""Models and tables of an application on PostgreSQL, by both kinds of drivers: what its sessions and polystore write is
one and the same, also when they wait for each other."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from polystore import (
    AlreadyExists,
    ConfigurationError,
    F,
    FullText,
    HybridDataArchitecture,
    UnsupportedOperation,
    VersionConflict,
    entity,
)
from polystore.errors import IntegrityViolation, SchemaMismatch
from polystore.sqlalchemy import capture, install_trigger, remove_trigger
from tests.applications import sqlalchemy_url
from tests.integration.sqlalchemy import models
from tests.integration.sqlalchemy.application import load
from tests.integration.sqlalchemy.models import differences
from tests.postgresql import configured, fresh_database, fresh_schema, server
from tests.stack import url_of

# Classes of its own: what is captured here stays captured for the process.
OWN: Any = load(Path(models.__file__))
Base, Book, Mood, Page, Person, Shelf = OWN.Base, OWN.Book, OWN.Mood, OWN.Page, OWN.Person, OWN.Shelf
BOOKS: Any = Book.__table__
FULL: dict[str, Any] = {
    "title": "겨울 이야기",
    "text": "눈이 내렸다",
    "mood": Mood.WILD,
    "price": Decimal("12.345"),
    "weight": 0.1,
    "printed": date(2026, 1, 2),
    "sold": datetime.fromisoformat("2026-01-02T03:04:05.000006"),
    "seen": datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9))),
    "lent": True,
    "cover": b"\0\xff",
    "extra": {"쪽": [1, None, 2.5, 1e20], "%": "100 %"},
    "note": "  메모 ",
    "made": datetime.fromisoformat("2026-02-03"),
}


@entity(name="note")
@dataclass
class Note:
    """An ordinary record in the application's database."""

    id: str
    text: Annotated[str, FullText()] = ""
    tags: dict[str, Any] = field(default_factory=dict[str, Any])
    price: Decimal = Decimal("1.50")
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    data: bytes = b"\1"


class World:
    """An application's schema, its engines, and an architecture upon it."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.engine = sa.create_engine(sqlalchemy_url(schema))
        self.asyncpg = create_async_engine(
            sqlalchemy_url(schema, "asyncpg"), connect_args={"server_settings": {"search_path": schema}}
        )
        self.psycopg = create_async_engine(sqlalchemy_url(schema))
        self.hda: HybridDataArchitecture

    def add(self, *objects: object) -> None:
        """Written by somebody who has never heard of polystore."""
        with Session(self.engine) as session, session.begin():
            session.add_all(objects)

    def sql(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def stored(self, id: int) -> tuple[object, ...]:
        with self.engine.connect() as connection:
            return tuple(connection.execute(sa.select(BOOKS).where(BOOKS.c.id == id)).one())

    async def blocked(self) -> None:
        """Returns once a connection of polystore waits for a lock."""
        sql = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'polystore' "
            f"AND pid IN (SELECT pid FROM pg_locks WHERE NOT granted) AND query LIKE '%{'books'}%'"
        )
        for _ in range(500):
            if await asyncio.to_thread(server().value, sql):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("nobody waits")


@asynccontextmanager
async def world(*entities: type[Any]) -> AsyncGenerator[World]:
    with fresh_schema() as schema:
        one = World(schema)
        Base.metadata.create_all(one.engine)
        config = {"stores": {"main": configured(schema)}}
        try:
            async with HybridDataArchitecture.open(config, entities=entities or [Book, Page, Note]) as hda:
                one.hda = hda
                yield one
        finally:
            await one.asyncpg.dispose()
            await one.psycopg.dispose()
            one.engine.dispose()


def test_the_table_holds_what_a_session_would_have_written_and_gives_back_what_a_session_reads() -> None:
    async def scenario() -> None:
        async with world() as one:
            books = one.hda.collection(Book)
            for n, values in enumerate([FULL, {"title": "빈 책", "made": FULL["made"]}]):
                ours, theirs = 2 * n + 1, 2 * n + 2
                given = {"isbn": uuid.UUID(int=7), **values}
                one.add(Book(id=theirs, **given))
                await books.put(Book(id=ours, **given))
                assert one.stored(ours)[1:] == one.stored(theirs)[1:]
                for id in (ours, theirs):
                    found = await books.get(id)
                    with Session(one.engine) as session:
                        expected = session.get_one(Book, id)
                        for name in [*FULL, "isbn", "shelf_id"]:
                            assert getattr(found, name) == getattr(expected, name), name
            await one.hda.manager.stores["main"].repository.follow("book", ["1", "2", "3", "4"])  # type: ignore[attr-defined]
            assert await differences(one.hda) == []
            await books.create(Book(id=9, title="책"))  # the database's own default
            found = await books.get(9)
            assert found is not None
            assert found.made.year >= 2026
            with pytest.raises(IntegrityViolation, match="constraint"):
                await books.put(Book(id=10, title="x", shelf_id=99))

    asyncio.run(scenario())


def test_a_collection_works_in_full_on_it() -> None:
    async def scenario() -> None:
        async with world(Book, Page, Person) as one:
            books, pages, people = (one.hda.collection(cls) for cls in (Book, Page, Person))
            first = await books.create(Book(id=1, title="바다로 가는 길", price=Decimal("3.10"), extra={"a": {"b": 2}}))
            await books.put_many([Book(id=i, title=f"산책 {i}", printed=date(2026, 1, i)) for i in range(2, 6)])
            with pytest.raises(AlreadyExists):
                await books.create(Book(id=1, title="x"))
            with pytest.raises(VersionConflict):
                await books.put(Book(id=1, title="x"), expect_version=(first.version or 0) + 100)
            await books.update(2, {"mood": Mood.WILD, "title": "들판 산책"})
            assert (await books.delete(5)).existed
            assert await books.get(5) is None
            assert await books.count() == 4
            assert [one.id for one in await books.find(F.mood == Mood.WILD)] == [2]
            assert [one.id for one in await books.find(F.price == Decimal("3.1"))] == [1]
            assert [one.id for one in await books.find(F.extra.a.b == 2)] == [1]
            assert [one.id for one in await books.find(F.printed >= date(2026, 1, 3))] == [3, 4]
            await books.put_many([Book(id=i, title=title) for i, title in enumerate(["b", "B", "a", "_", "가"], 11)])
            latin = await books.find(F.title < "가", order_by=F.title)
            assert [one.title for one in latin] == ["B", "_", "a", "b"]  # by code point, whatever the collation
            await one.hda.settle()
            assert [hit.value.id for hit in await books.search("바다")] == [1]
            assert [hit.value.id for hit in await books.search("산책", where=F.mood == Mood.WILD)] == [2]
            assert [hit.value.id for hit in await books.similar("산책 3", limit=1)] == [3]
            id = uuid.uuid4()
            await pages.put(Page(id=id, text="첫 쪽", book_id=1))
            await people.put_many([Person(name="지민", knows="민수"), Person(name="민수", knows="지민")])
            await one.hda.settle()
            assert [hit.value.id for hit in await pages.search("쪽")] == [id]
            assert [found.id for found in await pages.find(F.id == id)] == [id]
            assert (await pages.load(id)).value.text == "첫 쪽"
            assert [found.value.name for found in await people.related("지민", "KNOWS", into=Person)] == ["민수"]
            await pages.delete(id)
            assert await differences(one.hda) == []
            assert one.stored(2)[1] == "들판 산책"

    asyncio.run(scenario())


def test_rows_that_were_there_and_rows_that_come_and_go_unheard_are_taken_over_at_open() -> None:
    async def scenario() -> None:
        async with world(Note) as one:
            one.add(*(Book(id=i, title=f"오래된 책 {i}") for i in range(1, 1203)))
            config = {"stores": {"main": configured(one.schema)}}
            async with HybridDataArchitecture.open(config, entities=[Book]) as hda:
                assert await differences(hda) == []
                assert len(await hda.collection(Book).search("오래된", limit=2000)) == 1202
                one.sql("DELETE FROM books WHERE id = 7")
                one.sql("UPDATE books SET title = '바뀐 책' WHERE id = 8")
                one.add(Book(id=5000, title="몰래 온 책"))
                problems = {(key, problem) for _, key, problem in await differences(hda)}
                assert problems == {("7", "stray"), ("5000", "stray"), ("8", "fault")}
                await hda.collection(Book).update(8, {"weight": 1.0})
            async with HybridDataArchitecture.open(config, entities=[Book]) as hda:
                assert await differences(hda) == []
                assert [hit.value.id for hit in await hda.collection(Book).search("몰래")] == [5000]
                assert [hit.value.id for hit in await hda.collection(Book).search("바뀐")] == [8]

    asyncio.run(scenario())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_objects_and_records_are_one_transaction_with_the_caller_s_own_writes(driver: str) -> None:
    async def scenario() -> None:
        async with world() as one:
            books, notes = one.hda.collection(Book), one.hda.collection(Note)
            await notes.put(Note("old", "vorher"))
            engine: AsyncEngine = getattr(one, driver)
            note = Note("n", "함께 쓴 메모", {"a": [1, 1.0, None, "%s $1"], "b": "x"}, Decimal("1E+2"))
            async with AsyncSession(engine, expire_on_commit=False) as session:
                session.add(Shelf(id=7))
                book = Book(**{**FULL, "title": "함께 쓴 책"}, shelf_id=7)
                async with one.hda.transaction(join=session) as tx:
                    tx.put(book)
                    tx.put(note)
                    tx.update(Note, "old", {"text": "nachher", "tags": {"c": True}})
                assert book.id == 1  # the session has flushed
                assert [result.stores["main"] for result in tx.result] == ["pending"] * 3
                assert await notes.get("n") is None
                await session.commit()
                assert [result.stores["main"] for result in tx.result] == ["committed"] * 3
                found = await books.load(1, after=tx.result[0].token)
                assert found.version == tx.result[0].version
                assert await notes.get("n") == note
                assert await notes.get("old") == Note("old", "nachher", {"c": True})

                async with one.hda.transaction(join=session) as gone:
                    gone.put(Book(title="Nichts"))
                    gone.delete(Note, "n")
                await session.rollback()
                with pytest.raises(UnsupportedOperation, match="rolled back"):
                    _ = gone.result

                session.add(Shelf(id=8))
                with pytest.raises(AlreadyExists):  # the caller's transaction goes on as it was
                    async with one.hda.transaction(join=session) as refused:
                        refused.create(Note("n", "noch einmal"))
                async with session.begin_nested(), one.hda.transaction(join=session) as inner:
                    inner.put(Note("m", "bleibt"))
                await session.commit()
                assert (await session.get(Shelf, 8)) is not None
            async with engine.connect() as connection:
                async with one.hda.transaction(join=connection) as bare:
                    bare.put(Book(id=50, title="ohne Sitzung"))
                    bare.delete(Book, 1)
                await connection.commit()
            assert [b.id async for b in books.stream()] == [50]
            assert sorted([n.id async for n in notes.stream()]) == ["m", "n", "old"]
            assert await differences(one.hda) == []
            assert [hit.value.id for hit in await notes.search("함께")] == ["n"]

    asyncio.run(scenario())


def test_a_connection_to_another_schema_is_not_joined() -> None:
    async def scenario() -> None:
        async with world() as one:
            with fresh_schema() as other:
                engine = sa.create_engine(sqlalchemy_url(other))
                with engine.connect() as connection, pytest.raises(ConfigurationError, match="same search path"):
                    async with one.hda.transaction(join=connection) as tx:
                        tx.put(Note("n"))
                engine.dispose()

    asyncio.run(scenario())


STATEMENTS: dict[str, Callable[[Session], object]] = {
    "update where": lambda s: s.execute(sa.update(Book).where(Book.title.like("%2")).values(title="neu 2")),
    "update by key": lambda s: s.execute(sa.update(Book), [{"id": 1, "title": "neu 1"}, {"id": 3, "title": "neu 3"}]),
    "delete": lambda s: s.execute(sa.delete(Book).where(Book.id > 1)),
    "objects": lambda s: s.merge(Book(id=1, title="neu 1")),
}


def test_whatever_sessions_write_is_followed_in_their_own_transactions() -> None:
    async def scenario() -> None:
        async with world() as one:
            books = one.hda.collection(Book)
            sessions = sessionmaker(one.engine)
            several = async_sessionmaker(one.asyncpg)
            capture(sessions, [Book, Page])
            capture(several, [Book, Page])
            for write in STATEMENTS.values():
                with sessions.begin() as session:
                    session.execute(sa.delete(Page))
                    session.execute(sa.delete(Book))
                    session.add_all([Book(id=i, title=f"alt {i}", pages=[Page(text=f"쪽 {i}")]) for i in (2, 3)])
                    session.add(Book(id=1, title="alt 1"))
                with sessions.begin() as session:
                    session.execute(sa.delete(Page))
                    write(session)
                assert await differences(one.hda) == []
                with sessions() as session:
                    standing = session.scalars(sa.select(Book.title)).all()
                for word in ("neu", "alt"):
                    found = sorted(hit.value.title for hit in await books.search(word))
                    assert found == sorted(title for title in standing if word in title)
                assert not await one.hda.collection(Page).search("쪽")
            async with several() as other, other.begin():
                other.add(Book(id=20, **FULL))
            async with several() as other:
                other.add(Book(id=21, title="weg"))
                await other.flush()
                await other.rollback()
            assert await differences(one.hda) == []
            assert [hit.value.id for hit in await books.search("겨울")] == [20]
            assert not await books.search("weg")

    asyncio.run(scenario())


def test_what_nobody_could_follow_is_refused_unless_the_trigger_is_installed_which_hears_of_everybody() -> None:
    async def scenario() -> None:
        async with world() as one:
            books, pages = one.hda.collection(Book), one.hda.collection(Page)
            sessions = sessionmaker(one.engine)
            capture(sessions, [Book, Page])
            with sessions() as session, pytest.raises(UnsupportedOperation, match="install_trigger"):
                session.execute(sa.insert(Book), [{"title": "x"}])
            install_trigger(one.engine, [Book, Page])
            install_trigger(one.engine, [Book, Page])
            with sessions.begin() as session:
                session.execute(sa.insert(Book), [{"id": i, "title": f"얼음 {i}"} for i in range(1, 4)])
                session.add(Book(id=4, title="얼음 4"))
            one.sql("UPDATE books SET title = '물 1' WHERE id = 1")
            one.sql("UPDATE books SET id = 20 WHERE id = 2")
            one.sql("DELETE FROM books WHERE id = 3")
            assert await differences(one.hda) == []
            assert sorted([hit.value.id for hit in await books.search("얼음")]) == [4, 20]
            one.sql("ALTER TABLE pages DROP CONSTRAINT pages_book_id_fkey")
            one.sql("ALTER TABLE pages ADD FOREIGN KEY (book_id) REFERENCES books ON DELETE CASCADE")
            with sessions.begin() as session:
                session.add(Page(text="한 쪽", book_id=4))
            one.sql("DELETE FROM books WHERE id = 4")
            assert await differences(one.hda) == []
            assert not await pages.search("쪽")
            # What polystore and captured sessions write themselves is not taken for somebody else's.
            before = (await books.put(Book(id=5, title="우리"))).version
            await one.hda.settle()
            assert (await books.load(5)).version == before
            assert server().value(f"SELECT count(*) FROM {one.schema.partition(',')[0]}.ps_touch") == 0
            one.sql("TRUNCATE books CASCADE")
            assert await differences(one.hda) == []
            assert not await books.search("우리")
            remove_trigger(one.engine, [Book, Page])
            with sessions() as session, pytest.raises(UnsupportedOperation):
                session.execute(sa.insert(Book), [{"title": "x"}])
            config = {"stores": {"main": configured(one.schema)}}
            with pytest.raises(SchemaMismatch, match="ON DELETE CASCADE"):
                await HybridDataArchitecture.open(config, entities=[Page])

    asyncio.run(scenario())


def test_behind_a_pooler_that_gives_a_connection_for_one_transaction_all_of_this_works_too() -> None:
    async def scenario(database: str) -> None:
        pooled, direct = (f"{url_of(name).rpartition('/')[0]}/{database}" for name in ("pgbouncer", "postgresql"))
        url = sa.make_url(pooled).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, connect_args={"prepare_threshold": None}, poolclass=sa.NullPool)
        Base.metadata.create_all(engine)
        sessions = sessionmaker(engine)
        capture(sessions, [Book])
        config = {"stores": {"main": {"url": pooled, "options": {"pooler": "transaction", "pool_size": 4}}}}
        async with HybridDataArchitecture.open(config, entities=[Book]) as hda:
            await asyncio.gather(*(hda.collection(Book).put(Book(id=i, title=f"wir {i}")) for i in range(10)))
            with sessions.begin() as session:
                session.add(Book(id=20, title="ihr"))
            install_trigger(engine, [Book])
            other = sa.create_engine(direct.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
            with other.begin() as connection:
                connection.exec_driver_sql("UPDATE books SET title = 'sie' WHERE id < 5")
            assert await differences(hda) == []
            for word, count in (("wir", 5), ("ihr", 1), ("sie", 5)):
                assert len(await hda.collection(Book).search(word)) == count
        engine.dispose()

    with fresh_database() as database:
        asyncio.run(scenario(database))


# -- forced orders ------------------------------------------------------------------------------------------------


async def write(session: AsyncSession, kind: str) -> None:
    if kind == "delete":
        await session.execute(sa.delete(Book).where(Book.id == 1))
    elif kind == "update":
        await session.execute(sa.update(Book).where(Book.id == 1).values(title="Sitzung"))
    else:
        session.add(Book(id=1, title="Sitzung"))
        await session.flush()


@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize(
    ("stands", "first", "second"),
    [
        (True, "update", "put"),
        (True, "update", "delete"),
        (True, "delete", "put"),
        (True, "delete", "delete"),
        (False, "insert", "put"),
    ],
)
def test_who_waits_for_a_session_is_the_later_one(stands: bool, first: str, second: str, ends: str) -> None:
    """A version drawn before the wait would make what came first look newer, in every copy, for good."""

    async def scenario() -> None:
        async with world() as one:
            books = one.hda.collection(Book)
            sessions = async_sessionmaker(one.asyncpg)
            capture(sessions, [Book])
            if stands:
                await books.put(Book(id=1, title="vorher"))
            async with sessions() as session:
                await write(session, first)
                waiting = asyncio.create_task(
                    books.put(Book(id=1, title="später")) if second == "put" else books.delete(1)
                )
                await one.blocked()
                await (session.commit() if ends == "commit" else session.rollback())
                result = await waiting
            assert await differences(one.hda) == []
            found = await books.get(1)
            assert (None if found is None else found.title) == ("später" if second == "put" else None)
            existed = stands if ends == "rollback" else first != "delete"
            assert result.existed is existed
            if found is not None:
                assert (await books.load(1)).version == result.version
                tombstones = f"SELECT max(version) FROM {one.schema.partition(',')[0]}.ps_tombstone"
                assert (server().value(tombstones) or 0) < (result.version or 0)

    asyncio.run(scenario())


def test_a_row_that_came_and_went_while_a_write_was_under_way_is_not_newer_than_it() -> None:
    async def scenario() -> None:
        from polystore_adapters.postgresql.application import ApplicationTable

        async with world() as one:
            books = one.hda.collection(Book)
            sessions = sessionmaker(one.engine)
            capture(sessions, [Book])
            table: Any = one.hda.manager.stores["main"].repository._tables["book"]  # type: ignore[attr-defined]
            assert isinstance(table, ApplicationTable)
            writing, times = table.write, 0

            async def interrupted(*args: Any) -> None:
                nonlocal times
                times += 1
                if times == 1:  # the version is drawn, nothing is written

                    def come_and_go() -> None:
                        with sessions.begin() as session:
                            session.add(Book(id=1, title="kurz"))
                        with sessions.begin() as session:
                            session.delete(session.get_one(Book, 1))

                    await asyncio.to_thread(come_and_go)
                await writing(*args)

            setattr(table, "write", interrupted)  # noqa: B010
            result = await books.put(Book(id=1, title="bleibt"))
            assert times == 2
            tombstone = server().value(f"SELECT max(version) FROM {one.schema.partition(',')[0]}.ps_tombstone")
            assert tombstone < (result.version or 0)
            assert await differences(one.hda) == []
            assert [hit.value.id for hit in await books.search("bleibt")] == [1]

    asyncio.run(scenario())


def test_followed_sessions_wait_for_one_another_only_where_they_would_without_polystore() -> None:
    async def scenario() -> None:
        async with world() as one:
            sessions = async_sessionmaker(one.asyncpg)
            capture(sessions, [Book])
            async with sessions() as slow, sessions() as quick:
                slow.add_all([Book(id=i, title="langsam") for i in range(2000)])
                await slow.flush()  # as many keys as there are locks of ordinary keys, and more
                quick.add_all([Book(id=i, title="schnell") for i in range(2000, 2100)])
                await asyncio.wait_for(quick.commit(), 20)
                await slow.commit()
            assert await differences(one.hda) == []
            assert len(await one.hda.collection(Book).search("schnell", limit=500)) == 100

    asyncio.run(scenario())


def test_synchronous_code_does_not_wait_for_the_loop_that_it_stops() -> None:
    """It may want a row that a transaction of polystore holds, which the same thread would have to end."""

    async def scenario() -> None:
        async with world() as one:
            store: Any = one.hda.manager.stores["main"].repository
            sessions = sessionmaker(one.engine)
            capture(sessions, [Book])
            with sessions.begin() as session:
                session.add(Book(id=1, title="eins"))
            name = one.schema.partition(",")[0]
            following = asyncio.create_task(store.follow("book", ["1"]))
            locks = (
                "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = 'books' "
                f"AND l.mode = 'RowShareLock' AND c.relnamespace = '{name}'::regnamespace"
            )
            while not await asyncio.to_thread(server().value, locks):
                pass
            one.sql("UPDATE books SET title = 'zwei' WHERE id = 1")
            await asyncio.gather(following, return_exceptions=True)
            await store.follow("book", ["1"])
            assert await differences(one.hda) == []
            assert [hit.value.id for hit in await one.hda.collection(Book).search("zwei")] == [1]

    asyncio.run(scenario())


def test_a_deadlock_with_the_application_is_given_way_to_and_tried_again() -> None:
    async def scenario() -> None:
        async with world() as one:
            books = one.hda.collection(Book)
            await books.put_many([Book(id=1, title="eins"), Book(id=2, title="zwei")])
            async with one.asyncpg.connect() as application:
                await application.exec_driver_sql("SET LOCAL deadlock_timeout = '30s'")  # the other one finds it first
                await application.exec_driver_sql("UPDATE books SET weight = 2 WHERE id = 2")
                writing = asyncio.create_task(books.put_many([Book(id=i, title=f"neu {i}") for i in (1, 2)]))
                await one.blocked()
                await application.exec_driver_sql("UPDATE books SET weight = 1 WHERE id = 1")
                await application.commit()
            await writing
            assert await differences(one.hda) == []
            assert sorted([hit.value.id for hit in await books.search("neu")]) == [1, 2]

    asyncio.run(scenario())


def test_a_note_that_comes_while_an_older_one_is_dealt_with_is_not_lost() -> None:
    async def scenario() -> None:
        async with world() as one:
            store: Any = one.hda.manager.stores["main"].repository
            install_trigger(one.engine, [Book])
            await asyncio.to_thread(one.add, Book(id=1, title="eins"))
            await one.hda.settle()
            await asyncio.to_thread(one.sql, "DELETE FROM books WHERE id = 1")  # noted, perhaps not dealt with
            async with AsyncSession(one.psycopg) as session:
                session.add(Book(id=1, title="wieder da"))
                await session.flush()
                await store.touched(["book"], 10)  # deals with the older note while the new row is not there yet
                await session.commit()
            assert await differences(one.hda) == []
            assert [hit.value.title for hit in await one.hda.collection(Book).search("wieder")] == ["wieder da"]

    asyncio.run(scenario())
