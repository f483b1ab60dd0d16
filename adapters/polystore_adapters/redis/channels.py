"""Channels between processes: the server's publish and subscribe, on one connection of its own."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from redis import exceptions as driver

from polystore.channels import Hub, Receive
from polystore.errors import Unavailable
from polystore.protocols import Leave
from polystore_adapters.redis.errors import translated
from polystore_adapters.redis.server import Server

AGAIN_S = 0.05
AGAIN_MAX_S = 2.0
QUIET_S = 10.0
"""After so long without a message the server is asked whether it is there, and after twice as long taken for lost."""
LOST = (driver.RedisError, driver.RedisClusterException, OSError)  # a TimeoutError is an OSError


class ChannelCalls:
    """The part of `SupportsState` that is about channels. A connection that is lost, or silent, is made anew with all
    its subscriptions; what was published meanwhile is gone."""

    _server: Server

    def _begin_channels(self) -> None:
        self._hub = Hub()
        self._listeners: dict[str, int] = {}
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._pubsub: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._subscribing = asyncio.Lock()

    async def publish(self, tenant: str, name: str, message: bytes) -> None:
        await self._server.one(("PUBLISH", self._server.keys.channel(tenant, name), message))

    async def subscribe(self, tenant: str, name: str, receive: Receive) -> Leave:
        self._server.check()
        channel = self._server.keys.channel(tenant, name)
        # First here and then at the server: nothing can come in between that is not handed on.
        leave = self._hub.subscribe(self, channel, receive)
        self._listeners[channel] = self._listeners.get(channel, 0) + 1
        left = False

        async def leaves() -> None:
            nonlocal left
            if left:
                return
            left = True
            leave()
            self._listeners[channel] -= 1
            async with self._subscribing:
                await self._let_go(channel)

        try:
            async with self._subscribing:
                confirmed = await self._listen(channel)
            await asyncio.shield(confirmed)
        except BaseException:
            await leaves()
            raise
        return leaves

    async def _listen(self, channel: str) -> asyncio.Future[None]:
        """What is done when the server has confirmed the subscription."""
        confirmed = self._confirmed.get(channel)
        if confirmed is None:
            confirmed = self._confirmed[channel] = asyncio.get_running_loop().create_future()
            try:
                if self._pubsub is None:
                    self._pubsub = self._made()
                await self._pubsub.subscribe(channel)
            except BaseException as e:
                del self._confirmed[channel]
                if isinstance(e, LOST):
                    raise translated(e, sent=False) from e
                raise
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())
        return confirmed

    async def _let_go(self, channel: str) -> None:
        if self._listeners.get(channel):
            return
        self._listeners.pop(channel, None)
        if self._confirmed.pop(channel, None) is not None:
            try:
                await self._pubsub.unsubscribe(channel)
            except LOST:
                return  # the connection that is made next does not subscribe to it

    def _made(self) -> Any:
        """Of a cluster any node will do, since a message goes to all of them: another one when that is gone."""
        client: Any = self._server.client
        return client.pubsub(node=random.choice(client.get_nodes())) if self._server.clustered else client.pubsub()

    async def _read(self) -> None:
        pause_s, lost = AGAIN_S, False
        while True:
            try:
                if lost:
                    await self._again()
                    lost = False
                message = await self._next()
                pause_s = AGAIN_S
            except LOST:
                lost = True
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, AGAIN_MAX_S)
                continue
            channel = (message["channel"] or b"").decode()
            if message["type"] == "message":
                self._hub.publish(channel, message["data"])
            elif message["type"] == "subscribe":
                confirmed = self._confirmed.get(channel)
                if confirmed is not None and not confirmed.done():
                    confirmed.set_result(None)

    async def _next(self) -> dict[str, Any]:
        """What the server sends next. Raises TimeoutError when it does not even answer a ping."""
        message = await self._pubsub.get_message(timeout=QUIET_S)
        if message is None:
            await self._pubsub.ping()
            message = await self._pubsub.get_message(timeout=QUIET_S)
        if message is None:
            raise TimeoutError
        return dict(message)

    async def _again(self) -> None:
        """Another connection, with all subscriptions."""
        async with self._subscribing, asyncio.timeout(QUIET_S):
            await self._pubsub.aclose()
            self._pubsub = self._made()
            await self._pubsub.connect()
            if self._confirmed:
                await self._pubsub.subscribe(*self._confirmed)

    async def _end_channels(self) -> None:
        self._hub.end(self)
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
        for confirmed in self._confirmed.values():
            if not confirmed.done():
                confirmed.set_exception(Unavailable("the connection is closed"))
        self._confirmed.clear()
        if self._pubsub is not None:
            await self._pubsub.aclose()
            self._pubsub = None
