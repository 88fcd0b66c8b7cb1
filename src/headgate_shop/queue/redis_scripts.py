"""What the queue does in Redis: one script for each thing, so each happens whole or not at all.

Theory of operation
-------------------
Each message has a hash for each of its groups, `m:GROUP:ID`, with its state and where it stands:

    ready       in a stream, `s:GROUP:LANE`, not yet given out
    in_flight   in that stream's list of pending entries, and in the sorted set `lease:GROUP`
    delayed     in the sorted set `delayed:GROUP`, by when its time comes
    dead        in the sorted set `dead:GROUP`, by when it died

`leave` takes it out of where it stands, `stand` and its like put it in; nothing else moves it, and
they keep the counts. A lane is a priority and a topic: twice the priority, and one more for what
comes again, which is so before all that is new and of its priority. Entries are numbered by one
counter, not by the clock, so that of several lanes the older entry is known. `take` looks at the
next entry of each lane of the highest priority that has any, for its topics, and gives out the
oldest. Time is the server's, in milliseconds.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DEAD", "DROP", "FINISH", "PUT", "REDRIVE", "RENEW", "STATS", "TAKE"]

_COMMON: Final = """
local P = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function key(kind, g, more)
  if more then return P .. kind .. ':' .. g .. ':' .. more end
  return P .. kind .. ':' .. g
end

local function count(g, state, topic, by)
  redis.call('HINCRBY', key('count', g), state .. '|' .. topic, by)
end

local function tally(g, topic, what)
  local k = key('tally', g, string.format('%d', math.floor(now / 10000)))
  redis.call('HINCRBY', k, what .. '|' .. topic, 1)
  redis.call('EXPIRE', k, 120)
end

local function stand(g, id, again)
  local k = key('m', g, id)
  local f = redis.call('HMGET', k, 'topic', 'priority')
  local level = f[2] * 2
  if again then level = level + 1 end
  local lane = string.format('%02d|%s', level, f[1])
  local stream = key('s', g, lane)
  if redis.call('HINCRBY', key('lanes', g), lane, 1) == 1 and redis.call('EXISTS', stream) == 0 then
    redis.call('XGROUP', 'CREATE', stream, 'workers', '0', 'MKSTREAM')
  end
  local number = redis.call('INCR', P .. 'number')
  local entry = redis.call('XADD', stream, string.format('%d-0', number), 'id', id)
  redis.call('HSET', k, 'state', 'ready', 'lane', lane, 'entry', entry)
  count(g, 'ready', f[1], 1)
end

local function wait(g, id, state, set, till)
  local k = key('m', g, id)
  redis.call('ZADD', key(set, g), till, id)
  redis.call('HSET', k, 'state', state)
  count(g, state, redis.call('HGET', k, 'topic'), 1)
end

local function leave(g, id)
  local f = redis.call('HMGET', key('m', g, id), 'state', 'topic', 'lane', 'entry')
  if f[1] == 'ready' or f[1] == 'in_flight' then
    local stream = key('s', g, f[3])
    if f[1] == 'ready' then
      redis.call('HINCRBY', key('lanes', g), f[3], -1)
    else
      redis.call('XACK', stream, 'workers', f[4])
      redis.call('ZREM', key('lease', g), id)
    end
    redis.call('XDEL', stream, f[4])
  else
    redis.call('ZREM', key(f[1], g), id)
  end
  count(g, f[1], f[2], -1)
end

local function forget(g, id, topic)
  redis.call('DEL', key('m', g, id))
  redis.call('ZREM', key('age', g, topic), id)
  redis.call('DECR', key('held', g))
end

-- Is it in flight, or was it when its lease ended, and has nobody taken it since?
local function mine(g, id, claim)
  local f = redis.call('HMGET', key('m', g, id), 'state', 'claim')
  return (f[1] == 'in_flight' or f[1] == 'ready') and f[2] == claim
end
"""

# limit, then for each message: id, topic, body, at, delay in ms, priority, number of groups, groups
PUT: Final = (
    _COMMON
    + """
local limit = tonumber(ARGV[2])
local i, accepted = 3, 0
local told = {}
while i <= #ARGV do
  local id, topic, body, at = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local delay, priority, n = tonumber(ARGV[i + 4]), ARGV[i + 5], tonumber(ARGV[i + 6])
  -- Known while it is remembered, and for as long as a group has it, be it dead for a month.
  local known = redis.call('EXISTS', P .. 'id:' .. id) == 1
  for j = i + 7, i + 6 + n do
    known = known or redis.call('EXISTS', key('m', ARGV[j], id)) == 1
  end
  if not known then
    for j = i + 7, i + 6 + n do
      if tonumber(redis.call('GET', key('held', ARGV[j])) or '0') >= limit then
        return {accepted, ARGV[j]}
      end
    end
    redis.call('SET', P .. 'id:' .. id, '1', 'EX', 86400 + math.floor(delay / 1000))
    for j = i + 7, i + 6 + n do
      local g = ARGV[j]
      redis.call('SADD', P .. 'groups', g)
      redis.call('INCR', key('held', g))
      redis.call('HSET', key('m', g, id), 'topic', topic, 'body', body, 'at', at,
        'priority', priority, 'attempt', 0, 'claim', 0, 'error', '')
      redis.call('ZADD', key('age', g, topic), at, id)
      if delay > 0 then
        wait(g, id, 'delayed', 'delayed', now + delay)
      else
        stand(g, id, false)
      end
      tally(g, topic, 'published')
      if not told[g] then
        told[g] = true
        redis.call('PUBLISH', P .. 'wake', g)
      end
    end
  end
  accepted = accepted + 1
  i = i + 7 + n
end
return {accepted, ''}
"""
)

# group, who takes, lease in ms, how many, topics
TAKE: Final = (
    _COMMON
    + """
local g, owner, lease, want = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local wanted = {}
for i = 6, #ARGV do wanted[ARGV[i]] = true end

for _, set in ipairs({'delayed', 'lease'}) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key(set, g), '-inf', now, 'LIMIT', 0, 200)) do
    leave(g, id)
    stand(g, id, redis.call('HGET', key('m', g, id), 'attempt') ~= '0')
  end
end

local function peek(lane)
  local last = redis.call('HGET', key('last', g), lane) or '0-0'
  local found = redis.call('XRANGE', key('s', g, lane), '(' .. last, '+', 'COUNT', 1)
  if found[1] then return tonumber(string.match(found[1][1], '^%d+')) end
end

local out = {}
while #out < want do
  local best, lanes = -1, {}
  local all = redis.call('HGETALL', key('lanes', g))
  for i = 1, #all, 2 do
    local level, topic = string.match(all[i], '^(%d+)|(.*)$')
    level = tonumber(level)
    if tonumber(all[i + 1]) > 0 and wanted[topic] and level >= best then
      if level > best then best, lanes = level, {} end
      lanes[#lanes + 1] = all[i]
    end
  end
  if best < 0 then break end
  local oldest, lane
  for _, name in ipairs(lanes) do
    local number = peek(name)
    if number and (not oldest or number < oldest) then oldest, lane = number, name end
  end
  if not lane then break end
  local stream = key('s', g, lane)
  local read = redis.call('XREADGROUP', 'GROUP', 'workers', owner, 'COUNT', 1,
    'STREAMS', stream, '>')
  local entry = read[1][2][1]
  local id = entry[2][2]
  local k = key('m', g, id)
  redis.call('HSET', key('last', g), lane, entry[1])
  redis.call('HINCRBY', key('lanes', g), lane, -1)
  local f = redis.call('HMGET', k, 'topic', 'body', 'at')
  count(g, 'ready', f[1], -1)
  wait(g, id, 'in_flight', 'lease', now + lease)
  out[#out + 1] = {id, f[1], f[2], f[3], redis.call('HINCRBY', k, 'attempt', 1),
    redis.call('HINCRBY', k, 'claim', 1)}
end

local next = -1
for _, set in ipairs({'delayed', 'lease'}) do
  local first = redis.call('ZRANGE', key(set, g), 0, 0, 'WITHSCORES')
  if first[2] then
    local left = math.max(0, tonumber(first[2]) - now)
    if next < 0 or left < next then next = left end
  end
end
return {out, next}
"""
)

# lease in ms, then for each: group, id, claim. Answers the places of those that are lost.
RENEW: Final = (
    _COMMON
    + """
local lost = {}
for i = 3, #ARGV, 3 do
  local g, id = ARGV[i], ARGV[i + 1]
  if mine(g, id, ARGV[i + 2]) and redis.call('HGET', key('m', g, id), 'state') == 'in_flight' then
    redis.call('ZADD', key('lease', g), now + tonumber(ARGV[2]), id)
  else
    lost[#lost + 1] = (i - 3) / 3
  end
end
return lost
"""
)

# group, id, claim, what, delay in ms, error, 1 to give the attempt back
FINISH: Final = (
    _COMMON
    + """
local g, id, what = ARGV[2], ARGV[3], ARGV[5]
if not mine(g, id, ARGV[4]) then return 0 end
local k = key('m', g, id)
local topic = redis.call('HGET', k, 'topic')
leave(g, id)
if what == 'done' then
  forget(g, id, topic)
  tally(g, topic, 'done')
  return 1
end
redis.call('HINCRBY', k, 'claim', 1)
redis.call('HSET', k, 'error', ARGV[7])
if what == 'bury' then
  wait(g, id, 'dead', 'dead', now)
  redis.call('ZREM', key('age', g, topic), id)
  tally(g, topic, 'failed')
else
  if ARGV[8] == '0' then
    tally(g, topic, 'failed')
  else
    redis.call('HINCRBY', k, 'attempt', -1)
  end
  if tonumber(ARGV[6]) > 0 then
    wait(g, id, 'delayed', 'delayed', now + tonumber(ARGV[6]))
  else
    stand(g, id, true)
    redis.call('PUBLISH', P .. 'wake', g)
  end
end
return 1
"""
)

# group, id or nothing for all, how many at most
REDRIVE: Final = (
    _COMMON
    + """
local g, ids = ARGV[2], {}
if ARGV[3] == '' then
  ids = redis.call('ZRANGE', key('dead', g), 0, tonumber(ARGV[4]) - 1)
elseif redis.call('ZSCORE', key('dead', g), ARGV[3]) then
  ids = {ARGV[3]}
end
for _, id in ipairs(ids) do
  local k = key('m', g, id)
  leave(g, id)
  redis.call('HSET', k, 'attempt', 0, 'error', '')
  local f = redis.call('HMGET', k, 'topic', 'at')
  redis.call('ZADD', key('age', g, f[1]), f[2], id)
  stand(g, id, true)
end
if #ids > 0 then redis.call('PUBLISH', P .. 'wake', g) end
return #ids
"""
)

# group, id
DROP: Final = (
    _COMMON
    + """
local g, id = ARGV[2], ARGV[3]
if not redis.call('ZSCORE', key('dead', g), id) then return 0 end
leave(g, id)
forget(g, id, redis.call('HGET', key('m', g, id), 'topic'))
return 1
"""
)

# group, how many, the id after which
DEAD: Final = (
    _COMMON
    + """
local g, from, out = ARGV[2], 0, {}
if ARGV[4] ~= '' then
  local rank = redis.call('ZRANK', key('dead', g), ARGV[4])
  if rank then from = rank + 1 end
end
local rows = redis.call('ZRANGE', key('dead', g), from, from + tonumber(ARGV[3]) - 1, 'WITHSCORES')
for i = 1, #rows, 2 do
  local f = redis.call('HMGET', key('m', g, rows[i]), 'topic', 'body', 'at', 'attempt', 'error')
  out[#out + 1] = {rows[i], f[1], f[2], f[3], rows[i + 1], f[4], f[5]}
end
return out
"""
)

# Answers rows of group, topic, name and value.
STATS: Final = (
    _COMMON
    + """
local out = {}
local bucket = math.floor(now / 10000)
for _, g in ipairs(redis.call('SMEMBERS', P .. 'groups')) do
  local topics = {}
  local all = redis.call('HGETALL', key('count', g))
  for i = 1, #all, 2 do
    local state, topic = string.match(all[i], '^([a-z_]+)|(.*)$')
    topics[topic] = true
    out[#out + 1] = {g, topic, state, all[i + 1]}
  end
  for topic in pairs(topics) do
    local first = redis.call('ZRANGE', key('age', g, topic), 0, 0, 'WITHSCORES')
    if first[2] then
      out[#out + 1] = {g, topic, 'oldest_s', tostring(math.max(0, now / 1000 - first[2]))}
    end
  end
  for b = bucket - 6, bucket - 1 do
    local counts = redis.call('HGETALL', key('tally', g, string.format('%d', b)))
    for i = 1, #counts, 2 do
      local what, topic = string.match(counts[i], '^([a-z]+)|(.*)$')
      out[#out + 1] = {g, topic, what, counts[i + 1]}
    end
  end
end
return out
"""
)
