"""The cache: a value and a control for each name, see `polystore.protocols.cache`.

A value is 14 hex digits of its version, and then its bytes. A control is a hash of f (the floor), l and d (the lease's
token and when it ends) and, for each strict writer, w:writer (when its intent ends). Versions are compared as text.
"""

from __future__ import annotations

from collections.abc import Sequence

from polystore.protocols import Fill, Invalidation, Leased
from polystore.protocols.cache import CONTROL_US, INTENT_US, LEASE_US
from polystore_adapters.redis.server import Script, Server
from polystore_adapters.redis.state import milliseconds

DIGITS = 14
KEPT_MS = milliseconds(CONTROL_US)

NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""
DIRTY = (
    NOW
    + """
local function dirty()
  local control = redis.call('HGETALL', KEYS[2])
  for i = 1, #control, 2 do
    if string.sub(control[i], 1, 2) == 'w:' and tonumber(control[i + 1]) > now then return true end
  end
  return false
end
"""
)
PURGE = (
    NOW
    + """
local function purge()
  local control = redis.call('HGETALL', KEYS[2])
  for i = 1, #control, 2 do
    if string.sub(control[i], 1, 2) == 'w:' and tonumber(control[i + 1]) <= now then
      redis.call('HDEL', KEYS[2], control[i])
    end
  end
end
"""
)

# token, how long a lease lasts, how long a control is kept
LEASE = Script(
    DIRTY
    + """
local value = redis.call('GET', KEYS[1])
if value then return string.sub(value, 15) end
if dirty() then return 2 end
local lease = redis.call('HMGET', KEYS[2], 'l', 'd')
if lease[1] and lease[1] ~= ARGV[1] and tonumber(lease[2]) > now then return 1 end
redis.call('HSET', KEYS[2], 'l', ARGV[1], 'd', string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 0
"""
)

# token, version, value, time to live. SET comes first: refused when there is no room, it leaves all as it was.
FILL = Script(
    DIRTY
    + """
local known = redis.call('HMGET', KEYS[2], 'l', 'd', 'f')
if known[1] ~= ARGV[1] or tonumber(known[2]) <= now then return 0 end
local taken = 0
if not (known[3] and ARGV[2] < known[3]) and not dirty() and redis.call('GETRANGE', KEYS[1], 0, 13) <= ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2] .. ARGV[3], 'PX', ARGV[4])
  taken = 1
end
redis.call('HDEL', KEYS[2], 'l', 'd')
return taken
"""
)

# version or '', writer, how long a control is kept, time to live or 0, value. UNLINK comes first: also a server without
# room must carry this out, and once a script has written, it may go on.
INVALIDATE = Script(
    PURGE
    + """
local version, before = ARGV[1], redis.call('GETRANGE', KEYS[1], 0, 13)
if before ~= '' and (version == '' or before < version) then
  redis.call('UNLINK', KEYS[1])
  if ARGV[4] ~= '0' then redis.call('SET', KEYS[1], version .. ARGV[5], 'PX', ARGV[4]) end
end
redis.call('HDEL', KEYS[2], 'w:' .. ARGV[2])
purge()
local floor = redis.call('HGET', KEYS[2], 'f')
if version == '' then
  redis.call('HDEL', KEYS[2], 'l', 'd')
elseif not floor or floor < version then
  redis.call('HDEL', KEYS[2], 'l', 'd')
  redis.call('HSET', KEYS[2], 'f', version)
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return 1
"""
)

# writer, how long an intent stands, how long a control is kept
INTEND = Script(
    PURGE
    + """
redis.call('UNLINK', KEYS[1])
redis.call('HDEL', KEYS[2], 'l', 'd')
purge()
redis.call('HSET', KEYS[2], 'w:' .. ARGV[1], string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""
)


def _hex(version: int) -> str:
    return f"{version:0{DIGITS}x}"


_ANSWERS: Sequence[Leased] = ("leased", "wait", "bypass")


def _leased(answer: bytes | int) -> Leased:
    if isinstance(answer, bytes):
        return answer
    return _ANSWERS[answer]


class CacheCalls:
    """`SupportsCache`."""

    _server: Server

    async def lookup(self, names: Sequence[str]) -> list[bytes | None]:
        found = await self._server.get_all([self._server.keys.cached(name)[0] for name in names])
        return [None if one is None else one[DIGITS:] for one in found]

    async def lease(self, names: Sequence[str], token: int) -> list[Leased]:
        keys = self._server.keys
        calls = [LEASE.call(keys.cached(name), token, LEASE_US, KEPT_MS) for name in names]
        return [_leased(answer) for answer in await self._server.script(LEASE, calls)]

    async def fill(self, fills: Sequence[Fill]) -> list[bool]:
        keys = self._server.keys
        calls = [
            FILL.call(keys.cached(one.name), one.token, _hex(one.version), one.value, milliseconds(one.ttl_us))
            for one in fills
        ]
        return [bool(answer) for answer in await self._server.script(FILL, calls)]

    async def invalidate(self, invalidations: Sequence[Invalidation]) -> None:
        keys = self._server.keys
        calls = [
            INVALIDATE.call(
                keys.cached(one.name),
                "" if one.version is None else _hex(one.version),
                one.writer,
                KEPT_MS,
                0 if one.value is None or one.version is None else milliseconds(one.ttl_us),
                one.value or b"",
            )
            for one in invalidations
        ]
        await self._server.script(INVALIDATE, calls)

    async def intend(self, names: Sequence[str], writer: int) -> None:
        keys = self._server.keys
        calls = [INTEND.call(keys.cached(name), writer, INTENT_US, KEPT_MS) for name in names]
        await self._server.script(INTEND, calls)

    async def forget(self, etype: str) -> None:
        await self._server.unlink(self._server.keys.caches(etype))
