"""The scripts that run in Redis, and what goes into and out of them.

Theory of operation. `LIMITS` is `Home.grant` and `Home.give_back` once more, in Lua: the same
answers for the same asks (a test compares them), but with the state in Redis and by its clock. One
call decides any number of asks at one time, in their order. Time is whole microseconds.

State of a key under a rule, each key with an expiry after which it would be full anyhow:

    gcra, token_bucket   "used at"             used hits at that time; they drain at the rate
    fixed_window         "number used"         of the window with that number
    sliding_window       "number used last"    and of the window before
    sliding_log          list of "first last n", oldest first, then the sum of all n
    concurrency          hash of holder to "n until"

GCRA and the token bucket differ in memory only, which here is the same. The log joins hits closer
than a thousandth of the period and counts them until the last of them is out, so that a key takes
a thousand entries at most; it may refuse that much longer, and never allows more.

The letter of the algorithm is part of the key's name, and for windows the period, because a state
means nothing under another: such a change begins anew. So does a key after its Redis lost it.

Wall clocks step. What is stored as later than now drains from now on; of windows one that is to
come counts as the present one, if it is the next.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha1
from math import inf
from typing import Final

from headgate.policy.limiter.lease import Ask, Back, Grant
from headgate.policy.limiter.rules import Algorithm, LimitRules

__all__ = [
    "BEAT",
    "FORGET",
    "LIMITS",
    "PUBLISH",
    "Script",
    "Wire",
    "grants_of",
    "is_back",
    "tag_of",
]

_US: Final = 1_000_000
_RULES_MAX: Final = 20_000
_DIGEST_BYTES: Final = 15  # 20 characters, without padding

LETTERS: Final[dict[Algorithm, str]] = {
    "gcra": "b",
    "token_bucket": "b",
    "fixed_window": "f",
    "sliding_window": "s",
    "sliding_log": "l",
    "concurrency": "c",
}


@dataclass(frozen=True, slots=True)
class Script:
    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


LIMITS: Final = Script.of(
    """
local holder = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local out = {now}

local function least_or_more(want, least, spare)
  local n = math.max(least, 0)
  if want > n then n = math.max(n, math.min(want, spare)) end
  return n
end

local function write(key, text, for_us)
  redis.call('SET', key, text, 'PX', string.format('%.0f', math.max(1, math.ceil(for_us / 1000))))
end

-- gcra, token_bucket

local function read_bucket(key, r)
  local state = redis.call('GET', key)
  if not state then return 0 end
  local used, at = string.match(state, '^(%S+) (%S+)$')
  return math.max(0, used - math.max(0, now - at) * r.limit / r.period)
end

local function write_bucket(key, r, used)
  if used > 0 then
    write(key, string.format('%.17g %.0f', used, now), used * r.period / r.limit)
  else
    redis.call('DEL', key)
  end
end

local function bucket(key, r, want, least, owed)
  local cap, gap = r.cap, r.period / r.limit
  local used = read_bucket(key, r)
  if owed > 0 then used = math.min(used + owed, math.max(used, 2 * cap)) end
  local slack = 1e-6 + 0.01 / gap
  local left = math.max(0, math.floor(cap - used + slack))
  local n = least_or_more(want, least, math.floor(left / 4))
  local granted, retry = n, 0
  if n > 0 then
    if used + n <= cap + slack then
      used = used + n
      left = math.max(0, math.floor(cap - used + slack))
    else
      granted = 0
      retry = n > cap and -1 or math.ceil((used + n - cap) * gap)
    end
  end
  if granted > 0 or owed > 0 then write_bucket(key, r, used) end
  return granted, left, math.ceil(used * gap), retry
end

local function bucket_back(key, r, n)
  local used = read_bucket(key, r)
  if used > 0 then write_bucket(key, r, used - n) end
end

-- windows

local function window_of(state, r)
  local number = math.floor(now / r.period)
  local used, last = 0, 0
  if state then
    local stored, used_then, last_then = string.match(state, '^(%d+) (%d+) ?(%d*)$')
    stored = tonumber(stored)
    if stored == number or stored == number + 1 then
      number, used, last = stored, tonumber(used_then), tonumber(last_then) or 0
    elseif stored == number - 1 then
      last = tonumber(used_then)
    end
  end
  return number, (number + 1) * r.period - now, used, last
end

local function fixed(key, r, want, least, owed)
  local number, ends, used = window_of(redis.call('GET', key), r)
  local limit = r.limit
  if owed > 0 then used = math.min(used + owed, math.max(used, 2 * limit)) end
  local n = least_or_more(want, least, math.floor(math.max(0, limit - used) / 4))
  local granted, retry = n, 0
  if used + n <= limit or n < 1 then
    used = used + n
  else
    granted = 0
    retry = n > limit and -1 or ends
  end
  if granted > 0 or owed > 0 then write(key, string.format('%.0f %.0f', number, used), ends) end
  return granted, math.max(0, limit - used), used > 0 and ends or 0, retry
end

local function sliding(key, r, want, least, owed)
  local number, ends, used, last = window_of(redis.call('GET', key), r)
  local limit, period = r.limit, r.period
  if owed > 0 then used = math.min(used + owed, math.max(used, 2 * limit)) end
  local slack = 1e-6 + 0.01 * limit / period
  local left = limit - used - last * ends / period + slack
  local n = least_or_more(want, least, math.floor(math.max(0, math.floor(left)) / 4))
  local granted, retry = n, 0
  if n > 0 then
    if left >= n then
      used = used + n
      left = left - n
    else
      granted = 0
      if n > limit then
        retry = -1
      elseif used + n <= limit then
        retry = math.ceil(ends - (limit - used - n) * period / last)
      else
        retry = math.ceil(ends + period - (limit - n) * period / used)
      end
    end
  end
  if granted > 0 or owed > 0 then
    write(key, string.format('%.0f %.0f %.0f', number, used, last), ends + period)
  end
  local reset = used > 0 and ends + period or last > 0 and ends or 0
  return granted, math.max(0, math.floor(left)), reset, retry
end

local function window_back(key, r, n, at)
  local state = redis.call('GET', key)
  local number, ends, used, last = window_of(state, r)
  local began = number * r.period
  local slides = r.algorithm == 's'
  if at >= began then
    used = math.max(0, used - n)
  elseif slides and at >= began - r.period then
    last = math.max(0, last - n)
  else
    return
  end
  if used + (slides and last or 0) == 0 then
    redis.call('DEL', key)
  elseif slides then
    write(key, string.format('%.0f %.0f %.0f', number, used, last), ends + r.period)
  else
    write(key, string.format('%.0f %.0f', number, used), ends)
  end
end

-- sliding_log

local function cut_log(key, r)
  local before = tonumber(redis.call('LINDEX', key, -1) or 0)
  local used = before
  while used > 0 do
    local last, n = string.match(redis.call('LINDEX', key, 0), '^%d+ (%d+) (%d+)$')
    if tonumber(last) > now - r.period then break end
    redis.call('LPOP', key)
    used = used - n
  end
  if used == 0 and before > 0 then
    redis.call('DEL', key)
  elseif used < before then
    redis.call('LSET', key, -1, string.format('%.0f', used))
  end
  return used
end

local function write_log(key, r, used, n)
  local entry = string.format('%.0f %.0f %.0f', now, now, n)
  if redis.call('RPOP', key) then
    local newest = redis.call('LINDEX', key, -1)
    local first, last, before = string.match(newest, '^(%d+) (%d+) (%d+)$')
    if now - first < r.period / 1000 then
      redis.call('RPOP', key)
      entry = string.format('%s %.0f %.0f', first, math.max(now, last), before + n)
    end
  end
  redis.call('RPUSH', key, entry, string.format('%.0f', used))
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(r.period / 1000) + 1))
end

local function wait_log(key, r, need)
  for _, entry in ipairs(redis.call('LRANGE', key, 0, -2)) do
    local last, n = string.match(entry, '^%d+ (%d+) (%d+)$')
    need = need - n
    if need <= 0 then return last + r.period - now end
  end
  return r.period
end

local function log(key, r, want, least, owed)
  local limit = r.limit
  local used = cut_log(key, r)
  owed = math.min(owed, 2 * limit - used)
  if owed > 0 then
    used = used + owed
    write_log(key, r, used, owed)
  end
  local n = least_or_more(want, least, math.floor(math.max(0, limit - used) / 4))
  local granted, retry = n, 0
  if n > 0 then
    if used + n <= limit then
      used = used + n
      write_log(key, r, used, n)
    else
      granted = 0
      retry = n > limit and -1 or wait_log(key, r, used + n - limit)
    end
  end
  local reset = 0
  if used > 0 then
    reset = string.match(redis.call('LINDEX', key, -2), '^%d+ (%d+)') + r.period - now
  end
  return granted, math.max(0, limit - used), reset, retry
end

local function log_back(key, r, n, at)
  local used = cut_log(key, r)
  if used == 0 or at <= now - r.period then return end
  local entries = redis.call('LRANGE', key, 0, -2)
  local function drop(i, is_younger)
    local first, last, had = string.match(entries[i], '^(%d+) (%d+) (%d+)$')
    local less = math.min(n, tonumber(had))
    if less > 0 and (tonumber(first) > at + 1) == is_younger then
      n = n - less
      used = used - less
      redis.call('LSET', key, i - 1, string.format('%s %s %.0f', first, last, had - less))
    end
  end
  for i = #entries, 1, -1 do drop(i, false) end
  for i = 1, #entries do drop(i, true) end
  redis.call('RPOP', key)
  while used > 0 and string.match(redis.call('LINDEX', key, -1), ' 0$') do
    redis.call('RPOP', key)
  end
  if used > 0 then
    redis.call('RPUSH', key, string.format('%.0f', used))
  else
    redis.call('DEL', key)
  end
end

-- concurrency

local function write_seats(key, r, held, till)
  if held > 0 then
    redis.call('HSET', key, holder, string.format('%.0f %.0f', held, till))
    redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(r.ttl / 1000) + 1))
  else
    redis.call('HDEL', key, holder)
  end
end

local function seats(key, r, want, least, owed, holding)
  local held, others = 0, 0
  local rows = redis.call('HGETALL', key)
  for i = 1, #rows, 2 do
    local n, till = string.match(rows[i + 1], '^(%d+) (%d+)$')
    if tonumber(till) <= now then
      redis.call('HDEL', key, rows[i])
    elseif rows[i] == holder then
      held = tonumber(n)
    else
      others = others + n
    end
  end
  if holding >= 0 then held = holding end
  local free = r.limit - others - held
  local n = least_or_more(want, least, math.floor(free / 4))
  local granted, retry = n, 0
  if n > free then
    granted = 0
    if n > 0 then retry = n > r.limit and -1 or r.period end
  end
  write_seats(key, r, held + granted, now + r.ttl)
  local taken = others + held + granted
  return granted, math.max(0, r.limit - taken), taken > 0 and r.period or 0, retry
end

local function seats_back(key, r, n)
  local row = redis.call('HGET', key, holder)
  if row then
    local held, till = string.match(row, '^(%d+) (%d+)$')
    write_seats(key, r, held - n, till)
  end
end

local algorithms = {
  b = {bucket, bucket_back},
  f = {fixed, window_back},
  s = {sliding, window_back},
  l = {log, log_back},
  c = {seats, seats_back},
}

local known = {}
local function rules_of(text)
  local r = known[text]
  if not r then
    local algorithm, limit, period, cap, ttl = string.match(
      text, '^(%a) (%d+) (%d+) (%d+) (%d+)$')
    r = {
      algorithm = algorithm,
      limit = tonumber(limit),
      period = tonumber(period),
      cap = tonumber(cap),
      ttl = tonumber(ttl),
    }
    known[text] = r
  end
  return r
end

for i, key in ipairs(KEYS) do
  local r = rules_of(ARGV[2 * i])
  local call = ARGV[2 * i + 1]
  local want, least, owed, holding = string.match(call, '^(%d+) (%d+) (%d+) (-?%d+)$')
  if want then
    local granted, left, reset, retry = algorithms[r.algorithm][1](
      key, r, tonumber(want), tonumber(least), tonumber(owed), tonumber(holding))
    out[#out + 1] = granted
    out[#out + 1] = left
    out[#out + 1] = reset
    out[#out + 1] = retry
  else
    local n, at = string.match(call, '^back (%d+) (%d+)$')
    algorithms[r.algorithm][2](key, r, tonumber(n), tonumber(at))
  end
end
return out
"""
)

BEAT: Final = Script.of(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return redis.call('ZCARD', KEYS[1])
"""
)
"""Say that this holder lives; the answer is how many do."""

PUBLISH: Final = Script.of(
    """
local field, payload, channel, most, keep_ms, only_new = unpack(ARGV)
if redis.call('HEXISTS', KEYS[1], field) == 1 then
  if only_new == '1' then return 1 end
elseif redis.call('HLEN', KEYS[1]) > tonumber(most) then
  return 0
end
redis.call('HSET', KEYS[1], field, payload, '', '1')
redis.call('PEXPIRE', KEYS[1], keep_ms)
redis.call('PUBLISH', channel, payload)
return 1
"""
)
"""Publish and retain. The empty field tells a table that was emptied from one that was lost."""

FORGET: Final = Script.of(
    """
local field, payload, channel, most, keep_ms = unpack(ARGV)
local had = redis.call('HDEL', KEYS[1], field)
redis.call('HSET', KEYS[1], '', '1')
if had == 0 and redis.call('HLEN', KEYS[1]) <= tonumber(most) then
  redis.call('HSET', KEYS[1], field, payload)
end
redis.call('PEXPIRE', KEYS[1], keep_ms)
redis.call('PUBLISH', channel, payload)
return 1
"""
)
"""Forget, and tell the others. What is not there may be on its way, from one who found the table
lost and writes again what it keeps: a message of nothing stands in its place.
"""


def tag_of(key: object) -> str:
    """What stands for a key in names of Redis: of one length, and no secret, should the key be an
    API key. It is the hash tag, so that on a cluster all rules of one key share a slot.
    """
    text = str(key).encode("utf-8", "surrogatepass")
    return urlsafe_b64encode(blake2b(text, digest_size=_DIGEST_BYTES).digest()).decode()


def _us(seconds: float) -> int:
    return round(seconds * _US)


class Wire:
    """Asks and what is given back, as keys and arguments of `LIMITS`."""

    __slots__ = ("_prefix", "_rules")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._rules: dict[str, tuple[LimitRules, float, str, str]] = {}
        """By rule: what it was made from, the end of its keys' names, the rules as text."""

    def rule(self, rule: str, rules: LimitRules, seat_ttl_s: float) -> tuple[str, str]:
        known = self._rules.get(rule)
        if known is None or known[0] is not rules or known[1] != seat_ttl_s:
            if len(self._rules) >= _RULES_MAX:
                self._rules.clear()  # what is still in use comes again with its next ask
            letter = LETTERS[rules.algorithm]
            period = max(1, _us(rules.period_s))
            kind = f"{letter}{period}" if letter in "fs" else letter
            text = f"{letter} {rules.limit} {period} {rules.capacity} {_us(seat_ttl_s)}"
            known = self._rules[rule] = (rules, seat_ttl_s, f":{kind}:{rule}", text)
        return known[2], known[3]

    def ask(
        self, rule: str, rules: LimitRules, ask: Ask, seat_ttl_s: float
    ) -> tuple[str, str, str]:
        """Key, rules and call of one ask."""
        end, text = self.rule(rule, rules, seat_ttl_s)
        holding = -1 if ask.holding is None else ask.holding
        return (
            f"{self._prefix}:{{{tag_of(ask.key)}}}{end}",
            text,
            f"{ask.want} {ask.least} {ask.owed} {holding}",
        )

    def back(self, rule: str, back: Back) -> tuple[str, str, str] | None:
        """Key, rules and call; None for a rule that was never asked for."""
        known = self._rules.get(rule)
        if known is None:
            return None
        _, _, end, text = known
        call = f"back {back.n} {max(0, _us(back.at))}"
        return (f"{self._prefix}:{{{tag_of(back.key)}}}{end}", text, call)


def is_back(row: Sequence[str]) -> bool:
    """Whether a row gives back, and is not answered."""
    return row[2].startswith("back")


def grants_of(reply: Sequence[int]) -> list[Grant]:
    """The answers of one call of `LIMITS`."""
    at = reply[0] / _US
    return [
        Grant(
            reply[i],
            reply[i + 1],
            reply[i + 2] / _US,
            inf if reply[i + 3] < 0 else reply[i + 3] / _US,
            at,
        )
        for i in range(1, len(reply), 4)
    ]
