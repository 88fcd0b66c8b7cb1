"""Counters added up over time, such that any window can be asked for.

Theory of operation
-------------------
A tally is a few columns of running totals over moments; between two moments a total is taken to
rise evenly. So the count of any window is a difference of two totals, whatever tier of the history
the samples came from, and windows that lie beside each other add up to the window over both:
nothing is counted twice or lost at a seam.

A counter that falls was set back, and what it shows after that is counted. One that appears while
figures were being taken (and is Headgate's own) began at zero, so its first value counts, too; that
is how the very first failure of a route is seen, which `increase` never does. One that appears with
the first figures after a pause is only a beginning.

`known` is the running total of seconds about which there are figures. What is missing there is our
own downtime, or that of the history: it is neither good nor bad.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tally", "increases", "joined", "known_cells"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    times: Floats
    """In order. The first is where counting begins."""
    sums: Floats
    """(columns, moments); the first moment is zero."""
    known: Floats
    """Seconds likewise."""

    def at(self, moments: Sequence[float] | Floats) -> Floats:
        """Running totals at these moments, (columns, moments)."""
        wanted = np.asarray(moments, dtype=np.float64)
        if not len(self.times):
            return np.zeros((len(self.sums), len(wanted)))
        return np.array([np.interp(wanted, self.times, row) for row in self.sums]).reshape(
            len(self.sums), len(wanted)
        )

    def between(
        self, start: float, end: float, without: Iterable[tuple[float, float]] = ()
    ) -> Floats:
        """The count of each column in a window, less that in spans that do not count. Spans lie
        apart from each other.
        """
        found = self._difference(start, end)
        for low, high in without:
            low, high = max(low, start), min(high, end)
            if high > low:
                found = found - self._difference(low, high)
        return np.maximum(found, 0.0)

    def _difference(self, start: float, end: float) -> Floats:
        low, high = self.at((start, end)).T
        found: Floats = high - low
        return found

    def known_s(
        self, start: float, end: float, without: Iterable[tuple[float, float]] = ()
    ) -> float:
        if not len(self.times):
            return 0.0

        def of(low: float, high: float) -> float:
            at = np.interp((low, high), self.times, self.known)
            return float(at[1] - at[0])

        cut = [(max(low, start), min(high, end)) for low, high in without]
        return max(0.0, of(start, end) - sum(of(*pair) for pair in cut if pair[1] > pair[0]))

    def after(self, start: float) -> Tally:
        """Without what lies before the last moment up to `start`."""
        first = max(int(np.searchsorted(self.times, start, "right")) - 1, 0)
        if not first:
            return self
        return Tally(
            self.times[first:],
            self.sums[:, first:] - self.sums[:, first : first + 1],
            self.known[first:] - self.known[first],
        )


def joined(older: Tally, newer: Tally) -> Tally:
    """One after the other; `newer` begins where `older` ends, or later."""
    if not len(older.times):
        return newer
    if not len(newer.times):
        return older
    at = int(np.searchsorted(newer.times, older.times[-1], "right"))
    base = newer.at([older.times[-1]])
    base_known = float(np.interp(older.times[-1], newer.times, newer.known))
    return Tally(
        np.concatenate([older.times, newer.times[at:]]),
        np.concatenate([older.sums, newer.sums[:, at:] - base + older.sums[:, -1:]], axis=1),
        np.concatenate([older.known, newer.known[at:] - base_known + older.known[-1]]),
    )


def increases(values: Floats, before: float | None, *, is_from_zero: bool) -> Floats:
    """How much a counter rose up to each of its samples. `values` are numbers; `before` is the
    sample before the first, if there is one.
    """
    if not len(values):
        return np.zeros(0)
    first = before if before is not None else (0.0 if is_from_zero else float(values[0]))
    earlier = np.concatenate([[first], values[:-1]])
    risen = np.where(values >= earlier, values - earlier, values)
    found: Floats = np.maximum(risen, 0.0)
    return found


def known_cells(times: Floats, counts: Floats, every_s: float) -> Floats:
    """Of the time up to each moment, for how much there are figures: `counts` samples, each for
    `every_s`. A sample that is a little late leaves nothing out.
    """
    if not len(times):
        return np.zeros(0)
    apart = np.diff(times, prepend=times[0])
    held = np.nan_to_num(counts) * every_s
    is_whole = (held >= 0.8 * apart) | ((counts > 0) & (apart <= 2.5 * every_s))
    found: Floats = np.where(is_whole, apart, np.minimum(held, apart))
    return found
