"""Series for forecasts out of the history: by the hour for the past, by five minutes for knees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from headgate.observe.forecast.regular import Floats, Regular, regular
from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.query import Matcher
from headgate.observe.slo.reading import Past, read
from headgate.observe.slo.report import quantile_of
from headgate.observe.slo.rules import Matching, Term, le

__all__ = ["gauges", "loads", "rates"]

_HOUR_S: Final = 3600.0
_MINUTE_S: Final = 60.0
_KNEE_S: Final = 300.0
UPSTREAM: Final = "headgate_upstream_duration_seconds"


def rates(
    past: Past,
    wanted: Sequence[tuple[str, Matching]],
    start: float,
    end: float,
    *,
    every_s: float = 1.0,
) -> list[Regular]:
    """How much counters rose a second, by the hour."""
    columns = [(Term(name, matching),) for name, matching in wanted]
    tally = read(past, columns, start, end, each_s=_HOUR_S, every_s=every_s)
    edges = np.arange(start, end + 1, _HOUR_S)
    if not len(tally.times) or len(edges) < 2:
        empty = np.full(max(0, len(edges) - 1), np.nan)
        return [Regular(start, _HOUR_S, empty) for _ in wanted]
    risen = np.diff(tally.at(edges), axis=1)
    known = np.diff(np.interp(edges, tally.times, tally.known))
    with np.errstate(all="ignore"):
        # What was not seen was as what was: an hour known by half has half the count.
        by_second = np.where(known >= 0.3 * _HOUR_S, risen / known, np.nan)
    return [Regular(start, _HOUR_S, row) for row in by_second]


def gauges(
    past: Past, name: str, matching: Matching, start: float, end: float, *, is_peak: bool = False
) -> dict[tuple[tuple[str, str], ...], Regular]:
    """Means, or peaks, by the hour, of each series."""
    found: dict[tuple[tuple[str, str], ...], Regular] = {}
    matchers = [Matcher(*each) for each in matching]
    for one in past.select(name, matchers, start, end, each_s=_HOUR_S):
        labels = tuple(
            sorted((label, value) for label, value in one.labels.items() if label != "__name__")
        )
        values, weights = one.values, np.ones(len(one.values))
        if one.rollup is not None:
            weights = np.nan_to_num(one.rollup.counts)
            with np.errstate(all="ignore"):
                means = one.rollup.sums / one.rollup.counts
            values = one.rollup.maxs if is_peak else means
        # A rolled-up sample stands at the end of its hour.
        times = one.times - 1e-3
        found[labels] = (
            _peaks(times, values, start, end)
            if is_peak
            else regular(times, values, start, end, _HOUR_S, weights)
        )
    return found


def _peaks(times: Floats, values: Floats, start: float, end: float) -> Regular:
    count = int((end - start) // _HOUR_S)
    where = np.floor((times - start) / _HOUR_S).astype(np.intp)
    kept = (where >= 0) & (where < count) & np.isfinite(values)
    line = np.full(count, -np.inf)
    np.maximum.at(line, where[kept], values[kept])
    return Regular(start, _HOUR_S, np.where(np.isfinite(line), line, np.nan))


def loads(
    past: Past, service: str, start: float, end: float, *, every_s: float = 1.0
) -> tuple[Floats, Floats, Mapping[str, float]]:
    """(requests a second for each instance, what 95 % of them took, facts), by five minutes."""
    where: Matching = (("service", "=", service),)
    columns = [(Term(f"{UPSTREAM}_bucket", (*where, le(bound))),) for bound in SHOWN_BOUNDS]
    columns.append((Term(f"{UPSTREAM}_count", where),))
    tally = read(past, columns, start, end, each_s=_MINUTE_S, every_s=every_s)
    edges = np.arange(start, end + 1, _KNEE_S)
    if not len(tally.times) or len(edges) < 2:
        return np.empty(0), np.empty(0), {}
    counts = np.diff(tally.at(edges), axis=1)
    known = np.diff(np.interp(edges, tally.times, tally.known))
    with np.errstate(all="ignore"):
        by_second = np.where(known >= 0.5 * _KNEE_S, counts[-1] / known, np.nan)
    took = np.array([quantile_of(counts[:, at], 0.95) or np.nan for at in range(counts.shape[1])])
    took = np.where(counts[-1] >= 20, took, np.nan)  # of fewer nothing can be said
    instances = np.zeros(len(edges) - 1)
    matchers = [Matcher(*each) for each in where]
    last = 0.0
    for one in past.select("headgate_instance_usable", matchers, start, end, each_s=_MINUTE_S):
        up = regular(one.times - 1e-3, (one.values > 0).astype(float), start, end, _KNEE_S)
        instances[: len(up.values)] += np.nan_to_num(up.values)
        last += float(len(one.values) > 0 and one.values[-1] > 0)
    with np.errstate(all="ignore"):
        each = np.where(instances >= 0.5, by_second / instances, np.nan)
    return each, took, {"instances": last}
