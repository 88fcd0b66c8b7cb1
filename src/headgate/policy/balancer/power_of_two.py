"""Of two drawn by chance, the one with less in flight for its weight.

Nearly as even as looking at all members, at the cost of two, and without the herd: gateways that
each look for the least loaded all find the same one. The candidates are drawn in proportion to
weight and compared by what is in flight over weight; a tie goes to the first drawn. So an idle
group is used by weight, and a busy one fills by weight.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection

from headgate.policy.balancer.member import TRIES, Member
from headgate.policy.balancer.random_choice import RandomChoice

__all__ = ["PowerOfTwo"]


class PowerOfTwo(RandomChoice):
    __slots__ = ()

    def pick(self, now: float, key: int, excluded: Collection[Member]) -> Member | None:
        size = self._size
        if excluded or size < 2:
            pair = self.pair(excluded)
            if pair is None:
                return None
            one, two = pair
        elif self._sums is None:
            # `pair` without the calls: this is the common case.
            chance = self._chance
            first = int(chance() * size)
            second = int(chance() * (size - 1))
            one = self.members[first]
            two = self.members[second + 1 if second >= first else second]
        else:
            chance = self._chance
            one = self.members[bisect(self._sums, chance() * self._total)]
            two = self.members[bisect(self._sums, chance() * self._total)]
            if two is one:
                two = self.another(one, ())
        if two.in_flight * two.burden < one.in_flight * one.burden:
            return two
        return one

    def pair(self, excluded: Collection[Member]) -> tuple[Member, Member] | None:
        """Two to choose from, the same one twice if there is no other; None if there is none."""
        if not excluded:
            if not self._size:
                return None
            one = self.draw()
        else:
            other = self.draw_other(excluded)
            if other is None:
                return None
            one = other
        return one, self.another(one, excluded)

    def another(self, one: Member, excluded: Collection[Member]) -> Member:
        if self._size > 1:
            for _ in range(TRIES):
                two = self.draw()
                if two is not one and two not in excluded:
                    return two
        return one
