"""Samples as they come, made a row of equal steps; steps without a sample are NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Regular", "regular"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Regular:
    start: float
    """The beginning of the first step."""
    step_s: float
    values: Floats

    @property
    def end(self) -> float:
        return self.start + self.step_s * len(self.values)

    @property
    def times(self) -> Floats:
        found: Floats = self.start + self.step_s * np.arange(len(self.values), dtype=np.float64)
        return found

    def trimmed(self) -> Regular:
        """Without steps at either end of which nothing is known."""
        there = np.flatnonzero(np.isfinite(self.values))
        if not len(there):
            return Regular(self.start, self.step_s, self.values[:0])
        first, last = int(there[0]), int(there[-1])
        return Regular(self.start + first * self.step_s, self.step_s, self.values[first : last + 1])


def regular(
    times: Floats,
    values: Floats,
    start: float,
    end: float,
    step_s: float,
    weights: Floats | None = None,
) -> Regular:
    """The mean of each step."""
    count = max(0, int((end - start) // step_s))
    weight = np.ones(len(times)) if weights is None else weights
    where = np.floor((times - start) / step_s)
    kept = (where >= 0) & (where < count) & np.isfinite(values) & (weight > 0)
    places = where[kept].astype(np.intp)
    sums = np.bincount(places, values[kept] * weight[kept], minlength=count)
    counts = np.bincount(places, weight[kept], minlength=count)
    with np.errstate(all="ignore"):
        means = np.where(counts > 0, sums / counts, np.nan)
    return Regular(start, step_s, means[:count])
