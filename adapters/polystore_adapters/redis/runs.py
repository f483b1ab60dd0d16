"""A server that was restarted, or a replica that took over, may have forgotten invalidations that it acknowledged:
cached values of another run than this one go before anybody asks for them."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from polystore_adapters.redis.keys import Keys
from polystore_adapters.redis.server import SCANNED, read_info
from polystore_adapters.redis.urls import Client


def watch_runs(client: Client, keys: Keys) -> None:
    """Look at each new connection, and there is a new one after every restart, before it is used. Nodes of a cluster
    are not looked at: what they hold ends with its time to live."""
    if not isinstance(client, Redis):
        return

    async def connected(connection: Any) -> None:
        await connection.on_connect()
        run = read_info(await _ask(connection, "INFO", "server"))["run_id"].encode()
        if await _ask(connection, "GET", keys.run) != run:
            await _purge(connection, keys.caches())
            await _ask(connection, "SET", keys.run, run)

    client.connection_pool.connection_kwargs["redis_connect_func"] = connected


async def _purge(connection: Any, pattern: str) -> None:
    cursor = b"0"
    while True:
        cursor, found = await _ask(connection, "SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
        if found:
            await _ask(connection, "UNLINK", *found)
        if cursor == b"0":
            return


async def _ask(connection: Any, *command: Any) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()
