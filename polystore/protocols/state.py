"""State: small values that change in place, without versions or copies, atomically in the store they live in.

The core knows the entity; the store keeps fields as JSON text and understands only numbers that are to be incremented.
All times are the store's own, by its own clock; every call is one atomic step there.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from polystore.channels import Receive
from polystore.errors import DecodeError, InvalidData, ValueTooLarge
from polystore.model import VALUE_BYTES_MAX, Key, Value
from polystore.rates import Allowance, Rate

Fields = Mapping[str, bytes]
"""Field name -> its value as JSON text (UTF-8). Integers stand there as decimal digits."""
Number = int | float
Leave = Callable[[], Awaitable[None]]
"""Ends a subscription. Idempotent."""


class StateRow(Value, frozen=True, gc=False):
    """A live value. `tag` is another one after each write of the value, also when it was deleted between, and the same
    after a touch. `ttl_us`: how long it still lives, more than 0; None: for ever."""

    fields: Fields
    tag: int
    ttl_us: int | None


class Changed(Value, frozen=True, gc=False):
    """`done`: `row` is the value after the change. Else nothing was written and `row` is what stands; None: nothing."""

    done: bool
    row: StateRow | None


@runtime_checkable
class SupportsState(Protocol):
    """Values with a time to live, counters, rate limits, channels.

    A value that has expired is absent at once, to every call, by the store's clock; its room is given back later. A
    `ttl_us` counts from the moment at which the store carries the call out; None: for ever. The names of limiters stand
    in the place of `Key.etype`, and never meet values of an entity of the same name.
    """

    async def get_state(self, keys: Sequence[Key]) -> list[StateRow | None]:
        """The live values in the order asked."""
        ...

    async def put_state(self, key: Key, fields: Fields, ttl_us: int | None) -> None:
        """Put this whole value in the place of what stands."""
        ...

    async def add_state(self, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        """Put the value if there is none; False: there is, and nothing was written."""
        ...

    async def change_state(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        """Set these fields of a live value, and leave its others; with `tag` only if it still has that one. `ttl_us`
        None: it lives as long as it did before. Raises ValueTooLarge when the whole would be (`check_size`)."""
        ...

    async def delete_state(self, key: Key) -> bool:
        """False: there was none."""
        ...

    async def touch_state(self, key: Key, ttl_us: int | None) -> bool:
        """Let a live value live that long from now. False: there is none; what has expired is not called back."""
        ...

    async def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        """Add to a number of a live value and return the sum, of the type of `by`; exact however many do so at once.

        A value without the field has `base` there. Where there is no live value, one is made of `start`, with `ttl_us`
        (which changes nothing else), and the sum is base + by; with `start` None there is then nothing to count in,
        and the answer is None. Raises InvalidData when the sum is no 64-bit integer or finite number, DecodeError when
        the field holds something else (`summed`); then nothing was written.
        """
        ...

    async def state_keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        """Ids of live values, about `limit` of them, in no order, and where to go on (None: that was all). A value that
        lives all the while is in the pages at least once. `cursor` is the last page's."""
        ...

    async def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        """Take from the allowance of this key at the limiter `key.etype`, if so much is left: `polystore.rates.step`.
        The same limiter may come with another rate than before; with another kind it begins anew."""
        ...

    async def peek_allowance(self, key: Key, rate: Rate) -> Allowance:
        """As `take_allowance` would answer for 1, but nothing is taken."""
        ...

    async def reset_allowance(self, key: Key) -> None:
        """Forget what was taken."""
        ...

    async def publish(self, tenant: str, name: str, message: bytes) -> None:
        """Give the message to those who are subscribed to the channel of this tenant now: at most once each, in the
        order of one publisher's calls. Nothing is kept for others. Which processes it reaches, the adapter's page says.
        """
        ...

    async def subscribe(self, tenant: str, name: str, receive: Receive) -> Leave:
        """Have `receive` called with each message that is published from now on, and once with None when this
        connection is closed. After `Leave` it is not called again."""
        ...


# -- for adapters that do the step themselves ---------------------------------------------------------------------


def check_size(key: Key, fields: Fields) -> None:
    """Raises ValueTooLarge when the texts of all fields together have more than `VALUE_BYTES_MAX` bytes."""
    size = sum(map(len, fields.values()))
    if size > VALUE_BYTES_MAX:
        raise ValueTooLarge(f"{key.etype} {key.id!r}: the value has {size} bytes, the limit is {VALUE_BYTES_MAX}")


def summed(key: Key, field: str, text: bytes | None, by: Number, base: Number) -> Number:
    """The number of a field, None: `base`, and `by`. Raises InvalidData, DecodeError."""
    try:
        number = base if text is None else msgspec.json.decode(text, type=type(by))
    except msgspec.DecodeError:
        raise DecodeError(f"{key.etype} {key.id!r}: the stored {field} is no {type(by).__name__}") from None
    total = number + by
    if not (-(1 << 63) <= total < 1 << 63 if isinstance(total, int) else math.isfinite(total)):
        raise InvalidData(f"{key.etype} {key.id!r}: {field} would not fit 64 bits")
    return total
