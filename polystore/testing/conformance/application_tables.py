"""Tables of the application in a home: whoever wrote a row, it gets its version and is owed, once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from polystore.entity import entity, entity_type
from polystore.errors import ConfigurationError
from polystore.facets import FullText
from polystore.model import FIRST_VERSION, Commit, Key, TargetRow, Write, key_hash
from polystore.protocols import (
    CapturesTables,
    Repository,
    SupportsApplicationTables,
    SupportsCommit,
    SupportsFilter,
    SupportsJournal,
)
from polystore.registry import installed
from polystore.testing.conformance.base import Conformance, commit


class Base(DeclarativeBase):
    pass


@entity(name="leaf", facets={"text": [FullText()]})
class Leaf(Base):
    """A class of the application; how it looks is none of the kit's business."""

    __tablename__ = "leaves"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    weight: Mapped[float | None]


LEAF = entity_type(Leaf)


class _Home(Repository, SupportsApplicationTables, SupportsCommit, SupportsJournal, SupportsFilter, Protocol):
    pass


class ApplicationTablesConformance(Conformance):
    """A subclass overrides the fixture `database` too: SQLAlchemy's URL of the database that `connect` reaches."""

    protocol = SupportsApplicationTables
    home = True
    types: ClassVar = (LEAF,)
    _database: sa.Engine

    @pytest.fixture
    def database(self) -> str:
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `database`, see {__name__}")

    @pytest.fixture(autouse=True)
    def application(self, database: str) -> Generator[None]:
        with self.beside(database):
            yield

    @contextmanager
    def beside(self, url: str) -> Generator[None]:
        """The application of the test, with its tables and two rows. Only needed where a test is called without
        pytest."""
        self._database = sa.create_engine(url)
        Base.metadata.create_all(self._database)
        self.written("INSERT INTO leaves (id, text, weight) VALUES (1, 'one', 0.5), (2, 'two', NULL)")
        yield
        self._database.dispose()

    def written(self, sql: str) -> None:
        """By somebody who knows nothing of polystore."""
        with self._database.begin() as connection:
            connection.execute(sa.text(sql))

    async def prepared(self) -> _Home:
        """A connection to the home, of which a copy is owed everything."""
        store: _Home = await self.open()
        await store.set_target(TargetRow("leaf", "copy", 0, "active"))
        return store

    async def version(self, store: _Home, id: int) -> int:
        (record,) = await store.get([_key(id)])
        return -1 if record is None else record.version

    async def owed(self, store: _Home) -> list[tuple[str, int]]:
        """Key and version of everything that is owed and that nobody works on."""
        rows = await store.claim("kit", frozenset({"kit"}), ["leaf"], 1000)
        return [(row.key.id, row.version) for row in rows]

    async def adopted(self, store: _Home, size: int) -> list[int]:
        """All rows taken over; how many in each step."""
        counts: list[int] = []
        cursor: str | None = None
        while True:
            count, cursor = await store.adopt("leaf", cursor, size)
            counts.append(count)
            if cursor is None:
                return counts

    async def test_reads_see_every_row_whoever_wrote_it(self) -> None:
        store = await self.prepared()
        records = await store.get([_key(1), _key(2), _key(3)])
        assert [None if one is None else (one.version, one.body) for one in records] == [
            (0, {"id": 1, "text": "one", "weight": 0.5}),
            (0, {"id": 2, "text": "two", "weight": None}),
            None,
        ]
        found = await store.find("leaf", "", LEAF.condition(None), LEAF.sort([]), 10)
        assert sorted(one.key.id for one in found) == ["1", "2"]
        assert await store.count("leaf", "", None) == 2
        assert await store.tenants("leaf") == [""]

    async def test_rows_are_taken_over_once_some_at_a_time(self) -> None:
        self.written("INSERT INTO leaves (id, text) VALUES " + ", ".join(f"({i}, 'leaf {i}')" for i in range(3, 24)))
        store = await self.prepared()
        assert len(await store.strays("leaf", 100)) == 23
        counts = await self.adopted(store, 5)
        assert sum(counts) == 23
        assert max(counts) <= 5
        owed = await self.owed(store)
        assert sorted(int(id) for id, _ in owed) == list(range(1, 24))
        assert {int(id): version for id, version in owed} == {i: await self.version(store, i) for i in range(1, 24)}
        assert min(version for _, version in owed) > FIRST_VERSION
        assert await store.strays("leaf", 100) == []
        assert sum(await self.adopted(store, 5)) == 0
        assert await self.owed(store) == []

    async def test_only_a_row_whose_content_changed_gets_another_version(self) -> None:
        store = await self.prepared()
        await self.adopted(store, 100)
        before = [await self.version(store, 1), await self.version(store, 2)]
        await self.owed(store)
        self.written("UPDATE leaves SET text = 'changed' WHERE id = 1")
        assert await store.follow("leaf", ["1", "2"]) == 1
        assert await self.version(store, 1) > max(before)
        assert await self.version(store, 2) == before[1]
        assert await self.owed(store) == [("1", await self.version(store, 1))]
        assert await store.follow("leaf", ["1", "2"]) == 0

    async def test_a_row_that_is_gone_leaves_a_tombstone_and_is_owed(self) -> None:
        store = await self.prepared()
        await self.adopted(store, 100)
        before = await self.version(store, 1)
        await self.owed(store)
        self.written("DELETE FROM leaves WHERE id = 1")
        assert [key.id for key in await store.strays("leaf", 10)] == ["1"]
        assert sum(await self.adopted(store, 10)) == 1
        (record,) = await store.get([_key(1)])
        assert record is not None
        assert record.deleted
        assert record.version > before
        assert await self.owed(store) == [("1", record.version)]

    async def test_what_it_commits_is_in_the_application_s_table_and_nothing_else_is(self) -> None:
        store = await self.prepared()
        put, gone = await commit(store, _write("put", 3, "three"), _write("delete", 1))
        assert (put.existed, gone.existed) == (False, True)
        with self._database.connect() as connection:
            rows = connection.execute(sa.text("SELECT id, text, weight FROM leaves ORDER BY id")).all()
        assert [tuple(row) for row in rows] == [(2, "two", None), (3, "three", 0.25)]
        assert sorted(await self.owed(store)) == [("1", gone.version), ("3", put.version)]
        assert [key.id for key in await store.strays("leaf", 10)] == ["2"]

    async def test_a_joined_commit_is_the_caller_s_to_end(self) -> None:
        store = await self.prepared()
        drawn: list[int] = []
        for keep in (False, True):
            with self._database.connect() as connection:
                connection.execute(sa.text("UPDATE leaves SET text = 'joined' WHERE id = 1"))
                committed, rows = store.commit_on(connection, Commit([_write("put", 3, "three")]), {"leaf": ["1"]})
                if keep:
                    connection.commit()
            versions = [await self.version(store, 1), await self.version(store, 3)]
            drawn = [rows[_key(1)].version, committed.written[0].version]
            assert versions == (drawn if keep else [0, -1])
        assert sorted(await self.owed(store)) == sorted(zip(["1", "3"], drawn, strict=True))

    async def test_a_connection_to_another_database_is_not_joined(self) -> None:
        store = await self.prepared()
        with sa.create_engine("sqlite://").connect() as connection, pytest.raises(ConfigurationError):
            store.commit_on(connection, Commit([_write("put", 3, "three")]), {})

    async def test_what_triggers_note_is_taken_over_once(self) -> None:
        store = await self.prepared()
        await self.adopted(store, 100)
        await self.owed(store)
        adapter = cast(CapturesTables, installed("polystore.sqlalchemy")[self._database.dialect.name].load())
        for _ in range(2):
            with self._database.begin() as connection:
                adapter.install_trigger(connection, LEAF)
                assert adapter.has_trigger(connection, LEAF)
        self.written("INSERT INTO leaves (id, text) VALUES (7, 'seven')")
        self.written("UPDATE leaves SET weight = 9 WHERE id = 1")
        self.written("DELETE FROM leaves WHERE id = 2")
        assert await store.touched(["leaf"], 100) == 3
        assert sorted(id for id, _ in await self.owed(store)) == ["1", "2", "7"]
        assert await store.touched(["leaf"], 100) == 0
        await commit(store, _write("put", 8, "eight"))  # its own writes are not somebody else's
        assert await store.touched(["leaf"], 100) == 0
        with self._database.begin() as connection:
            adapter.remove_trigger(connection, LEAF)
            assert not adapter.has_trigger(connection, LEAF)


def _key(id: int) -> Key:
    return Key("", "leaf", str(id))


def _write(kind: Any, id: int, text: str = "") -> Write:
    body = None if kind == "delete" else {"id": id, "text": text, "weight": 0.25}
    return Write(kind, _key(id), key_hash("", "leaf", str(id)), body, LEAF.content_hash(body) if body else b"")
