"""Making a value anew before it is over, the sooner the dearer it is.

Theory of operation. With `cost` the time a load takes, a reader at time t starts a load if
t - cost * beta * ln(u) >= the end, u even over (0, 1]: the rule known as XFetch. Readers decide by
themselves and nothing is shared, and yet loads seldom coincide: the chance grows exponentially, and
is small until a few costs before the end. It is never decided earlier than `REACH` costs before the
end, which leaves out one case in five hundred million and lets a hit before that pass without a
draw.

The cost is that of the family, an average that forgets, rather than that of the one value: a
value that came quickly from the source's own cache is not cheap next time.
"""

from __future__ import annotations

import math
import random
from typing import Final

__all__ = ["REACH", "Costs", "early_from", "is_due_early"]

REACH: Final = 20.0
_FAMILIES_MAX: Final = 1000
_WEIGHT: Final = 0.2
"""Of the newest load in the average."""


def early_from(fresh_until: float, made_at: float, cost_s: float, beta: float) -> float:
    """Before this no draw is needed. Never in the first half of a value's life."""
    reach = REACH * cost_s * beta
    return fresh_until - min(reach, (fresh_until - made_at) / 2) if reach > 0.0 else fresh_until


def is_due_early(
    wall: float, fresh_until: float, cost_s: float, beta: float, rng: random.Random
) -> bool:
    return wall - cost_s * beta * math.log(1.0 - rng.random()) >= fresh_until


class Costs:
    """What a load takes, by family. Bounded: the family that was not loaded for longest goes."""

    def __init__(self, most: int = _FAMILIES_MAX) -> None:
        self._most = most
        self._mean: dict[str, float] = {}

    def learn(self, family: str, cost_s: float) -> float:
        """Take a load in; what one takes by now."""
        before = self._mean.pop(family, None)
        mean = cost_s if before is None else before + _WEIGHT * (cost_s - before)
        self._mean[family] = mean
        while len(self._mean) > self._most:
            # Another thread may have taken the same one.
            self._mean.pop(next(iter(self._mean)), None)
        return mean

    def of(self, family: str) -> float:
        return self._mean.get(family, 0.0)

    def snapshot(self) -> dict[str, float]:
        return dict(self._mean)
