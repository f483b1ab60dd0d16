"""Strict caches on servers that forget: a fail-over that loses what was acknowledged, and memory that is full; and what
each step of the protocol costs a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from redis import Redis

from compose.native.own import OwnServer
from polystore import HybridDataArchitecture, StoreError, Unavailable, entity
from tests.integration.cache.world import PROMPT, StoppingEnv, config, run, until
from tests.stack import own_server


@entity(cache="strict")
class Account(msgspec.Struct):
    id: str
    n: int = 0


@entity()
class Loose(msgspec.Struct):
    id: str
    n: int = 0


def opened(url: str, env: StoppingEnv) -> Any:
    where = config(cache=url)
    where["stores"]["cache"]["timeout_s"] = 3.0  # of one call; a first connection takes a second on a busy machine
    return HybridDataArchitecture.open(where, entities=[Account, Loose], settings=PROMPT, env=env)


def driver(url: str) -> Any:
    made: Any = Redis  # says no types
    return made.from_url(url)


async def filled(hda: HybridDataArchitecture, *ids: str) -> None:
    """These are written, number 1, and in the cache."""
    accounts, counts = hda.collection(Account), hda.caches["account"].counts
    for id in ids:
        await accounts.put(Account(id, 1))
    await hda.settle(10)
    wanted = counts.filled + len(ids)
    async with asyncio.timeout(10):
        while counts.filled < wanted:  # on a busy machine a cache that is too slow is passed over
            await asyncio.gather(*map(accounts.get, ids))
            await asyncio.sleep(0.01)


async def n_of(hda: HybridDataArchitecture) -> int:
    found = await hda.collection(Account).get("a")
    assert found is not None
    return found.n


async def soon(call: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(40):
        while True:
            with contextlib.suppress(StoreError):
                return await call()
            await asyncio.sleep(0.02)


def test_after_a_fail_over_to_a_replica_that_is_behind_no_acknowledged_strict_write_is_hidden() -> None:
    """The replica has the old value, and knows of neither the intent nor the invalidation of what was written since.
    Meanwhile strict writes fail, before their commit, and reads go on."""

    async def main(mine: OwnServer) -> None:
        async with opened(mine.url, StoppingEnv(remote=True)) as hda:
            accounts, counts = hda.collection(Account), hda.caches["account"].counts
            await filled(hda, "a")
            assert await hda.client("cache").wait(2, 10_000) == 2
            for replica in ("node-1", "node-2"):
                mine.freeze(replica)
            await hda.client("cache").client_kill_filter(_type="replica")  # or they would find it in their sockets
            assert (await accounts.put(Account("a", 2))).stores["cache"] == "applied"
            assert await n_of(hda) == 2
            mine.kill("node-0")
            with pytest.raises(Unavailable):
                await accounts.put(Account("a", 7))
            assert await n_of(hda) == 2
            for replica in ("node-1", "node-2"):
                mine.thaw(replica)
            hits = counts.hits
            async with asyncio.timeout(40):
                while counts.hits < hits + 3:  # the new master serves as a cache
                    assert await n_of(hda) == 2
                    await asyncio.sleep(0.01)
            assert (await soon(lambda: accounts.put(Account("a", 3)))).stores["cache"] == "applied"
            assert await n_of(hda) == 3

    with own_server("redis-sentinel") as mine:
        run(lambda: main(mine), 90)


def test_memory_that_runs_full_in_the_middle_of_a_strict_write_makes_it_a_bounded_one() -> None:
    """The server evicts the intent itself. Until the write is over readers may have the old value; then never."""

    async def main(mine: OwnServer) -> None:
        env = StoppingEnv(remote=True)
        async with opened(mine.url, env) as hda:
            await filled(hda, "a")
            accounts, counts = hda.collection(Account), hda.caches["account"].counts
            gate = env.stop("home", "commit", "before")
            writer = asyncio.create_task(accounts.put(Account("a", 2)))
            await gate.arrived.wait()
            with driver(mine.url) as server:
                assert server.exists("ps:c:{/account/a}")
                server.config_set("maxmemory-policy", "allkeys-lru")
                server.config_set("maxmemory", server.info("memory")["used_memory"] + 300_000)
                await asyncio.to_thread(flood, server, "ps:c:{/account/a}")
            was = counts.filled
            assert await n_of(hda) == 1
            await until(lambda: counts.filled == was + 1)
            gate.open()
            assert (await writer).stores == {"home": "committed", "cache": "applied"}
            assert [await n_of(hda) for _ in range(3)] == [2, 2, 2]

    with own_server("redis") as mine:
        run(lambda: main(mine))


def flood(server: Any, gone: str) -> None:
    """Until the server has evicted this key."""
    for n in range(10_000):
        server.set(f"flood:{n}", "x" * 10_000)
        if not server.exists(gone):
            return
    raise AssertionError("it was never evicted")


def test_hits_of_one_tick_are_one_mget_and_any_other_step_is_one_script() -> None:
    """As the server itself counts them, of commands that clients send."""

    async def main(mine: OwnServer) -> None:
        ids = [f"{n}" for n in range(100)]
        async with opened(mine.url, StoppingEnv(remote=True)) as hda:
            accounts = hda.collection(Account)
            await filled(hda, *ids, "a")
            await accounts.get("nobody")  # the scripts are known from here on
            await hda.collection(Loose).put(Loose("a"), ack=["cache"])
            await hda.settle(10)
            with driver(mine.url) as server:

                async def sent(call: Awaitable[Any]) -> dict[str, int]:
                    server.config_resetstat()
                    await call
                    await hda.settle(10)
                    said = {name[8:]: one["calls"] for name, one in server.info("commandstats").items()}
                    return {name: said[name] for name in ("mget", "evalsha", "eval") if name in said}

                assert await sent(asyncio.gather(*map(accounts.get, ids))) == {"mget": 1}
                assert await sent(accounts.get_many(ids)) == {"mget": 1}
                assert await sent(accounts.get("nobody else")) == {"mget": 1, "evalsha": 2}, "a lease, and a fill"
                written = await sent(hda.collection(Loose).put(Loose("a", 1), ack=["cache"]))
                assert written == {"evalsha": 1}, "an invalidation"

    with own_server("redis") as mine:
        run(lambda: main(mine))
