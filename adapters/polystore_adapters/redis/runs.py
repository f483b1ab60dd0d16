"""A server that was restarted, or a replica that took over, may have forgotten invalidations that it acknowledged:
cached values of another run than this one go before anybody asks for them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from redis import exceptions as driver
from redis.asyncio import Redis

from polystore.errors import ConfigurationError
from polystore_adapters.redis.keys import Keys
from polystore_adapters.redis.server import SCANNED, read_info
from polystore_adapters.redis.urls import Client


def watch_runs(client: Client, keys: Keys) -> None:
    """Look at each new connection, and there is a new one after every restart, before it is used. Nodes of a cluster
    are not looked at: what they hold ends with its time to live."""
    if isinstance(client, Redis):
        watch = _Watch(keys)

        async def connected(connection: Any) -> None:
            try:
                await connection.on_connect()
                await watch.look(connection)
            except BaseException:  # what was not looked at to the end is never used, whoever gives up
                await connection.disconnect(nowait=True)
                raise

        client.connection_pool.connection_kwargs["redis_connect_func"] = connected


class _Watch:
    """A removal may take longer than the call that it began in: the next one goes on where that ended."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._one = asyncio.Lock()
        self._between: tuple[bytes | None, bytes] | None = None
        self._cursor = b"0"
        """How far what lay there between these two runs is removed."""

    async def look(self, connection: Any) -> None:
        said = read_info(await _ask(connection, "INFO", "server"))
        if said.get("redis_mode", said.get("server_mode")) == "cluster":
            raise ConfigurationError("this is a node of a cluster: its URL begins with redis+cluster:// instead")
        run = said["run_id"].encode()
        async with self._one:
            before = await _ask(connection, "GET", self._keys.run)
            if before != run:
                await self._remove(connection, (before, run))

    async def _remove(self, connection: Any, between: tuple[bytes | None, bytes]) -> None:
        if self._between != between:
            self._between, self._cursor = between, b"0"
        while self._between is not None:
            cursor, found = await _ask(connection, "SCAN", self._cursor, "MATCH", self._keys.caches(), "COUNT", SCANNED)
            if found:
                await _ask(connection, "UNLINK", *found)
            self._between, self._cursor = None if cursor == b"0" else between, cursor
        with contextlib.suppress(driver.OutOfMemoryError):  # who needs no room goes on; the next looks once more
            await _ask(connection, "SET", self._keys.run, between[1])


async def _ask(connection: Any, *command: Any) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()
