"""Commits of many new records, which go by COPY: nothing tells them from records that were written one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from polystore_adapters.postgresql import connect
from polystore_adapters.postgresql.repository import PostgresRepository

from polystore.entity import entity, entity_types
from polystore.env import Env
from polystore.errors import InvalidData, Unavailable
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


@entity(name="numbered")
@dataclass(kw_only=True)
class Before:
    id: str
    n: int


@entity(name="numbered")
@dataclass(kw_only=True)
class After:
    id: str
    n: float


def test_a_column_that_another_process_has_given_a_new_type_is_not_written_by_the_old_one() -> None:
    before, after = (entity_types([cls])["numbered"] for cls in (Before, After))

    def fives(first: str) -> Commit:
        keys = [Key("", "numbered", f"{first}{i}") for i in range(COUNT)]
        bodies: list[dict[str, Any]] = [{"id": key.id, "n": 5} for key in keys]
        hashes = [key_hash("", "numbered", key.id) for key in keys]
        return Commit(
            [Write("skip", k, h, b, before.content_hash(b)) for k, h, b in zip(keys, hashes, bodies, strict=True)]
        )

    async def main(url: str) -> None:
        old, new = [await connect(url, {"pool_size": 1}, Env()) for _ in range(2)]
        await old.prepare([Layout(before, True, frozenset())], create=True)
        await old.commit([fives("a")])
        await new.prepare([Layout(after, True, frozenset())], create=True)
        with pytest.raises(Unavailable, match="tables were changed"):
            await old.commit([fives("b")])
        (answer,) = await old.commit([fives("c")])
        assert isinstance(answer, Committed)
        found = await new.get([Key("", "numbered", id) for id in ("a1", "b1", "c1")])
        assert [one and one.body and one.body["n"] for one in found] == [5.0, None, 5.0]
        await old.aclose()
        await new.aclose()

    with fresh_database() as database:
        asyncio.run(main(f"{url_of('postgresql').rpartition('/')[0]}/{database}"))


def test_who_is_cancelled_in_the_middle_has_written_all_or_nothing_and_spoils_no_connection() -> None:
    async def main(url: str) -> None:
        async with home(url, pool_size=1) as store:
            kept = 0
            for turns in range(1, 14):
                task = asyncio.create_task(
                    store.commit([Commit([new(Thing(id=""), f"{turns}-{i}") for i in range(COUNT)], "me")])
                )
                for _ in range(turns * 3):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                kept += COUNT * (await store.get([Key("", THING.name, f"{turns}-0")]) != [None])
                assert await store.count(THING.name, "", None) == kept
                assert len(await store.claimed("me", 1 << 60, 14 * COUNT)) == kept
            await committed(store, [new(Thing(id=""), f"end-{i}") for i in range(COUNT)])

    with fresh_database() as database:
        asyncio.run(main(f"{url_of('postgresql').rpartition('/')[0]}/{database}"))
