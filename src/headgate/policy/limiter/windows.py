"""Counts by windows of the clock: what `fixed_window` and `sliding_window` stand on.

Theory of operation. Windows are whole periods of the clock, the same for all keys and for all
processes that share the clock. The counts of one window are one set of shards; when the window
turns, the set is put away whole, so that no key carries the name of its window and a count costs
a small integer. Sets put away are freed a shard at a time, by `sweep` and by each new key, for
freeing a million keys at once would hold up the loop; so at most two windows are ever in memory
(three for the sliding window), also when nobody sweeps.
"""

from __future__ import annotations

from collections.abc import Hashable

from headgate.policy.limiter.keyed import Keyed
from headgate.policy.limiter.rules import SLACK_S, LimitRules


class Windowed(Keyed[int]):
    __slots__ = ("_away", "_ends", "_limit", "_number", "_period_s", "_turn_at")

    def __init__(self, rules: LimitRules) -> None:
        super().__init__(rules)
        self._limit = rules.limit
        self._period_s = rules.period_s
        self._number = -1
        self._ends = 0.0
        self._turn_at = -1.0
        self._away: list[dict[Hashable, int]] = []

    def sweep(self, now: float, most: int = 1000) -> int:
        if now >= self._turn_at:
            self._turn(now)
        gone = 0
        while self._away and gone < most:
            gone += len(self._away.pop())
        return gone

    def __len__(self) -> int:
        return super().__len__() + sum(map(len, self._away))

    def take_rules(self, rules: LimitRules, now: float) -> None:
        """Keep the counts of the running window, as counts of the new one that runs now."""
        super().take_rules(rules, now)
        self._limit = rules.limit
        if rules.period_s != self._period_s:
            if now >= self._turn_at:
                self._turn(now)
            self._period_s = rules.period_s
            self._number = int((now + SLACK_S) / self._period_s)
            self._ends = (self._number + 1) * self._period_s
            self._turn_at = self._ends - SLACK_S

    def _turn(self, now: float) -> None:
        number = int((now + SLACK_S) / self._period_s)
        turns = number - self._number
        if turns <= 0:
            return  # rounding: the edge is a hair ahead
        self._number = number
        self._ends = (number + 1) * self._period_s
        self._turn_at = self._ends - SLACK_S
        self._put_away(turns)

    def _put_away(self, turns: int) -> None:
        """Begin a window; `turns` is 1 if it follows on the last one."""
        self._shards = self._fresh(self._shards)

    def _fresh(self, shards: list[dict[Hashable, int]]) -> list[dict[Hashable, int]]:
        """An empty set of shards; those of the old set that hold something go to be freed."""
        self._away += [shard for shard in shards if shard]
        return [{} if shard else shard for shard in shards]

    def _new_key(self, shard: dict[Hashable, int], now: float) -> None:
        """Before a key comes into a shard: free something old, see that there is room."""
        if self._away:
            self._away.pop()
        if len(shard) >= self._shard_max:
            self._make_room(shard, now)

    def _used(self, state: int, now: float) -> float:
        return state
