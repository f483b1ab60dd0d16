"""Live state: a value is a hash of its fields, under "" its tag; its time to live is the key's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from polystore.env import Env
from polystore.errors import DecodeError, InvalidData, ValueTooLarge
from polystore.model import VALUE_BYTES_MAX, Key
from polystore.protocols import Changed, Fields, Number, StateRow
from polystore.protocols.state import check_size
from polystore_adapters.redis.server import Argument, Script, Server

SEEN_MAX = 100_000
"""Keys, of whatever kind, that are looked at for one page of ids: some 50 ms."""
TAG = b""
"""The field of the tag; no field of a class has this name."""

GET = Script("""
local ttl = redis.call('PTTL', KEYS[1])
if ttl == -2 then return false end
return {ttl, redis.call('HGETALL', KEYS[1])}
""")

# The first HSET is refused when there is no room, while nothing is written yet.
PUT = Script("""
if ARGV[1] == 'add' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], '', ARGV[3])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '', ARGV[3])
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ARGV[2] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
""")

CHANGE = Script("""
local wanted, ttl, tag, max = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local standing = redis.call('HGETALL', KEYS[1])
if #standing == 0 then return false end
local size, named = 0, {}
for i = 5, #ARGV, 2 do
  named[ARGV[i]] = true
  size = size + #ARGV[i + 1]
end
for i = 1, #standing, 2 do
  if standing[i] == '' then
    if wanted ~= '' and standing[i + 1] ~= wanted then return {0, redis.call('PTTL', KEYS[1]), standing} end
  elseif not named[standing[i]] then
    size = size + #standing[i + 1]
  end
end
if size > max then return {2, size} end
redis.call('HSET', KEYS[1], '', tag)
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ttl ~= '' then redis.call('PEXPIRE', KEYS[1], ttl) end
return {1, redis.call('PTTL', KEYS[1]), redis.call('HGETALL', KEYS[1])}
""")

TOUCH = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[1] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
""")

# Integers are summed by HINCRBY, which has 64 bits: Lua's numbers have 53.
INCREMENT = Script("""
local field, by, base, kind, create, ttl, tag = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local exists = redis.call('EXISTS', KEYS[1]) == 1
if not exists and create == '0' then return false end
local held = exists and redis.call('HGET', KEYS[1], field)
local text, sum = held or base, nil
if kind == 'float' then
  if not string.find(text, '^%-?%d+%.?%d*[eE]?[+-]?%d*$') then return {1} end
  local total = tonumber(text) + tonumber(by)
  if total ~= total or total == 1/0 or total == -1/0 then return {2} end
  sum = string.format('%.17g', total)
elseif not string.find(text, '^%-?%d+$') then
  return {1}
end
if not exists then
  redis.call('HSET', KEYS[1], '', tag)
  for i = 8, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
  if ttl ~= '' then redis.call('PEXPIRE', KEYS[1], ttl) end
end
if sum then
  redis.call('HSET', KEYS[1], field, sum)
else
  if not exists or not held then redis.call('HSET', KEYS[1], field, base) end
  local total = redis.pcall('HINCRBY', KEYS[1], field, by)
  if type(total) == 'table' then
    if string.sub(total.err, 1, 3) == 'OOM' then return total end
    if not exists then redis.call('DEL', KEYS[1]) elseif not held then redis.call('HDEL', KEYS[1], field) end
    return {2}
  end
  sum = redis.call('HGET', KEYS[1], field)
end
redis.call('HSET', KEYS[1], '', tag)
return {0, sum}
""")


def milliseconds(ttl_us: int) -> int:
    return -(-ttl_us // 1000)


def _ttl(ttl_us: int | None) -> Argument:
    return "" if ttl_us is None else milliseconds(ttl_us)


def _flat(fields: Fields) -> list[Argument]:
    return [part for pair in fields.items() for part in pair]


def _row(ttl_ms: int, flat: Sequence[bytes]) -> StateRow:
    found = dict(zip(flat[::2], flat[1::2], strict=True))
    tag = int(found.pop(TAG))
    fields: Mapping[str, bytes] = {name.decode(): text for name, text in found.items()}
    return StateRow(fields, tag, None if ttl_ms < 0 else max(ttl_ms * 1000, 1))


class StateCalls:
    """The part of `SupportsState` that is about values."""

    _server: Server
    _env: Env

    def _tag(self) -> int:
        return self._env.random.getrandbits(53)

    async def get_state(self, keys: Sequence[Key]) -> list[StateRow | None]:
        calls = [GET.call([self._server.keys.state(key)]) for key in keys]
        found = await self._server.script(GET, calls, writes=False)
        return [None if one is None else _row(*one) for one in found]

    async def put_state(self, key: Key, fields: Fields, ttl_us: int | None) -> None:
        await self._put("put", key, fields, ttl_us)

    async def add_state(self, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        return await self._put("add", key, fields, ttl_us)

    async def _put(self, how: str, key: Key, fields: Fields, ttl_us: int | None) -> bool:
        check_size(key, fields)
        return bool(await self._step(PUT, key, how, _ttl(ttl_us), self._tag(), *_flat(fields)))

    async def change_state(self, key: Key, fields: Fields, tag: int | None, ttl_us: int | None) -> Changed:
        check_size(key, fields)
        wanted: Argument = "" if tag is None else tag
        answer = await self._step(CHANGE, key, wanted, _ttl(ttl_us), self._tag(), VALUE_BYTES_MAX, *_flat(fields))
        if answer is None:
            return Changed(False, None)
        done, *row = answer
        if done == 2:
            text = f"{key.etype} {key.id!r}: the value would have {row[0]} bytes, the limit is {VALUE_BYTES_MAX}"
            raise ValueTooLarge(text)
        return Changed(done == 1, _row(*row))

    async def delete_state(self, key: Key) -> bool:
        return bool(await self._server.one(("UNLINK", self._server.keys.state(key))))

    async def touch_state(self, key: Key, ttl_us: int | None) -> bool:
        return bool(await self._step(TOUCH, key, _ttl(ttl_us)))

    async def increment(
        self, key: Key, field: str, by: Number, base: Number, start: Fields | None, ttl_us: int | None
    ) -> Number | None:
        begin = {} if start is None else {name: text for name, text in start.items() if name != field}
        check_size(key, begin)
        kind, create = type(by).__name__, int(start is not None)
        answer = await self._step(
            INCREMENT, key, field, repr(by), repr(base), kind, create, _ttl(ttl_us), self._tag(), *_flat(begin)
        )
        match answer:
            case None:
                return None
            case [0, total]:
                return msgspec.json.decode(total, type=type(by))
            case [1]:
                raise DecodeError(f"{key.etype} {key.id!r}: the stored {field} is no {kind}")
            case _:
                raise InvalidData(f"{key.etype} {key.id!r}: {field} would not fit 64 bits")

    async def _step(self, script: Script, key: Key, *arguments: Argument) -> Any:
        (answer,) = await self._server.script(script, [script.call([self._server.keys.state(key)], *arguments)])
        return answer

    async def state_keys(self, etype: str, tenant: str, cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        keys = self._server.keys
        ids: dict[str, None] = {}
        count = max(limit, 100)
        for _ in range(0, SEEN_MAX, count):
            page, cursor = await self._server.scan(keys.states(etype, tenant), cursor, count)
            ids.update((keys.id_of(one), None) for one in page)
            if cursor is None or len(ids) >= limit:
                break
        return list(ids), cursor
