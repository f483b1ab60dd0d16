"""A table of the application's own as the home of an entity: `hda.collection(Book)` in full, the table as it was."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from polystore import (
    AlreadyExists,
    Embedding,
    F,
    FullText,
    HybridDataArchitecture,
    Index,
    InvalidData,
    Measure,
    Relation,
    UnsupportedOperation,
    VersionConflict,
    entity,
)
from polystore.consistency import Settings
from polystore.errors import ConfigurationError, EntityError, IntegrityViolation, SchemaMismatch
from polystore.sqlalchemy import entity_of, install_trigger, table
from polystore.testing.conformance import MovableEnv
from tests.integration.sqlalchemy.models import (
    Base,
    Book,
    Mood,
    Page,
    Person,
    Shelf,
    add,
    differences,
    everything,
    made,
    opened,
)

FULL: dict[str, Any] = {
    "title": "겨울 이야기",
    "text": "눈이 내렸다",
    "mood": Mood.WILD,
    "price": Decimal("12.345"),
    "weight": 0.1,
    "printed": date(2026, 1, 2),
    "sold": datetime.fromisoformat("2026-01-02T03:04:05.000006"),
    "lent": True,
    "cover": b"\0\xff",
    "extra": {"쪽": [1, None, 2.5]},
    "isbn": uuid.UUID(int=7),
    "note": "  메모 ",
    "made": datetime.fromisoformat("2026-02-03"),
}
EMPTY = {"title": "빈 책"}


def stored(engine: sa.Engine, id: int) -> tuple[object, ...]:
    """What the database itself holds."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT * FROM books WHERE id = ?", (id,)).one()
        return tuple(found)


@pytest.mark.parametrize("values", [FULL, EMPTY])
def test_the_table_holds_what_a_session_would_have_written_and_gives_back_what_a_session_reads(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        given = {"isbn": uuid.UUID(int=9), "made": datetime.fromisoformat("2026-03-04"), **values}
        add(engine, Book(id=1, **given))
        async with opened(tmp_path) as hda:
            await hda.collection(Book).put(Book(id=2, **given))
            assert stored(engine, 2)[1:] == stored(engine, 1)[1:]
            for id in (1, 2):
                ours = await hda.collection(Book).get(id)
                with Session(engine) as session:
                    theirs = session.get_one(Book, id)
                    for name in [*FULL, "weight", "shelf_id"]:
                        assert getattr(ours, name) == getattr(theirs, name), name
            assert await differences(hda) == []
        engine.dispose()

    asyncio.run(scenario())


def test_the_database_s_own_defaults_are_asked_for_and_times_with_a_zone_keep_their_instant(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        async with opened(tmp_path) as hda:
            seoul = datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
            await hda.collection(Book).create(Book(id=1, title="책", seen=seoul))
            found = await hda.collection(Book).get(1)
            assert found is not None
            assert found.made.year >= 2026
            assert found.seen is not None
            assert (found.seen, found.seen.tzinfo) == (seoul, UTC)
            assert await differences(hda) == []
        engine.dispose()

    asyncio.run(scenario())


@pytest.mark.parametrize("split", [False, True])
def test_a_collection_works_in_full_on_it(tmp_path: Path, split: bool) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        async with opened(tmp_path, Book, split=split) as hda:
            books = hda.collection(Book)
            first = await books.create(Book(id=1, title="바다로 가는 길", price=Decimal("3.10"), extra={"a": {"b": 2}}))
            await books.put_many([Book(id=i, title=f"산책 {i}", printed=date(2026, 1, i)) for i in range(2, 6)])
            with pytest.raises(AlreadyExists):
                await books.create(Book(id=1, title="x"))
            with pytest.raises(VersionConflict):
                await books.put(Book(id=1, title="x"), expect_version=(first.version or 0) + 100)
            await books.update(2, {"mood": Mood.WILD, "title": "들판 산책"})
            await books.update(3, lambda one: _titled(one, "밤 산책"))
            assert (await books.delete(5)).existed
            assert await books.get(5) is None
            assert await books.count() == 4
            assert [one.id for one in await books.find(F.mood == Mood.WILD)] == [2]
            assert [one.id for one in await books.find(F.price == Decimal("3.1"))] == [1]
            assert [one.id for one in await books.find(F.extra.a.b == 2)] == [1]
            assert [one.id for one in await books.find(F.printed >= date(2026, 1, 3), order_by=F.printed.desc())] == [
                4,
                3,
            ]
            assert [one.id for one in await books.find(F.id.in_([1, 4]))] == [1, 4]
            page = await books.find(order_by=F.title, limit=2)
            assert [one.id for one in await books.find(order_by=F.title, limit=2, cursor=page.cursor)] != []
            await hda.settle()
            assert [hit.value.id for hit in await books.search("바다")] == [1]
            assert [hit.value.id for hit in await books.search("산책", where=F.mood == Mood.WILD)] == [2]
            assert [hit.value.id for hit in await books.similar("밤 산책", limit=1)] == [3]
            assert [hit.value.id for hit in await books.similar("밤 산책", limit=9, where=F.id == 4)] == [4]
            assert await differences(hda) == []
        with Session(engine) as session:
            titles = session.scalars(sa.select(Book.title).order_by(Book.id)).all()
        assert titles == ["바다로 가는 길", "들판 산책", "밤 산책", "산책 4"]
        engine.dispose()

    asyncio.run(scenario())


def _titled(book: Book, title: str) -> Book:
    book.title = title
    return book


def test_what_it_returns_can_go_on_in_a_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        add(engine, Shelf(id=1), Book(id=1, title="책", shelf_id=1))
        async with opened(tmp_path) as hda:
            found = await hda.collection(Book).get(1)
            assert found is not None
            with Session(engine) as session, session.begin():
                session.add(found)
                assert found.shelf is not None
                found.title = "고친 책"
            with Session(engine) as session:
                assert session.get_one(Book, 1).title == "고친 책"
        engine.dispose()

    asyncio.run(scenario())


def test_keys_may_be_texts_and_uuids_and_a_column_can_be_a_relation(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        id = uuid.uuid4()
        add(engine, Book(id=1, title="책"), Page(id=id, text="첫 쪽", book_id=1), Person(name="지민", knows="민수"))
        async with opened(tmp_path, Page, Person) as hda:
            pages, people = hda.collection(Page), hda.collection(Person)
            other = uuid.uuid4()
            await pages.put(Page(id=other, text="다음 쪽", book_id=1))
            await people.put(Person(name="민수", knows="지민"))
            await hda.settle()
            assert [(await pages.load(one)).value.id for one in (id, other)] == [id, other]
            assert [hit.value.id for hit in await pages.search("다음")] == [other]
            assert [one.id for one in await pages.find(F.id == other)] == [other]
            assert [one.value.name for one in await people.related("지민", "KNOWS", into=Person)] == ["민수"]
            assert await differences(hda) == []
        with Session(engine) as session:
            assert session.get_one(Page, other).text == "다음 쪽"
        engine.dispose()

    asyncio.run(scenario())


def test_rows_that_were_there_and_rows_that_come_and_go_unheard_are_taken_over_at_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        add(engine, *(Book(id=i, title=f"오래된 책 {i}") for i in range(1, 1203)))
        with caplog.at_level(logging.INFO, "polystore.consistency"):
            async with opened(tmp_path, split=True) as hda:
                assert await differences(hda) == []
                assert len(await hda.collection(Book).search("오래된", limit=2000)) == 1202
        assert "book: 1202 rows taken over" in caplog.text
        async with opened(tmp_path, split=True) as hda:
            with engine.begin() as connection:
                connection.execute(sa.text("DELETE FROM books WHERE id = 7"))
                connection.execute(sa.text("UPDATE books SET title = '바뀐 책' WHERE id = 8"))
                connection.execute(sa.insert(Book).values(id=5000, title="몰래 온 책"))
            found = await hda.collection(Book).get(5000)
            assert found is not None
            assert found.title == "몰래 온 책"
            assert await hda.collection(Book).get(7) is None
            problems = {(key, problem) for _, key, problem in await differences(hda)}
            assert problems == {("7", "stray"), ("5000", "stray"), ("7", "extra"), ("8", "content")}
            with pytest.raises(AlreadyExists):
                await hda.collection(Book).create(Book(id=5000, title="x"))
            await hda.collection(Book).update(8, {"weight": 1.0})
        async with opened(tmp_path, split=True) as hda:
            assert await differences(hda) == []
            assert [hit.value.id for hit in await hda.collection(Book).search("몰래")] == [5000]
            assert [hit.value.id for hit in await hda.collection(Book).search("바뀐")] == [8]
        engine.dispose()

    asyncio.run(scenario())


def test_a_row_whose_values_are_not_of_its_column_s_types_holds_up_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        add(engine, Book(id=1, title="책"), Book(id=2, title="다른 책"))
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE books SET isbn = 'no uuid' WHERE id = 1"))
        async with opened(tmp_path) as hda:
            assert [hit.value.id for hit in await hda.collection(Book).search("책")] == [2]
            with pytest.raises(Exception, match="isbn"):
                await hda.collection(Book).get(1)
        engine.dispose()

    asyncio.run(scenario())


def test_the_application_s_tables_stay_as_they_were(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        add(engine, Book(id=1, title="책"))
        before = everything(engine)
        async with opened(tmp_path, Book, Page, Person) as hda:
            await hda.collection(Book).put(Book(id=2, title="x"))
            await hda.settle()
        assert everything(engine) == before
        engine.dispose()

    asyncio.run(scenario())


def test_a_changed_class_is_followed_where_the_application_changed_its_table(tmp_path: Path) -> None:
    """The migration is the application's; what polystore holds of the rows follows."""

    async def scenario() -> None:
        def version(*columns: sa.Column[Any]) -> type[Any]:
            tea = sa.Table("tea", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *columns)
            return entity_of(tea, facets={column.name: [FullText()] for column in columns})

        file = f"sqlite:{tmp_path}/tea.db"
        engine = sa.create_engine(f"sqlite:///{tmp_path}/tea.db")
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE tea (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"))
            connection.execute(sa.text("INSERT INTO tea VALUES (1, '녹차')"))
        before = version(sa.Column("name", sa.Text, nullable=False))
        copy = {"url": f"sqlite:{tmp_path}/copy.db", "roles": ["full_text"]}
        config = {"stores": {"app": {"url": file, "roles": ["home", "journal"]}, "copy": copy}}
        async with HybridDataArchitecture.open(config, entities=[before]) as hda:
            await hda.settle()
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE tea ADD COLUMN origin TEXT NOT NULL DEFAULT '보성'"))
        after = version(
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("origin", sa.Text, nullable=False, server_default="보성"),
        )
        async with HybridDataArchitecture.open(config, entities=[after]) as hda:
            assert await differences(hda) == []
            assert [hit.value.origin for hit in await hda.collection(after).search("보성")] == ["보성"]
            await hda.collection(after).put(after(id=2, name="홍차"))
            assert (await hda.collection(after).load(2)).value.origin == "보성"
        engine.dispose()

    asyncio.run(scenario())


def test_tables_of_records_join_with_the_application_s_own(tmp_path: Path) -> None:
    @entity(name="review")
    @dataclass
    class Review:
        id: str
        book: Annotated[int, Index()]
        stars: int
        tags: list[str]

    async def scenario() -> None:
        engine = made(tmp_path)
        async with opened(tmp_path, Book, Review) as hda:
            await hda.collection(Book).put(Book(id=1, title="책"))
            await hda.collection(Review).put(Review("a", 1, 5, ["좋다"]))
            await hda.tenant("other").collection(Review).put(Review("b", 1, 1, []))
            reviews, books = table(Review), table(Book)
            assert books is Book.__table__
            query = sa.select(Book.title, reviews.c.stars, reviews.c.tags).join(reviews, reviews.c.book == Book.id)
            with Session(engine) as session:
                rows = session.execute(query.where(reviews.c.ps_tenant == "")).all()
            assert [tuple(row) for row in rows] == [("책", 5, ["좋다"])]
        engine.dispose()

    asyncio.run(scenario())


# -- refused ----------------------------------------------------------------------------------------------------------


def test_what_it_refuses_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        async with opened(tmp_path, Book, Page) as hda:
            books = hda.collection(Book)
            with pytest.raises(InvalidData, match=r"Book\.id: the object has no key yet.*join=session"):
                await books.put(Book(title="책"))
            with pytest.raises(InvalidData, match=r"Book\.title"):
                await books.put(Book(id=1))
            with pytest.raises(UnsupportedOperation, match="one tenant"):
                hda.tenant("acme").collection(Book)
            with pytest.raises(IntegrityViolation, match="foreign key"):
                await books.put(Book(id=1, title="책", shelf_id=99))
            add(engine, Book(id=3, title="책"))
            with Session(engine) as session:
                loaded = session.get_one(Book, 3)
                session.expire(loaded)
                session.expunge(loaded)
                with pytest.raises(InvalidData, match="not loaded"):
                    await books.put(loaded)
        engine.dispose()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("ddl", "error", "words"),
    [
        ("", SchemaMismatch, "has no table 'books'"),
        ("CREATE TABLE books (id INTEGER PRIMARY KEY)", SchemaMismatch, "lacks columns of its class: .*title"),
    ],
)
def test_a_table_that_is_missing_or_another_one_is_named(
    tmp_path: Path, ddl: str, error: type[Exception], words: str
) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/app.db")
    with engine.begin() as connection:
        connection.exec_driver_sql(ddl or "CREATE TABLE other (id INTEGER)")
    before = everything(engine)

    async def scenario() -> None:
        with pytest.raises(error, match=words):
            async with opened(tmp_path):
                pass

    asyncio.run(scenario())
    assert everything(engine) == before
    engine.dispose()


def test_a_cascade_of_the_database_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE pages")
            connection.exec_driver_sql(
                "CREATE TABLE pages (id CHAR(32) PRIMARY KEY, text VARCHAR NOT NULL, "
                "book_id INTEGER NOT NULL REFERENCES books (id) ON DELETE CASCADE)"
            )
        with pytest.raises(SchemaMismatch, match=r"'pages' to 'books' is ON DELETE CASCADE.*install_trigger"):
            async with opened(tmp_path, Page):
                pass
        engine.dispose()

    asyncio.run(scenario())


def test_points_that_are_to_be_erased_are_refused() -> None:
    """Sessions, SQL and cascades delete rows where nobody could keep this duty."""

    class Own(DeclarativeBase):
        pass

    class Sheet(Own):
        __tablename__ = "sheets"

        id: Mapped[int] = mapped_column(primary_key=True)
        views: ClassVar[Measure[int]] = Measure(int, on_delete="erase")

    with pytest.raises(EntityError, match=r"^Sheet\.views: Measure\(on_delete='erase'\) is not for a mapped class"):
        entity()(Sheet)


def test_a_home_without_such_tables_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigurationError, match="mapped to a table of the application"):
            async with HybridDataArchitecture.open("memory:", entities=[Book]):
                pass

    asyncio.run(scenario())


def test_a_record_of_our_own_takes_no_table_of_the_application(tmp_path: Path) -> None:
    @entity(name="books")
    @dataclass
    class Other:
        id: str

    async def scenario() -> None:
        engine = made(tmp_path)
        with pytest.raises(SchemaMismatch, match="table 'books' of another program"):
            async with opened(tmp_path, Book, Other):
                pass
        engine.dispose()

    asyncio.run(scenario())


def test_nothing_here_changes_the_classes() -> None:
    assert set(Base.metadata.tables) == {"shelves", "books", "pages", "people"}


def test_a_row_can_live_for_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = made(tmp_path)
        async with opened(tmp_path) as hda:
            books = hda.collection(Book)
            await books.put(Book(id=1, title="bleibt"))
            await books.put(Book(id=2, title="vergeht"), ttl_s=0.001)
            async with asyncio.timeout(20):
                while await books.get(2) is not None or len(await books.find()) != 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
                while stored_ids(engine) != [1]:  # noqa: ASYNC110 -- the sweeper deletes the application's row
                    await asyncio.sleep(0.01)
            assert await differences(hda) == []
        engine.dispose()

    asyncio.run(scenario())


def test_a_row_that_the_application_writes_anew_outlives_the_time_of_the_one_before(tmp_path: Path) -> None:
    """Written when its time was over, or deleted before that and inserted again, with the same content or another."""

    async def scenario() -> None:
        engine, env = sa.create_engine(f"sqlite:///{tmp_path}/tea.db"), MovableEnv()
        tea = sa.Table("tea", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
        tea.create(engine)
        cls = entity_of(tea, facets={"name": [FullText()]})
        settings = Settings(poll_s=3600.0)  # the worker looks when it is told to
        where = {"home": {"url": f"sqlite:{tmp_path}/tea.db", "roles": ["home", "journal"]}}
        where["copy"] = {"url": f"sqlite:{tmp_path}/copy.db", "roles": ["full_text"]}
        async with HybridDataArchitecture.open({"stores": where}, entities=[cls], env=env, settings=settings) as hda:
            install_trigger(engine, [cls])
            teas, line = hda.collection(cls), hda.manager.line("tea")
            for id in (1, 2, 3, 4):
                await teas.put(cls(id=id, name="차"), ttl_s=60)
            await hda.settle()
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM tea WHERE id IN (1, 2)")
                connection.exec_driver_sql("INSERT INTO tea (id, name) VALUES (1, '차'), (2, '물')")
            env.forward(61)
            with engine.begin() as connection:
                connection.exec_driver_sql("UPDATE tea SET name = '물' WHERE id = 3")
            await line.step()
            await hda.settle()
            with engine.connect() as connection:
                standing = connection.exec_driver_sql("SELECT id, name FROM tea ORDER BY id").all()
            assert [tuple(row) for row in standing] == [(1, "차"), (2, "물"), (3, "물")]
            assert await differences(hda) == []
            assert sorted([hit.value.id for word in ("차", "물") for hit in await teas.search(word)]) == [1, 2, 3]
        engine.dispose()

    asyncio.run(scenario())


def stored_ids(engine: sa.Engine) -> list[int]:
    with engine.connect() as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT id FROM books ORDER BY id")]


def test_a_facet_that_comes_later_is_filled_while_the_application_goes_on_writing(tmp_path: Path) -> None:
    """Rows are taken over anew in small transactions, and a write between them is kept."""

    async def scenario() -> None:
        engine = sa.create_engine(f"sqlite:///{tmp_path}/tea.db")
        tea = sa.Table("tea", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
        tea.create(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(tea), [{"name": f"차 {i}"} for i in range(1200)])
        async with HybridDataArchitecture.open(f"sqlite:{tmp_path}/tea.db", entities=[entity_of(tea)]) as hda:
            before = (await hda.collection(next(iter(hda.types.values())).cls).load(1)).version
        later = entity_of(tea, facets={"name": [FullText(), Embedding()]})
        async with HybridDataArchitecture.open(f"sqlite:{tmp_path}/tea.db", entities=[later]) as hda:
            assert await differences(hda) == []
            assert len(await hda.collection(later).search("차", limit=2000)) == 1200
            assert [hit.value.name for hit in await hda.collection(later).similar("차 77", limit=1)] == ["차 77"]
            assert (await hda.collection(later).load(1)).version > before
        engine.dispose()

    asyncio.run(scenario())


def test_a_foreign_key_can_be_a_relation(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = sa.create_engine(f"sqlite:///{tmp_path}/tree.db")
        id = sa.Column("id", sa.Integer, primary_key=True)
        tree = sa.Table("node", sa.MetaData(), id, sa.Column[int | None]("up", sa.ForeignKey("node.id")))
        tree.create(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(tree), [{"id": 1, "up": None}, {"id": 2, "up": 1}, {"id": 3, "up": 2}])
        node = entity_of(tree, facets={"up": [Relation("BELOW", to="node")]})
        async with HybridDataArchitecture.open(f"sqlite:{tmp_path}/tree.db", entities=[node]) as hda:
            above = await hda.collection(node).related(3, "BELOW", into=node, depth=5)
            assert [one.value.id for one in above] == [2, 1]
            below = await hda.collection(node).related(1, "BELOW", into=node, direction="in")
            assert [one.value.id for one in below] == [2]
            assert await differences(hda) == []
        engine.dispose()

    asyncio.run(scenario())
