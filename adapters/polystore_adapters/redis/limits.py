"""Rate limits: `polystore.rates.step`, carried out by the server."""

from __future__ import annotations

from polystore.model import Key
from polystore.rates import MERGED, Allowance, Rate
from polystore_adapters.redis.server import Script, Server

# Numbers of Lua are exact to 2^53, and the level of a bucket in `polystore.rates` has 63 bits. So it is kept as whole
# tokens and a rest of one, and multiplied in two halves of the limit, each product below 2^53.
STEP = Script("""
local kind, limit, per = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local burst, cost = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local past = {}
local stored = redis.call('GET', KEYS[1])
if stored and string.match(stored, '^%S+') == kind then
  for number in string.gmatch(stored, ' (%d+)') do past[#past + 1] = tonumber(number) end
end
local needed = math.max(cost, 1)
local after, allowed, left, wait, lasts = {}, false, 0, 0, 0

if kind == 'sliding_window' then
  local used = 0
  for i = 1, #past, 2 do
    local at = math.min(past[i], now)
    if at + per > now then
      after[#after + 1] = at
      after[#after + 1] = past[i + 1]
      used = used + past[i + 1]
    end
  end
  left = limit - used
  allowed = needed <= left
  if allowed then
    local merged = math.max(math.floor(per / ARGV[6]), 1)
    local last = after[#after - 1]
    if last and math.floor(last / merged) == math.floor(now / merged) then
      after[#after - 1] = now
      after[#after] = after[#after] + cost
    else
      after[#after + 1] = now
      after[#after + 1] = cost
    end
    left = left - cost
    lasts = per
  else
    local missing = needed - left
    for i = 1, #after, 2 do
      missing = missing - after[i + 1]
      wait = after[i] + per - now
      if missing <= 0 then break end
    end
  end
else
  local rest = 0
  left = burst
  if #past == 4 then
    left, rest = past[1], past[2]
    if past[3] ~= per then rest = math.min(math.floor(rest * per / past[3]), per - 1) end
    local gone = math.max(now - past[4], 0)
    local whole = math.floor(gone / per)
    local part = gone - whole * per
    local high = math.floor(limit / 1024)
    local product = part * high
    local tokens = math.floor(product / per)
    local more = (product - tokens * per) * 1024 + part * (limit - high * 1024)
    left = left + whole * limit + tokens * 1024 + math.floor(more / per)
    rest = rest + more % per
    if rest >= per then left, rest = left + 1, rest - per end
    if left >= burst then left, rest = burst, 0 end
  end
  allowed = needed <= left
  if allowed then left = left - cost else wait = math.ceil(((needed - left) * per - rest) / limit) end
  after = {left, rest, per, now}
  lasts = math.ceil(((burst - left) * per - rest) / limit)
end

if allowed and cost > 0 then
  local texts = {kind}
  for i = 1, #after do texts[i + 1] = string.format('%.0f', after[i]) end
  redis.call('SET', KEYS[1], table.concat(texts, ' '), 'PX', string.format('%.0f', math.ceil(lasts / 1000) + 1))
end
return {allowed and 1 or 0, math.max(left, 0), string.format('%.0f', wait)}
""")


class LimitCalls:
    """The part of `SupportsState` that is about rate limits."""

    _server: Server

    async def take_allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        return await self._allowance(key, rate, cost)

    async def peek_allowance(self, key: Key, rate: Rate) -> Allowance:
        return await self._allowance(key, rate, 0)

    async def _allowance(self, key: Key, rate: Rate, cost: int) -> Allowance:
        call = STEP.call([self._server.keys.limit(key)], rate.kind, rate.limit, rate.per_us, rate.burst, cost, MERGED)
        ((allowed, remaining, wait_us),) = await self._server.script(STEP, [call], writes=cost > 0)
        return Allowance(bool(allowed), remaining, int(wait_us) / 1e6)

    async def reset_allowance(self, key: Key) -> None:
        await self._server.one(("UNLINK", self._server.keys.limit(key)))
