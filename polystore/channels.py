"""Channels inside one process, for stores that have none of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from typing import NamedTuple

Receive = Callable[[bytes | None], None]
"""Is called in the subscriber's event loop with each message, and with None when no more will come. Must not block."""


class _Subscriber(NamedTuple):
    owner: object
    loop: asyncio.AbstractEventLoop
    receive: Receive

    def give(self, message: bytes | None) -> None:
        if self.loop.is_closed():
            return  # nobody listens there any more
        if self.loop is _running():
            self.receive(message)
        else:
            self.loop.call_soon_threadsafe(self.receive, message)


class Hub:
    """Hands what is published to all who subscribe at that moment, in any thread. Nothing is kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: dict[Hashable, dict[int, _Subscriber]] = {}
        self._next = 0

    def publish(self, channel: Hashable, message: bytes) -> None:
        """Messages of one thread reach a subscriber in their order."""
        with self._lock:
            subscribers = list(self._channels.get(channel, {}).values())
        for one in subscribers:
            one.give(message)

    def subscribe(self, owner: object, channel: Hashable, receive: Receive) -> Callable[[], None]:
        """Hand messages to `receive` until the returned function is called, or `end` for this owner."""
        with self._lock:
            self._next += 1
            number = self._next
            subscriber = _Subscriber(owner, asyncio.get_running_loop(), receive)
            self._channels.setdefault(channel, {})[number] = subscriber
        return lambda: self._leave(channel, number)

    def _leave(self, channel: Hashable, number: int) -> None:
        with self._lock:
            subscribers = self._channels.get(channel, {})
            subscribers.pop(number, None)
            if not subscribers:
                self._channels.pop(channel, None)

    def end(self, owner: object) -> None:
        """Nothing more for the subscribers of this owner; each is told so once."""
        with self._lock:
            mine = [
                (channel, number, one)
                for channel, subscribers in self._channels.items()
                for number, one in subscribers.items()
                if one.owner is owner
            ]
        for channel, number, one in mine:
            self._leave(channel, number)
            one.give(None)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
