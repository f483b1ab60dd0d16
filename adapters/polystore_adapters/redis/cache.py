"""The cache: a value and a control for each name, see `polystore.protocols.cache`.

A value is 14 hex digits of its version, and then its bytes. A control is a hash of f (the floor), l and d (the lease's
token and when it ends) and, for each strict writer, w:writer (when its intent ends). Versions are compared as text.
"""

from __future__ import annotations

from collections.abc import Sequence

from polystore.protocols import Fill, Invalidation, Leased
from polystore.protocols.cache import CONTROL_US, INTENT_US, LEASE_US
from polystore_adapters.redis.server import Argument, Command, Script, Server
from polystore_adapters.redis.state import milliseconds

DIGITS = 14
KEPT_MS = milliseconds(CONTROL_US)
TOGETHER = 50
"""Names that one script invalidates, one after the other: about 0.3 ms, in which the server answers nobody else. Of a
cluster each name has its own, since they lie in different slots."""

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

# How long a control is kept; then for each name: version or '', writer, time to live or 0, value. UNLINK and HDEL come
# first: also a server without room must carry this out, and once a script has written, it may go on. A name under which
# somebody else's key lies is told of in the end: it keeps no other from being invalidated.
INVALIDATE = Script("""
local now
local function over(ends)
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
  end
  return tonumber(ends) <= now
end
local function invalidate(i)
  local control, version, writer, floor = KEYS[i + 1], ARGV[2 * i], 'w:' .. ARGV[2 * i + 1], false
  local before = redis.call('GETRANGE', KEYS[i], 0, 13)
  if before ~= '' and (version == '' or before < version) then
    redis.call('UNLINK', KEYS[i])
    if ARGV[2 * i + 2] ~= '0' then redis.call('SET', KEYS[i], version .. ARGV[2 * i + 3], 'PX', ARGV[2 * i + 2]) end
  end
  local known = redis.call('HGETALL', control)
  for j = 1, #known, 2 do
    if known[j] == 'f' then
      floor = known[j + 1]
    elseif string.sub(known[j], 1, 2) == 'w:' and over(known[j + 1]) then
      redis.call('HDEL', control, known[j])
    end
  end
  if version == '' then
    redis.call('HDEL', control, writer, 'l', 'd')
  elseif not floor or floor < version then
    redis.call('HDEL', control, writer, 'l', 'd')
    redis.call('HSET', control, 'f', version)
    redis.call('PEXPIRE', control, ARGV[1])
  else
    redis.call('HDEL', control, writer)
  end
end
local failed
for i = 1, #KEYS, 2 do
  local done, error = pcall(invalidate, i)
  if not done then failed = error end
end
if type(failed) == 'string' then return redis.error_reply(failed) end
return failed or 1
""")

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
        size = 1 if self._server.clustered else TOGETHER
        parts = (invalidations[start : start + size] for start in range(0, len(invalidations), size))
        await self._server.script(INVALIDATE, [self._invalidating(part) for part in parts])

    def _invalidating(self, some: Sequence[Invalidation]) -> Command:
        keys: list[str] = []
        arguments: list[Argument] = []
        for one in some:
            keys += self._server.keys.cached(one.name)
            if one.version is None:
                arguments += ("", one.writer, 0, b"")
            else:
                ttl_ms = 0 if one.value is None else milliseconds(one.ttl_us)
                arguments += (_hex(one.version), one.writer, ttl_ms, one.value or b"")
        return INVALIDATE.call(keys, KEPT_MS, *arguments)

    async def intend(self, names: Sequence[str], writer: int) -> None:
        keys = self._server.keys
        calls = [INTEND.call(keys.cached(name), writer, INTENT_US, KEPT_MS) for name in names]
        await self._server.script(INTEND, calls)

    async def forget(self, etype: str) -> None:
        await self._server.unlink(self._server.keys.caches(etype))
