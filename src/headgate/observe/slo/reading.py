"""Tallies out of the history, a stretch of time after the other.

Theory of operation. Samples of one moment share that moment whatever they are of, so the moments of
`headgate_workers`, which is always there, are the grid, and how many samples a rolled-up moment of
it stands for says how much of that time is known. A route may have few series and the whole gateway
ten thousand: the stretch that is read at once is chosen such that a bounded number of samples is in
memory. What a counter showed last is carried from one stretch to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from headgate.observe.query import Matcher, Series
from headgate.observe.slo.rules import Term
from headgate.observe.slo.tally import Tally, increases, known_cells

__all__ = ["Past", "read"]

Floats = NDArray[np.float64]
_GRID: Final = "headgate_workers"
_AT_ONCE: Final = 2_000_000
_LEAST_S: Final = 7200.0
_MINUTES: Final = 60.0
_OWN: Final = "headgate_"
_OF_TERMS: Final = ("le", "code")


class Past(Protocol):
    """The store of the history."""

    def select(
        self,
        name: str,
        matchers: Sequence[Matcher],
        start: float,
        end: float,
        *,
        each_s: float = 1.0,
    ) -> Sequence[Series]: ...

    def series(
        self, name: str, matchers: Sequence[Matcher], start: float, end: float
    ) -> Sequence[object]: ...


def read(
    past: Past,
    columns: Sequence[Sequence[Term]],
    start: float,
    end: float,
    *,
    each_s: float = _MINUTES,
    every_s: float = 1.0,
) -> Tally:
    """Each column is a weighted sum of counters."""
    terms: dict[tuple[str, tuple[Matcher, ...]], int] = {}
    weights: list[dict[int, float]] = []
    for column in columns:
        weights.append({})
        for term in column:
            key = (term.name, tuple(Matcher(*each) for each in term.matching))
            place = terms.setdefault(key, len(terms))
            weights[-1][place] = weights[-1].get(place, 0.0) + term.weight
    begin = start - 2 * max(each_s, 3600.0)  # for what a counter showed before
    asked = {_asked(*key) for key in terms}
    rows = sum(len(past.series(*key, begin, end)) for key in asked) + 1
    stretch_s = max(_LEAST_S, _AT_ONCE / rows * each_s)
    carried: dict[tuple[int, object], float] = {}
    counted = np.zeros((len(terms), 1))
    times = np.empty(0)
    known = np.empty(0)
    low = begin
    while low < end:
        high = min(low + stretch_s, end)
        part, cells, seconds = _stretch(
            past, list(terms), low, high, each_s, every_s, carried, times[-1:]
        )
        times = np.concatenate([times, part])
        counted = np.concatenate([counted, cells], axis=1)
        known = np.concatenate([known, seconds])
        low = np.nextafter(high, np.inf) if high < end else end
    matrix = np.zeros((len(columns), len(terms)))
    for number, weighed in enumerate(weights):
        for place, weight in weighed.items():
            matrix[number, place] = weight
    if not len(times):
        return Tally(times, np.zeros((len(columns), 0)), known)
    known[0] = 0.0
    sums = np.cumsum(matrix @ counted[:, 1:], axis=1)
    return Tally(times, sums - sums[:, :1], np.cumsum(known)).after(start)


def _asked(name: str, matchers: tuple[Matcher, ...]) -> tuple[str, tuple[Matcher, ...]]:
    """What terms have in common that differ in a bucket or a status only: it is read once."""
    return name, tuple(each for each in matchers if each.label not in _OF_TERMS)


def _stretch(
    past: Past,
    terms: Sequence[tuple[str, tuple[Matcher, ...]]],
    start: float,
    end: float,
    each_s: float,
    every_s: float,
    carried: dict[tuple[int, object], float],
    before: Floats,
) -> tuple[Floats, Floats, Floats]:
    """(moments, increases of each term up to them, known seconds up to them)."""
    once = {
        key: list(past.select(*key, start, end, each_s=each_s))
        for key in {_asked(name, matchers) for name, matchers in terms}
    }
    found = [
        [
            one
            for one in once[_asked(name, matchers)]
            if all(matcher.is_met(one.labels) for matcher in matchers)
        ]
        for name, matchers in terms
    ]
    grid = list(past.select(_GRID, (), start, end, each_s=each_s))
    every = [one.times for one in (*grid, *(each for some in found for each in some))]
    if not every:
        return np.empty(0), np.zeros((len(terms), 0)), np.empty(0)
    times: Floats = np.unique(np.concatenate(every))
    counts = np.zeros(len(times))
    for one in grid:
        is_up = ~np.isnan(one.values)
        held = np.ones(len(one.times))
        if one.rollup is not None:
            held = np.nan_to_num(one.rollup.counts)
            is_up &= np.nan_to_num(one.rollup.maxs) > 0
        else:
            is_up &= one.values > 0
        counts[np.searchsorted(times, one.times)] = np.where(is_up, held, 0.0)
    if not grid:  # foreign figures only: nothing is known of gaps
        counts[:] = np.inf
    all_times = np.concatenate([before, times])
    known = known_cells(all_times, np.concatenate([np.zeros(len(before)), counts]), every_s)
    known = known[len(before) :]
    apart = np.diff(all_times, prepend=all_times[0])[len(before) :]
    is_going_on = (known >= 0.5 * apart) & (apart > 0)
    cells = np.zeros((len(terms), len(times)))
    for place, some in enumerate(found):
        is_own = terms[place][0].startswith(_OWN)
        for one in some:
            is_number = np.isfinite(one.values)
            values = one.values[is_number]
            if not len(values):
                continue
            where = np.searchsorted(times, one.times[is_number])
            key = (place, tuple(sorted(one.labels.items())))
            risen = increases(
                values,
                carried.get(key),
                is_from_zero=is_own and bool(is_going_on[where[0]]),
            )
            carried[key] = float(values[-1])
            np.add.at(cells[place], where, risen)
    return times, cells, known
