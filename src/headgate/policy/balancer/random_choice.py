"""By chance, in proportion to weight.

No state to keep and none to get wrong; over few requests less even than taking turns. Equal
weights are an index, others a search in the running sums (cheaper in CPython than an alias table).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Sequence
from itertools import accumulate
from random import Random

from headgate.policy.balancer.member import TRIES, Algorithm, Member
from headgate.policy.balancer.rules import BalanceRules

__all__ = ["RandomChoice"]


class RandomChoice(Algorithm):
    __slots__ = ("_chance", "_size", "_sums", "_total")

    def __init__(self, rules: BalanceRules, rng: Random) -> None:
        super().__init__(rules, rng)
        self._chance = rng.random
        self._size = 0
        self._sums: list[float] | None = None
        """Of weights; None if all are equal."""
        self._total = 0.0

    def use(self, members: Sequence[Member]) -> None:
        self.members = members
        self._size = len(members)
        weights = [member.effective for member in members]
        if len(set(weights)) <= 1:
            self._sums = None
        else:
            self._sums = list(accumulate(weights))
            self._total = self._sums.pop()  # the last one takes what is over all other sums

    def pick(self, now: float, key: int, excluded: Collection[Member]) -> Member | None:
        if not excluded:
            return self.draw() if self._size else None
        return self.draw_other(excluded)

    def draw(self) -> Member:
        """One of the members; there must be one."""
        if self._sums is None:
            return self.members[int(self._chance() * self._size)]
        return self.members[bisect(self._sums, self._chance() * self._total)]

    def draw_other(self, excluded: Collection[Member]) -> Member | None:
        if self._size:
            for _ in range(TRIES):
                member = self.draw()
                if member not in excluded:
                    return member
        return self.rest(excluded)
