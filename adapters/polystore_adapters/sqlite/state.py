"""Live state in a SQLite file: values that expire, and what limiters remember; and channels inside this process.

Every call is one transaction of the writer, so it is atomic whatever other processes do. Values are as durable as
records. What a limiter took is in the log when the call returns, but not synced by itself: a loss of power may forget
the last of it, the end of a process does not.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from polystore.channels import Hub, Receive
from polystore.env import Env
from polystore.errors import StoreCorrupt, Unavailable
from polystore.model import Key
from polystore.protocols import Changed, Fields, Leave, Number, StateRow
from polystore.protocols.state import check_size, summed
from polystore.rates import Allowance, Rate, Step, step
from polystore_adapters.sqlite.database import Database
from polystore_adapters.sqlite.errors import translating

R = TypeVar("R")

TABLES = (
    "CREATE TABLE IF NOT EXISTS ps_state (tenant TEXT NOT NULL, etype TEXT NOT NULL, id TEXT NOT NULL, "
    "tag INTEGER NOT NULL, expires_at INTEGER, fields TEXT NOT NULL, PRIMARY KEY (tenant, etype, id))",
    "CREATE INDEX IF NOT EXISTS ps_state_expiry ON ps_state (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS ps_limit (tenant TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, "
    "kind TEXT NOT NULL, past TEXT NOT NULL, expires_at INTEGER NOT NULL, "
    "PRIMARY KEY (tenant, name, id, kind)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS ps_limit_expiry ON ps_limit (expires_at)",
)
INLINE_MAX = 16
"""Values that are read on the event loop's own thread: about 100 us, what a change of threads costs."""
PURGED = 20
"""Expired rows that are removed with each write: more than it adds, so that they do not pile up."""

_GET_SQL = (
    "SELECT fields, tag, expires_at FROM ps_state WHERE tenant = ? AND etype = ? AND id = ? "
    "AND (expires_at IS NULL OR expires_at > ?)"
)
_PUT_SQL = "INSERT OR REPLACE INTO ps_state (tenant, etype, id, tag, expires_at, fields) VALUES (?, ?, ?, ?, ?, ?)"
_DELETE_SQL = "DELETE FROM ps_state WHERE tenant = ? AND etype = ? AND id = ? RETURNING expires_at"
_TOUCH_SQL = (
    "UPDATE ps_state SET expires_at = ? WHERE tenant = ? AND etype = ? AND id = ? "
    "AND (expires_at IS NULL OR expires_at > ?)"
)
_KEYS_SQL = (
    "SELECT id FROM ps_state WHERE tenant = ? AND etype = ? AND id > ? AND (expires_at IS NULL OR expires_at > ?) "
    "ORDER BY id LIMIT ?"
)
_PURGE_SQL = (
    "DELETE FROM ps_state WHERE rowid IN (SELECT rowid FROM ps_state WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)
_PAST_SQL = "SELECT past FROM ps_limit WHERE tenant = ? AND name = ? AND id = ? AND kind = ?"
_TAKE_SQL = "INSERT OR REPLACE INTO ps_limit (tenant, name, id, kind, past, expires_at) VALUES (?, ?, ?, ?, ?, ?)"
_RESET_SQL = "DELETE FROM ps_limit WHERE tenant = ? AND name = ? AND id = ?"
_PURGE_LIMITS_SQL = (
    "DELETE FROM ps_limit WHERE (tenant, name, id, kind) IN "
    "(SELECT tenant, name, id, kind FROM ps_limit WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_past_decoder = msgspec.json.Decoder(list[int])
_hubs: weakref.WeakValueDictionary[tuple[int, str], Hub] = weakref.WeakValueDictionary()


def hub_of(path: str) -> Hub:
    """The channels of a file in this process, whoever opened it. A forked child has its own."""
    place = (os.getpid(), str(Path(path).resolve()))
    hub = _hubs.get(place)
    if hub is None:
        hub = _hubs[place] = Hub()
    return hub


class Values:
    """The values as one transaction or snapshot sees them, at one moment of the clock."""

    def __init__(self, db: sqlite3.Connection, env: Env, path: str) -> None:
        self._db = db
        self._env = env
        self._path = path
        self.now_us = env.now_us()

    def get(self, key: Key) -> StateRow | None:
        row = self._db.execute(_GET_SQL, (key.tenant, key.etype, key.id, self.now_us)).fetchone()
        if row is None:
            return None
        text, tag, expires_us = row
        try:
            fields = {name: bytes(raw) for name, raw in _fields_decoder.decode(text).items()}
        except (msgspec.DecodeError, TypeError):
            raise StoreCorrupt(f"{self._path}: the row of {key.etype} {key.id!r} in ps_state is damaged") from None
        return StateRow(fields, tag, None if expires_us is None else expires_us - self.now_us)

    def put(self, key: Key, fields: Fields, ttl_us: int | None) -> StateRow:
        check_size(key, fields)
        tag = self._env.random.getrandbits(53)
        text = msgspec.json.encode({name: msgspec.Raw(value) for name, value in fields.items()}).decode()
        expires_us = None if ttl_us is None else self.now_us + ttl_us
        self._db.execute(_PUT_SQL, (key.tenant, key.etype, key.id, tag, expires_us, text))
        self._db.execute(_PURGE_SQL, (self.now_us, PURGED))
        return StateRow(fields, tag, ttl_us)

    def add(self, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        if self.get(key) is not None:
            return False
        self.put(key, fields, ttl_us)
        return True

    def change(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        row = self.get(key)
        if row is None or tag not in (None, row.tag):
            return Changed(False, row)
        return Changed(True, self.put(key, {**row.fields, **fields}, row.ttl_us if ttl_us is None else ttl_us))

    def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        row = self.get(key)
        if row is None:
            if start is None:
                return None
            row = StateRow({**start, field: msgspec.json.encode(base)}, 0, ttl_us)
        total = summed(key, field, row.fields.get(field), by, base)
        self.put(key, {**row.fields, field: msgspec.json.encode(total)}, row.ttl_us)
        return total

    def delete(self, key: Key) -> bool:
        row = self._db.execute(_DELETE_SQL, (key.tenant, key.etype, key.id)).fetchone()
        return row is not None and (row[0] is None or row[0] > self.now_us)

    def touch(self, key: Key, ttl_us: int | None) -> bool:
        expires_us = None if ttl_us is None else self.now_us + ttl_us
        place = (key.tenant, key.etype, key.id, self.now_us)
        return self._db.execute(_TOUCH_SQL, (expires_us, *place)).rowcount > 0

    def keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        place = (tenant, etype, cursor or "", self.now_us, limit + 1)
        ids = [id for (id,) in self._db.execute(_KEYS_SQL, place)]
        return ids[:limit], ids[limit - 1] if len(ids) > limit else None

    # -- limits -----------------------------------------------------------------------------------------------

    def step(self, key: Key, rate: Rate, cost: int) -> Step:
        row = self._db.execute(_PAST_SQL, (key.tenant, key.etype, key.id, rate.kind)).fetchone()
        try:
            return step(rate, cost, () if row is None else _past_decoder.decode(row[0]), self.now_us)
        except (msgspec.DecodeError, ValueError):
            raise StoreCorrupt(f"{self._path}: the row of {key.etype} {key.id!r} in ps_limit is damaged") from None

    def take(self, key: Key, rate: Rate, cost: int) -> Allowance:
        taken = self.step(key, rate, cost)
        past = msgspec.json.encode(taken.past).decode()
        self._db.execute(_TAKE_SQL, (key.tenant, key.etype, key.id, rate.kind, past, taken.expires_us))
        self._db.execute(_PURGE_LIMITS_SQL, (self.now_us, PURGED))
        return taken.allowance

    def reset(self, key: Key) -> None:
        self._db.execute(_RESET_SQL, (key.tenant, key.etype, key.id))


class StateCalls:
    """The repository's part: `SupportsState`."""

    path: str
    _db: Database
    _env: Env
    _hub: Hub

    async def _write_state(self, function: Callable[[Values], R], *, durable: bool = True) -> R:
        return await self._db.write_one(
            lambda db, one: one(Values(db, self._env, self.path)), function, "state", durable=durable
        )

    async def _read_state(self, function: Callable[[Values], R]) -> R:
        """On the caller's own thread; in another one when it would have to wait."""
        try:
            with translating(self.path):
                return function(Values(self._db.inline, self._env, self.path))
        except Unavailable:
            return await self._db.read(lambda db: function(Values(db, self._env, self.path)))

    async def get_state(self, keys: Sequence[Key]) -> list[StateRow | None]:
        def get(values: Values) -> list[StateRow | None]:
            return [values.get(key) for key in keys]

        if len(keys) <= INLINE_MAX:
            return await self._read_state(get)
        return await self._db.read(lambda db: get(Values(db, self._env, self.path)))

    async def put_state(self, key: Key, fields: Fields, ttl_us: int | None) -> None:
        await self._write_state(lambda values: values.put(key, fields, ttl_us))

    async def add_state(self, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        return await self._write_state(lambda values: values.add(key, fields, ttl_us))

    async def change_state(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        return await self._write_state(lambda values: values.change(key, fields, tag, ttl_us))

    async def delete_state(self, key: Key) -> bool:
        return await self._write_state(lambda values: values.delete(key))

    async def touch_state(self, key: Key, ttl_us: int | None) -> bool:
        return await self._write_state(lambda values: values.touch(key, ttl_us))

    async def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        return await self._write_state(lambda values: values.increment(key, field, by, base, start, ttl_us))

    async def state_keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        return await self._db.read(lambda db: Values(db, self._env, self.path).keys(etype, tenant, cursor, limit))

    async def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        return await self._write_state(lambda values: values.take(key, rate, cost), durable=False)

    async def peek_allowance(self, key: Key, rate: Rate) -> Allowance:
        return await self._read_state(lambda values: values.step(key, rate, 0).allowance)

    async def reset_allowance(self, key: Key) -> None:
        await self._write_state(lambda values: values.reset(key), durable=False)

    async def publish(self, tenant: str, name: str, message: bytes) -> None:
        self._db.check()
        self._hub.publish((tenant, name), message)

    async def subscribe(self, tenant: str, name: str, receive: Receive) -> Leave:
        self._db.check()
        leave = self._hub.subscribe(self, (tenant, name), receive)  # no await: a cancelled call leaves nothing

        async def left() -> None:
            leave()

        return left
