"""Sending commands: to one server (alone, or the master that sentinels name), or to the nodes of a cluster."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis import exceptions as driver
from redis.asyncio import Redis, RedisCluster

from polystore.errors import Unavailable
from polystore_adapters.redis import cluster
from polystore_adapters.redis.errors import translated
from polystore_adapters.redis.keys import Keys
from polystore_adapters.redis.urls import Client

Argument = str | bytes | int
Command = tuple[Argument, ...]

_pack: Callable[[Command], bytes] = cast(Any, hiredis).pack_command  # its own types know commands of one word only
SCANNED = 1_000
"""Keys that a server looks at for one page: about 100 us, in which it answers nobody else."""


class Script:
    """A Lua script, which a server carries out as one step. It is sent by its digest, and whole where the server has
    forgotten it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], *arguments: Argument) -> Command:
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)

    def whole(self, command: Command) -> Command:
        return ("EVAL", self.text, *command[2:])


class Server:
    """What adapters' calls send through: at most `connections` of them at once. Nothing is tried twice."""

    def __init__(self, client: Client, keys: Keys, connections: int, *, owned: bool) -> None:
        self.client = client
        self.keys = keys
        self._owned = owned
        self._slots = asyncio.Semaphore(connections)
        self._closed = False

    @property
    def clustered(self) -> bool:
        """Whether keys of different slots cannot be in one call."""
        return isinstance(self.client, RedisCluster)

    async def one(self, command: Command, *, writes: bool = True) -> Any:
        (answer,) = await self.run([command], writes=writes)
        return answer

    async def script(self, script: Script, calls: Sequence[Command], *, writes: bool = True) -> list[Any]:
        """The answers to calls of one script, each of which is a step by itself."""
        return await self.scripts([(script, call) for call in calls], writes=writes)

    async def scripts(
        self,
        calls: Sequence[tuple[Script, Command]],
        *,
        first: Sequence[tuple[Script, Command]] = (),
        writes: bool = True,
    ) -> list[Any]:
        """The same of several scripts. Those of `first` are carried out before all others, wherever this ends: sent
        whole, or one that the server has forgotten would come last; and to a cluster before the others are sent, or
        another node would be faster."""
        before = [script.whole(call) for script, call in first]
        if before and isinstance(self.client, RedisCluster):
            await self.run(before, writes=writes)
            before = []
        answers = await self._sent([*before, *(call for _, call in calls)], writes)
        _good(answers[: len(before)])
        del answers[: len(before)]
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, driver.NoScriptError)]
        if unknown:
            again = await self._sent([calls[i][0].whole(calls[i][1]) for i in unknown], writes)
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        return _good(answers)

    async def run(self, commands: Sequence[Command], *, writes: bool = True) -> list[Any]:
        """The answers to the commands, sent together. Raises the first error of all."""
        return _good(await self._sent(commands, writes))

    async def get_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """The texts under these keys, None where there is none: one MGET, or a GET of each where slots differ."""
        if not keys:
            return []
        if isinstance(self.client, RedisCluster):
            return await self.run([("GET", key) for key in keys], writes=False)
        found: list[bytes | None] = await self.one(("MGET", *keys), writes=False)
        return found

    async def _sent(self, commands: Sequence[Command], writes: bool) -> list[Any]:
        if not commands:
            return []
        self.check()
        async with self._slots:
            self.check()
            if isinstance(self.client, RedisCluster):
                return await cluster.send(self.client, commands, writes)
            return await _to_server(self.client, commands, writes)

    async def scan(self, pattern: str, cursor: str | None, count: int) -> tuple[list[bytes], str | None]:
        """Some keys like the pattern, and where to go on: node by node, each by its own cursor."""
        at, _, name = (cursor or "0").partition(" ")
        command: Command = ("SCAN", at, "MATCH", pattern, "COUNT", count)
        if not isinstance(self.client, RedisCluster):
            following, keys = await self.one(command, writes=False)
            return keys, None if following == b"0" else following.decode()
        self.check()
        try:
            _ = await self.client.initialize()
            names = sorted(node.name for node in self.client.get_primaries())
            name = name or names[0]
            node = self.client.get_node(node_name=name)
            if node is None:
                raise Unavailable("the cluster has other masters than before; begin anew")
            cursors, keys = await self.client.execute_command(*command, target_nodes=node)
        except (driver.RedisError, driver.RedisClusterException, OSError) as e:
            raise translated(e, sent=False) from e
        if following := cursors[name]:
            return keys, f"{following} {name}"
        later = [one for one in names if one > name]
        return keys, f"0 {later[0]}" if later else None

    async def unlink(self, pattern: str) -> None:
        """Remove all keys like the pattern."""
        cursor: str | None = None
        while True:
            keys, cursor = await self.scan(pattern, cursor, SCANNED)
            await self.run([("UNLINK", key) for key in keys])
            if cursor is None:
                return

    async def info(self, section: str) -> list[dict[str, str]]:
        """What the server says of itself; of a cluster, what each of its masters says, in the order of their names."""
        if isinstance(self.client, RedisCluster):
            self.check()
            try:
                _ = await self.client.initialize()
                masters = sorted(self.client.get_primaries(), key=lambda node: str(node.name))
                asked = (self.client.execute_command("INFO", section, target_nodes=one) for one in masters)
                said: list[Any] = await asyncio.gather(*asked)
            except (driver.RedisError, driver.RedisClusterException, OSError) as e:
                raise translated(e, sent=False) from e
            return [{name: str(value) for name, value in one.items()} for one in said]
        return [read_info(await self.one(("INFO", section), writes=False))]

    def check(self) -> None:
        if self._closed:
            raise Unavailable("the connection is closed")

    async def aclose(self) -> None:
        self._closed = True
        if self._owned:
            await self.client.aclose()
            for sentinel in _sentinels(self.client):
                await sentinel.aclose()


def _sentinels(client: Any) -> list[Any]:
    """The connections to sentinels, which the driver leaves open."""
    manager: Any = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [] if manager is None else [*manager.sentinels]


def read_info(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode().splitlines() if line[:1] != "#")
    return {name: value for name, _, value in pairs if value}


async def _to_server(client: Redis, commands: Sequence[Command], writes: bool) -> list[Any]:
    """All in one packet. The driver's own `execute_command` would not say whether anything was sent."""
    pool: Any = client.connection_pool
    try:
        connection = await pool.get_connection()
    except (driver.RedisError, OSError) as e:
        raise translated(e, sent=False) from e
    answers: list[Any] = []
    try:
        # hiredis packs in a sixth of the time that the driver's own packing takes, which is in Python.
        await connection.send_packed_command(b"".join(map(_pack, commands)))
        for _ in commands:
            try:
                answers.append(await connection.read_response())
            except driver.ResponseError as e:
                answers.append(e)
    except (driver.RedisError, OSError) as e:
        raise translated(e, sent=writes) from e
    finally:
        await pool.release(connection)
    return answers


def _good(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise translated(answer, sent=True) from answer
    return answers
