"""Which tier answers for which stretch of time."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.observe.history.block import Block
from headgate.observe.history.gather import Held
from headgate.observe.history.rules import TIERS

__all__ = ["spans_of"]


def spans_of(
    reach: Sequence[float],
    wanted: int,
    start: float,
    end: float,
    held: Sequence[Sequence[Held]],
    sealed: Sequence[Block],
) -> list[tuple[float, float]]:
    """Which stretch of time each tier answers for: the wanted one as far as it reaches, coarser
    ones before that, finer ones after its last column.
    """
    spans = [(float("inf"), float("-inf")) for _ in TIERS]
    high = end
    low_of_wanted = max(start, reach[wanted])
    newest = max(
        (
            *(one.end for one in sealed if one.tier == wanted),
            *(float(one.times.max()) for one in held[wanted]),
        ),
        default=float("-inf"),
    )
    after = newest
    if reach[wanted] > end:
        after = start - 1e-3
    spans[wanted] = (low_of_wanted, min(end, after) if wanted else high)
    for tier in range(wanted - 1, -1, -1):
        tier_newest = max(
            (
                *(one.end for one in sealed if one.tier == tier),
                *(float(one.times.max()) for one in held[tier]),
            ),
            default=float("-inf"),
        )
        spans[tier] = (max(start, after + 1e-3), high if tier == 0 else min(end, tier_newest))
        after = max(after, tier_newest)
    before = low_of_wanted
    for tier in range(wanted + 1, len(TIERS)):
        if reach[tier] < before:
            spans[tier] = (max(start, reach[tier]), before - 1e-3)
            before = max(start, reach[tier])
    return spans
