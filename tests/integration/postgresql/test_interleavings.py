"""Orders of events that chance rarely brings about, forced by holding the lock of a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from polystore_adapters.postgresql.locks import bucket
from polystore_adapters.postgresql.repository import PostgresRepository
from polystore_adapters.postgresql.schema import PREPARE_LOCK, exists

from polystore.env import Env
from polystore.errors import NotFound
from polystore.model import Commit, Committed, Key, TargetRow, Write, Written, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import NUMBERED, Numbered
from tests.postgresql import connected, fresh_schema, server

KEY = Key("", NUMBERED.name, "1")
Test = Callable[[PostgresRepository], Awaitable[None]]


def on_a_home(test: Test) -> None:
    """Run it on a home of its own, which has one copy."""

    async def main(path: str) -> None:
        store: Any = await connected(Env(), path)
        try:
            await store.prepare([Layout(NUMBERED, True, frozenset())], create=True)
            await test(store)
        finally:
            await store.aclose()

    with fresh_schema() as path:
        asyncio.run(main(path))


def write(kind: Any, word: str = "", expect: int | None = None) -> Commit:
    body = None if kind == "delete" else NUMBERED.encode(Numbered(1, word))
    hash = b"" if body is None else NUMBERED.content_hash(body)
    return Commit([Write(kind, KEY, key_hash("", KEY.etype, KEY.id), body, hash, expect)])


async def done(store: PostgresRepository, commit: Commit) -> Written:
    (answer,) = await store.commit([commit])
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, Committed)
    return answer.written[0]


async def waiting(store: PostgresRepository, count: int) -> None:
    """Until so many calls of this store wait for a lock."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1::int[]) AND wait_event_type = 'Lock'"
    for _ in range(500):
        pids = [one.get_server_pid() for one in store._pool._connections._out]  # pyright: ignore[reportPrivateUsage]
        if await asyncio.to_thread(server().value, sql, pids) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


@asynccontextmanager
async def held(store: PostgresRepository) -> AsyncGenerator[None]:
    """Somebody else has the lock of the key."""
    async with store._pool.transaction() as db:  # pyright: ignore[reportPrivateUsage]
        await db.run("SELECT pg_advisory_xact_lock(1886614644, $1::int)", bucket(KEY))
        yield


@pytest.mark.parametrize("first", ["put", "delete"])
def test_a_put_and_a_delete_that_wait_for_each_other_end_as_the_later_one_says(first: str) -> None:
    async def test(store: PostgresRepository) -> None:
        await done(store, write("put", "before"))
        second = "delete" if first == "put" else "put"
        async with held(store):
            one = asyncio.create_task(done(store, write(first, "new")))
            await waiting(store, 1)
            two = asyncio.create_task(done(store, write(second, "new")))
            await waiting(store, 2)
        earlier, later = await one, await two
        assert earlier.version < later.version, "a version drawn before the wait would be the smaller one"
        (record,) = await store.get([KEY])
        assert record is not None
        assert (record.version, record.deleted) == (later.version, second == "delete")

    on_a_home(test)


def test_a_write_that_expects_a_version_and_waits_for_a_delete_finds_nothing() -> None:
    async def test(store: PostgresRepository) -> None:
        before = await done(store, write("put", "before"))
        async with held(store):
            gone = asyncio.create_task(done(store, write("delete")))
            await waiting(store, 1)
            late = asyncio.create_task(done(store, write("put", "late", before.version)))
            await waiting(store, 2)
        await gone
        with pytest.raises(NotFound):
            await late

    on_a_home(test)


def test_a_commit_under_way_when_a_copy_is_added_is_in_its_mask_or_in_its_backfill() -> None:
    async def test(store: PostgresRepository) -> None:
        target = TargetRow(NUMBERED.name, "copy", 0, "backfilling")
        async with held(store):
            one = asyncio.create_task(done(store, write("put", "under way")))
            await waiting(store, 1)
            added = asyncio.create_task(store.set_target(target))
            await waiting(store, 2)
            assert not added.done(), "it knew nothing of the commit"
        assert (await one).targets == 0
        await added
        assert (await store.backfill(target, 10)).cursor == ""
        (row,) = await store.due("copy", [NUMBERED.name], Env().now_us() + 60_000_000, 10)
        assert row.key == KEY

    on_a_home(test)


def test_who_waited_for_another_to_make_a_table_sees_it_then() -> None:
    """What a session remembers of the catalogue, `to_regclass` with it, is older than its wait for an advisory lock."""

    async def main(path: str) -> None:
        one: Any = await connected(Env(), path)
        two: Any = await connected(Env(), path)
        try:
            async with two._pool.transaction() as late:
                for _ in range(2):
                    assert not await exists(late, "made")
                async with one._pool.transaction() as db:
                    await db.run(PREPARE_LOCK)
                    waits = asyncio.create_task(late.run(PREPARE_LOCK))
                    await waiting(two, 1)
                    await db.run("CREATE TABLE made (k int)")
                await waits
                assert await exists(late, "made")
        finally:
            await one.aclose()
            await two.aclose()

    with fresh_schema() as path:
        asyncio.run(main(path))
