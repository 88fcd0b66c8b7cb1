"""How many requests one instance can have, and how many instances a service needs.

Theory of operation
-------------------
Each stretch of the history is a pair: how many requests each instance had, and what one in twenty
of them took. Stretches are sorted into bins by rate; the durations of bins are made to rise (more
load is not faster; where it seems so it is chance) by pooling neighbours. The greatest rate at
which the line is within the target is what an instance can have. Where the line never leaves the
target, the limit was not seen: the greatest rate that was is a lower bound, and what follows from
it is said to be one, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from headgate.observe.forecast.regular import Floats

__all__ = ["Knee", "Wanted", "knee", "wanted"]

_LEAST: Final = 24
_BINS: Final = 16
_LEAST_BINS: Final = 3
_MOST_INSTANCES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Knee:
    per_s: float
    """Requests a second that one instance can have."""
    is_seen: bool
    """Whether durations did leave the target above it; else it can have more, nobody knows how
    much."""
    curve: tuple[tuple[float, float], ...]
    """Rate and duration."""


@dataclass(frozen=True, slots=True)
class Wanted:
    instances: int
    peak_per_s: float
    per_instance: float
    is_most: bool
    """Whether fewer may do, because the limit of an instance was never seen."""


def knee(per_instance: Floats, durations: Floats, target_s: float) -> Knee | None:
    """None where too little is known, or where even the least rate misses the target."""
    known = np.isfinite(per_instance) & np.isfinite(durations) & (per_instance > 0)
    rates, took = per_instance[known], durations[known]
    if len(rates) < _LEAST:
        return None
    order = np.argsort(rates, kind="stable")
    parts = [part for part in np.array_split(order, min(_BINS, len(rates) // 6)) if len(part)]
    at = np.array([float(np.median(rates[part])) for part in parts])
    line = _rising(
        np.array([float(np.median(took[part])) for part in parts]),
        np.array([float(len(part)) for part in parts]),
    )
    curve = tuple(zip(at.tolist(), line.tolist(), strict=True))
    over = np.flatnonzero(line > target_s)
    if not len(over):
        return Knee(float(np.quantile(rates, 0.98)), is_seen=False, curve=curve)
    first = int(over[0])
    if first == 0:
        return None
    low, high = line[first - 1], line[first]
    share = (target_s - low) / (high - low)
    return Knee(float(at[first - 1] + share * (at[first] - at[first - 1])), True, curve)


def wanted(peak_per_s: float, found: Knee, *, headroom: float, spare: int) -> Wanted:
    """Enough for the peak with some of each instance free, and `spare` more."""
    usable = found.per_s * (1.0 - headroom)
    needed = math.ceil(peak_per_s / usable - 1e-9) if usable > 0 else _MOST_INSTANCES
    count = min(_MOST_INSTANCES, max(1, needed) + spare)
    return Wanted(count, peak_per_s, found.per_s, is_most=not found.is_seen)


def _rising(values: Floats, weights: Floats) -> Floats:
    """The nearest line that never falls: neighbours that do are pooled."""
    means: list[float] = []
    held: list[float] = []
    sizes: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        held.append(weight)
        sizes.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            both = held[-2] + held[-1]
            mean = (means[-2] * held[-2] + means[-1] * held[-1]) / both
            size = sizes[-2] + sizes[-1]
            del means[-2:], held[-2:], sizes[-2:]
            means.append(mean)
            held.append(both)
            sizes.append(size)
    return np.repeat(np.array(means), sizes)
