"""What Redis decides of the registry, in Lua: one key space, one order, one clock.

Theory of operation. All keys share a hash tag, so that each script is one step of all of them:

    leases   hash  service and id -> what is said of it, as JSON, without its fence
    fences   hash  the same -> the fence of who holds it
    beats    zset  the same, by when it was heard last, in ms of Redis's clock
    log      stream of changes, short: who reads it is never far behind, or reads all
    meta     hash  mark (who began this memory), n (of the last change), top (the last fence)

A change has a number of its own, one more than the last, so that a reader sees when it has missed
one. Fences grow with the clock of Redis and never fall behind `top`; they are whole microseconds,
which Lua's numbers hold exactly until the year 2255, and are written without an exponent.

What ends a lease or makes it suspect is decided by one of the controls and carried out here, if the
fence is still the same and Redis itself has not heard the lease for so long. So a control that
heard less than the others can do no harm, and of two that decide the same the second does nothing.
"""

from __future__ import annotations

from typing import Final

from headgate.state.redis_script import Script

__all__ = [
    "ALL",
    "BEATS",
    "BEGIN",
    "CHANGE",
    "DROP",
    "HEARD",
    "LOG_MAX",
    "OFFER",
    "REGISTER",
    "keys",
]

LOG_MAX: Final = 2000
_KEEP_MS: Final = 7 * 86_400_000
"""After so long without any control everything is forgotten."""
_HEAD: Final = (
    """
local leases, fences, beats, log, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)
local function whole(n) return string.format('%.0f', n) end
local function tell(op, field, fence, said, why)
  local n = redis.call('HINCRBY', meta, 'n', 1)
  redis.call('XADD', log, 'MAXLEN', '~', """
    + str(LOG_MAX)
    + """, '*', 'n', whole(n), 'op', op, 'field', field, 'fence', fence, 'said', said, 'why', why)
  return n
end
local function top(fence)
  if fence > tonumber(redis.call('HGET', meta, 'top') or 0) then
    redis.call('HSET', meta, 'top', whole(fence))
  end
end
local function is_heard(field, silent_ms)
  local at = redis.call('ZSCORE', beats, field)
  return silent_ms > 0 and at and now_ms - at < silent_ms
end
"""
)

REGISTER: Final = Script.of(
    _HEAD
    + """
local field, said = ARGV[1], ARGV[2]
local had = redis.call('HGET', fences, field)
local fence = math.max(tonumber(redis.call('HGET', meta, 'top') or 0) + 1, now_us)
top(fence)
redis.call('HSET', fences, field, whole(fence))
redis.call('HSET', leases, field, said)
redis.call('ZADD', beats, whole(now_ms), field)
local n = tell('put', field, whole(fence), said, had and 'registered again' or 'registered')
return {whole(fence), n, had and 1 or 0}
"""
)
"""Field, said -> fence, number of the change, whether somebody held it."""

OFFER: Final = Script.of(
    _HEAD
    + """
local field, fence, said, why = unpack(ARGV)
local had = tonumber(redis.call('HGET', fences, field) or 0)
if had > tonumber(fence) then return 0 end
if had == tonumber(fence) and redis.call('HGET', leases, field) == said then return -1 end
top(tonumber(fence))
redis.call('HSET', fences, field, fence)
redis.call('HSET', leases, field, said)
redis.call('ZADD', beats, whole(now_ms), field)
return tell('put', field, fence, said, why)
"""
)
"""Field, fence, said, why: what was decided while Redis was away, or what it has lost. It counts
unless somebody else has registered since (0).
"""

CHANGE: Final = Script.of(
    _HEAD
    + """
local field, fence, said, why, silent_ms = unpack(ARGV)
if redis.call('HGET', fences, field) ~= fence then return 0 end
if is_heard(field, tonumber(silent_ms)) then return 0 end
if tonumber(silent_ms) == 0 then redis.call('ZADD', beats, whole(now_ms), field) end
if redis.call('HGET', leases, field) == said then return -1 end
redis.call('HSET', leases, field, said)
return tell('put', field, fence, said, why)
"""
)
"""Field, fence, said, why, for how many ms it must have been silent (0: it was just heard)."""

DROP: Final = Script.of(
    _HEAD
    + """
local field, fence, why, silent_ms = unpack(ARGV)
if redis.call('HGET', fences, field) ~= fence then return 0 end
if is_heard(field, tonumber(silent_ms)) then return 0 end
redis.call('HDEL', fences, field)
redis.call('HDEL', leases, field)
redis.call('ZREM', beats, field)
return tell('del', field, fence, '', why)
"""
)
"""Field, fence, why, for how many ms it must have been silent."""

BEATS: Final = Script.of(
    _HEAD
    + f"""
local out = {{}}
for i = 1, #ARGV, 2 do
  local fence = redis.call('HGET', fences, ARGV[i])
  if fence == ARGV[i + 1] then
    redis.call('ZADD', beats, whole(now_ms), ARGV[i])
    out[#out + 1] = 1
  else
    out[#out + 1] = fence and 0 or -1
  end
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, {_KEEP_MS}) end
return out
"""
)
"""Field, fence and so on -> for each: 1 heard, 0 somebody else holds it, -1 nobody does."""

HEARD: Final = Script.of(
    _HEAD
    + """
local found = redis.call('ZRANGEBYSCORE', beats, ARGV[1], '+inf')
return {whole(now_ms), redis.call('HGET', meta, 'mark') or '', found}
"""
)
"""Since when in ms -> when it is, the mark, and who has beaten since."""

ALL: Final = Script.of(
    _HEAD
    + """
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
return {
  redis.call('HGET', meta, 'mark') or '',
  tonumber(redis.call('HGET', meta, 'n') or 0),
  last[1] and last[1][1] or '0-0',
  redis.call('HGETALL', leases),
  redis.call('HGETALL', fences),
  whole(now_ms),
}
"""
)
"""-> mark, number and place in the log of the last change, leases, fences, when it is."""

BEGIN: Final = Script.of(
    _HEAD
    + """
redis.call('HSETNX', meta, 'mark', ARGV[1])
return redis.call('HGET', meta, 'mark')
"""
)
"""Mark this memory as begun -> its mark, which may be another's."""


def keys(prefix: str) -> tuple[str, str, str, str, str]:
    """As the scripts expect them."""
    base = f"{prefix}:{{registry}}"
    return (f"{base}:leases", f"{base}:fences", f"{base}:beats", f"{base}:log", f"{base}:meta")
