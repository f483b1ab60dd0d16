"""Sending to the nodes of a cluster, each command to the one that has its slot.

Three things that the driver leaves undone are done here. Of a slot on its way (ASK) it announces the call on one
connection and sends it on another, where it is refused. When a pipeline meets a dead master it goes on asking that one.
And a connection that a node has closed is found out by sending through it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, cast

from redis import exceptions as driver
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import PipelineCommand
from redis.asyncio.connection import Connection, SSLConnection

from polystore_adapters.redis.errors import translated

REDIRECTIONS = 5
"""Nodes that are asked for one command, where each names another one."""
LOST = (driver.RedisError, driver.RedisClusterException, OSError)


class _Looked(Connection):
    """Before it is used it is looked at whether the node has closed it."""

    _reader: asyncio.StreamReader | None

    def should_reconnect(self) -> bool:
        reader, inherited = self._reader, cast(Any, super())  # says no types
        closed = reader is not None and (reader.at_eof() or reader.exception() is not None)
        return closed or bool(inherited.should_reconnect())


class _LookedSecured(_Looked, SSLConnection):
    pass


def look_at_connections(client: RedisCluster, *, secured: bool) -> None:
    client.connection_kwargs["connection_class"] = _LookedSecured if secured else _Looked


async def send(client: RedisCluster, commands: Sequence[tuple[Any, ...]], writes: bool) -> list[Any]:
    """The answers, among them the server's errors. Raises StoreError when a node does not answer."""
    pipeline: Any = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    try:
        answers: list[Any] = await pipeline.execute(raise_on_error=False, allow_redirections=False)
        for i, command in enumerate(commands):
            answers[i] = await _followed(client, command, answers[i])
            if isinstance(answers[i], Exception) and not isinstance(answers[i], driver.ResponseError):
                raise answers[i]
    except LOST as e:
        with contextlib.suppress(*LOST):  # who has the slots now; connections are made anew
            await client.nodes_manager.initialize()
        raise translated(e, sent=writes) from e
    return answers


async def _followed(client: RedisCluster, command: tuple[Any, ...], answer: Any) -> Any:
    """The answer of the node that has the slot, or is getting it: there the call is announced, which does no harm where
    the slot is."""
    for _ in range(REDIRECTIONS):
        if not isinstance(answer, driver.AskError):
            break
        if isinstance(answer, driver.MovedError):
            await client.nodes_manager.move_slot(answer)
        to: Any = answer
        node: Any = client.get_node(host=to.host, port=to.port)
        if node is None:
            break  # as new as that: later the slot has moved, and it is known
        asked = [PipelineCommand(0, "ASKING"), PipelineCommand(1, *command)]
        await node.execute_pipeline(asked)
        answer = asked[1].result
    return answer
