"""The token bucket: tokens drop in evenly up to the capacity, a hit takes its cost out.

Theory of operation. A key's state is how many tokens there were and when; how many there are now
follows. It decides as GCRA does, hit by hit, for twice the memory; it is here because people ask
for it by name, and think in tokens. Less than none means a debt, from `charge`.

New rules: tokens that are there stay, up to the new capacity. Those that dropped in before the
change and were not looked at since are counted at the new rate.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from headgate.policy.limiter.keyed import Keyed, refused_cost
from headgate.policy.limiter.rules import SLACK_S, LimitRules, Verdict

_SLACK_TOKENS = 1e-6


class TokenBucket(Keyed[tuple[float, float]]):
    __slots__ = ("_capacity", "_gap_s", "_per_s", "_slack")

    def __init__(self, rules: LimitRules) -> None:
        super().__init__(rules)
        self._set(rules)

    def _set(self, rules: LimitRules) -> None:
        self._capacity = rules.capacity
        self._per_s = rules.limit / rules.period_s
        self._gap_s = rules.period_s / rules.limit
        self._slack = _SLACK_TOKENS + self._per_s * SLACK_S

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 1:
            return self.peek(key, now, cost)
        shard = self._shards[hash(key) & self._mask]
        state = shard.get(key)
        capacity = self._capacity
        tokens: float
        if state is None:
            if cost > capacity:
                return Verdict(False, capacity, capacity, 0.0, inf)
            if len(shard) >= self._shard_max:
                self._make_room(shard, now)
            tokens = capacity
        else:
            tokens = state[0] + (now - state[1]) * self._per_s
            if tokens > capacity:  # noqa: PLR1730  min() costs a call
                tokens = capacity
        tokens -= cost
        slack = self._slack
        if tokens >= -slack:
            shard[key] = (tokens, now)
            return Verdict(
                True, capacity, int(tokens + slack), (capacity - tokens) * self._gap_s, 0.0
            )
        return self._refused(tokens + cost, cost)

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 0:
            raise refused_cost(cost)
        state = self._shards[hash(key) & self._mask].get(key)
        capacity = self._capacity
        tokens = capacity - (0.0 if state is None else max(0.0, self._used(state, now)))
        if tokens + self._slack >= cost or not cost:
            left = max(0, int(tokens + self._slack))
            return Verdict(True, capacity, left, (capacity - tokens) * self._gap_s, 0.0)
        return self._refused(tokens, cost)

    def _refused(self, tokens: float, cost: int) -> Verdict:
        capacity = self._capacity
        return Verdict(
            False,
            capacity,
            max(0, int(tokens + self._slack)),
            (capacity - tokens) * self._gap_s,
            inf if cost > capacity else (cost - tokens) * self._gap_s,
        )

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        if cost < 1:
            return
        shard = self._shards[hash(key) & self._mask]
        state = shard.get(key)
        if state is None and len(shard) >= self._shard_max:
            self._make_room(shard, now)
        capacity = self._capacity
        tokens = capacity - (0.0 if state is None else max(0.0, self._used(state, now)))
        shard[key] = (max(tokens - cost, min(tokens, -float(capacity))), now)

    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        shard = self._shards[hash(key) & self._mask]
        state = shard.get(key)
        if state is None or cost < 1:
            return
        used = self._used(state, now) - cost
        if used > 0:
            shard[key] = (self._capacity - used, now)
        else:
            del shard[key]

    def take_rules(self, rules: LimitRules, now: float) -> None:
        super().take_rules(rules, now)
        self._set(rules)

    def _used(self, state: tuple[float, float], now: float) -> float:
        return self._capacity - state[0] - (now - state[1]) * self._per_s
