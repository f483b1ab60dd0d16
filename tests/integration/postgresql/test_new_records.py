"""Commits of many new records, which go by COPY: nothing tells them from records that were written one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from polystore_adapters.postgresql import connect
from polystore_adapters.postgresql.repository import PostgresRepository

from polystore.env import Env
from polystore.errors import InvalidData
from polystore.model import Commit, Committed, Key, TargetRow, Write, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import THING, Thing
from polystore.testing.conformance.filters import samples
from tests.postgresql import fresh_database
from tests.stack import url_of

COUNT = 60


def new(value: Thing, id: str) -> Write:
    body = {**THING.encode(value), "id": id}
    key = Key("", THING.name, id)
    return Write("skip", key, key_hash("", THING.name, id), body, THING.content_hash(body))


@asynccontextmanager
async def home(url: str, **options: Any) -> AsyncGenerator[PostgresRepository]:
    store = await connect(url, options, Env())
    try:
        await store.prepare([Layout(THING, True, frozenset())], create=True)
        await store.set_target(TargetRow(THING.name, "copy", 0, "active"))
        yield store
    finally:
        await store.aclose()


async def committed(store: PostgresRepository, writes: Sequence[Write], owner: str | None = "me") -> list[int]:
    (answer,) = await store.commit([Commit(writes, owner)])
    assert isinstance(answer, Committed), answer
    return [one.version for one in answer.written]


@pytest.mark.parametrize("server", ["postgresql", "pgbouncer"])
def test_they_are_kept_and_owed_as_those_that_came_one_by_one(server: str) -> None:
    values = samples(7, COUNT)

    async def main(url: str, **options: Any) -> None:
        async with home(url, **options) as store:
            one_by_one = [new(value, f"a-{i}") for i, value in enumerate(values)]
            together = [new(value, f"b-{i}") for i, value in enumerate(values)]
            versions = [version for write in one_by_one for version in await committed(store, [write])]
            versions += await committed(store, together)
            found = await store.get([write.key for write in (*one_by_one, *together)])
            assert [None if one is None else (one.version, one.hash) for one in found] == [
                (version, write.hash) for version, write in zip(versions, (*one_by_one, *together), strict=True)
            ]
            bodies = [{**(one.body or {}), "id": ""} for one in found if one is not None]
            assert bodies[:COUNT] == bodies[COUNT:] == [{**(write.body or {}), "id": ""} for write in together]
            rows = await store.claimed("me", 1 << 60, 3 * COUNT)
            assert sorted((row.version, row.key, row.h, row.targets, row.claims) for row in rows) == sorted(
                (version, write.key, write.h, 1, 0)
                for version, write in zip(versions, (*one_by_one, *together), strict=True)
            )
            await committed(store, [new(values[0], f"c-{i}") for i in range(store.limits.import_max)], None)
            assert await store.count(THING.name, "", None) == 2 * COUNT + store.limits.import_max

    with fresh_database() as database:
        url = f"{url_of(server).rpartition('/')[0]}/{database}"
        asyncio.run(main(url, **({"pooler": "transaction"} if server == "pgbouncer" else {})))


def test_one_value_that_is_not_of_its_column_refuses_the_commit() -> None:
    async def main(url: str) -> None:
        async with home(url) as store:
            writes = [new(Thing(id=""), f"{i}") for i in range(COUNT)]
            bad = {**(writes[30].body or {}), "word": 7}
            writes[30] = Write("skip", writes[30].key, writes[30].h, bad, writes[30].hash)
            (answer,) = await store.commit([Commit(writes, "me")])
            assert type(answer) is InvalidData
            assert await store.get([write.key for write in writes]) == [None] * COUNT
            assert await store.claimed("me", 1 << 60, COUNT) == []
            await committed(store, [write for write in writes if write.body is not bad])

    with fresh_database() as database:
        asyncio.run(main(f"{url_of('postgresql').rpartition('/')[0]}/{database}"))
