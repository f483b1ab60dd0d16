"""Rows 1 to 5 and 19: PostgreSQL against asyncpg and SQLAlchemy by hand. Needs the PostgreSQL of `make up`.

By hand means: a table of the same fields with the bare key, no versions, no hash of the content; "held" is one
connection kept for the run, "Pool" is asyncpg.Pool as its documentation shows it, ten connections as ours. Writes are
inserts of new records, each owed to one copy; nobody delivers meanwhile, on any side.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Table, insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.data import Item, Listed
from benchmarks.measure import Ratio, Round, at_least, at_most, at_once, interleaved, p50, per_operation
from benchmarks.servers import url_of
from polystore import Collection, HybridDataArchitecture
from polystore.consistency import Settings

TASKS = 32
IDS = [f"k{i}" for i in range(500)]
asyncpg: Any = importlib.import_module("asyncpg")

_TABLES = """
CREATE TABLE raw_item (id text PRIMARY KEY, owner text, title text, body text, stars bigint, ratio double precision);
CREATE TABLE raw_outbox (version bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, id text NOT NULL, targets bigint);
"""
_GET = "SELECT id, owner, title, body, stars, ratio FROM raw_item WHERE id = $1"
_INSERT = "INSERT INTO raw_item (id, owner, title, body, stars, ratio) VALUES ($1, $2, $3, $4, $5, $6)"
_OUTBOX = "INSERT INTO raw_outbox (id, targets) VALUES ($1, 1)"


class Base(DeclarativeBase):
    pass


class RawItem(Base):
    __tablename__ = "raw_item"
    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    title: Mapped[str]
    body: Mapped[str]
    stars: Mapped[int] = mapped_column(BigInteger)
    ratio: Mapped[float]


class RawOutbox(Base):
    __tablename__ = "raw_outbox"
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    id: Mapped[str]
    targets: Mapped[int] = mapped_column(BigInteger)


class Raw:
    """asyncpg by hand."""

    def __init__(self, held: Any, pool: Any) -> None:
        self.held = held
        self.pool = pool

    async def get(self, i: int) -> object:
        return await self.held.fetchrow(_GET, IDS[i % len(IDS)])

    async def get_by_pool(self, i: int) -> object:
        async with self.pool.acquire() as db:
            return await db.fetchrow(_GET, IDS[i % len(IDS)])

    async def insert(self, i: int) -> None:
        await self.held.execute(_INSERT, *_row())

    async def insert_by_pool(self, i: int) -> None:
        async with self.pool.acquire() as db:
            await db.execute(_INSERT, *_row())

    async def both(self, i: int) -> None:
        await self._both(self.held)

    async def both_by_pool(self, i: int) -> None:
        async with self.pool.acquire() as db:
            await self._both(db)

    @staticmethod
    async def _both(db: Any) -> None:
        row = _row()
        async with db.transaction():
            await db.execute(_INSERT, *row)
            await db.execute(_OUTBOX, row[0])


class Alchemy:
    """SQLAlchemy as a user would write it: an engine, a session for each piece of work."""

    def __init__(self, url: str, schema: str) -> None:
        self.engine = create_async_engine(
            url.replace("postgresql:", "postgresql+asyncpg:", 1),
            connect_args={"server_settings": {"search_path": schema, "synchronous_commit": "off"}},
        )
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self.items: Any = RawItem.__table__
        self.outbox: Any = RawOutbox.__table__

    async def core_get(self, i: int) -> object:
        items: Table = self.items
        async with self.engine.connect() as db:
            return (await db.execute(select(items).where(items.c.id == IDS[i % len(IDS)]))).one()

    async def orm_get(self, i: int) -> object:
        async with self.sessions() as session:
            return await session.get(RawItem, IDS[i % len(IDS)])

    async def core_write(self, i: int) -> None:
        value = msgspec.to_builtins(Listed())
        async with self.engine.begin() as db:
            await db.execute(insert(self.items).values(**value))
            await db.execute(insert(self.outbox).values(id=value["id"], targets=1))

    async def orm_write(self, i: int) -> None:
        value = msgspec.to_builtins(Listed())
        async with self.sessions.begin() as session:
            session.add(RawItem(**value))
            session.add(RawOutbox(id=value["id"], targets=1))


def _row() -> tuple[Any, ...]:
    one = Listed()
    return (one.id, one.owner, one.title, one.body, one.stars, one.ratio)


class Stand:
    """A schema of its own with both sides in it."""

    def __init__(self, hda: HybridDataArchitecture, raw: Raw, url: str, schema: str) -> None:
        self.items: Collection[Item] = hda.collection(Item)
        self.listed: Collection[Listed] = hda.collection(Listed)
        self.raw = raw
        self.url = url
        self.schema = schema

    async def get(self, i: int) -> object:
        return await self.items.get(IDS[i % len(IDS)])

    async def put(self, i: int) -> None:
        await self.listed.put(Listed())


@asynccontextmanager
async def _stand(directory: Path, synchronous_commit: str) -> AsyncGenerator[Stand]:
    url, schema = url_of("postgresql"), f"bench_{uuid.uuid4().hex[:12]}"
    settings = {"search_path": schema, "synchronous_commit": synchronous_commit}
    held = await asyncpg.connect(url, server_settings=settings)
    try:
        await held.execute(f"CREATE SCHEMA {schema}; {_TABLES}")
        await held.executemany(_INSERT, [(id, *_row()[1:]) for id in IDS])
        ours = f"{url}{'&' if '?' in url else '?'}synchronous_commit={synchronous_commit}"
        stores = {
            "home": {"url": ours, "roles": ["home", "journal"], "options": {"schema": schema}},
            "search": {"url": f"sqlite:{directory}/{schema}.db", "roles": ["full_text"]},
        }
        quiet = Settings(queue_max=1 << 20, backlog_soft=1 << 40, backlog_hard=1 << 40)
        async with (
            asyncpg.create_pool(url, server_settings=settings) as pool,
            HybridDataArchitecture.open({"stores": stores}, entities=[Item, Listed], settings=quiet) as hda,
        ):
            for line in hda.manager.lines.values():
                await line.stop()
            stand = Stand(hda, Raw(held, pool), url, schema)
            await stand.items.put_many([Item(id=id) for id in IDS])
            yield stand
    finally:
        await held.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        await held.close()


async def get_by_id(directory: Path) -> list[Ratio]:
    """Rows 1 and 2. Ours is decoded into the class, theirs is the driver's record."""
    async with _stand(directory, "off") as stand:
        raw, name = stand.raw, "get by id, PostgreSQL"
        single = await interleaved(
            {
                "ours": lambda: p50(stand.get, 2000),
                "held": lambda: p50(raw.get, 2000),
            }
        )
        alone = await interleaved(
            {
                "ours": lambda: per_operation(stand.get, 2000),
                "Pool": lambda: per_operation(raw.get_by_pool, 1000),
            }
        )
        together = await interleaved(
            {
                "ours": lambda: at_once(stand.get, TASKS, 200),
                "Pool": lambda: at_once(raw.get_by_pool, TASKS, 60),
            }
        )
    return [
        at_most(1, f"{name}, 1 task, p50", "held connection", 1.3, single["ours"], single["held"]),
        at_least(1, f"{name}, 1 task", "Pool", 2.5, alone["ours"], alone["Pool"]),
        at_least(2, f"{name}, {TASKS} tasks", "Pool", 4, together["ours"], together["Pool"]),
    ]


async def write_and_outbox(directory: Path) -> list[Ratio]:
    """Rows 3 and 4."""
    async with _stand(directory, "off") as stand:
        raw = stand.raw
        alone = await interleaved(
            {
                "ours": lambda: per_operation(stand.put, 1000),
                "insert": lambda: per_operation(raw.insert, 1000),
                "both": lambda: per_operation(raw.both, 500),
            }
        )
        together = await interleaved(
            {
                "ours": lambda: at_once(stand.put, TASKS, 60),
                "both": lambda: at_once(raw.both_by_pool, TASKS, 30),
            }
        )
    name = "write + outbox, synchronous_commit=off"
    return [
        at_least(3, f"{name}, 1 task", "bare insert, held", 0.75, alone["ours"], alone["insert"]),
        at_least(3, f"{name}, 1 task", "two inserts, held", 1.8, alone["ours"], alone["both"]),
        at_least(4, f"{name}, {TASKS} tasks", "two inserts, Pool", 2.5, together["ours"], together["both"]),
    ]


async def durable_write(directory: Path) -> list[Ratio]:
    """Row 5."""
    async with _stand(directory, "on") as stand:
        raw = stand.raw
        alone = await interleaved(
            {
                "ours": lambda: per_operation(stand.put, 400),
                "insert": lambda: per_operation(raw.insert, 400),
            }
        )
        together = await interleaved(
            {
                "ours": lambda: at_once(stand.put, TASKS, 40),
                "insert": lambda: at_once(raw.insert_by_pool, TASKS, 40),
            }
        )
    name = "write + outbox, synchronous_commit=on"
    return [
        at_least(5, f"{name}, 1 task", "bare insert, held", 0.85, alone["ours"], alone["insert"]),
        at_least(5, f"{name}, {TASKS} tasks", "bare insert, Pool", 0.85, together["ours"], together["insert"]),
    ]


async def sqlalchemy(directory: Path) -> list[Ratio]:
    """Row 19."""
    async with _stand(directory, "off") as stand:
        alchemy = Alchemy(stand.url, stand.schema)
        gets: Mapping[str, Round] = {
            "ours": lambda: per_operation(stand.get, 1000),
            "Core": lambda: per_operation(alchemy.core_get, 200),
            "ORM": lambda: per_operation(alchemy.orm_get, 200),
        }
        writes: Mapping[str, Round] = {
            "ours": lambda: per_operation(stand.put, 600),
            "Core": lambda: per_operation(alchemy.core_write, 150),
            "ORM": lambda: per_operation(alchemy.orm_write, 150),
        }
        read, written = await interleaved(gets), await interleaved(writes)
        await alchemy.engine.dispose()
    get, write = "get by id, PostgreSQL, 1 task", "write + outbox, synchronous_commit=off, 1 task"
    return [
        at_least(19, get, "SQLAlchemy Core", 5, read["ours"], read["Core"]),
        at_least(19, get, "SQLAlchemy ORM", 8, read["ours"], read["ORM"]),
        at_least(19, write, "SQLAlchemy Core", 4, written["ours"], written["Core"]),
        at_least(19, write, "SQLAlchemy ORM", 6, written["ours"], written["ORM"]),
    ]
