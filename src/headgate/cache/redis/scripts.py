"""The scripts that run in Redis.

Theory of operation. The clock is hybrid: one more than the last stamp, or the microseconds of
Redis' own clock if those are more. `SAY` gives out a stamp and tells it, in one step; `STRIKE_KEY`
and `STRIKE_NAME` then raise the barriers where the entries are, each on the node of its key. Until
they have, whoever reads is told by the clock, which it reads beside each entry (`layer.py`).

`JOIN` comes before anything else on each new connection. A Redis process that was never met may
have lost what another had acknowledged (a restart, a failover), so that nothing older than now may
be believed: everything is struck. Where the clock itself is lost, a new epoch begins.

How long barriers live. An entry ends at the latest `keep` after its stamp, whatever was asked, and
the barriers of names `keep` after theirs, which is later for all that they strike. Nothing is
written with a stamp older than `late`, so a tombstone need not live longer.
"""

from __future__ import annotations

from typing import Final

from headgate.state.redis_script import Script

__all__ = [
    "ADD",
    "ALL",
    "JOIN",
    "LEASE",
    "PUT",
    "RELEASE",
    "SAY",
    "STRIKE_KEY",
    "STRIKE_NAME",
    "TICK",
    "TOUCH",
]

_TIME: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function d16(n) return string.format('%016.0f', n) end
local function text(n) return string.format('%.0f', n) end
local function get(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then
    redis.call('DEL', key)
    return false
  end
  return value
end
local function ms_until(stamp, span_ms)
  return math.max(1, math.ceil((stamp - now) / 1000 + span_ms))
end
"""

_EVEN_IF_FULL: Final = """
-- After a first write that needs no memory a script may go on, even where Redis is full: it may
-- refuse to keep, but not to forget.
redis.call('PERSIST', KEYS[1])
"""

_CLOCK: Final = """
local function read_clock()
  local value = get(KEYS[1])
  if not value then return nil end
  local clock, said, epoch = string.match(value, '^(%d+) (%d+) (%S+)$')
  if not clock then return nil end
  return tonumber(clock), tonumber(said), epoch
end
local function write_clock(clock, said, epoch)
  local value = text(clock) .. ' ' .. text(said) .. ' ' .. epoch
  redis.call('SET', KEYS[1], value)
  return value
end
local function say(stamp, said, json, who)
  local function add()
    return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', 10000, text(stamp) .. '-0',
      'i', json, 'p', text(said), 'o', who)
  end
  local got = add()
  if type(got) == 'table' and got.err then
    -- Something of another's stands there. Whoever had not read it all finds a gap.
    redis.call('DEL', KEYS[2])
    add()
  end
end
local function is_spoilt()
  local kind = redis.call('TYPE', KEYS[3]).ok
  return kind ~= 'hash' and kind ~= 'none'
end
"""

JOIN: Final = Script.of(
    _TIME
    + _EVEN_IF_FULL
    + _CLOCK
    + """
-- clock stream wide nodes | run id, own clock, a new epoch, records wanted
local clock, said, epoch = read_clock()
if is_spoilt() then clock = nil end
local function kind_of(key) return redis.call('TYPE', key).ok end
if kind_of(KEYS[4]) ~= 'hash' then redis.call('DEL', KEYS[4]) end
if kind_of(KEYS[2]) ~= 'stream' then redis.call('DEL', KEYS[2]) end
local mine = tonumber(ARGV[2])
local run = ARGV[1]
local known = run == '' or redis.call('HEXISTS', KEYS[4], run) == 1
local value
if clock == nil or not known then
  if clock == nil then
    redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
    clock, said, epoch = 0, 0, ARGV[3]
  end
  local stamp = math.max(clock + 1, now, mine + 1)
  redis.call('HSET', KEYS[3], 'h!all', d16(stamp))
  if run ~= '' then redis.call('HSET', KEYS[4], run, d16(stamp)) end
  say(stamp, said, '{"everything":"all","by":"a Redis that may have forgotten"}', '-')
  value = write_clock(stamp, stamp, epoch)
else
  value = write_clock(math.max(clock, mine), said, epoch)
end
return {value, redis.call('HGETALL', KEYS[3]), redis.call('XREVRANGE', KEYS[2], '+', '-',
  'COUNT', ARGV[4])}
"""
)

SAY: Final = Script.of(
    _TIME
    + _EVEN_IF_FULL
    + _CLOCK
    + """
-- clock stream wide | json, epoch, most patterns, who says it, then fields of wide
local clock, said, epoch = read_clock()
if clock == nil or epoch ~= ARGV[2] or is_spoilt() then return false end
local stamp = math.max(clock + 1, now)
for i = 5, #ARGV do redis.call('HSET', KEYS[3], ARGV[i], d16(stamp)) end
while redis.call('HLEN', KEYS[3]) > tonumber(ARGV[3]) do
  local all = redis.call('HGETALL', KEYS[3])
  local oldest, at
  for i = 1, #all, 2 do
    if string.sub(all[i], 2, 2) ~= '!' and (at == nil or all[i + 1] < at) then
      oldest, at = all[i], all[i + 1]
    end
  end
  if oldest == nil then break end
  redis.call('HDEL', KEYS[3], oldest)
  local floor = redis.call('HGET', KEYS[3], 'h!all')
  if not floor or floor < at then redis.call('HSET', KEYS[3], 'h!all', at) end
end
say(stamp, said, ARGV[1], ARGV[4])
return write_clock(stamp, stamp, epoch)
"""
)

TICK: Final = Script.of(
    _TIME
    + _CLOCK
    + """
-- clock | epoch. Lets the clock follow the time, so that what is loaded has a late stamp.
local clock, said, epoch = read_clock()
if clock ~= nil and epoch == ARGV[1] and now - clock > 10000000 then
  write_clock(now, said, epoch)
end
return 0
"""
)

STRIKE_KEY: Final = Script.of(
    _TIME
    + _EVEN_IF_FULL
    + """
-- entry counter | stamp, is soft, late ms
local stamp, late = ARGV[1], tonumber(ARGV[3])
local old = get(KEYS[1])
local hard, soft, own, value = d16(0), d16(0), d16(0), ''
if old and string.find(old, '^E%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d') and #old >= 49 then
  hard, soft = string.sub(old, 2, 17), string.sub(old, 18, 33)
  own, value = string.sub(old, 34, 49), string.sub(old, 50)
end
local ms = ms_until(tonumber(stamp), late)
if ARGV[2] == '1' then
  if soft < stamp then soft = stamp end
  if value ~= '' then ms = math.max(ms, redis.call('PTTL', KEYS[1])) end
else
  if hard < stamp then hard = stamp end
  if own < hard then value, own = '', d16(0) end
  if value ~= '' then ms = math.max(ms, redis.call('PTTL', KEYS[1])) end
  redis.call('DEL', KEYS[2])
end
redis.call('SET', KEYS[1], 'E' .. hard .. soft .. own .. value, 'PX', text(ms))
return 1
"""
)

STRIKE_NAME: Final = Script.of(
    _TIME
    + _EVEN_IF_FULL
    + """
-- tag or URL | stamp, is soft, keep ms
local stamp = ARGV[1]
local old = get(KEYS[1])
local hard, soft = d16(0), d16(0)
if old and #old == 32 and not string.find(old, '%D') then
  hard, soft = string.sub(old, 1, 16), string.sub(old, 17)
end
if ARGV[2] == '1' then
  if soft < stamp then soft = stamp end
elseif hard < stamp then hard = stamp end
local last = math.max(tonumber(hard), tonumber(soft))
redis.call('SET', KEYS[1], hard .. soft, 'PX', text(ms_until(last, tonumber(ARGV[3]))))
return 1
"""
)

PUT: Final = Script.of(
    _TIME
    + """
-- entry fence, then tags | stamp, value, for ms, fence or '', late ms, keep ms
local stamp, late = ARGV[1], tonumber(ARGV[5])
if tonumber(stamp) < now - late * 1000 then return 0 end
local old = get(KEYS[1])
local hard, soft = d16(0), d16(0)
if old and #old >= 49 and string.find(old, '^E%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d') then
  hard, soft = string.sub(old, 2, 17), string.sub(old, 18, 33)
end
if stamp < hard then return 0 end
if ARGV[4] ~= '' and get(KEYS[2]) ~= ARGV[4] then return -1 end
for i = 3, #KEYS do
  local barrier = get(KEYS[i])
  if barrier and stamp < string.sub(barrier, 1, 16) then return 0 end
end
local ms = math.min(tonumber(ARGV[3]), ms_until(tonumber(stamp), tonumber(ARGV[6])))
local last = math.max(tonumber(hard), tonumber(soft))
if last > 0 then ms = math.max(ms, ms_until(last, late)) end
redis.call('SET', KEYS[1], 'E' .. hard .. soft .. stamp .. ARGV[2], 'PX', text(ms))
return 1
"""
)

TOUCH: Final = Script.of(
    _TIME
    + """
-- entry | what was read, what stands there now, for ms, keep ms
local old = get(KEYS[1])
if old ~= ARGV[1] then return 0 end
local stamp = tonumber(string.sub(old, 34, 49))
local ms = math.min(tonumber(ARGV[3]), ms_until(stamp, tonumber(ARGV[4])))
redis.call('SET', KEYS[1], string.sub(old, 1, 49) .. ARGV[2], 'PX', text(ms))
return 1
"""
)

ADD: Final = Script.of(
    _TIME
    + """
-- counter entry | amount, ms or 0, the entry as it was read, its number, its ms or 0
local before = get(KEYS[1])
if before and not string.find(before, '^%-?%d+$') then
  redis.call('DEL', KEYS[1])
  before = false
end
if not before then
  local entry = get(KEYS[2])
  if entry and #entry > 49 and string.sub(entry, 1, 1) == 'E' then
    if entry ~= ARGV[3] then return entry end
    if ARGV[4] ~= '' then
      redis.call('SET', KEYS[1], ARGV[4])
      if ARGV[5] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
      before = ARGV[4]
    end
  end
end
redis.call('INCRBY', KEYS[1], ARGV[1])
if not before and ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
"""
)

LEASE: Final = Script.of(
    _TIME
    + """
-- lease fence | ms, late ms, token. The fence follows the time, so that a lost counter does no
-- harm. Who never got the answer knows the token, and can give the lease back by it.
if get(KEYS[1]) then return 0 end
local last = get(KEYS[2])
local fence = now
if last and not string.find(last, '%D') then fence = math.max(tonumber(last) + 1, now) end
fence = text(fence)
redis.call('SET', KEYS[2], fence, 'PX', text(math.max(tonumber(ARGV[1]), tonumber(ARGV[2]))))
redis.call('SET', KEYS[1], fence .. ' ' .. ARGV[3], 'PX', ARGV[1])
return tonumber(fence)
"""
)

RELEASE: Final = Script.of(
    _TIME
    + """
-- lease | fence or token
local fence, token = string.match(get(KEYS[1]) or '', '^(%d+) (.*)$')
if fence and (fence == ARGV[1] or token == ARGV[1]) then return redis.call('DEL', KEYS[1]) end
return 0
"""
)

ALL: Final = (JOIN, SAY, TICK, STRIKE_KEY, STRIKE_NAME, PUT, TOUCH, ADD, LEASE, RELEASE)
