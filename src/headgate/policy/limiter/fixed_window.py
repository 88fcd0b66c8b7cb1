"""The fixed window: so many hits in each period of the clock.

Theory of operation. See `windows.py`. Cheapest of all, and the coarsest: all keys begin anew at the
same edge, and twice the limit fits closely around it. A debt ends with its window.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from headgate.policy.limiter.keyed import refused_cost
from headgate.policy.limiter.rules import SLACK_S, Verdict
from headgate.policy.limiter.windows import Windowed


class FixedWindow(Windowed):
    __slots__ = ()

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if now >= self._turn_at:
            self._turn(now)
        if cost < 1:
            return self.peek(key, now, cost)
        shard = self._shards[hash(key) & self._mask]
        used = shard.get(key, 0)
        limit = self._limit
        left = limit - used - cost
        if left >= 0:
            if not used:
                self._new_key(shard, now)
            shard[key] = used + cost
            return Verdict(True, limit, left, self._ends - now, 0.0)
        return self._verdict(used, now, cost)

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 0:
            raise refused_cost(cost)
        if now >= self._turn_at:
            self._turn(now)
        return self._verdict(self._shards[hash(key) & self._mask].get(key, 0), now, cost)

    def _verdict(self, used: int, now: float, cost: int) -> Verdict:
        limit = self._limit
        ends_s = self._ends - now
        allowed = used + cost <= limit or not cost
        retry_s = 0.0 if allowed else inf if cost > limit else ends_s
        return Verdict(allowed, limit, max(0, limit - used), ends_s if used else 0.0, retry_s)

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
        if cost < 1 or (at is not None and at < self._ends - self._period_s - SLACK_S):
            return  # what was taken in a past window is past with it
        shard = self._shards[hash(key) & self._mask]
        left = shard.get(key, 0) - cost
        if left > 0:
            shard[key] = left
        else:
            shard.pop(key, None)
