"""The sliding window by counters: this window's count, and the last one's as far as it reaches in.

Theory of operation. See `windows.py`. The hits of the last window are taken as spread evenly over
it, so the part of it within one period counts: `last x (time left of this window) / period`. No
stretch of a period can have more than the limit if hits came evenly; if they came in a lump it may
have more, up to twice the limit less what it had before (the price of two numbers a key instead of
one a hit; `sliding_log` is exact).

Refunds go to the window the hit was made in, when the caller says when that was.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from headgate.policy.limiter.keyed import refused_cost
from headgate.policy.limiter.rules import SLACK_S, LimitRules, Verdict
from headgate.policy.limiter.windows import Windowed

_SLACK_HITS = 1e-6


class SlidingWindow(Windowed):
    __slots__ = ("_last", "_slack")

    def __init__(self, rules: LimitRules) -> None:
        super().__init__(rules)
        self._last: list[dict[Hashable, int]] = [{} for _ in self._shards]
        self._slack = _SLACK_HITS + rules.limit / rules.period_s * SLACK_S

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if now >= self._turn_at:
            self._turn(now)
        if cost < 1:
            return self.peek(key, now, cost)
        at = hash(key) & self._mask
        shard = self._shards[at]
        used = shard.get(key, 0)
        last = self._last[at].get(key, 0)
        limit = self._limit
        ends_s = self._ends - now
        period_s = self._period_s
        left = limit - used - cost + self._slack
        if last:
            left -= last * ends_s / period_s
        if left >= 0.0:
            if not used:
                self._new_key(shard, now)
            shard[key] = used + cost
            return Verdict(True, limit, int(left), ends_s + period_s, 0.0)
        return self._verdict(used, last, now, cost)

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 0:
            raise refused_cost(cost)
        if now >= self._turn_at:
            self._turn(now)
        at = hash(key) & self._mask
        return self._verdict(self._shards[at].get(key, 0), self._last[at].get(key, 0), now, cost)

    def _verdict(self, used: int, last: int, now: float, cost: int) -> Verdict:
        limit = self._limit
        period_s = self._period_s
        ends_s = self._ends - now
        left = limit - used - last * ends_s / period_s + self._slack
        reset_s = ends_s + period_s if used else ends_s if last else 0.0
        if left >= cost or not cost:
            return Verdict(True, limit, max(0, int(left)), reset_s, 0.0)
        if cost > limit:
            retry_s = inf
        elif used + cost <= limit:  # within this window, once enough of the last is out of reach
            retry_s = ends_s - (limit - used - cost) * period_s / last
        else:  # within the next, for which this one is the last
            retry_s = ends_s + period_s - (limit - cost) * period_s / used
        return Verdict(False, limit, max(0, int(left)), reset_s, retry_s)

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        if now >= self._turn_at:
            self._turn(now)
        if cost < 1:
            return
        shard = self._shards[hash(key) & self._mask]
        used = shard.get(key, 0)
        if not used:
            self._new_key(shard, now)
        shard[key] = min(used + cost, max(used, 2 * self._limit))

    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        if now >= self._turn_at:
            self._turn(now)
        if cost < 1:
            return
        shards = self._shards
        if at is not None:
            began = self._ends - self._period_s - SLACK_S
            if at < began - self._period_s:
                return
            if at < began:
                shards = self._last
        shard = shards[hash(key) & self._mask]
        left = shard.get(key, 0) - cost
        if left > 0:
            shard[key] = left
        else:
            shard.pop(key, None)

    def clear(self, key: Hashable) -> None:
        super().clear(key)
        self._last[hash(key) & self._mask].pop(key, None)

    def __len__(self) -> int:
        return super().__len__() + sum(map(len, self._last))

    def take_rules(self, rules: LimitRules, now: float) -> None:
        super().take_rules(rules, now)
        self._slack = _SLACK_HITS + rules.limit / rules.period_s * SLACK_S

    def _put_away(self, turns: int) -> None:
        last = self._last
        if turns == 1:
            self._last = self._shards
            self._shards = self._fresh(last)
        else:
            self._last = self._fresh(last)
            self._shards = self._fresh(self._shards)
