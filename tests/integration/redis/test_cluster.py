"""What a cluster does to callers: nodes that restart or die, and slots that move."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from polystore_adapters.redis import RedisRepository, connect
from redis import Redis
from redis.crc import key_slot

from compose.native.own import OwnServer
from polystore.env import SYSTEM_ENV
from polystore.errors import StoreError, Unavailable
from polystore.model import Key
from polystore.protocols import Fill, Invalidation
from tests import tls
from tests.stack import own_server

T = TypeVar("T")
KEYS = [Key("", "session", f"{n}") for n in range(40)]
NAMES = [f"/thing/{n}" for n in range(40)]
"""On all nodes."""
MINUTE_US = 60_000_000

pytestmark = [
    # The driver forgets connections to nodes of a cluster that left it, without closing them.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:loop is closed:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def forgotten_connections() -> Generator[None]:
    """Collected here, where they are expected, and not in the middle of another test."""
    gc.freeze()  # what other tests have left is not looked at again
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.unfreeze()


@pytest.fixture(scope="module")
def cluster() -> Generator[OwnServer]:
    with own_server("redis-cluster") as mine:
        yield mine


@pytest.fixture(autouse=True)
def whole(cluster: OwnServer) -> None:
    """Whatever the test before has killed."""
    cluster.start()


async def opened(cluster: OwnServer) -> RedisRepository:
    return await connect(cluster.url, {}, SYSTEM_ENV)


def driver_of(repository: RedisRepository) -> Any:
    return repository.client


async def soon(call: Callable[[], Awaitable[T]], within_s: float = 40.0) -> T:
    """The answer, once there is one."""
    ends = time.monotonic() + within_s
    while True:
        try:
            return await call()
        except StoreError:
            if time.monotonic() > ends:
                raise
            await asyncio.sleep(0.02)


async def filled(cache: RedisRepository) -> None:
    assert await cache.lease(NAMES, 7) == ["leased"] * len(NAMES)
    assert all(await cache.fill([Fill(name, 7, 1, b"1", MINUTE_US) for name in NAMES]))


async def replicated(repository: RedisRepository) -> None:
    client = driver_of(repository)
    for node in client.get_primaries():
        assert await client.execute_command("WAIT", 1, 10_000, target_nodes=node) == 1


def process(cluster: OwnServer, node: Any) -> str:
    """Its name; they are at the ports that follow that of the first."""
    return f"node-{node.port - urlsplit(cluster.url).port}"


def count(repository: RedisRepository) -> Awaitable[list[Any]]:
    return asyncio.gather(*(repository.increment(key, "n", 1, 0, {}, MINUTE_US) for key in KEYS))


def test_after_a_restart_of_its_nodes_no_caller_notices(cluster: OwnServer) -> None:
    """Not even those that count: connections that a node has closed are found out before anything is sent."""

    async def main() -> None:
        repository = await opened(cluster)
        before = await count(repository)
        await asyncio.to_thread(cluster.stop)
        await asyncio.to_thread(cluster.start)
        assert await count(repository) == [one + 1 for one in before]
        await asyncio.gather(*map(repository.delete_state, KEYS))
        await repository.aclose()

    asyncio.run(main())


def test_a_slot_on_its_way_to_another_node_is_served_for_single_keys(cluster: OwnServer) -> None:
    """Also by scripts that the other node has never seen. What has two keys waits until it is there."""

    async def main() -> None:
        repository = await opened(cluster)
        await count(repository)  # with many connections to each node
        client, name = driver_of(repository), f"ps:s:{{/session/{KEYS[0].id}}}"
        slot = key_slot(name.encode())
        cached = next(f"/thing/{n}" for n in range(100_000) if key_slot(b"{/thing/%d}" % n) == slot)
        source = client.get_node_from_key(name)
        target = next(node for node in client.get_primaries() if node.name != source.name)
        theirs = {node: await client.execute_command("CLUSTER MYID", target_nodes=node) for node in (source, target)}
        await client.execute_command("SCRIPT FLUSH", target_nodes=target)
        setting = ("CLUSTER SETSLOT", slot)
        await client.execute_command(*setting, "IMPORTING", theirs[source], target_nodes=target)
        await client.execute_command(*setting, "MIGRATING", theirs[target], target_nodes=source)
        n = await repository.increment(KEYS[0], "n", 1, 0, None, None)
        password = client.connection_kwargs["password"]
        moving = ("MIGRATE", target.host, target.port, name, 0, 5_000, "AUTH", password)
        await client.execute_command(*moving, target_nodes=source)
        sums = await asyncio.gather(*(repository.increment(KEYS[0], "n", 1, 0, None, None) for _ in range(8)))
        assert sorted(map(int, filter(None, sums))) == [int(n or 0) + i for i in range(1, 9)]
        assert await repository.lookup([cached]) == [None]
        with pytest.raises(Unavailable, match="on its way"):
            await repository.invalidate([Invalidation(cached, 1)])
        for node in (target, source):
            await client.execute_command(*setting, "NODE", theirs[target], target_nodes=node)
        await soon(lambda: repository.invalidate([Invalidation(cached, 1)]))
        await asyncio.gather(*map(repository.delete_state, KEYS))
        await repository.aclose()

    asyncio.run(main())


def test_after_a_fail_over_every_slot_is_served_again(cluster: OwnServer) -> None:
    """Each process finds out by itself, by whatever it asks."""

    async def main() -> None:
        one, many = await opened(cluster), await opened(cluster)
        for key in KEYS:
            await one.put_state(key, {"n": b"1"}, None)
        await filled(many)
        await replicated(one)
        cluster.kill(process(cluster, driver_of(one).get_primaries()[0]))
        await soon(lambda: many.invalidate([Invalidation(name, 2) for name in NAMES]))
        assert await soon(lambda: many.lookup(NAMES)) == [None] * len(NAMES)
        for key in KEYS:
            assert await soon(partial(one.get_state, [key])) != [None]
            await soon(partial(one.put_state, key, {"n": b"2"}, None))
        await soon(lambda: one.forget("thing"))
        await filled(one)
        for repository in (one, many):
            await repository.aclose()

    asyncio.run(main())


def test_a_channel_does_not_end_with_the_node_that_it_comes_by(
    cluster: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        listener, other = await opened(cluster), await opened(cluster)
        client = driver_of(listener)
        async with asyncio.timeout(20):
            while not client.get_replicas():  # a node that has just come back knows of none yet
                await client.nodes_manager.initialize()
        node = client.get_replicas()[0]
        got: list[bytes | None] = []

        def chosen(_: object) -> Any:
            return node

        with monkeypatch.context() as patched:
            patched.setattr("random.choice", chosen)
            await listener.subscribe("", "news", got.append)
        cluster.kill(process(cluster, node))
        async with asyncio.timeout(40):
            while not got:
                await soon(lambda: other.publish("", "news", b"still"))
                await asyncio.sleep(0.02)
        assert got[0] == b"still"
        await listener.aclose()
        await other.aclose()

    asyncio.run(main())


def test_tls_is_spoken_to_the_nodes_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With certificates of both sides; nobody falls back to less."""
    alone = tls.OPTIONS["redis"]

    def given(*files: Path) -> list[str]:
        return [*alone(*files), "--cluster-enabled", "yes", "--tls-cluster", "yes"]

    monkeypatch.setitem(tls.OPTIONS, "redis", given)
    authority = tls.Authority(tmp_path)
    pem, key = authority.issue("client")
    shown = {"ssl_certfile": str(pem), "ssl_keyfile": str(key), "ssl_ca_certs": str(authority.ca)}

    def form(url: str) -> None:
        made: Any = Redis  # says no types
        with made.from_url(url, **shown) as node:
            node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
            while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.02)

    async def main(url: str) -> None:
        repository = await connect(url, shown, SYSTEM_ENV)
        assert await count(repository) == [1] * len(KEYS)
        await repository.aclose()
        with pytest.raises(Unavailable):
            await connect(url, {"ssl_ca_certs": str(authority.ca)}, SYSTEM_ENV)

    with tls.tls_server("redis", authority) as mine:
        form(mine.url.replace("redis:", "rediss:"))
        asyncio.run(main(mine.url.replace("redis:", "rediss+cluster:").removesuffix("/0")))
