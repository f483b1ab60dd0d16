"""The live state of a memory server: values that expire, what limiters remember, channels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import msgspec

from polystore.channels import Hub, Receive
from polystore.env import Env
from polystore.model import Key
from polystore.protocols import Changed, Fields, Leave, Number, StateRow
from polystore.protocols.state import check_size, summed
from polystore.rates import Allowance, Rate, Step, step

from .tables import Tables

if TYPE_CHECKING:
    from .server import MemoryServer

P = ParamSpec("P")
R = TypeVar("R")


class _Value(msgspec.Struct, frozen=True):
    fields: Fields
    tag: int
    expires_us: int | None


class LiveState(Tables):
    """The server's part. Values are replaced, never changed."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.hub = Hub()
        self._values: dict[Key, _Value] = {}
        self._taken: dict[tuple[str, Key], Step] = {}
        self._tags = itertools.count(1)
        self._room_at = 1_000

    # -- values -----------------------------------------------------------------------------------------------

    def _live_value(self, key: Key) -> _Value | None:
        value = self._values.get(key)
        if value is None or value.expires_us is None or value.expires_us > self.env.now_us():
            return value
        return None

    def _state_row(self, value: _Value) -> StateRow:
        ttl_us = None if value.expires_us is None else max(value.expires_us - self.env.now_us(), 1)
        return StateRow(dict(value.fields), value.tag, ttl_us)

    def _ends_at(self, ttl_us: int | None) -> int | None:
        return None if ttl_us is None else self.env.now_us() + ttl_us

    def get_state(self, keys: Sequence[Key]) -> list[StateRow | None]:
        return [None if (value := self._live_value(key)) is None else self._state_row(value) for key in keys]

    def put_state(self, key: Key, fields: Fields, ttl_us: int | None) -> None:
        self._put_value(key, fields, self._ends_at(ttl_us))

    def _put_value(self, key: Key, fields: Fields, expires_us: int | None) -> _Value:
        check_size(key, fields)
        value = self._values[key] = _Value(dict(fields), next(self._tags), expires_us)
        self._make_room()
        return value

    def add_state(self, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        if self._live_value(key) is not None:
            return False
        self.put_state(key, fields, ttl_us)
        return True

    def change_state(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        value = self._live_value(key)
        if value is None or tag not in (None, value.tag):
            return Changed(False, None if value is None else self._state_row(value))
        expires_us = value.expires_us if ttl_us is None else self._ends_at(ttl_us)
        return Changed(True, self._state_row(self._put_value(key, {**value.fields, **fields}, expires_us)))

    def delete_state(self, key: Key) -> bool:
        existed = self._live_value(key) is not None
        self._values.pop(key, None)
        return existed

    def touch_state(self, key: Key, ttl_us: int | None) -> bool:
        value = self._live_value(key)
        if value is not None:
            self._values[key] = msgspec.structs.replace(value, expires_us=self._ends_at(ttl_us))
        return value is not None

    def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        value = self._live_value(key)
        if value is None:
            if start is None:
                return None
            value = _Value({**start, field: msgspec.json.encode(base)}, 0, self._ends_at(ttl_us))
        total = summed(key, field, value.fields.get(field), by, base)
        self._put_value(key, {**value.fields, field: msgspec.json.encode(total)}, value.expires_us)
        return total

    def state_keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        mine = (key.id for key in self._values if (key.etype, key.tenant) == (etype, tenant))
        ids = sorted(id for id in mine if (cursor is None or id > cursor) and self._live_value(Key(tenant, etype, id)))
        return ids[:limit], ids[limit - 1] if len(ids) > limit else None

    # -- limits -----------------------------------------------------------------------------------------------

    def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        taken = self._allowance(key, rate, cost)
        self._taken[rate.kind, key] = taken
        self._make_room()
        return taken.allowance

    def peek_allowance(self, key: Key, rate: Rate) -> Allowance:
        return self._allowance(key, rate, 0).allowance

    def _allowance(self, key: Key, rate: Rate, cost: int) -> Step:
        taken = self._taken.get((rate.kind, key))
        return step(rate, cost, () if taken is None else taken.past, self.env.now_us())

    def reset_allowance(self, key: Key) -> None:
        for one in [one for one in self._taken if one[1] == key]:
            del self._taken[one]

    def _make_room(self) -> None:
        """Give room back now and then: each time as much was added as was kept."""
        if len(self._values) + len(self._taken) < self._room_at:
            return
        now_us = self.env.now_us()
        self._values = {k: v for k, v in self._values.items() if v.expires_us is None or v.expires_us > now_us}
        self._taken = {k: one for k, one in self._taken.items() if one.expires_us > now_us}
        self._room_at = 1_000 + 2 * (len(self._values) + len(self._taken))


class StateCalls:
    """A connection's part: `SupportsState`."""

    if TYPE_CHECKING:
        server: MemoryServer

        def _check_open(self) -> None: ...

        async def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def get_state(self, keys: Sequence[Key]) -> list[StateRow | None]:
        return await self._call(self.server.get_state, keys)

    async def put_state(self, key: Key, fields: Fields, ttl_us: int | None) -> None:
        await self._call(self.server.put_state, key, fields, ttl_us)

    async def add_state(self, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        return await self._call(self.server.add_state, key, fields, ttl_us)

    async def change_state(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        return await self._call(self.server.change_state, key, fields, tag, ttl_us)

    async def delete_state(self, key: Key) -> bool:
        return await self._call(self.server.delete_state, key)

    async def touch_state(self, key: Key, ttl_us: int | None) -> bool:
        return await self._call(self.server.touch_state, key, ttl_us)

    async def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        return await self._call(self.server.increment, key, field, by, base, start, ttl_us)

    async def state_keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        return await self._call(self.server.state_keys, etype, tenant, cursor, limit)

    async def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        return await self._call(self.server.take_allowance, key, rate, cost)

    async def peek_allowance(self, key: Key, rate: Rate) -> Allowance:
        return await self._call(self.server.peek_allowance, key, rate)

    async def reset_allowance(self, key: Key) -> None:
        await self._call(self.server.reset_allowance, key)

    async def publish(self, tenant: str, name: str, message: bytes) -> None:
        await self._call(self.server.hub.publish, (tenant, name), message)

    async def subscribe(self, tenant: str, name: str, receive: Receive) -> Leave:
        self._check_open()
        leave = self.server.hub.subscribe(self, (tenant, name), receive)  # no await: a cancelled call leaves nothing

        async def left() -> None:
            leave()

        return left
