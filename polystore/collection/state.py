"""State of one type: values under keys that change in place, with a time to live."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast, overload

import msgspec

from polystore.collection.scope import KeyValue, Wiring, microseconds
from polystore.entity import EntityType
from polystore.errors import AlreadyExists, Conflict, DecodeError, InvalidData, NotFound, UnsupportedOperation
from polystore.kinds import TYPES, encode_float, encode_int
from polystore.model import Key
from polystore.protocols import Fields, Number, StateRow, SupportsState
from polystore.protocols.state import check_size
from polystore.selection import kind_of

T = TypeVar("T")

TRIES = 5
PAGE = 500


class State(Generic[T]):
    """Values of one class that are state, of one tenant: made by `hda.state(Session)`.

    They live in one store, under their keys, and change in place, each call one atomic step there: no versions, no
    copies, no search. Nothing is kept for a store that is down: Unavailable means that nothing was done; OutcomeUnknown
    that it may have been (then read before doing it again). A value that has expired is absent at once.
    """

    def __init__(self, wiring: Wiring, entity: EntityType[T], tenant: str) -> None:
        if kind_of(entity) != "state":
            name = entity.cls.__name__
            raise UnsupportedOperation(
                f"{name} is no state; use hda.{'log' if kind_of(entity) == 'fact' else 'collection'}({name}), or "
                'declare it with @entity(data_type="live_state")'
            )
        self._entity = entity
        self._tenant = tenant
        self._codec = _Codec(entity)
        self._store = wiring.store(wiring.alone[entity.name].home)

    def __repr__(self) -> str:
        return f"State({self._entity.cls.__name__} of tenant {self._tenant!r} in {self._store.name})"

    # -- read -------------------------------------------------------------------------------------------------

    async def get(self, key: KeyValue) -> T | None:
        """The live value, or None. Raises DecodeError when what is stored does not fit the class."""
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Sequence[KeyValue]) -> Sequence[T | None]:
        """The live values in the order of the keys."""
        wanted = [self._key(key) for key in keys]
        rows = await self._store.call(SupportsState.get_state, wanted) if wanted else []
        return [None if row is None else self._value(key, row) for key, row in zip(wanted, rows, strict=True)]

    async def ttl(self, key: KeyValue) -> float | None:
        """How many seconds the value still lives, math.inf without an end; None: there is none."""
        row = await self._row(self._key(key))
        if row is None:
            return None
        return math.inf if row.ttl_us is None else row.ttl_us / 1e6

    async def stream_keys(self) -> AsyncIterator[KeyValue]:
        """The keys of the live values, in no order, page by page: for administration. A value that comes or goes
        meanwhile may be missing, or be named twice."""
        cursor: str | None = None
        while True:
            page = (self._entity.name, self._tenant, cursor, PAGE)
            ids, cursor = await self._store.call(SupportsState.state_keys, *page)
            for id in ids:
                yield self._entity.key_value(id)
            if cursor is None:
                return

    # -- write ------------------------------------------------------------------------------------------------

    async def put(self, value: T, *, ttl_s: float | None = None) -> None:
        """Put the value in the place of what stands. It lives `ttl_s` seconds from now; None: as long as its class
        says (`@entity(ttl_s=...)`), else for ever. Raises InvalidData, ValueTooLarge before any I/O."""
        key, fields = self._encoded(value)
        await self._store.call(SupportsState.put_state, key, fields, self._ttl_us(ttl_s))

    async def create(self, value: T, *, ttl_s: float | None = None) -> None:
        """As `put`, where there is no live value. Raises AlreadyExists where there is."""
        key, fields = self._encoded(value)
        if not await self._store.call(SupportsState.add_state, key, fields, self._ttl_us(ttl_s)):
            raise AlreadyExists(f"{key.etype} {key.id!r} exists already")

    async def update(
        self, key: KeyValue, change: Mapping[str, object] | Callable[[T], T], *, ttl_s: float | None = None
    ) -> T:
        """Change a live value and return it as it is then. Raises NotFound when there is none.

        A mapping sets these fields in one step. A function gets the value and returns the changed one, which is written
        only if nobody changed it meanwhile; else the function runs again, at most 5 times in all, then Conflict is
        raised. The value lives as long as it did before, unless `ttl_s` says otherwise.
        """
        place, ttl_us = self._key(key), microseconds(ttl_s)
        if callable(change):
            return await self._modify(place, change, ttl_us)
        if not isinstance(change, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidData(
                f"update of {place.etype}: a mapping or a function is needed, not {type(change).__name__}"
            )
        fields = self._codec.fields(self._entity.encode_patch(change))
        check_size(place, fields)
        changed = await self._store.call(SupportsState.change_state, place, fields, None, ttl_us)
        if changed.row is None:
            raise self._not_found(place)
        return self._value(place, changed.row)

    async def _modify(self, key: Key, change: Callable[[T], T], ttl_us: int | None) -> T:
        row = await self._row(key)
        for _ in range(TRIES):
            if row is None:
                raise self._not_found(key)
            place, fields = self._encoded(change(self._value(key, row)))
            if place != key:
                raise InvalidData(f"update of {key.etype} {key.id!r}: the function changed the key; put a new value")
            changed = await self._store.call(SupportsState.change_state, key, fields, row.tag, ttl_us)
            row = changed.row
            if changed.done and row is not None:
                return self._value(key, row)
        raise Conflict(f"{key.etype} {key.id!r}: others changed it each of {TRIES} times; try again")

    async def delete(self, key: KeyValue) -> bool:
        """False: there was no live value."""
        return await self._store.call(SupportsState.delete_state, self._key(key))

    async def touch(self, key: KeyValue, *, ttl_s: float | None = None) -> bool:
        """Let a live value live `ttl_s` seconds from now; None: as long as its class says. False: there is none, and
        what has expired is not called back. Raises InvalidData when neither says how long."""
        ttl_us = self._ttl_us(ttl_s)
        if ttl_us is None:
            name = self._entity.cls.__name__
            raise InvalidData(f"touch: {name} says no time to live; give ttl_s=, or @entity(ttl_s=...) above {name}")
        return await self._store.call(SupportsState.touch_state, self._key(key), ttl_us)

    @overload
    async def incr(self, key: KeyValue, field: str, by: int = 1, *, ttl_s: float | None = None) -> int: ...
    @overload
    async def incr(self, key: KeyValue, field: str, by: float, *, ttl_s: float | None = None) -> float: ...
    async def incr(self, key: KeyValue, field: str, by: Number = 1, *, ttl_s: float | None = None) -> Number:
        """Add to an int or float field and return the sum: exact, however many do so at once.

        `by` is of the field's type: 1 for an int, 1.0 for a float. Where there is no live value, one is made of the
        defaults of the class and counted from (from 0 when this field has none); NotFound is raised when another field
        than the key has none. `ttl_s` (None: as the class says) is that of a value made so, and changes nothing for one
        that stands. Raises InvalidData for a field that is no plain number, and when the sum would not fit 64 bits;
        then nothing changed.
        """
        place = self._key(key)
        by = self._codec.amount(field, by)
        base, start = self._codec.beginning(key, field, type(by))
        total = await self._store.call(SupportsState.increment, place, field, by, base, start, self._ttl_us(ttl_s))
        if total is None:
            raise self._not_found(place)
        return total

    # -- how --------------------------------------------------------------------------------------------------

    def _key(self, key: KeyValue) -> Key:
        return Key(self._tenant, self._entity.name, self._entity.key_id(key))

    def _ttl_us(self, ttl_s: float | None) -> int | None:
        return microseconds(self._entity.ttl_s if ttl_s is None else ttl_s)

    def _encoded(self, value: T) -> tuple[Key, Fields]:
        body = self._entity.encode(value)
        key = self._key(body[self._entity.key])
        fields = self._codec.fields(body)
        check_size(key, fields)
        return key, fields

    async def _row(self, key: Key) -> StateRow | None:
        (row,) = await self._store.call(SupportsState.get_state, [key])
        return row

    def _value(self, key: Key, row: StateRow) -> T:
        return self._entity.decode(self._codec.body(key, row.fields))

    def _not_found(self, key: Key) -> NotFound:
        return NotFound(f"{key.etype} {key.id!r} does not exist, or has expired")


class _Codec:
    """Bodies of one entity as the JSON texts that stores keep."""

    def __init__(self, entity: EntityType[Any]) -> None:
        self._entity = entity
        self._decoders = {name: _decoder(spec.kind.name) for name, spec in entity.fields.items()}

    def fields(self, body: Mapping[str, Any]) -> dict[str, bytes]:
        return {name: msgspec.json.encode(value) for name, value in body.items()}

    def body(self, key: Key, fields: Fields) -> dict[str, Any]:
        """Raises DecodeError. A field that the class no longer has is not read."""
        body: dict[str, Any] = {}
        for name, decoder in self._decoders.items():
            if name in fields:
                try:
                    body[name] = decoder.decode(fields[name])
                except msgspec.DecodeError:
                    raise DecodeError(
                        f"{key.etype} {key.id!r}: the stored {name} does not fit {self._entity.cls.__name__}"
                    ) from None
        return body

    def amount(self, field: str, by: Number) -> Number:
        """What may be added to this field. Raises InvalidData."""
        entity, where = self._entity, f"{self._entity.cls.__name__}.{field}"
        if field not in entity.fields:
            raise InvalidData(
                f"incr: {entity.cls.__name__} has no field {field!r}; its fields: {', '.join(entity.fields)}"
            )
        encode = entity.fields[field].kind.encode
        if field == entity.key or encode not in (encode_int, encode_float):
            raise InvalidData(f"incr: {where} is no plain int or float that could be counted in")
        wanted = int if encode is encode_int else float
        if type(by) is not wanted:
            raise InvalidData(f"incr: {where} is {wanted.__name__}, so by= must be one too, for example {wanted(1)!r}")
        try:
            return cast(Number, encode(by))
        except InvalidData as e:
            raise type(e)(f"incr: {where}: {e}") from None

    def beginning(self, key: KeyValue, field: str, number: type[Number]) -> tuple[Number, Fields | None]:
        """Where a new value begins to count in this field, and its other fields; None when one has no default."""
        entity = self._entity
        try:
            base = entity.default_of(field)
        except KeyError:
            base = number(0)
        try:
            body = {name: entity.default_of(name) for name in entity.fields if name not in (entity.key, field)}
        except KeyError:
            return base, None
        return base, self.fields({**body, entity.key: entity.key_value(entity.key_id(key))})


def _decoder(kind: str) -> msgspec.json.Decoder[Any]:
    value: Any = TYPES.get(kind)
    return msgspec.json.Decoder() if value is None else msgspec.json.Decoder(value | None)
