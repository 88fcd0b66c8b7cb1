"""What is bought together more often than by chance.

Theory of operation
-------------------
Of `baskets` orders, `of_one` held the one product, `of_other` the other and `together` both. If
they had nothing to do with each other, `of_one * of_other / baskets` would hold both; `lift` is how
many times more do. Lift alone loves what was sold twice and both times in one basket, so products
are ordered by the evidence, the log-likelihood ratio of the four-field table (Dunning 1993), which
grows with the number of orders that speak for it.

For each product at most KEPT others are remembered. When one more comes, the weakest make room:
counts of pairs that come again and again stay, and what passes by takes turns in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["KEPT", "Companion", "evidence", "ranked"]

KEPT: Final = 40
LEAST_TOGETHER: Final = 2
LEAST_EVIDENCE: Final = 3.84
"""Beyond this, chance does it in one of twenty cases."""


@dataclass(frozen=True, slots=True)
class Companion:
    product_id: str
    together: int
    lift: float
    evidence: float


def ranked(
    baskets: int, of_one: int, others: Iterable[tuple[str, int, int]], *, most: int
) -> list[Companion]:
    """The companions of one product, of `others` as (id, times together, times at all)."""
    found: list[Companion] = []
    for other, together, of_other in others:
        if together < LEAST_TOGETHER or min(of_one, of_other) < together or baskets < 1:
            continue
        lift = together * baskets / (of_one * of_other)
        if lift <= 1:
            continue
        strength = evidence(together, of_one, of_other, baskets)
        if strength >= LEAST_EVIDENCE:
            found.append(Companion(other, together, lift, strength))
    found.sort(key=lambda one: (-one.evidence, one.product_id))
    return found[:most]


def evidence(together: int, of_one: int, of_other: int, baskets: int) -> float:
    """Twice the log-likelihood ratio of "they go together" against "they do not"."""
    neither = baskets - of_one - of_other + together
    cells = (
        (together, of_one, of_other),
        (of_one - together, of_one, baskets - of_other),
        (of_other - together, baskets - of_one, of_other),
        (neither, baskets - of_one, baskets - of_other),
    )
    total = 0.0
    for count, row, column in cells:
        if count > 0 and row > 0 and column > 0:
            total += count * math.log(count * baskets / (row * column))
    return 2 * total
