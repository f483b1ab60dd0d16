"""Orders of events that chance rarely brings about, forced by holding the lock of a key, on MariaDB and on MySQL."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from polystore_adapters.mysql.locks import bucket, lock
from polystore_adapters.mysql.repository import MysqlRepository

from polystore.env import Env
from polystore.errors import NotFound, Unavailable
from polystore.model import Commit, Committed, Key, TargetRow, Write, Written, key_hash
from polystore.protocols import Layout
from polystore.testing.conformance.entities import NUMBERED, Numbered
from tests.mysql import FLAVOURS, connected, fresh_database, run

KEY = Key("", NUMBERED.name, "1")
Test = Callable[[MysqlRepository], Awaitable[None]]
on_both = pytest.mark.parametrize("server", FLAVOURS)


def on_a_home(server: str, test: Test, **options: Any) -> None:
    """Run it on a home of its own."""

    async def main(url: str) -> None:
        store: Any = await connected(Env(), url, **options)
        try:
            await store.prepare([Layout(NUMBERED, True, frozenset())], create=True)
            await test(store)
        finally:
            await store.aclose()
        assert store.checked_out == 0

    with fresh_database(server) as url:
        asyncio.run(main(url))


def write(kind: Any, word: str = "", expect: int | None = None) -> Commit:
    body = None if kind == "delete" else NUMBERED.encode(Numbered(1, word))
    hash = b"" if body is None else NUMBERED.content_hash(body)
    return Commit([Write(kind, KEY, key_hash("", KEY.etype, KEY.id), body, hash, expect)])


async def done(store: MysqlRepository, commit: Commit) -> Written:
    (answer,) = await store.commit([commit])
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, Committed)
    return answer.written[0]


async def waiting(store: MysqlRepository, count: int) -> None:
    """Until so many calls of this store wait for a lock. (A table of the server tells that too, but stands still while
    somebody asks it often.)"""
    url = store._url  # pyright: ignore[reportPrivateUsage]
    for _ in range(300):
        ids = {str(one.thread_id()) for one in store._pool._connections._out}  # pyright: ignore[reportPrivateUsage]
        ((_, _, status),) = await asyncio.to_thread(run, url, "SHOW ENGINE INNODB STATUS")
        waits = (re.search(r"LOCK WAIT .* thread id (\d+),", one, re.DOTALL) for one in status.split("---TRANSACTION"))
        if sum(found is not None and found[1] in ids for found in waits) >= count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody waits")


@asynccontextmanager
async def held(store: MysqlRepository) -> AsyncGenerator[None]:
    """Somebody else has the lock of the key."""
    async with store._pool.transaction() as db:  # pyright: ignore[reportPrivateUsage]
        await lock(db, [bucket(KEY)])
        yield


@on_both
@pytest.mark.parametrize("first", ["put", "delete"])
def test_a_put_and_a_delete_that_wait_for_each_other_end_as_the_later_one_says(server: str, first: str) -> None:
    async def test(store: MysqlRepository) -> None:
        before = await done(store, write("put", "before"))
        second = "delete" if first == "put" else "put"
        async with held(store):
            one = asyncio.create_task(done(store, write(first, "new")))
            await waiting(store, 1)
            two = asyncio.create_task(done(store, write(second, "new")))
            await waiting(store, 2)
        earlier, later = await one, await two
        assert before.version < earlier.version < later.version, "one drawn before the wait would be the smaller one"
        (record,) = await store.get([KEY])
        assert record is not None
        assert (record.version, record.deleted) == (later.version, second == "delete")
        assert await store.newest(KEY.etype) >= later.version

    on_a_home(server, test)


@on_both
def test_a_write_that_expects_a_version_and_waits_for_a_delete_finds_nothing(server: str) -> None:
    async def test(store: MysqlRepository) -> None:
        before = await done(store, write("put", "before"))
        async with held(store):
            gone = asyncio.create_task(done(store, write("delete")))
            await waiting(store, 1)
            late = asyncio.create_task(done(store, write("put", "late", before.version)))
            await waiting(store, 2)
        await gone
        with pytest.raises(NotFound):
            await late

    on_a_home(server, test)


@on_both
def test_a_commit_under_way_when_a_copy_is_added_is_in_its_mask_or_in_its_backfill(server: str) -> None:
    target = TargetRow(NUMBERED.name, "copy", 0, "backfilling")

    async def test(store: MysqlRepository) -> None:
        await done(store, write("put", "before"))
        async with held(store):  # one that has not asked for the copies yet
            one = asyncio.create_task(done(store, write("put", "under way")))
            await waiting(store, 1)
            await store.set_target(target)
        assert (await one).targets == 1
        await store.set_target(TargetRow(NUMBERED.name, "copy", 0, "off"))
        async with store._pool.transaction() as db:  # pyright: ignore[reportPrivateUsage] -- one that knows of none
            await db.fetch("SELECT ps_version FROM kit_numbered FOR UPDATE")
            one = asyncio.create_task(done(store, write("put", "under way")))
            await waiting(store, 1)
            added = asyncio.create_task(store.set_target(target))
            await waiting(store, 2)
            assert not added.done(), "it knew nothing of the commit"
        assert (await one).targets == 0
        await added
        assert (await store.backfill(target, 10)).cursor == ""
        (row,) = await store.due("copy", [NUMBERED.name], Env().now_us() + 60_000_000, 10)
        assert (row.key, row.version) == (KEY, (await one).version)

    on_a_home(server, test)


@on_both
def test_a_write_that_waits_too_long_gives_way_and_has_written_nothing(server: str) -> None:
    async def test(store: MysqlRepository) -> None:
        before = await done(store, write("put", "before"))
        async with held(store):
            with pytest.raises(Unavailable, match="nothing was written"):
                await done(store, write("put", "late"))
        (record,) = await store.get([KEY])
        assert record is not None
        assert record.version == before.version
        await done(store, write("put", "after"))

    on_a_home(server, test, lock_timeout_s=1)
