"""Strict and bounded caches: every order that could show an old value, forced, in memory and on real servers, of which
value and control are evicted apart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import pytest
from polystore_adapters.memory import MemoryServer

from polystore import ConfigurationError, HybridDataArchitecture, Unavailable, VersionConflict, entity
from polystore.collection import Collection
from polystore.consistency import Settings
from polystore.env import Env
from tests.integration.cache.world import PROMPT, StoppingEnv, config, run, until
from tests.postgresql import configured, fresh_schema
from tests.redis_servers import Place
from tests.stack import url_of


@entity(cache="strict")
class Account(msgspec.Struct):
    id: str
    n: int = 0


@entity()
class Loose(msgspec.Struct):
    """The same, with a bounded cache."""

    id: str
    n: int = 0


class World:
    """A home that has to be waited for, and a cache behind a network."""

    def __init__(self, where: dict[str, Any], evict: Callable[[str, str], None]) -> None:
        self.where = where
        self._evict = evict
        self.env = StoppingEnv(remote=True)

    def opened(self, settings: Settings = PROMPT) -> Any:
        return HybridDataArchitecture.open(self.where, entities=[Account, Loose], settings=settings, env=self.env)

    def evict(self, kind: str, name: str) -> None:
        """kind "v": the value; "c": what is known beside it."""
        self._evict(kind, name)


@pytest.fixture(params=["memory", "valkey", "postgresql before redis"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        servers: list[MemoryServer] = []

        class Remembering(StoppingEnv):
            def connected(self, store: str, repository: Any) -> Any:
                if store == "cache":
                    servers.append(cast(MemoryServer, repository.server))
                return super().connected(store, repository)

        def evict(kind: str, name: str) -> None:
            cache = servers[-1].cache
            (cache.values if kind == "v" else cache.controls).drop(name)

        made = World(config(), evict)
        made.env = Remembering(remote=True)
        yield made
        return
    home, _, cache = request.param.rpartition(" before ")
    place = Place(url_of(cache))
    where = config(cache=place.url)
    where["stores"]["cache"]["options"] = {"prefix": place.prefix}
    with fresh_schema() if home else contextlib.nullcontext() as path:
        if path:
            where["stores"]["home"] = configured(path, roles=["home"])
        yield World(where, lambda kind, name: place.client.unlink(f"{place.prefix}:{kind}:{{{name}}}"))
    place.clear()


async def filled(hda: HybridDataArchitecture, cls: type[Any]) -> None:
    """Number 1 is written and in the cache."""
    await hda.collection(cls).put(cls("a", 1), ack=["cache"])
    await hda.settle(10)
    before = hda.caches[cls.__name__.lower()].counts
    was = before.filled
    await hda.collection(cls).get("a")
    await until(lambda: before.filled == was + 1)


async def n_of(accounts: Collection[Any]) -> int:
    found = await accounts.get("a")
    assert found is not None
    return int(found.n)


def test_a_strict_write_has_told_the_cache_when_it_returns(world: World) -> None:
    async def main() -> None:
        async with world.opened() as hda:
            await filled(hda, Account)
            world.env.calls.clear()
            result = await hda.collection(Account).put(Account("a", 2))
            assert result.stores == {"home": "committed", "cache": "applied"}
            told = [call for call in world.env.calls if call in (("cache", "intend"), ("home", "commit"))]
            assert told == [("cache", "intend"), ("home", "commit")]
            assert await n_of(hda.collection(Account)) == 2
            await hda.collection(Account).delete("a")
            assert await hda.collection(Account).get("a") is None

    run(main)


def test_from_before_the_commit_to_its_end_readers_ask_the_home(world: World) -> None:
    async def main() -> None:
        async with world.opened() as hda:
            await filled(hda, Account)
            accounts = hda.collection(Account)
            gate = world.env.stop("home", "commit", "after")
            writer = asyncio.create_task(accounts.put(Account("a", 2)))
            await gate.arrived.wait()
            for _ in range(2):
                assert await n_of(accounts) == 2, "it is committed, and the cache still had the old value"
            counts = hda.caches["account"].counts
            assert counts.filled == 1
            gate.open()
            await writer
            assert await n_of(accounts) == 2

    run(main)


@pytest.mark.parametrize("cls", [Account, Loose])
@pytest.mark.parametrize("evicted", ["nothing", "value", "control"])
def test_what_was_read_before_a_write_is_not_filled_in_after_it(world: World, cls: type[Any], evicted: str) -> None:
    """The stale fill, with an eviction between the write and the fill: without a lease nothing is filled in."""

    async def main() -> None:
        async with world.opened() as hda:
            things = hda.collection(cls)
            await things.put(cls("a", 1), ack=["cache"])
            await hda.settle(10)
            gate = world.env.stop("home", "get", "after")
            reader = asyncio.create_task(n_of(things))
            await gate.arrived.wait()
            await things.put(cls("a", 2), ack=["cache"])
            if evicted != "nothing":
                world.evict(evicted[0], f"/{cls.__name__.lower()}/a")
            gate.open()
            assert await reader == 1, "it had begun before the write"
            counts = hda.caches[cls.__name__.lower()].counts
            await until(lambda: counts.refused == 1)
            assert [await n_of(things) for _ in range(3)] == [2, 2, 2]

    run(main)


def test_a_strict_cache_that_forgets_its_intents_shows_nothing_old_once_the_write_is_acknowledged(world: World) -> None:
    """What it is not: while the write is under way, such a cache is a bounded one."""

    async def main() -> None:
        async with world.opened() as hda:
            await filled(hda, Account)
            accounts = hda.collection(Account)
            counts = hda.caches["account"].counts
            gate = world.env.stop("home", "commit", "before")
            writer = asyncio.create_task(accounts.put(Account("a", 2)))
            await gate.arrived.wait()
            world.evict("c", "/account/a")
            assert await n_of(accounts) == 1
            await until(lambda: counts.filled == 2)
            gate.open()
            await writer
            assert [await n_of(accounts) for _ in range(3)] == [2, 2, 2]

    run(main)


def test_when_the_writer_dies_after_its_commit_nobody_sees_the_old_value(world: World) -> None:
    async def main() -> None:
        async with world.opened() as hda:
            await filled(hda, Account)
            accounts = hda.collection(Account)
            world.env.fail("cache", "invalidate")  # neither it nor a relay gets through
            gate = world.env.stop("home", "commit", "after")
            writer = asyncio.create_task(accounts.put(Account("a", 2)))
            await gate.arrived.wait()
            writer.cancel()
            await asyncio.wait([writer])
            assert [await n_of(accounts) for _ in range(3)] == [2, 2, 2]
            world.env.heal()
            gate.open()

    run(main)


def test_a_write_whose_end_the_cache_has_not_acknowledged_says_so(world: World) -> None:
    async def main() -> None:
        async with world.opened() as hda:
            await filled(hda, Account)
            accounts = hda.collection(Account)
            world.env.fail("cache", "invalidate", error=Unavailable("gone"))
            result = await accounts.put(Account("a", 2))
            assert result.stores["cache"] == "pending"
            assert await n_of(accounts) == 2
            world.env.heal()
            await hda.settle(15)
            assert await n_of(accounts) == 2

    run(main)


def test_while_the_cache_is_down_a_strict_write_fails_and_nothing_is_written(world: World) -> None:
    async def main() -> None:
        async with world.opened() as hda:
            await filled(hda, Account)
            accounts = hda.collection(Account)
            world.env.fail("cache", "intend")
            with pytest.raises(Unavailable, match="cache intend"):
                await accounts.put(Account("a", 2))
            with pytest.raises(Unavailable, match="cache intend"):
                await accounts.create(Account("b"))
            world.env.heal()
            assert await n_of(accounts) == 1
            assert await accounts.get("b") is None
            await accounts.put(Account("a", 3))
            assert await n_of(accounts) == 3

    run(main)


def test_with_the_bypass_it_goes_on_and_says_that_the_cache_is_pending(world: World) -> None:
    async def main() -> None:
        async with world.opened(msgspec.structs.replace(PROMPT, strict_bypass=True)) as hda:
            await filled(hda, Account)
            world.env.fail("cache", "intend", "invalidate")
            result = await hda.collection(Account).put(Account("a", 2))
            assert result.stores == {"home": "committed", "cache": "pending"}
            world.env.heal()
            await hda.settle(15)
            assert await n_of(hda.collection(Account)) == 2

    run(main)


def test_a_commit_that_is_refused_takes_its_intent_back(world: World) -> None:
    async def main() -> None:
        async with world.opened() as hda:
            await filled(hda, Account)
            accounts = hda.collection(Account)
            with pytest.raises(VersionConflict):
                await accounts.put(Account("a", 2), expect_version=1)
            counts = hda.caches["account"].counts
            assert await n_of(accounts) == 1
            await until(lambda: counts.filled == 2)

    run(main)


def test_two_strict_writers_at_once_keep_readers_out_until_both_are_done(world: World) -> None:
    async def main() -> None:
        async with world.opened() as hda:
            await filled(hda, Account)
            accounts = hda.collection(Account)
            gate = world.env.stop("home", "commit", "before")
            slow = asyncio.create_task(accounts.put(Account("a", 2)))
            await gate.arrived.wait()
            await accounts.put(Account("a", 3))
            counts = hda.caches["account"].counts
            was = counts.filled
            assert await n_of(accounts) == 3
            assert await n_of(accounts) == 3
            assert counts.filled == was, "the first write is still under way"
            gate.open()
            await slow
            assert await n_of(accounts) == 2

    run(main)


def test_a_strict_type_whose_cache_is_down_when_all_is_opened_is_refused() -> None:
    async def main() -> None:
        where = config()
        where["stores"]["cache"]["required"] = False
        env: Env = StoppingEnv(remote=True, refused=["cache"])
        with pytest.raises(ConfigurationError, match="strict_bypass"):
            await HybridDataArchitecture.open(where, entities=[Account], env=env)
        bypass = msgspec.structs.replace(PROMPT, strict_bypass=True)
        async with HybridDataArchitecture.open(where, entities=[Account], env=env, settings=bypass) as hda:
            await hda.collection(Account).put(Account("a", 1))
            assert await n_of(hda.collection(Account)) == 1

    run(main)
