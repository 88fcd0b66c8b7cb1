"""The sliding log: every hit of the last period is remembered, so every stretch is exact.

Theory of operation. A key's state is an array of times, oldest first, one entry for each unit of
cost, of which those older than a period are cut off at the next hit. A hit exactly one period old
no longer counts. It takes 8 bytes a unit, at most `limit` of them (twice that with a debt): right
for small limits that must be exact (attempts to log in), wasteful for large ones.

A refund drops the entries nearest to the time of the hit, or the newest.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Hashable
from math import inf

from headgate.policy.limiter.keyed import Keyed, refused_cost
from headgate.policy.limiter.rules import SLACK_S, LimitRules, Verdict


class SlidingLog(Keyed["array[float]"]):
    __slots__ = ("_limit", "_period_s")

    def __init__(self, rules: LimitRules) -> None:
        super().__init__(rules)
        self._limit = rules.limit
        self._period_s = rules.period_s

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 1:
            return self.peek(key, now, cost)
        shard = self._shards[hash(key) & self._mask]
        log = shard.get(key)
        limit = self._limit
        if log is None:
            if cost > limit:
                return Verdict(False, limit, limit, 0.0, inf)
            if len(shard) >= self._shard_max:
                self._make_room(shard, now)
            log = shard[key] = array("d")
        else:
            past = now - self._period_s + SLACK_S
            if log and log[0] <= past:
                del log[: bisect_right(log, past)]
        left = limit - len(log) - cost
        if left >= 0:
            if cost == 1:
                log.append(now)
            else:
                log.extend(array("d", (now,)) * cost)
            return Verdict(True, limit, left, self._period_s, 0.0)
        return self._verdict(log, 0, now, cost)

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        if cost < 0:
            raise refused_cost(cost)
        log = self._shards[hash(key) & self._mask].get(key)
        if log is None:
            limit = self._limit
            return Verdict(cost <= limit, limit, limit, 0.0, inf if cost > limit else 0.0)
        return self._verdict(log, self._past(log, now), now, cost)

    def _past(self, log: array[float], now: float) -> int:
        return bisect_right(log, now - self._period_s + SLACK_S)

    def _verdict(self, log: array[float], past: int, now: float, cost: int) -> Verdict:
        """The first `past` entries no longer count."""
        limit = self._limit
        used = len(log) - past
        reset_s = log[-1] + self._period_s - now if used else 0.0
        if used + cost <= limit or not cost:
            return Verdict(True, limit, max(0, limit - used), reset_s, 0.0)
        if cost > limit:
            retry_s = inf
        else:  # so many of the oldest must have gone
            retry_s = log[past + used + cost - limit - 1] + self._period_s - now
        return Verdict(False, limit, max(0, limit - used), reset_s, retry_s)

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        if cost < 1:
            return
        shard = self._shards[hash(key) & self._mask]
        log = shard.get(key)
        if log is None:
            if len(shard) >= self._shard_max:
                self._make_room(shard, now)
            log = shard[key] = array("d")
        del log[: self._past(log, now)]
        log.extend(array("d", (now,)) * min(cost, 2 * self._limit - len(log)))

    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        shard = self._shards[hash(key) & self._mask]
        log = shard.get(key)
        if log is None or cost < 1:
            return
        past = self._past(log, now)
        if at is not None and at <= now - self._period_s + SLACK_S:
            return
        end = len(log) if at is None else bisect_right(log, at + SLACK_S)
        begin = max(past, end - cost)
        del log[begin:end]
        if more := cost - (end - begin):  # the leases of others may have moved them
            del log[begin : begin + more]
        del log[:past]
        if not log:
            del shard[key]

    def take_rules(self, rules: LimitRules, now: float) -> None:
        """Keep the log; entries cut off under a shorter period do not come back."""
        super().take_rules(rules, now)
        self._limit = rules.limit
        self._period_s = rules.period_s

    def _used(self, state: array[float], now: float) -> float:
        return len(state) - self._past(state, now)
