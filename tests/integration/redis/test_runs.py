"""What a server that comes back has to be looked at for, while it loads, is full, or holds very many keys."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from polystore_adapters.redis import RedisRepository, connect, runs, state
from redis import Redis

from compose.native.own import OwnServer
from polystore.env import SYSTEM_ENV
from polystore.errors import StoreFull, Unavailable
from polystore.model import Key
from polystore.protocols import Fill
from tests.redis_servers import Place
from tests.stack import own_server, url_of

KEY = Key("", "session", "a")
NAMES = [f"/thing/{n}" for n in range(20)]
MINUTE_US = 60_000_000


async def opened(url: str, **options: Any) -> RedisRepository:
    return await connect(url, options, SYSTEM_ENV)


async def filled(cache: RedisRepository) -> None:
    assert await cache.lease(NAMES, 7) == ["leased"] * len(NAMES)
    assert all(await cache.fill([Fill(name, 7, 1, b"1", MINUTE_US) for name in NAMES]))


def test_a_removal_that_takes_longer_than_a_call_goes_on_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers give a cache half a second. No value of another run is found on the way, and in the end it serves."""
    monkeypatch.setattr(runs, "SCANNED", 10)
    real, scans = vars(runs)["_ask"], itertools.count(1)

    async def asked(connection: Any, *command: Any) -> Any:
        if command[0] == "SCAN" and next(scans) % 50 == 0:
            raise asyncio.CancelledError  # the time of this call is over
        return await real(connection, *command)

    async def main(url: str) -> None:
        cache = await opened(url)
        client: Any = cache.client
        await client.mset({f"other:{n}": "" for n in range(2_000)})
        await filled(cache)
        await client.set("ps:run", "another")
        await client.connection_pool.disconnect()
        monkeypatch.setattr(runs, "_ask", asked)
        answers: list[Any] = []
        while not answers or isinstance(answers[-1], asyncio.CancelledError):
            answers += await asyncio.gather(asyncio.create_task(cache.lookup(NAMES)), return_exceptions=True)
            assert len(answers) < 20, "each call begins anew"
        assert len(answers) > 2
        assert answers[-1] == [None] * len(NAMES)
        await filled(cache)
        assert await cache.lookup(NAMES) == [b"1"] * len(NAMES)
        await cache.aclose()

    with own_server("redis") as mine:
        asyncio.run(main(mine.url))


def test_a_full_server_is_connected_to_and_gives_back_what_it_has() -> None:
    async def main(url: str) -> None:
        before = await opened(url)
        await before.put_state(KEY, {"n": b"1"}, None)
        await filled(before)
        client: Any = before.client
        await client.set("ps:run", "another")
        await client.config_set("maxmemory", "1")
        after = await opened(url)
        assert await after.lookup(NAMES) == [None] * len(NAMES)
        assert await after.get_state([KEY]) != [None]
        with pytest.raises(StoreFull):
            await after.put_state(KEY, {"n": b"2"}, None)
        assert await after.delete_state(KEY)
        await after.aclose()
        await before.aclose()

    with own_server("redis") as mine:
        asyncio.run(main(mine.url))


def test_while_a_server_loads_its_data_callers_wait_for_it() -> None:
    """It takes connections, and refuses everything."""

    async def said(url: str) -> str:
        try:
            repository = await opened(url)
        except Unavailable as error:
            return str(error)
        await repository.aclose()
        return ""

    async def start(mine: OwnServer) -> set[str]:
        """What callers are told until it serves."""
        starting = asyncio.create_task(asyncio.to_thread(mine.start))
        told = set[str]()
        while "" not in told or not starting.done():
            told.add(await said(mine.url))
            await asyncio.sleep(0.01)
        return told

    with own_server("redis", ["--key-load-delay", "20"]) as mine:  # us; it looks up after 1,024 commands
        made: Any = Redis  # says no types
        with made.from_url(mine.url) as client, client.pipeline(transaction=False) as writing:
            for n in range(12_000):
                writing.set(f"{n}", "")
            writing.execute()
        for _ in range(5):  # a machine that is busy may look too late
            mine.stop()
            if any("loading" in one for one in asyncio.run(start(mine))):
                return
    pytest.fail("nobody was told that it is loading")


def test_a_page_of_keys_looks_at_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among millions of others the few of one type are found, each page within its deadline."""
    monkeypatch.setattr(state, "SEEN_MAX", 1_000)
    place = Place(url_of("valkey"))

    async def main() -> None:
        repository = await opened(place.url, prefix=place.prefix)
        client: Any = repository.client
        await client.mset({f"{place.prefix}:other:{n}": "" for n in range(5_000)})
        await repository.put_state(KEY, {}, MINUTE_US)
        pages, cursor, found = 0, None, list[str]()
        while pages == 0 or cursor is not None:
            ids, cursor = await repository.state_keys("session", "", cursor, 100)
            found += ids
            pages += 1
        assert set(found) == {"a"}
        assert pages >= 4
        await repository.aclose()

    asyncio.run(main())
    place.clear()
