"""Durations counted in buckets fine enough to estimate a quantile, coarse enough to be cheap.

Theory of operation. The bounds are the R20 series of preferred numbers (ISO 3): twenty to the
decade from 100 microseconds to 100 seconds, so a bucket is about 12 % wide and an estimate inside
it errs by about half of that. A log-linear index could be computed instead of searched, but
`bisect` over 121 floats runs in C and takes some 100 ns, less than the arithmetic would in Python.
The series holds 1, 2.5 and 5 of every decade; these are the `le` bounds shown to Prometheus, so
going from our buckets to its cumulative ones only adds, and never splits a bucket.

A histogram is a plain list of counts with one more place for what is longer than the last bound;
the sum is kept by its owner. Lists add up place by place, which is all that merging workers needs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from operator import add as plus
from typing import Final

_R20 = (
    100, 112, 125, 140, 160, 180, 200, 224, 250, 280,
    315, 355, 400, 450, 500, 560, 630, 710, 800, 900,
)  # fmt: skip

BOUNDS: Final = (*(float(f"{step}e{e}") for e in range(-6, 0) for step in _R20), 100.0)
"""Upper bounds in seconds; a value equal to a bound belongs below it, as Prometheus has it."""

SHOWN_BOUNDS: Final = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    25.0, 50.0,
)  # fmt: skip
"""The bounds of the buckets in the exposition."""

_SHOWN_AT: Final = tuple(BOUNDS.index(bound) for bound in SHOWN_BOUNDS)


def empty() -> list[int]:
    return [0] * (len(BOUNDS) + 1)


def place_of(value_s: float) -> int:
    """The place in the list that counts `value_s`. The hot path has this line inlined."""
    return bisect_left(BOUNDS, value_s)


def add(total: list[int], counts: Sequence[int]) -> None:
    """Add `counts` to `total`, place by place."""
    if len(total) != len(counts):
        raise ValueError(f"{len(counts)} counts cannot be added to {len(total)}")
    total[:] = map(plus, total, counts)  # a third of the time of a loop; merging is this line


def cumulative(counts: Sequence[int]) -> list[int]:
    """The counts at or below each of SHOWN_BOUNDS, and then of all."""
    running = list(accumulate(counts))
    return [*(running[at] for at in _SHOWN_AT), running[-1]]


def quantile(counts: Sequence[int], q: float, bounds: Sequence[float] = BOUNDS) -> float | None:
    """Estimate the value that a share `q` of the counted values does not exceed; None if empty.

    Values are taken to be spread evenly inside a bucket. Beyond the last bound nothing is known
    but that it was passed, so the last bound is the answer.
    """
    total = sum(counts)
    if not total:
        return None
    rank = q * total
    seen = 0
    for at, count in enumerate(counts):
        if count and seen + count >= rank:
            if at >= len(bounds):
                return bounds[-1]
            low = bounds[at - 1] if at else 0.0
            return low + (bounds[at] - low) * max(rank - seen, 0.0) / count
        seen += count
    return bounds[-1]
