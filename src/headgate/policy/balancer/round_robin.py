"""Weighted round-robin, smooth: a heavy instance is spread through the cycle, not served in a run.

Theory of operation. The cycle is worked out once: at every step each instance gains its weight,
the one with the most is chosen and pays the sum of the weights. After sum/gcd steps the state is
back at the start, so the sequence repeats and a pick is one index into it. Long cycles are cut
by scaling the weights down, which bounds memory at `_CYCLE_MAX` for any weights.
"""

from __future__ import annotations

from functools import reduce
from math import gcd
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_CYCLE_MAX: Final = 4096


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
