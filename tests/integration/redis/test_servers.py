"""What real servers do to callers: restarts, lost connections, fail-overs, refusals, no room, eviction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from polystore_adapters.redis import RedisRepository, connect
from redis.exceptions import ResponseError

from compose.native.own import OwnServer
from polystore.env import SYSTEM_ENV
from polystore.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermissionDenied,
    StoreCorrupt,
    StoreError,
    StoreFull,
    Unavailable,
)
from polystore.model import Key
from polystore.protocols import Fill, Invalidation, SupportsState
from polystore.rates import Rate
from polystore.store import Store
from tests.redis_servers import Place
from tests.stack import own_server, url_of

T = TypeVar("T")
KEY = Key("", "session", "a")
MINUTE_US = 60_000_000
NAMES = [f"/thing/{n}" for n in range(40)]
RATE = Rate("sliding_window", 2, MINUTE_US, 2)
SOCKET = "r.sock"
"""In the server's own folder."""


@pytest.fixture
def redis() -> Generator[OwnServer]:
    with own_server("redis", ["--unixsocket", SOCKET]) as mine:
        yield mine


async def opened(url: str, **options: Any) -> RedisRepository:
    return await connect(url, options, SYSTEM_ENV)


def driver_of(repository: RedisRepository) -> Any:
    return repository.client


async def soon(call: Callable[[], Awaitable[T]], within_s: float = 20.0) -> T:
    """The answer, once there is one: a server that was killed comes back when it does."""
    ends = time.monotonic() + within_s
    while True:
        try:
            return await call()
        except StoreError:
            if time.monotonic() > ends:
                raise
            await asyncio.sleep(0.02)


async def refused(call: Callable[[], Awaitable[None]]) -> None:
    """Raises what it is refused with, once it is."""
    async with asyncio.timeout(20):
        while True:
            await call()


async def restarted(server: OwnServer) -> None:
    """The loop goes on meanwhile, and hears that its connections are lost."""
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


async def filled(cache: RedisRepository, *names: str, value: bytes = b"1") -> None:
    assert await cache.lease(names, 7) == ["leased"] * len(names)
    assert all(await cache.fill([Fill(name, 7, 1, value, MINUTE_US) for name in names]))


def test_after_a_restart_no_caller_notices(redis: OwnServer) -> None:
    """Not even one that counts: a connection is looked at before anything is sent through it."""

    async def main() -> None:
        repository = await opened(redis.url)
        store = Store("live", repository, env=SYSTEM_ENV)
        await asyncio.gather(*(store.call(SupportsState.increment, KEY, "n", 1, 0, {}, None) for _ in range(8)))
        await restarted(redis)
        sums = [await store.call(SupportsState.increment, KEY, "n", 1, 0, {}, None) for _ in range(2)]
        assert sums == [9, 10]
        await store.aclose()

    asyncio.run(main())


def test_cached_values_of_an_earlier_run_are_never_found(redis: OwnServer) -> None:
    """What it has not yet synced it forgets when it is killed, invalidations too. State is not a cache, and stays."""

    async def main() -> None:
        cache, other = await opened(redis.url), await opened(redis.url)
        await filled(cache, *NAMES)
        await cache.lease(["/thing/leased"], 8)
        await cache.put_state(KEY, {"n": b"1"}, None)
        await restarted(redis)
        assert await other.lookup(NAMES) == [None] * len(NAMES)
        assert await cache.fill([Fill("/thing/leased", 8, 1, b"old", MINUTE_US)]) == [False]
        assert await cache.get_state([KEY]) != [None]
        await filled(cache, "/thing/new")
        third = await opened(redis.url)
        assert await third.lookup(["/thing/new"]) == [b"1"], "a new connection is no new run"
        for one in (cache, other, third):
            await one.aclose()

    asyncio.run(main())


def test_a_call_that_may_have_been_carried_out_says_so_and_one_that_was_not_says_that(redis: OwnServer) -> None:
    async def main() -> None:
        repository = await opened(redis.url)
        redis.freeze()
        counting = asyncio.create_task(repository.increment(KEY, "n", 1, 0, {}, None))
        reading = asyncio.create_task(repository.get_state([KEY]))
        await asyncio.sleep(0.05)
        redis.kill()
        with pytest.raises(OutcomeUnknown):
            await counting
        with pytest.raises(Unavailable):
            await reading
        with pytest.raises(Unavailable):
            await repository.increment(KEY, "n", 1, 0, {}, None)
        with pytest.raises(Unavailable):
            await opened(redis.url)
        await repository.aclose()

    asyncio.run(main())


def test_refusals_are_told_by_their_codes_and_show_no_secret(redis: OwnServer) -> None:
    async def main() -> None:
        repository = await opened(redis.url)
        client = driver_of(repository)
        with pytest.raises(PermissionDenied) as denied:
            await opened(redis.url.replace("polystore-test", "wrong-secret"))
        assert "wrong-secret" not in str(denied.value)
        await client.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@read", "+info", "+client")
        address = urlsplit(redis.url)
        reader = await opened(f"redis://reader:pw@{address.hostname}:{address.port}/0")
        with pytest.raises(PermissionDenied):
            await reader.put_state(KEY, {"n": b"1"}, None)
        await reader.aclose()
        await client.set("ps:s:{/session/b}", "not a hash")
        with pytest.raises(StoreCorrupt):
            await repository.put_state(Key("", "session", "b"), {"n": b"1"}, None)
        await client.execute_command("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(Unavailable, match="replica"):
            await repository.put_state(KEY, {"n": b"1"}, None)
        await client.execute_command("REPLICAOF", "NO", "ONE")
        await repository.put_state(KEY, {"n": b"1"}, None)
        await client.config_set("min-replicas-to-write", 1)
        with pytest.raises(Unavailable, match="fewer replicas"):
            await repository.put_state(KEY, {"n": b"1"}, None)
        await client.config_set("min-replicas-to-write", 0)
        await client.config_set("busy-reply-threshold", 1)
        busy = asyncio.create_task(client.eval("while true do end", 0))
        with pytest.raises(Unavailable, match="a script of somebody's"):
            await refused(partial(repository.put_state, KEY, {"n": b"1"}, None))
        await client.script_kill()
        with pytest.raises(ResponseError):
            await busy
        await repository.put_state(KEY, {"n": b"1"}, None)
        await repository.aclose()

    asyncio.run(main())


def test_a_node_of_a_cluster_is_no_server_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match=r"redis\+cluster://"):
        asyncio.run(opened(url_of("redis-cluster").replace("+cluster", "")))


def test_without_room_nothing_is_written_and_invalidations_go_on(redis: OwnServer) -> None:
    async def main() -> None:
        repository = await opened(redis.url)
        await filled(repository, "/thing/a")
        await repository.put_state(KEY, {"n": b"1"}, None)
        await repository.lease(["/thing/b"], 9)
        await driver_of(repository).config_set("maxmemory-policy", "noeviction")
        await driver_of(repository).config_set("maxmemory", "1")
        for call in (
            repository.put_state(KEY, {"n": b"2"}, None),
            repository.change_state(KEY, {"n": b"2"}, None, None),
            repository.increment(KEY, "n", 1, 0, None, None),
            repository.fill([Fill("/thing/b", 9, 1, b"1", MINUTE_US)]),
        ):
            with pytest.raises(StoreFull):
                await call
        (row,) = await repository.get_state([KEY])
        assert row is not None
        assert row.fields == {"n": b"1"}
        await repository.intend(["/thing/b"], 3)
        await repository.invalidate([Invalidation("/thing/a", 2), Invalidation("/thing/b", 2, writer=3)])
        assert await repository.lookup(["/thing/a"]) == [None]
        await driver_of(repository).config_set("maxmemory", "0")
        assert await repository.fill([Fill("/thing/b", 9, 1, b"1", MINUTE_US)]) == [False]
        assert await repository.delete_state(KEY)
        await repository.aclose()

    asyncio.run(main())


def test_a_name_under_which_somebody_else_has_a_key_keeps_no_other_from_being_invalidated() -> None:
    """Fifty of them are one script."""

    async def main() -> None:
        place = Place(url_of("redis"))
        repository = await opened(place.url, prefix=place.prefix)
        await filled(repository, *NAMES)
        await driver_of(repository).set(f"{place.prefix}:c:{{{NAMES[3]}}}", "not a hash")
        with pytest.raises(StoreCorrupt):
            await repository.invalidate([Invalidation(name, 2) for name in NAMES])
        assert await repository.lookup(NAMES) == [None] * len(NAMES)
        others = [name for name in NAMES if name != NAMES[3]]
        assert await repository.lease(others, 7) == ["leased"] * len(others)
        late = await repository.fill([Fill(name, 7, 1, b"old", MINUTE_US) for name in others])
        assert not any(late), "their floors are as high"
        await repository.aclose()
        place.clear()

    asyncio.run(main())


def test_what_is_evicted_is_missing_and_nothing_old_takes_its_place(redis: OwnServer) -> None:
    async def main() -> None:
        repository = await opened(redis.url)
        await filled(repository, *NAMES)
        late = [f"/late/{n}" for n in range(40)]
        await repository.lease(late, 9)
        used = int((await driver_of(repository).info("memory"))["used_memory"])
        await driver_of(repository).config_set("maxmemory-policy", "allkeys-lru")
        await driver_of(repository).config_set("maxmemory", str(used + 200_000))
        for n in range(20):
            more = [f"/more/{n}-{i}" for i in range(20)]
            await repository.lease(more, 7)
            await repository.fill([Fill(name, 7, 1, b"x" * 10_000, MINUTE_US) for name in more])
        found = await repository.lookup(NAMES)
        assert None in found
        gone = [name for name, value in zip(NAMES, found, strict=True) if value is None]
        assert "wait" not in await repository.lease(gone, 10)
        taken = await repository.fill([Fill(name, 9, 1, b"old", MINUTE_US) for name in late])
        assert False in taken, "the leases that were evicted are good for nothing"
        await repository.aclose()

    asyncio.run(main())


def test_after_a_fail_over_of_sentinels_the_new_master_is_asked_and_its_cache_is_empty() -> None:
    async def main(mine: OwnServer) -> None:
        repository = await opened(mine.url, prefix="fo")
        await filled(repository, *NAMES)
        await repository.put_state(KEY, {"n": b"1"}, None)
        assert await driver_of(repository).wait(2, 10_000) == 2
        mine.kill("node-0")
        assert await soon(lambda: repository.increment(KEY, "n", 1, 0, None, None)) is not None
        assert await repository.lookup(NAMES) == [None] * len(NAMES)
        await filled(repository, *NAMES)
        assert await repository.lookup(NAMES) == [b"1"] * len(NAMES)
        await repository.aclose()

    with own_server("redis-sentinel") as mine:
        asyncio.run(main(mine))


def test_a_socket_in_the_file_system(redis: OwnServer) -> None:
    async def main() -> None:
        by_port = await opened(redis.url)
        folder = (await driver_of(by_port).config_get("dir"))["dir"]
        repository = await opened(f"unix://:{urlsplit(redis.url).password}@{folder}/{SOCKET}?db=0")
        assert await repository.increment(KEY, "n", 1, 0, {}, None) == 1
        assert await by_port.increment(KEY, "n", 1, 0, None, None) == 2
        await repository.aclose()
        await by_port.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_forms_of_the_protocol_are_spoken(protocol: int) -> None:
    async def main() -> None:
        repository = await opened(f"{url_of('redis')}?protocol={protocol}", prefix=f"resp{protocol}")
        await repository.put_state(KEY, {"n": b"1", "s": b"2"}, MINUTE_US)
        (row,) = await repository.get_state([KEY])
        assert row is not None
        assert row.fields == {"n": b"1", "s": b"2"}
        assert await repository.state_keys("session", "", None, 10) == (["a"], None)
        assert (await repository.take_allowance(KEY, RATE, 1)).remaining == 1
        await filled(repository, "/thing/a")
        assert await repository.lookup(["/thing/a", "/thing/b"]) == [b"1", None]
        got: asyncio.Queue[bytes | None] = asyncio.Queue()
        await repository.subscribe("", "news", got.put_nowait)
        await repository.publish("", "news", b"hello")
        assert await asyncio.wait_for(got.get(), 10) == b"hello"
        await repository.delete_state(KEY)
        await repository.reset_allowance(KEY)
        await repository.forget("thing")
        await repository.aclose()

    asyncio.run(main())


def test_a_client_of_the_application_is_used_and_stays_open() -> None:
    async def main() -> None:
        first = await opened(url_of("redis"))
        client = driver_of(first)
        second = await opened("redis:", client=client, prefix="mine")
        assert second.client is client
        await second.put_state(KEY, {"n": b"1"}, 60_000_000)
        await second.aclose()
        with pytest.raises(Unavailable):
            await second.get_state([KEY])
        assert await client.delete("mine:s:{/session/a}") == 1
        await first.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://:secret@[bad", {}),
        ("redis+sentinel://:secret@host", {}),
        ("redis://:secret@host?socket_timeout=soon", {}),
        ("redis://:secret@host", {"colour": "red"}),
        ("redis://:secret@host", {"decode_responses": True}),
        ("redis://:secret@host", {"prefix": "a*"}),
        ("redis://:secret@host", {"connections": 0}),
        ("redis://:secret@host", {"client": object()}),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        asyncio.run(connect(url, options, SYSTEM_ENV))
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
