"""What happens to calls when the server restarts, is killed, refuses, or is behind PgBouncer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from polystore_adapters.postgresql import connect
from polystore_adapters.postgresql.repository import PostgresRepository

from polystore.env import Env
from polystore.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermissionDenied,
    PolystoreError,
    SchemaMismatch,
    StoreError,
    Unavailable,
)
from polystore.model import Commit, Committed, Key, TargetRow, Write, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import ACCOUNT, Account
from tests.postgresql import fresh_database, fresh_schema
from tests.stack import own_server, url_of

LAYOUT = Layout(ACCOUNT, True, frozenset())


def put(id: str, email: str, owner: str = "") -> Commit:
    body = ACCOUNT.encode(Account(id=id, email=email, owner=owner))
    key = Key("", ACCOUNT.name, id)
    return Commit([Write("put", key, key_hash("", ACCOUNT.name, id), body, ACCOUNT.content_hash(body))])


@asynccontextmanager
async def home(url: str, *, create: bool = True, **options: Any) -> AsyncGenerator[PostgresRepository]:
    store = await connect(url, options, Env())
    try:
        await store.prepare([LAYOUT], create=create)
        yield store
    finally:
        await store.aclose()
        assert store._pool.checked_out == 0  # pyright: ignore[reportPrivateUsage]


async def committed(store: PostgresRepository, one: Commit) -> Committed:
    (answer,) = await store.commit([one])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def again(call: Callable[[], Awaitable[Any]]) -> Any:
    """What the retry layer does: ask again while nothing was done."""
    for _ in range(200):
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("the server never came back")


def test_a_restart_in_the_middle_of_writes_loses_nothing_that_was_acknowledged() -> None:
    acknowledged: dict[str, int] = {}
    unknown: set[str] = set()

    async def writer(store: PostgresRepository, number: int, stop: asyncio.Event) -> None:
        turn = 0
        while not stop.is_set():
            id = f"{number}-{turn}"
            turn += 1
            try:
                done = await again(lambda: committed(store, put(id, f"{id}@x")))  # noqa: B023
                acknowledged[id] = done.written[0].version
            except OutcomeUnknown:
                unknown.add(id)

    async def more(count: int) -> None:
        wanted = len(acknowledged) + count
        for _ in range(6_000):
            if len(acknowledged) >= wanted:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the writers wait for ever")

    async def main() -> None:
        with own_server("postgresql") as mine:
            async with home(mine.url, pool_size=4) as store:
                await store.set_target(TargetRow(ACCOUNT.name, "copy", 0, "active"))
                before = await store.ping()
                stop = asyncio.Event()
                writers = [asyncio.create_task(writer(store, i, stop)) for i in range(6)]
                for end in (mine.kill, mine.stop):
                    await more(20)
                    await asyncio.to_thread(end)
                    await asyncio.to_thread(mine.start)
                await more(20)
                stop.set()
                await asyncio.gather(*writers)
                after = await store.ping()
                assert (after.data_id, after.run_id != before.run_id) == (before.data_id, True)
                records = await store.get([Key("", ACCOUNT.name, id) for id in acknowledged])
                assert [record and record.version for record in records] == list(acknowledged.values())
                there = [r is not None for r in await store.get([Key("", ACCOUNT.name, id) for id in sorted(unknown)])]
                assert (await store.backlog()).outbox == len(acknowledged) + sum(there), "each write has its duty"

    asyncio.run(main())


def test_a_server_that_is_not_there_is_unavailable_and_comes_back() -> None:
    async def main() -> None:
        with own_server("postgresql") as mine:
            async with home(mine.url) as store:
                await committed(store, put("a", "a@x"))
                mine.kill()
                with pytest.raises(Unavailable):
                    await again_once(store)
                with pytest.raises(Unavailable):
                    await store.ping()
                await asyncio.to_thread(mine.start)
                record = (await again(lambda: store.get([Key("", ACCOUNT.name, "a")])))[0]
                assert record is not None

    async def again_once(store: PostgresRepository) -> None:
        for _ in range(3):  # idle connections may each find out by themselves
            await store.get([Key("", ACCOUNT.name, "a")])

    asyncio.run(main())


def test_a_read_only_server_is_refused_as_a_home_and_says_so() -> None:
    with fresh_schema() as path:

        async def main() -> None:
            async with home(url_of("postgresql"), schema=path):
                pass
            url = url_of("postgresql") + "?default_transaction_read_only=on"
            with pytest.raises(PermissionDenied, match="read-only"):
                async with home(url, schema=path):
                    pass

        asyncio.run(main())


def test_what_cannot_work_is_told_and_never_shows_the_password() -> None:
    async def refused(url: str, **options: Any) -> Exception:
        with pytest.raises(PolystoreError) as caught:
            async with home(url, **options):
                pass
        assert "polystore-test" not in str(caught.value)
        return caught.value

    async def main() -> None:
        good = url_of("postgresql")
        assert isinstance(await refused(good.rpartition("/")[0] + "/nothing_here"), ConfigurationError)
        assert isinstance(await refused(good.replace(":polystore-test@", ":wrong@")), PermissionDenied)
        assert isinstance(await refused("postgresql://127.0.0.1:1/x"), Unavailable)
        assert isinstance(await refused(good, schema="nothing_here"), (ConfigurationError, StoreError, SchemaMismatch))
        for options in ({"pool_size": 0}, {"poolsize": 3}, {"pooler": "transaction", "schema": "x"}):
            with pytest.raises(ConfigurationError, match="options of a postgresql"):
                await connect(good, options, Env())

    asyncio.run(main())


def test_behind_pgbouncer_in_transaction_mode_everything_works_without_prepared_statements() -> None:
    pooler = url_of("pgbouncer").rpartition("/")[0]

    async def main(database: str) -> None:
        async with home(f"{pooler}/{database}", pooler="transaction", pool_size=4) as store:
            await asyncio.gather(*(committed(store, put(f"pooled-{i}", f"pooled-{i}@x")) for i in range(40)))
            keys = [Key("", ACCOUNT.name, f"pooled-{i}") for i in range(40)]
            assert all(await store.get(keys))
            assert await store.count(ACCOUNT.name, "", None) == 40
            deletes = [Commit([Write("delete", key, key_hash("", ACCOUNT.name, key.id), None)]) for key in keys]
            assert all(isinstance(one, Committed) for one in await store.commit(deletes))

    with fresh_database() as database:
        asyncio.run(main(database))


def test_of_many_writers_none_deadlocks_and_each_version_is_drawn_under_the_lock_of_its_key() -> None:
    with fresh_schema() as path:

        async def main() -> None:
            async with home(url_of("postgresql"), schema=path, pool_size=6) as one:

                async def writer(number: int) -> None:
                    ids = [f"{i}" for i in (range(20) if number % 2 else reversed(range(20)))]
                    for turn in range(5):
                        writes = [put(id, f"{id}@x", f"{number}-{turn}").writes[0] for id in ids]
                        await committed(one, Commit(writes))

                await asyncio.gather(*(writer(i) for i in range(6)))
                records = await one.get([Key("", ACCOUNT.name, f"{i}") for i in range(20)])
                owners = {cast(Any, record).body["owner"] for record in records}
                assert len(owners) == 1, "the last commit wrote all of them"

        asyncio.run(main())
