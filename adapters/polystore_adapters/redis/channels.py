"""Channels between processes: the server's publish and subscribe, on one connection of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from redis import exceptions as driver

from polystore.channels import Hub, Receive
from polystore.errors import Unavailable
from polystore.protocols import Leave
from polystore_adapters.redis.errors import translated
from polystore_adapters.redis.server import Server

AGAIN_S = 0.05
AGAIN_MAX_S = 2.0


class ChannelCalls:
    """The part of `SupportsState` that is about channels. A connection that is lost is made anew, with all its
    subscriptions; what was published meanwhile is gone."""

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
            if not self._listeners[channel]:
                async with self._subscribing:
                    await self._let_go(channel)

        try:
            async with self._subscribing:
                await self._listen(channel)
        except BaseException:
            left = True
            leave()
            self._listeners[channel] -= 1
            raise
        return leaves

    async def _listen(self, channel: str) -> None:
        """Return when the server has confirmed the subscription."""
        confirmed = self._confirmed.get(channel)
        if confirmed is None:
            confirmed = self._confirmed[channel] = asyncio.get_running_loop().create_future()
            try:
                if self._pubsub is None:
                    client: Any = self._server.client
                    self._pubsub = client.pubsub()
                await self._pubsub.subscribe(channel)
            except (driver.RedisError, driver.RedisClusterException, OSError) as e:
                del self._confirmed[channel]
                raise translated(e, sent=False) from e
            except BaseException:
                del self._confirmed[channel]
                raise
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())
        await asyncio.shield(confirmed)

    async def _let_go(self, channel: str) -> None:
        if self._listeners.get(channel) or channel not in self._confirmed:
            return
        del self._confirmed[channel]
        del self._listeners[channel]
        try:
            await self._pubsub.unsubscribe(channel)
        except (driver.RedisError, OSError):
            return  # the connection that is made next does not subscribe to it

    async def _read(self) -> None:
        pause_s = AGAIN_S
        while True:
            try:
                message = await self._pubsub.get_message(timeout=None)
            except (driver.RedisError, driver.RedisClusterException, OSError):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, AGAIN_MAX_S)
                continue
            pause_s = AGAIN_S
            if message is None:
                continue
            channel = message["channel"].decode()
            if message["type"] == "message":
                self._hub.publish(channel, message["data"])
            elif message["type"] == "subscribe":
                confirmed = self._confirmed.get(channel)
                if confirmed is not None and not confirmed.done():
                    confirmed.set_result(None)

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
