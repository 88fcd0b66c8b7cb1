"""The limiter of concurrency: so many under way at one time.

Theory of operation. `hit` takes `cost` seats, `refund` gives them back, and a key is forgotten when
its last seat is empty, so that memory holds only what is under way. Nobody knows when a seat comes
free: `retry_after_s` is the `period_s` of the rules, a guess. A seat that is not given back is lost
here (every take has a give; shared seats, which a worker may take with it when it dies, run out:
see `seats.py`).

No room. A key cannot be dropped while it has seats out: its limit would be given twice. So when
`max_keys` are under way, a new key is refused.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from headgate.policy.limiter.keyed import Keyed, refused_cost
from headgate.policy.limiter.rules import LimitRules, Verdict


class Concurrency(Keyed[int]):
    __slots__ = ("_limit", "_period_s")

    def __init__(self, rules: LimitRules) -> None:
        super().__init__(rules)
        self._limit = rules.limit
        self._period_s = rules.period_s

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 1:
            return self.peek(key, now, cost)
        shard = self._shards[hash(key) & self._mask]
        used = shard.get(key, 0)
        limit = self._limit
        left = limit - used - cost
        if left < 0:
            return self._verdict(used, cost)
        if not used and len(shard) >= self._shard_max:
            return Verdict(False, limit, 0, self._period_s, self._period_s)
        shard[key] = used + cost
        return Verdict(True, limit, left, self._period_s, 0.0)

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 0:
            raise refused_cost(cost)
        return self._verdict(self._shards[hash(key) & self._mask].get(key, 0), cost)

    def _verdict(self, used: int, cost: int) -> Verdict:
        limit = self._limit
        allowed = used + cost <= limit or not cost
        retry_s = 0.0 if allowed else inf if cost > limit else self._period_s
        reset_s = self._period_s if used else 0.0
        return Verdict(allowed, limit, max(0, limit - used), reset_s, retry_s)

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        if cost < 1:
            return
        shard = self._shards[hash(key) & self._mask]
        used = shard.get(key, 0)
        shard[key] = min(used + cost, max(used, 2 * self._limit))

    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        if cost < 1:
            return
        shard = self._shards[hash(key) & self._mask]
        left = shard.get(key, 0) - cost
        if left > 0:
            shard[key] = left
        else:
            shard.pop(key, None)

    def take_rules(self, rules: LimitRules, now: float) -> None:
        """Keep who sits; a lower limit refuses until enough have left."""
        super().take_rules(rules, now)
        self._limit = rules.limit
        self._period_s = rules.period_s

    def sweep(self, now: float, most: int = 1000) -> int:
        return 0  # nothing is kept that is not in use

    def _used(self, state: int, now: float) -> float:
        return state
