"""Messages to whoever listens at the moment."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import msgspec

from polystore.classes import UnsupportedType
from polystore.entity import decode_foreign
from polystore.errors import ConfigurationError, DecodeError, InvalidData, ValueTooLarge
from polystore.kinds import kind_of
from polystore.protocols import Leave, SupportsState
from polystore.store import Store

T = TypeVar("T")

MESSAGE_BYTES_MAX = 1 << 20
BUFFER_MAX = 1_000_000


class Channel(Generic[T]):
    """A channel by name, of one tenant, for messages of one type: made by `hda.channel`.

    Each message reaches those who listen when it is published, at most once each, and is kept for nobody else: what
    must not be lost is a record. Which processes it reaches depends on the store: memory and SQLite reach this one.
    """

    def __init__(self, store: Store, tenant: str, name: str, of: type[T]) -> None:
        try:
            self._encode = kind_of(of).nested_encode
        except UnsupportedType as e:
            raise ConfigurationError(f"channel {name!r}: {e}") from None
        self._store = store
        self._tenant = tenant
        self._name = name
        self._type = of

    def __repr__(self) -> str:
        return f"Channel({self._name!r} of tenant {self._tenant!r} in {self._store.name})"

    async def publish(self, value: T) -> None:
        """Hand the value to all who listen now; nobody may. Raises InvalidData for a value that is not of the type,
        ValueTooLarge beyond 1 MiB; OutcomeUnknown when it may have reached them."""
        try:
            message = msgspec.json.encode(self._encode(value))
        except InvalidData as e:
            raise type(e)(f"channel {self._name!r}: {e}") from None
        if len(message) > MESSAGE_BYTES_MAX:
            raise ValueTooLarge(
                f"channel {self._name!r}: the message has {len(message)} bytes, the limit is {MESSAGE_BYTES_MAX}; save "
                "it as a record or a file, and publish its key"
            )
        await self._store.call(SupportsState.publish, self._tenant, self._name, message)

    def subscribe(self, *, buffer: int = 1_000) -> AbstractAsyncContextManager[Subscription[T]]:
        """Listen inside the block: `async with channel.subscribe() as messages: async for value in messages: ...`.

        At most `buffer` messages wait for the reader; when one more comes, the oldest is dropped and counted in
        `messages.lost`. The iterator ends when the block is left or the architecture is closed.
        """
        if type(buffer) is not int or not 1 <= buffer <= BUFFER_MAX:
            raise InvalidData(f"channel {self._name!r}: buffer= is an int from 1 to {BUFFER_MAX}")
        return _Listening(self._store, self._tenant, self._name, Subscription(self._name, self._type, buffer))


class Subscription(Generic[T]):
    """The messages of a channel, in the order of each publisher: an async iterator. `lost` counts those that were
    dropped because the reader was too slow. A message that is not of the channel's type raises DecodeError in its
    turn; the next one comes after it."""

    def __init__(self, name: str, of: type[T], buffer: int) -> None:
        self.lost = 0
        self._name = name
        self._type = of
        self._waiting: deque[bytes] = deque(maxlen=buffer)
        self._ended = False
        self._changed = asyncio.Event()

    def receive(self, message: bytes | None) -> None:
        """For the store: one more message, None: the last one has come."""
        if message is None:
            self._ended = True
        else:
            self.lost += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(message)
        self._changed.set()

    def __aiter__(self) -> Subscription[T]:
        return self

    async def __anext__(self) -> T:
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        message = self._waiting.popleft()
        try:
            plain: Any = msgspec.json.decode(message)
            return msgspec.convert(plain, self._type, dec_hook=decode_foreign)
        except (msgspec.DecodeError, ValueError, TypeError):
            # Without the cause: its text may show the value.
            name = getattr(self._type, "__name__", str(self._type))
            raise DecodeError(f"channel {self._name!r}: a message does not fit {name}") from None


class _Listening(AbstractAsyncContextManager["Subscription[T]"]):
    def __init__(self, store: Store, tenant: str, name: str, subscription: Subscription[T]) -> None:
        self._store = store
        self._place = (tenant, name)
        self._subscription = subscription
        self._leave: Leave | None = None

    async def __aenter__(self) -> Subscription[T]:
        receive = self._subscription.receive
        self._leave = await self._store.call(SupportsState.subscribe, *self._place, receive)
        return self._subscription

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._subscription.receive(None)
        await cast(Leave, self._leave)()
