"""A forecast with intervals that were tried on the past.

Theory of operation
-------------------
Nothing is believed of a series but what it shows: each way to continue it (`fitting`) is tried from
several moments of its past, and the one that erred least is taken. What it erred there, by how far
ahead it was, is the width of the intervals: the quantiles of the errors, of either sign apart, as
far ahead as the past was long enough to try; beyond that they grow as the root of the distance, and
the forecast ends where it would be longer than `_REACH` times the past.

Two days are the least; with less the answer is what is missing, and no guess. Weeks are a season
from the second week on. Figures that cannot be negative are not forecast to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from headgate.observe.forecast.fitting import DAYS, HOURS, Way, continued, shift_of
from headgate.observe.forecast.regular import Floats, Regular

__all__ = ["Forecast", "TooLittle", "forecast"]

HOUR_S: Final = 3600.0
LEAST_DAYS: Final = 2
_LEAST_KNOWN: Final = 0.6
_ORIGINS: Final = 10
_REACH: Final = 1.0
_GROWTH: Final = 0.6
_GROWS: Final = 1.6
_UNSEEN_WEEKS: Final = 2.2
"""A week that was seen once at the most may hold a weekend that is another kind of day."""
_MOST_DAYS: Final = 120
_TREND_FROM: Final = 3
SHARES: Final = (0.8, 0.95)


@dataclass(frozen=True, slots=True)
class TooLittle:
    """Why there is no forecast."""

    why: str
    have_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    start: float
    """Where the first hour that is forecast begins."""
    step_s: float
    middle: Floats
    low80: Floats
    high80: Floats
    low95: Floats
    high95: Floats
    way: Way
    per_day: float
    """How much it moves a day, over the forecast."""
    error: float
    """The median error in the past, a day or so ahead, as a share of the usual value."""
    shifted_at: float | None
    """When the series was moved at once."""
    asked_s: float
    """How far ahead was asked; it may reach less far."""

    @property
    def times(self) -> Floats:
        found: Floats = self.start + self.step_s * np.arange(len(self.middle), dtype=np.float64)
        return found

    @property
    def reach_s(self) -> float:
        return self.step_s * len(self.middle)


def forecast(
    series: Regular, horizon_s: float, *, least: float | None = 0.0, most: float | None = None
) -> Forecast | TooLittle:
    """What comes after a series of hours. `least` and `most` are what it can be."""
    if series.step_s != HOUR_S:
        raise ValueError("hours are forecast from hours")
    known = series.trimmed()
    # What is not known up to the end is a gap like any other.
    values = series.values[int((known.start - series.start) / HOUR_S) :][-_MOST_DAYS * HOURS :]
    have_s = len(values) * HOUR_S
    if not len(known.values) or len(values) < LEAST_DAYS * HOURS:
        return TooLittle(f"{LEAST_DAYS} days of history are needed", have_s)
    if np.isfinite(values).mean() < _LEAST_KNOWN:
        return TooLittle("too much of the history is missing", have_s)
    if not np.isfinite(values[-HOURS:]).any():
        return TooLittle("nothing is known of the last day", have_s)
    steps = int(min(horizon_s, _REACH * have_s) // HOUR_S)
    scale = float(np.nanmedian(np.abs(values))) or float(np.nanmean(np.abs(values))) or 1.0
    is_log_fit = bool(np.nanmin(values) >= 0) and least == 0.0
    whole = len(values) // HOURS
    best, _ = _tried(values, _seasons(whole, with_log=is_log_fit), scale, steps)
    best, errors = _tried(values, _trends(best, whole), scale, steps)
    middle = _at(values, steps, best, scale)
    is_straight = best.trend in ("straight", "recent")
    widths = _widths(errors, steps, len(values), 1.0 if is_straight else _GROWTH)
    z = _there(middle, best, scale)
    lines = [_back(z + width, best, scale) for width in widths]
    made = [np.clip(line, least, most) for line in (middle, *lines)]
    days = len(values) // HOURS
    by_day = np.nanmedian(_warned(values[-days * HOURS :].reshape(days, HOURS)), axis=1)
    place, _ = shift_of(by_day)
    end_of_known = series.end
    shifted = end_of_known - (days - place) * 86400.0 if place else None
    whole_days = max(1, steps // HOURS)
    per_day = float(np.mean(middle[-HOURS:]) - np.mean(middle[:HOURS])) / max(1, whole_days - 1)
    day_ahead = [np.abs(row[: 2 * HOURS]) for row in errors[1]]
    typical = float(np.nanmedian(np.concatenate(day_ahead))) if day_ahead else float("nan")
    return Forecast(
        start=end_of_known,
        step_s=HOUR_S,
        middle=made[0],
        low80=np.minimum(made[1], made[0]),
        high80=np.maximum(made[2], made[0]),
        low95=np.minimum(made[3], made[0]),
        high95=np.maximum(made[4], made[0]),
        way=best,
        per_day=per_day if whole_days > 1 else 0.0,
        error=typical / scale,
        shifted_at=shifted,
        asked_s=horizon_s,
    )


def _warned(values: Floats) -> Floats:
    """A day of which nothing is known is the mean of all, so that no median is of nothing."""
    empty = ~np.isfinite(values).any(axis=1)
    if empty.any():
        values = values.copy()
        values[empty] = np.nanmedian(values)
    return values


def _seasons(days: int, *, with_log: bool) -> list[Way]:
    seasons = ["none", "day"] if days < 2 * DAYS else ["none", "day", "week"]
    scales = ["plain", "log"] if with_log else ["plain"]
    return [
        Way(scale, season, "none" if days < _TREND_FROM else "damped")  # type: ignore[arg-type]
        for scale in scales
        for season in seasons
    ]


def _trends(found: Way, days: int) -> list[Way]:
    """Ways to go on, the simplest first, once the season is known."""
    trends = ["none"] if days < _TREND_FROM else ["none", "damped", "straight", "recent"]
    return [
        replace(found, trend=trend, level=level)  # type: ignore[arg-type]
        for level in ("steady", "now")
        for trend in trends
    ]


def _there(values: Floats, way: Way, scale: float) -> Floats:
    if way.scale == "plain":
        return values
    found: Floats = np.log(np.maximum(values, 0.0) + 0.05 * scale)
    return found


def _back(values: Floats, way: Way, scale: float) -> Floats:
    if way.scale == "plain":
        return values
    found: Floats = np.exp(np.clip(values, -700, 700)) - 0.05 * scale
    return found


def _at(values: Floats, steps: int, way: Way, scale: float) -> Floats:
    return _back(continued(_there(values, way, scale), steps, way), way, scale)


def _origins(hours: int, horizon: int, least: int) -> list[int]:
    """How much of the past is given at each try. The newest leaves a day to be compared."""
    first = max(least, min(hours - HOURS, hours // 2))
    last = hours - HOURS
    # A prime number of hours apart, so that not all of them are the same hour of the day.
    count = min(_ORIGINS, max(1, (last - first) // 7 + 1))
    return sorted({round(float(at)) for at in np.linspace(first, last, count)})


def _tried(
    values: Floats, ways: list[Way], scale: float, steps: int
) -> tuple[Way, tuple[list[Floats], list[Floats]]]:
    """The way that erred least, with its errors on its own scale and on that of the values."""
    hours = len(values)
    least = min(hours - HOURS, LEAST_DAYS * HOURS if hours >= 3 * HOURS else HOURS)
    origins = _origins(hours, steps, least)
    best: Way = ways[0]
    best_cost = float("inf")
    found: tuple[list[Floats], list[Floats]] = ([], [])
    for way in ways:
        own, plain, costs = [], [], []
        for at in origins:
            ahead = min(hours - at, max(steps, HOURS))
            truth = values[at : at + ahead]
            guess = _at(values[:at], ahead, way, scale)
            error = truth - guess
            known = error[np.isfinite(error)]
            if not len(known):
                continue
            own.append(_there(truth, way, scale) - _there(guess, way, scale))
            plain.append(error)
            costs.append(float(np.mean(np.minimum(np.abs(known), 20 * scale))))
        cost = float(np.mean(costs)) if costs else float("inf")
        # A simpler way is kept unless another is better by some margin: they come first.
        if cost < 0.97 * best_cost or not found[0]:
            best, best_cost, found = way, min(cost, best_cost), (own, plain)
    return best, found


def _widths(
    errors: tuple[list[Floats], list[Floats]], steps: int, hours: int, growth: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """(low 80, high 80, low 95, high 95) by hour ahead, on the way's own scale."""
    rows = errors[0]
    longest = max((len(row) for row in rows), default=HOURS)
    edges = [0, 6, 12, 24]
    while edges[-1] < longest:
        edges.append(min(longest, int(edges[-1] * 1.8)))
    centres: list[float] = []
    table: list[Floats] = []
    apart: list[float] = []
    for low, high in pairwise(edges):
        pool = _pool(rows, low, high)
        tries = sum(len(row) >= (low + high) / 2 for row in rows)
        if len(pool) < 6 or tries < min(2, len(rows)):
            continue
        centres.append((low + high) / 2)
        table.append(_quantiles(pool))
        # Tries overlap: so many stretches of this length there were beside each other.
        apart.append(max(1.0, min(float(tries), longest / ((low + high) / 2))))
    if not centres:
        pool = _pool(rows, 0, longest)
        spread = float(np.std(pool)) if len(pool) else 0.0
        centres, apart = [12.0], [1.0]
        table = [spread * np.array([-1.6, 1.6, -2.6, 2.6])]
    at, lines, wider = np.array(centres), np.array(table), 1.0 + 1.5 / np.array(apart)
    size = np.maximum(lines[:, 1] - lines[:, 0], 1e-12)
    near = size[np.searchsorted(at, HOURS, "left") if at[-1] > HOURS else len(at) - 1]
    is_growing = size[-1] > _GROWS * near
    if is_growing:
        lines = lines * wider[:, None]
        lines = np.where(lines < 0, np.minimum.accumulate(lines), np.maximum.accumulate(lines))
    else:
        # What does not grow is the same at any distance beyond a day, and all tries tell of it.
        later = at > HOURS
        if later.any():
            lines[later] = _quantiles(_pool(rows, HOURS, longest))
        lines = lines * (1.0 + 0.5 / len(rows))
    if hours < 2 * DAYS * HOURS:
        lines = lines * _UNSEEN_WEEKS
    ahead = np.arange(steps) + 0.5
    power = growth if is_growing else growth / 2
    grown = np.maximum(1.0, ahead / at[-1]) ** power
    found = [np.interp(ahead, at, lines[:, column]) * grown for column in range(4)]
    return found[0], found[1], found[2], found[3]


def _pool(rows: list[Floats], low: int, high: int) -> Floats:
    some = [row[low:high] for row in rows if len(row) > low]
    pool = np.concatenate(some) if some else np.empty(0)
    return pool[np.isfinite(pool)]


def _quantiles(pool: Floats) -> Floats:
    """Half as they are and half as if errors of either sign were alike: few tries often err to one
    side only.
    """
    if not len(pool):
        return np.zeros(4)
    shares = (0.10, 0.90, 0.025, 0.975)
    mixed = 0.5 * np.quantile(pool, shares) + 0.5 * np.quantile(
        np.concatenate([pool, -pool]), shares
    )
    sides = np.array(shares) < 0.5
    found: Floats = np.where(sides, np.minimum(mixed, 0), np.maximum(mixed, 0))
    return found
