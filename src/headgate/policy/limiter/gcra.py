"""GCRA, the generic cell rate algorithm: an even refill, and one number a key.

Theory of operation. The clock is read in hits: `at = now x rate + shift` grows by one in the time
that one hit takes to refill. A key's state is the reading at which it will be full again, so it
has used `state - at` hits, or none if that is past. A hit of cost c moves the state up by c, and
is allowed if no more than the capacity is then used.

Why in hits, not in seconds: costs are whole, so adding one to the state is exact however many
there are. In seconds each hit would add a rounded `period / limit`, and a burst of a hundred
thousand at one time would come out several hits wrong.

New rules change the rate and the shift so that the reading goes on from where it is: what a key
has used stays used, and no key is touched.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from headgate.policy.limiter.keyed import Keyed, refused_cost
from headgate.policy.limiter.rules import SLACK_S, LimitRules, Verdict

_SLACK_HITS = 1e-6


class Gcra(Keyed[float]):
    __slots__ = ("_capacity", "_gap_s", "_per_s", "_shift", "_slack")

    def __init__(self, rules: LimitRules) -> None:
        super().__init__(rules)
        self._shift = 0.0
        self._set(rules)

    def _set(self, rules: LimitRules) -> None:
        self._capacity = rules.capacity
        self._per_s = rules.limit / rules.period_s
        self._gap_s = rules.period_s / rules.limit
        self._slack = _SLACK_HITS + self._per_s * SLACK_S

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 1:
            return self.peek(key, now, cost)
        at = now * self._per_s + self._shift
        shard = self._shards[hash(key) & self._mask]
        state = shard.get(key)
        capacity = self._capacity
        if state is None:
            if cost > capacity:
                return Verdict(False, capacity, capacity, 0.0, inf)
            if len(shard) >= self._shard_max:
                self._make_room(shard, now)
            state = at
        elif state < at:
            state = at
        state += cost
        used = state - at
        slack = self._slack
        left = capacity - used + slack
        if left >= 0.0:
            shard[key] = state
            return Verdict(True, capacity, int(left), used * self._gap_s, 0.0)
        return self._refused(used - cost, cost)

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 0:
            raise refused_cost(cost)
        state = self._shards[hash(key) & self._mask].get(key)
        used = 0.0 if state is None else max(0.0, state - now * self._per_s - self._shift)
        capacity = self._capacity
        left = capacity - used + self._slack
        if left >= cost or not cost:
            return Verdict(True, capacity, max(0, int(left)), used * self._gap_s, 0.0)
        return self._refused(used, cost)

    def _refused(self, used: float, cost: int) -> Verdict:
        capacity = self._capacity
        gap_s = self._gap_s
        return Verdict(
            False,
            capacity,
            max(0, int(capacity - used + self._slack)),
            used * gap_s,
            inf if cost > capacity else (used + cost - capacity) * gap_s,
        )

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        if cost < 1:
            return
        at = now * self._per_s + self._shift
        shard = self._shards[hash(key) & self._mask]
        state = shard.get(key)
        if state is None:
            if len(shard) >= self._shard_max:
                self._make_room(shard, now)
            state = at
        most = max(at + 2 * self._capacity, state)
        shard[key] = min(max(state, at) + cost, most)

    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        shard = self._shards[hash(key) & self._mask]
        state = shard.get(key)
        if state is None or cost < 1:
            return
        state -= cost
        if state > now * self._per_s + self._shift:
            shard[key] = state
        else:
            del shard[key]

    def take_rules(self, rules: LimitRules, now: float) -> None:
        super().take_rules(rules, now)
        at = now * self._per_s + self._shift
        self._set(rules)
        self._shift = at - now * self._per_s

    def _live(self, shard: dict[Hashable, float], now: float) -> dict[Hashable, float]:
        at = now * self._per_s + self._shift
        return {key: state for key, state in shard.items() if state > at}

    def _used(self, state: float, now: float) -> float:
        return state - now * self._per_s - self._shift
