"""Weighted round-robin, smooth: a heavy instance is spread through the cycle, not served in a run.

Theory of operation
-------------------
The cycle is worked out once: at every step each instance gains its weight, the one with the most
is chosen and pays the sum of the weights. After sum/gcd steps the state is back at the start, so
the sequence repeats and a pick is one step along it. Equal weights need no working out.

A cycle that would be long to work out or to keep (many instances with odd weights, or the broken
weights of slow start) is not: then the members stand in a heap by the time of their next turn, and
a pick moves the first one back by its `burden`, the distance between turns. That is exact for any
weights and O(log n). First turns are scattered by the golden ratio, or all the light members would
have theirs in one row.

Every rebuild starts at a place given by chance. Started at the first member, a group whose health
changes often would serve little more than its first few, and the workers would walk in step.

`smooth_cycle` alone cuts long cycles by scaling the weights down, at `_CYCLE_MAX`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import reduce
from heapq import heapify, heapreplace
from itertools import cycle
from math import gcd
from random import Random
from typing import Final

from headgate.policy.balancer.member import TRIES, Algorithm, Member
from headgate.policy.balancer.rules import BalanceRules

_CYCLE_MAX: Final = 4096
_WORK_MAX: Final = 16384  # members times steps of a cycle that is worth working out: a millisecond
_GOLDEN: Final = 0.6180339887498949


def smooth_cycle(weights: Sequence[int]) -> tuple[int, ...]:
    total = sum(weights)
    if total <= 0:
        return ()
    divisor = reduce(gcd, weights)
    scaled = [w // divisor for w in weights]
    total = sum(scaled)
    if total > _CYCLE_MAX:
        scaled = [max(1, round(w * _CYCLE_MAX / total)) if w else 0 for w in scaled]
        total = sum(scaled)
    have = [0] * len(scaled)
    cycle: list[int] = []
    for _ in range(total):
        have = [h + w for h, w in zip(have, scaled, strict=True)]
        best = max(range(len(have)), key=have.__getitem__)
        have[best] -= total
        cycle.append(best)
    return tuple(cycle)


class RoundRobin:
    __slots__ = ("_at", "_cycle", "_size")

    def __init__(self, weights: Sequence[int]) -> None:
        self._cycle = smooth_cycle(weights)
        self._size = len(self._cycle)
        self._at = 0

    def pick(self, excluded: Collection[int]) -> int | None:
        size = self._size
        for _ in range(size):
            at = self._at
            self._at = at + 1 if at + 1 < size else 0
            chosen = self._cycle[at]
            if chosen not in excluded:
                return chosen
        return None


class Turns(Algorithm):
    """Round-robin over a group's members."""

    __slots__ = ("_heap", "_step")

    def __init__(self, rules: BalanceRules, rng: Random) -> None:
        super().__init__(rules, rng)
        self._heap: list[tuple[float, int, Member]] = []
        self._step: Callable[[], Member] = self._step_of_heap

    def use(self, members: Sequence[Member]) -> None:
        self.members = members
        self._heap = []
        order = _order(members)
        if order is None:
            start = self.rng.random()
            self._heap = [
                (member.burden * ((at * _GOLDEN + start) % 1), at, member)
                for at, member in enumerate(members)
            ]
            heapify(self._heap)
            self._step = self._step_of_heap
        elif order:
            start_at = int(self.rng.random() * len(order))
            self._step = cycle([*order[start_at:], *order[:start_at]]).__next__

    def _step_of_heap(self) -> Member:
        turn, at, member = self._heap[0]
        heapreplace(self._heap, (turn + member.burden, at, member))
        return member

    def pick(self, now: float, key: int, excluded: Collection[Member]) -> Member | None:
        if not self.members:
            return None
        if not excluded:
            return self._step()
        for _ in range(TRIES):
            member = self._step()
            if member not in excluded:
                return member
        return self.rest(excluded)


def _order(members: Sequence[Member]) -> Sequence[Member] | None:
    """The cycle, None if it is not worth working out."""
    weights = [member.effective for member in members]
    if len(set(weights)) <= 1:
        return members
    if any(not weight.is_integer() for weight in weights):
        return None
    whole = [int(weight) for weight in weights]
    steps = sum(whole) // reduce(gcd, whole)
    if steps > _CYCLE_MAX or steps * len(whole) > _WORK_MAX:
        return None
    return [members[at] for at in smooth_cycle(whole)]
