"""Counts of values on a logarithmic scale: quantiles that err by less than one per cent.

Theory of operation. A positive value v falls into bin `ceil(log2(v) * 64) - 1`, which holds what
lies above base**bin and not above base**(bin + 1), where base is 2 ** (1/64), about 1.0109. This is
the exponential histogram of OpenTelemetry at scale 6, so a push needs no conversion, and it is a
DDSketch with a relative error of 0.55 %. Two sketches add up bin by bin, in any order, which is
what merging of processes and of windows needs. Values below FLOOR count as zero, values above
CEILING as CEILING, so that there are at most some 4,500 bins for each sign; real data fills a few
hundred. Values that are not a number or not finite are not counted.

The hot path finds its bin under a key made for speed: `(4096 - log2(v) * 64) // 1`, a float, where
the floor division stands for the call of `ceil`. `bin_of_key` turns it back.

What an editor must not break: keys are made in the same way for values and for shown bounds, so
that a value equal to a bound is counted below that bound, as Prometheus has it. A bound is moved up
to the end of its bin, by 1.1 % at the most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Final

__all__ = [
    "CEILING",
    "FLOOR",
    "SCALE",
    "Sketch",
    "bin_of",
    "bin_of_key",
    "key_of",
    "merged",
    "sketch_of",
    "value_of",
]

SCALE: Final = 6
PER_DOUBLING: Final = 64.0
KEY_OF_ONE: Final = 4096.0
FLOOR: Final = 1e-9
CEILING: Final = 1e12

_MIDDLE: Final = 2.0 / (1.0 + 2.0 ** (1.0 / PER_DOUBLING))


def key_of(value: float) -> float:
    """The key of a positive value. The hot path has this line inlined."""
    return (KEY_OF_ONE - log2(value) * PER_DOUBLING) // 1.0


def bin_of_key(key: float) -> int:
    return int(KEY_OF_ONE - key) - 1


def bin_of(value: float) -> int:
    return bin_of_key(key_of(value))


def value_of(at: int) -> float:
    """The value that stands for a bin: none of the bin's own is further off than 0.55 %."""
    return float(2.0 ** ((at + 1) / PER_DOUBLING)) * _MIDDLE


@dataclass(slots=True)
class Sketch:
    """Values that were counted."""

    bins: dict[int, int] = field(default_factory=dict)
    zeros: int = 0
    below: dict[int, int] = field(default_factory=dict)
    """Bins of negative values, by what they are without the sign."""
    sum: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.bins.values()) + self.zeros + sum(self.below.values())

    def put(self, value: float, count: int = 1) -> None:
        """Count a value. What is no finite number is left out."""
        if not math.isfinite(value):
            return
        self.sum += value * count
        size = abs(value)
        if size < FLOOR:
            self.zeros += count
            return
        side = self.bins if value > 0.0 else self.below
        at = bin_of(min(size, CEILING))
        side[at] = side.get(at, 0) + count

    def add(self, other: Sketch) -> None:
        """Take in all that another has counted."""
        for mine, theirs in ((self.bins, other.bins), (self.below, other.below)):
            get = mine.get
            for at, count in theirs.items():
                mine[at] = get(at, 0) + count
        self.zeros += other.zeros
        self.sum += other.sum

    def copy(self) -> Sketch:
        return Sketch(self.bins.copy(), self.zeros, self.below.copy(), self.sum)

    def ordered(self) -> list[tuple[float, int]]:
        """(value, count) from the lowest to the highest."""
        found = [(-value_of(at), self.below[at]) for at in sorted(self.below, reverse=True)]
        if self.zeros:
            found.append((0.0, self.zeros))
        found += [(value_of(at), self.bins[at]) for at in sorted(self.bins)]
        return found

    def quantile(self, q: float) -> float | None:
        """The value that a share `q` of all does not exceed; None without a value."""
        return self.quantiles((q,))[0]

    def quantiles(self, wanted: Sequence[float]) -> list[float | None]:
        """Several at once, in the order asked for."""
        for q in wanted:
            if not 0.0 <= q <= 1.0:
                raise ValueError(f"a quantile lies between 0 and 1, and {q} does not")
        ordered = self.ordered()
        total = sum(count for _, count in ordered)
        if not total:
            return [None] * len(wanted)
        found: dict[float, float] = {}
        waiting = sorted(set(wanted), reverse=True)
        seen = 0
        for value, count in ordered:
            seen += count
            # The rank is that of the lower of two neighbours, counted from zero.
            while waiting and waiting[-1] * (total - 1) < seen:
                found[waiting.pop()] = value
        last = ordered[-1][0]
        return [found.get(q, last) for q in wanted]

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """How many values lie at or below each of the ascending bounds, and then of all."""
        found = []
        positive = sorted(self.bins.items())
        negative = sum(self.below.values())
        seen = negative + self.zeros
        at = 0
        for bound in bounds:
            if bound < FLOOR:
                found.append(self._at_or_below(bound, negative))
                continue
            limit = bin_of(min(bound, CEILING))
            while at < len(positive) and positive[at][0] <= limit:
                seen += positive[at][1]
                at += 1
            found.append(seen)
        found.append(seen + sum(count for _, count in positive[at:]))
        return found

    def _at_or_below(self, bound: float, negative: int) -> int:
        if bound > -FLOOR:
            return negative + (self.zeros if bound >= 0.0 else 0)
        limit = bin_of(min(-bound, CEILING))
        return sum(count for at, count in self.below.items() if at >= limit)


def sketch_of(
    keys: Mapping[float, int], below: Mapping[float, int], zeros: int, total: float
) -> Sketch:
    """What the hot path has kept under its own keys."""
    return Sketch(
        {bin_of_key(key): count for key, count in keys.items()},
        zeros,
        {bin_of_key(key): count for key, count in below.items()},
        total,
    )


def merged(sketches: Iterable[Sketch]) -> Sketch:
    whole = Sketch()
    for sketch in sketches:
        whole.add(sketch)
    return whole
