"""How large a cache should be, in words and numbers; and a size that moves by itself, in bounds.

Theory of operation. The curve of the ghost says what half, twice and four times the memory would
hit. More is advised while doubling wins `worth` (two points of the hit ratio); less, as long as
that loses less than a quarter of it in all: between the two nothing is said, so that advice does
not swing.

`next_size` moves by the same rule, in steps of an eighth, and only between the two sizes it is
given. It is asked from time to time, by whoever owns the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from headgate.cache.ghost import Point
from headgate.units import rough_size

__all__ = ["Advice", "Size", "SizingRules", "advise", "next_size"]

_STEP: Final = 0.125
_KEEP: Final = 0.25
"""Of what is worth a doubling: what a halving may lose."""


@dataclass(frozen=True, slots=True)
class Size:
    items: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SizingRules:
    """Between which sizes a cache may move. Both bounds move together."""

    least: Size
    most: Size
    worth: float = 0.02
    """Hit ratio that a doubling must win."""

    def __post_init__(self) -> None:
        if (
            not 0 < self.least.items <= self.most.items
            or not 0 < self.least.bytes <= self.most.bytes
        ):
            raise ValueError(
                f"sizing from {self.least} to {self.most}: the least must be above 0 "
                "and not above the most"
            )
        if not 0 < self.worth < 1:
            raise ValueError(f"sizing is worth {self.worth}; write a hit ratio above 0 and below 1")


@dataclass(frozen=True, slots=True)
class Advice:
    kind: Literal["unknown", "grow", "keep", "shrink"]
    words: str
    items: int
    bytes: int
    """The size that is advised."""
    ratio_now: float
    ratio_then: float


def advise(curve: Sequence[Point], worth: float = 0.02) -> Advice:
    """What the curve says of the size."""
    at = next((place for place, point in enumerate(curve) if point.scale == 1.0), None)
    if at is None:
        return Advice("unknown", "Too little was asked for to say anything yet.", 0, 0, 0.0, 0.0)
    now = then = curve[at]
    for point in curve[at + 1 :]:
        if point.ratio - then.ratio < worth:
            break
        then = point
    if then is now:
        for point in reversed(curve[:at]):
            if now.ratio - point.ratio > worth * _KEEP:
                break
            then = point
    words = f"{rough_size(now.bytes)} and {now.items:,} items hit {now.ratio:.1%}; "
    if then.scale > 1:
        kind: Literal["grow", "keep", "shrink"] = "grow"
        words += f"{rough_size(then.bytes)} and {then.items:,} items would hit {then.ratio:.1%}."
    elif then.scale < 1:
        kind = "shrink"
        words += (
            f"{rough_size(then.bytes)} and {then.items:,} items would still hit {then.ratio:.1%}."
        )
    else:
        kind = "keep"
        words += "twice as much would win little, half of it would lose."
    return Advice(kind, words, then.items, then.bytes, now.ratio, then.ratio)


def next_size(curve: Sequence[Point], now: Size, rules: SizingRules) -> Size:
    """The size from now on: a step towards what is advised, within the bounds."""
    said = advise(curve, rules.worth).kind
    factor = {"grow": 1 + _STEP, "shrink": 1 - _STEP}.get(said, 1.0)
    least, most = rules.least, rules.most
    return Size(
        min(most.items, max(least.items, round(now.items * factor))),
        min(most.bytes, max(least.bytes, round(now.bytes * factor))),
    )
