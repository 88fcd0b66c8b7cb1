"""Functions of a range: one series, all moments at once.

Theory of operation
-------------------
For each moment the window of a series is `times[low:high]`. Sums and extremes of windows are made
by `reduceat` over the pairs (low, high), without cumulated sums: those would lose the digits of a
small window behind a large past. Resets of a counter are added to what follows them, so that the
increase over a window is a difference of two places. `rate`, `increase` and `delta` are carried
on to the borders of the window by the rule of Prometheus, which `Rules` says the version of.

What needs every value of every window at once (deviation, quantile, regression) unfolds them, in
portions of at most `_PORTION` values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headgate.observe.query.model import Floats, Rollup, Rules

__all__ = ["WINDOWED", "Window", "span_of"]

Ints = NDArray[np.int_]
Bools = NDArray[np.bool_]
Found = tuple[Floats, Bools]

_PORTION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """One series and, for each moment, its window."""

    times: Floats
    values: Floats
    rollup: Rollup | None
    low: Ints
    high: Ints
    ends: Floats  # the right border
    range_s: float
    moments: Floats  # when it is asked for; the border plus the offset
    rules: Rules

    @property
    def counts(self) -> Ints:
        return self.high - self.low


def span_of(times: Floats, ends: Floats, range_s: float, *, is_closed: bool) -> tuple[Ints, Ints]:
    """Where each window begins and ends in `times`."""
    side = "left" if is_closed else "right"
    low = np.searchsorted(times, ends - range_s, side=side)  # type: ignore[call-overload]
    high = np.searchsorted(times, ends, side="right")
    return low.astype(np.intp), high.astype(np.intp)


def _reduce(ufunc: np.ufunc, values: Floats, window: Window) -> Floats:
    """`ufunc` over each window; whatever for those that are empty."""
    if not len(values):
        return np.zeros(len(window.low))
    padded = np.append(values, values[-1])
    pairs = np.empty(2 * len(window.low), dtype=np.intp)
    pairs[0::2] = window.low
    pairs[1::2] = window.high
    found: Floats = ufunc.reduceat(padded, np.minimum(pairs, len(values)))[::2]
    return found


def _unfolded(window: Window) -> Iterator[tuple[slice, Ints, Ints]]:
    """Portions of moments; for each, the places of all values of all windows, and where each window
    begins among them. Empty windows count as one value, to be masked by who asks.
    """
    counts = np.maximum(window.counts, 1)
    total = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = total[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(total, before + _PORTION, side="right")))
        here = slice(first, last)
        sizes = counts[here]
        starts = np.cumsum(sizes) - sizes
        places = np.arange(int(sizes.sum())) - np.repeat(starts, sizes)
        places += np.repeat(window.low[here], sizes)
        yield here, np.minimum(places, len(window.values) - 1), starts
        first = last


# ------------------------------------------------------------------------------------ counters


def _extrapolated(window: Window, *, is_counter: bool, is_rate: bool) -> Found:
    counts = window.counts
    have = counts >= 2
    if not have.any():
        return np.zeros(len(counts)), have
    values, times = window.values, window.times
    low = np.minimum(window.low, len(values) - 1)
    last = np.maximum(window.high - 1, 0)
    result = values[last] - values[low]
    if is_counter:
        fallen = _fallen(values)
        result = result + (fallen[last] - fallen[low])
    start, end = window.ends - window.range_s, window.ends
    to_start, to_end = times[low] - start, end - times[last]
    sampled = times[last] - times[low]
    with np.errstate(all="ignore"):
        each = sampled / (counts - 1)
        threshold = each * 1.1
        is_near = to_start < threshold
        to_zero = np.full(len(counts), np.inf)
        if is_counter:
            rises = (result > 0) & (values[low] >= 0)
            to_zero = np.where(rises, sampled * (values[low] / result), np.inf)
        if window.rules.is_eager:
            nearer = np.minimum(to_start, to_zero)
            before = np.where(nearer < threshold, nearer, each / 2)
        else:
            before = np.minimum(np.where(is_near, to_start, each / 2), to_zero)
        after = np.where(to_end < threshold, to_end, each / 2)
        factor = (sampled + before + after) / sampled
        if is_rate:
            factor = factor / window.range_s
        return result * factor, have


def _fallen(values: Floats) -> Floats:
    """What a counter had reached before each of its resets, added up to each place."""
    drops = np.zeros(len(values))
    np.copyto(drops[1:], values[:-1], where=values[1:] < values[:-1])
    return np.cumsum(drops)


def _irate(window: Window) -> Found:
    have = window.counts >= 2
    last = np.maximum(window.high - 1, 1)
    if len(window.values) < 2:
        return np.zeros(len(have)), have
    now, before = window.values[last], window.values[last - 1]
    risen = np.where(now < before, now, now - before)
    seconds = window.times[last] - window.times[last - 1]
    with np.errstate(all="ignore"):
        return risen / seconds, have & (seconds > 0)


def _flags(window: Window, is_one: Callable[[Floats, Floats], Bools]) -> Found:
    """How many neighbours in a window are as asked."""
    have = window.counts >= 1
    ones = np.zeros(len(window.values) + 1, dtype=np.int64)
    if len(window.values) > 1:
        ones[2:] = np.cumsum(is_one(window.values[:-1], window.values[1:]))
    high = window.high
    low = np.minimum(window.low + 1, high)
    return (ones[high] - ones[low]).astype(np.float64), have


def _has_changed(before: Floats, after: Floats) -> Bools:
    changed: Bools = (before != after) & ~(np.isnan(before) & np.isnan(after))
    return changed


# -------------------------------------------------------------------------------------- moments


def _count(window: Window) -> Found:
    if window.rollup is not None:
        return _reduce(np.add, window.rollup.counts, window), window.counts >= 1
    return window.counts.astype(np.float64), window.counts >= 1


def _sum(window: Window) -> Found:
    values = window.values if window.rollup is None else window.rollup.sums
    return _reduce(np.add, values, window), window.counts >= 1


def _avg(window: Window) -> Found:
    total, have = _sum(window)
    count, _ = _count(window)
    with np.errstate(all="ignore"):
        return total / count, have


def _min(window: Window) -> Found:
    values = window.values if window.rollup is None else window.rollup.mins
    return _reduce(np.fmin, values, window), window.counts >= 1


def _max(window: Window) -> Found:
    values = window.values if window.rollup is None else window.rollup.maxs
    return _reduce(np.fmax, values, window), window.counts >= 1


def _last(window: Window) -> Found:
    have = window.counts >= 1
    if not len(window.values):
        return np.zeros(len(have)), have
    return window.values[np.maximum(window.high - 1, 0)], have


def _present(window: Window) -> Found:
    return np.ones(len(window.low)), window.counts >= 1


def _stddev(window: Window) -> Found:
    have = window.counts >= 1
    found = np.zeros(len(have))
    if not have.any():
        return found, have
    for here, places, starts in _unfolded(window):
        values = window.values[places]
        sizes = np.diff(np.append(starts, len(places)))
        means = np.add.reduceat(values, starts) / sizes
        off = values - np.repeat(means, sizes)
        found[here] = np.sqrt(np.add.reduceat(off * off, starts) / sizes)
    return found, have


def quantile_over_time(window: Window, shares: Floats) -> Found:
    """The quantile of each window; a share of its own for each moment."""
    have = window.counts >= 1
    found = np.zeros(len(have))
    if not have.any():
        return found, have
    for here, places, starts in _unfolded(window):
        values = window.values[places]
        sizes = np.diff(np.append(starts, len(places)))
        owner = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((values, owner))
        found[here] = interpolated(values[order], starts, sizes, shares[here])
    return found, have


def interpolated(ordered: Floats, starts: Ints, sizes: Ints, shares: Floats) -> Floats:
    """The quantile of each stretch of `ordered`, between its two neighbours."""
    with np.errstate(all="ignore"):
        rank = np.nan_to_num(shares * (sizes - 1))
        low = np.clip(np.floor(rank), 0, sizes - 1).astype(np.intp)
        high = np.minimum(low + 1, sizes - 1)
        weight = rank - np.floor(rank)
        found = ordered[starts + low] * (1 - weight) + ordered[starts + high] * weight
    found = np.where(shares < 0, -np.inf, np.where(shares > 1, np.inf, found))
    return np.where(np.isnan(shares), np.nan, found)


def _regressed(window: Window, origin: Floats | None) -> tuple[Floats, Floats, Bools]:
    """Slope and value at `origin` (or at the first sample) of a straight line through a window."""
    have = window.counts >= 2
    slope, intercept = np.zeros(len(have)), np.zeros(len(have))
    if not have.any():
        return slope, intercept, have
    for here, places, starts in _unfolded(window):
        times, values = window.times[places], window.values[places]
        sizes = np.diff(np.append(starts, len(places)))
        from_ = times[starts] if origin is None else origin[here]
        x = times - np.repeat(from_, sizes)
        base = np.repeat(values[starts], sizes)
        y = values - base
        mean_x = np.add.reduceat(x, starts) / sizes
        mean_y = np.add.reduceat(y, starts) / sizes
        off_x = x - np.repeat(mean_x, sizes)
        with np.errstate(all="ignore"):
            slope[here] = np.add.reduceat(off_x * (y - np.repeat(mean_y, sizes)), starts) / (
                np.add.reduceat(off_x * off_x, starts)
            )
        flat = np.maximum.reduceat(values, starts) == np.minimum.reduceat(values, starts)
        slope[here] = np.where(flat & np.isfinite(values[starts]), 0.0, slope[here])
        intercept[here] = mean_y - slope[here] * mean_x + values[starts]
    return slope, intercept, have


def _deriv(window: Window) -> Found:
    slope, _, have = _regressed(window, None)
    return slope, have


def predict_linear(window: Window, ahead_s: Floats) -> Found:
    slope, value, have = _regressed(window, window.moments)
    return value + slope * ahead_s, have


WINDOWED: Final[dict[str, Callable[[Window], Found]]] = {
    "rate": lambda window: _extrapolated(window, is_counter=True, is_rate=True),
    "increase": lambda window: _extrapolated(window, is_counter=True, is_rate=False),
    "delta": lambda window: _extrapolated(window, is_counter=False, is_rate=False),
    "irate": _irate,
    "deriv": _deriv,
    "changes": lambda window: _flags(window, _has_changed),
    "resets": lambda window: _flags(window, lambda before, after: after < before),
    "count_over_time": _count,
    "sum_over_time": _sum,
    "avg_over_time": _avg,
    "min_over_time": _min,
    "max_over_time": _max,
    "last_over_time": _last,
    "present_over_time": _present,
    "stddev_over_time": _stddev,
}
