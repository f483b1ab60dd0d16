"""Channels between processes, over connections that end, or say nothing any more."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from polystore_adapters.redis import RedisRepository, channels, connect

from compose.native.own import OwnServer
from polystore.env import SYSTEM_ENV
from polystore.errors import StoreError
from tests.stack import own_server, url_of


async def opened(url: str, **options: Any) -> RedisRepository:
    return await connect(url, options, SYSTEM_ENV)


async def heard(other: RedisRepository, got: list[bytes | None]) -> bytes | None:
    """The first message, which is published until it arrives."""
    async with asyncio.timeout(20):
        while not got:
            with suppress(StoreError):
                await other.publish("", "news", b"again")
            await asyncio.sleep(0.02)
    return got[0]


def test_channels_come_back_after_a_restart() -> None:
    async def main(redis: OwnServer) -> None:
        repository, other = await opened(redis.url), await opened(redis.url)
        got: list[bytes | None] = []
        await repository.subscribe("", "news", got.append)
        await asyncio.to_thread(redis.stop)
        await asyncio.to_thread(redis.start)
        assert await heard(other, got) == b"again"
        await repository.aclose()
        assert got[-1] is None
        await other.aclose()

    with own_server("redis") as mine:
        asyncio.run(main(mine))


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_connection_that_says_nothing_any_more_is_made_anew(protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a router between has forgotten it: nobody is told that it is lost. One that is only quiet stays."""
    monkeypatch.setattr(channels, "QUIET_S", 0.25)
    address = urlsplit(url_of("redis"))
    cut, pings = asyncio.Event(), 0
    links: list[asyncio.Task[Any] | None] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ends: bool) -> None:
        nonlocal pings
        while data := await reader.read(65_536):
            pings += b"PING" in data
            if not (ends and cut.is_set()):
                writer.write(data)
        writer.close()
        await writer.wait_closed()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        links.append(asyncio.current_task())
        ends = not cut.is_set()
        there, back = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(copy(reader, back, ends=ends), copy(there, writer, ends=ends))

    async def main() -> None:
        async with await asyncio.start_server(pass_on, "127.0.0.1") as between:
            port = between.sockets[0].getsockname()[1]
            url = f"redis://:{address.password}@127.0.0.1:{port}/0?protocol={protocol}"
            repository = await opened(url, prefix=f"quiet{protocol}")
            other = await opened(url_of("redis"), prefix=f"quiet{protocol}")
            got: list[bytes | None] = []
            await repository.subscribe("", "news", got.append)
            before = len(links)
            async with asyncio.timeout(20):
                while pings < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert len(links) == before, "the first was answered"
            cut.set()
            assert await heard(other, got) == b"again"
            await repository.aclose()
            await other.aclose()
            await asyncio.gather(*(link for link in links if link is not None))

    asyncio.run(main())


def test_a_channel_reaches_other_processes() -> None:
    async def main() -> None:
        repository = await opened(url_of("redis"), prefix="procs")
        got: asyncio.Queue[bytes | None] = asyncio.Queue()
        await repository.subscribe("acme", "news", got.put_nowait)
        program = (
            "import asyncio, sys; from polystore.env import SYSTEM_ENV; from polystore_adapters.redis import connect\n"
            "async def main():\n"
            "    one = await connect(sys.argv[1], {'prefix': 'procs'}, SYSTEM_ENV)\n"
            "    await one.publish('', 'news', b'of others')\n"
            "    await one.publish('acme', 'news', b'hello')\n    await one.aclose()\n"
            "asyncio.run(main())"
        )
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url_of("redis"))
        assert await other.wait() == 0
        async with asyncio.timeout(5):
            assert await got.get() == b"hello"
        await repository.aclose()
        assert await got.get() is None

    asyncio.run(main())
