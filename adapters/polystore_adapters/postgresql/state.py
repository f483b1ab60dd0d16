"""Live state in PostgreSQL: values that expire, and what limiters remember; and channels inside this process.

A value is changed under its row's lock. Where there is no row, making one is what can be refused: then somebody else
made it, and the step begins again.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

import msgspec

from polystore.channels import Hub, Receive
from polystore.env import Env
from polystore.errors import StoreCorrupt
from polystore.model import Key
from polystore.protocols import Changed, Fields, Leave, Number, StateRow
from polystore.protocols.state import check_size, summed
from polystore.rates import Allowance, Rate, Step, step
from polystore_adapters.postgresql.pool import Pool, Row, Session

TABLES = """
CREATE FUNCTION ps_clock_us() RETURNS bigint LANGUAGE sql VOLATILE AS
    $$SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint$$;
CREATE TABLE ps_state (tenant text COLLATE "C" NOT NULL, etype text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
    tag bigint NOT NULL, expires_at bigint, fields text NOT NULL, PRIMARY KEY (tenant, etype, id));
CREATE INDEX ps_state_expiry ON ps_state (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE ps_limit (tenant text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
    kind text NOT NULL, past text NOT NULL, expires_at bigint NOT NULL, PRIMARY KEY (tenant, name, id, kind));
CREATE INDEX ps_limit_expiry ON ps_limit (expires_at);
"""
PURGE_EVERY = 20
"""Writes before which expired rows are removed, at most `PURGED` of them: more than were added meanwhile."""
PURGED = 100

_LIVE = "(expires_at IS NULL OR expires_at > ps_clock_us())"
_PLACE = "tenant = $1 AND etype = $2 AND id = $3"
_COLUMNS = "tenant, etype, id, fields, tag, expires_at"
_GET_SQL = (
    f"SELECT tenant, etype, id, fields, tag, expires_at - ps_clock_us() FROM ps_state WHERE {_LIVE} AND "
    "(tenant, etype, id) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))"
)
_INSERT = f"INSERT INTO ps_state AS s ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, ps_clock_us() + $6::bigint)"
_CHANGES = "fields = excluded.fields, tag = excluded.tag, expires_at = excluded.expires_at"
_PUT_SQL = f"{_INSERT} ON CONFLICT (tenant, etype, id) DO UPDATE SET {_CHANGES}"
_ADD_SQL = f"{_PUT_SQL} WHERE s.expires_at <= ps_clock_us() RETURNING 1"
_NEW_SQL = f"{_INSERT} ON CONFLICT DO NOTHING RETURNING 1"
_SET_SQL = f"UPDATE ps_state SET fields = $4, tag = $5, expires_at = ps_clock_us() + $6::bigint WHERE {_PLACE}"
_LOCK_SQL = f"SELECT fields, tag, expires_at FROM ps_state WHERE {_PLACE} FOR UPDATE"
_DELETE_SQL = f"DELETE FROM ps_state WHERE {_PLACE} RETURNING {_LIVE}"
_TOUCH_SQL = f"UPDATE ps_state SET expires_at = ps_clock_us() + $4::bigint WHERE {_PLACE} AND {_LIVE}"
_KEYS_SQL = f"SELECT id FROM ps_state WHERE tenant = $1 AND etype = $2 AND id > $3 AND {_LIVE} ORDER BY id LIMIT $4"
_PURGE_SQL = (
    "DELETE FROM {0} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {0} WHERE expires_at <= ps_clock_us() LIMIT "
    f"{PURGED} FOR UPDATE SKIP LOCKED)) AND expires_at <= ps_clock_us()"
)
_LIMIT = "tenant = $1 AND name = $2 AND id = $3 AND kind = $4"
_PAST_SQL = f"SELECT past FROM ps_limit WHERE {_LIMIT}"
_TAKE_SQL = f"UPDATE ps_limit SET past = $5, expires_at = $6 WHERE {_LIMIT}"
_FIRST_SQL = (
    "INSERT INTO ps_limit (tenant, name, id, kind, past, expires_at) VALUES ($1, $2, $3, $4, $5, $6) "
    "ON CONFLICT DO NOTHING RETURNING 1"
)

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_past_decoder = msgspec.json.Decoder(list[int])
_hubs: weakref.WeakValueDictionary[tuple[int, str], Hub] = weakref.WeakValueDictionary()


def hub_of(place: str) -> Hub:
    """The channels of a database in this process, whoever opened it. A forked child has its own."""
    key = (os.getpid(), place)
    hub = _hubs.get(key)
    if hub is None:
        hub = _hubs[key] = Hub()
    return hub


def _place(key: Key) -> tuple[str, str, str]:
    return key.tenant, key.etype, key.id


def _text(key: Key, fields: Fields) -> str:
    check_size(key, fields)
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in fields.items()}).decode()


class StateCalls:
    """The repository's part: `SupportsState`."""

    _pool: Pool
    _env: Env
    _hub: Hub
    _writes = 0

    def _fields(self, key: Key, text: str) -> dict[str, bytes]:
        try:
            return {name: bytes(raw) for name, raw in _fields_decoder.decode(text).items()}
        except msgspec.DecodeError:
            place = self._pool.place
            raise StoreCorrupt(f"{place}: the row of {key.etype} {key.id!r} in ps_state is damaged") from None

    def _tag(self) -> int:
        return self._env.random.getrandbits(53)

    async def _purge(self, table: str) -> None:
        """Before the write: where this fails, nothing is done yet."""
        self._writes += 1
        if self._writes % PURGE_EVERY == 0:
            await self._pool.run(_PURGE_SQL.format(table))

    async def get_state(self, keys: Sequence[Key]) -> list[StateRow | None]:
        found: dict[Key, StateRow] = {}
        rows = await self._pool.fetch(_GET_SQL, [k.tenant for k in keys], [k.etype for k in keys], [k.id for k in keys])
        for *place, text, tag, ttl_us in rows:
            key = Key(*place)
            found[key] = StateRow(self._fields(key, text), tag, ttl_us)
        return [found.get(key) for key in keys]

    async def put_state(self, key: Key, fields: Fields, ttl_us: int | None) -> None:
        await self._purge("ps_state")
        await self._pool.run(_PUT_SQL, *_place(key), _text(key, fields), self._tag(), ttl_us)

    async def add_state(self, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        given = (*_place(key), _text(key, fields), self._tag(), ttl_us)
        await self._purge("ps_state")
        return await self._pool.value(_ADD_SQL, *given, writes=True) is not None

    async def change_state(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        async with self._pool.transaction() as db:
            row = await self._locked(db, key)
            if row is None or tag not in (None, row.tag):
                return Changed(False, row)
            ends = row.ttl_us if ttl_us is None else ttl_us
            new = StateRow({**row.fields, **fields}, self._tag(), ends)
            await db.run(_SET_SQL, *_place(key), _text(key, new.fields), new.tag, ends)
            return Changed(True, new)

    async def _locked(self, db: Session, key: Key) -> StateRow | None:
        """The live value, which nobody else changes until the end of the transaction."""
        found: Row = await db.row(_LOCK_SQL, *_place(key))
        if found is None:
            return None
        text, tag, expires_us = found
        ttl_us = None if expires_us is None else expires_us - await db.value("SELECT ps_clock_us()")
        return StateRow(self._fields(key, text), tag, ttl_us) if ttl_us is None or ttl_us > 0 else None

    async def delete_state(self, key: Key) -> bool:
        return bool(await self._pool.value(_DELETE_SQL, *_place(key), writes=True))

    async def touch_state(self, key: Key, ttl_us: int | None) -> bool:
        return await self._pool.run(_TOUCH_SQL, *_place(key), ttl_us) > 0

    async def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        await self._purge("ps_state")
        while True:
            async with self._pool.transaction() as db:
                row = await self._locked(db, key)
                if row is None and start is None:
                    return None
                if row is None:
                    await db.run(f"DELETE FROM ps_state WHERE {_PLACE} AND NOT {_LIVE}", *_place(key))
                    total = summed(key, field, None, by, base)
                    new = {**(start or {}), field: msgspec.json.encode(total)}
                    made = await db.value(_NEW_SQL, *_place(key), _text(key, new), self._tag(), ttl_us)
                    if made is not None:
                        return total
                    continue
                total = summed(key, field, row.fields.get(field), by, base)
                text = _text(key, {**row.fields, field: msgspec.json.encode(total)})
                await db.run(
                    f"UPDATE ps_state SET fields = $4, tag = $5 WHERE {_PLACE}", *_place(key), text, self._tag()
                )
                return total

    async def state_keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        ids = [id for (id,) in await self._pool.fetch(_KEYS_SQL, tenant, etype, cursor or "", limit + 1)]
        return ids[:limit], ids[limit - 1] if len(ids) > limit else None

    # -- limits -----------------------------------------------------------------------------------------------

    def _step(self, key: Key, rate: Rate, cost: int, text: str | None, now_us: int) -> Step:
        try:
            return step(rate, cost, () if text is None else _past_decoder.decode(text), now_us)
        except (msgspec.DecodeError, ValueError):
            place = self._pool.place
            raise StoreCorrupt(f"{place}: the row of {key.etype} {key.id!r} in ps_limit is damaged") from None

    async def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        where = (*_place(key), rate.kind)
        await self._purge("ps_limit")
        while True:
            async with self._pool.transaction() as db:
                text: str | None = await db.value(f"{_PAST_SQL} FOR UPDATE", *where)
                now_us: int = await db.value("SELECT ps_clock_us()")  # after the lock
                taken = self._step(key, rate, cost, text, now_us)
                given = (*where, msgspec.json.encode(taken.past).decode(), taken.expires_us)
                if text is not None:
                    await db.run(_TAKE_SQL, *given)
                elif await db.value(_FIRST_SQL, *given) is None:
                    continue
            return taken.allowance

    async def peek_allowance(self, key: Key, rate: Rate) -> Allowance:
        sql = f"SELECT ps_clock_us(), ({_PAST_SQL})"
        ((now_us, text),) = await self._pool.fetch(sql, *_place(key), rate.kind)
        return self._step(key, rate, 0, text, now_us).allowance

    async def reset_allowance(self, key: Key) -> None:
        await self._pool.run("DELETE FROM ps_limit WHERE tenant = $1 AND name = $2 AND id = $3", *_place(key))

    # -- channels ---------------------------------------------------------------------------------------------

    async def publish(self, tenant: str, name: str, message: bytes) -> None:
        self._pool.check()
        self._hub.publish((tenant, name), message)

    async def subscribe(self, tenant: str, name: str, receive: Receive) -> Leave:
        self._pool.check()
        leave = self._hub.subscribe(self, (tenant, name), receive)  # no await: a cancelled call leaves nothing

        async def left() -> None:
            leave()

        return left
