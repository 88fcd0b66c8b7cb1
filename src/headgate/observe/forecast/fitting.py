"""One way to continue a series: a profile of the day and the week, a trend, what is left of now.

Theory of operation
-------------------
Everything is a median, so that an outage, a campaign or a gap is not taken for what is usual:

    the day      median over the days of what each hour is above its day
    the week     median over the weeks of what each day is above its trend; with three weeks the
                 hours of the week have a profile of their own, mixed with that of the day
    the trend    Theil-Sen: the median of the slopes between all pairs of days
    the level    median of the last days, after all of that
    now          what is left over at the end, fading

A series that was moved at once (a new customer, half the routes taken away) is no trend: the last
such shift is looked for in the days, and days before it are moved to the level after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from headgate.observe.forecast.regular import Floats

__all__ = ["Way", "continued", "shift_of", "theil_sen"]

HOURS: Final = 24
DAYS: Final = 7
_DAMP: Final = 0.96
_LEVEL_DAYS: Final = 5
_SHIFT_DAYS: Final = 3
_SHIFT: Final = 6.0
_TREND_DAYS: Final = 42
_RECENT_DAYS: Final = 10
_MIX: Final = 2.0


@dataclass(frozen=True, slots=True)
class Way:
    """Which parts of the model are used."""

    scale: Literal["plain", "log"] = "plain"
    season: Literal["none", "day", "week"] = "day"
    trend: Literal["none", "damped", "straight", "recent"] = "damped"
    """`recent` goes on straight as in the last days."""
    level: Literal["steady", "now"] = "steady"
    """`now` begins at the last hours, as what was filled does; `steady` at the usual."""


def theil_sen(values: Floats) -> float:
    """The median slope a step; 0 where there are fewer than three values."""
    at = np.flatnonzero(np.isfinite(values))
    if len(at) < 3:
        return 0.0
    known = values[at]
    low, high = np.triu_indices(len(at), 1)
    return float(np.median((known[high] - known[low]) / (at[high] - at[low])))


def shift_of(days: Floats) -> tuple[int, float]:
    """Where the days moved at once for good, and by how much; (0, 0) where they did not. The
    newest shift counts.
    """
    known = np.isfinite(days)
    if known.sum() < 2 * _SHIFT_DAYS + 1:
        return 0, 0.0
    changes = np.abs(np.diff(days[known]))
    noise = float(np.median(changes)) / 0.954 + 1e-12  # of a difference of two normal values
    noise = max(noise, 1e-3 * float(np.nanmedian(np.abs(days))))
    best, size = 0, 0.0
    for place in range(_SHIFT_DAYS, len(days) - _SHIFT_DAYS + 1):
        before, after = days[max(0, place - DAYS) : place], days[place : place + DAYS]
        if np.isfinite(before).sum() < _SHIFT_DAYS or np.isfinite(after).sum() < _SHIFT_DAYS:
            continue
        jump = float(np.nanmedian(after) - np.nanmedian(before))
        edge = float(days[place] - days[place - 1]) if known[place] and known[place - 1] else jump
        # A trend moves both halves too, but no single day by most of it.
        is_at_once = edge * jump > 0 and abs(edge) > 0.6 * abs(jump)
        if abs(jump) > _SHIFT * noise and is_at_once and abs(edge) >= abs(size) * 0.5:
            best, size = place, edge
    return best, size


def continued(values: Floats, steps: int, way: Way) -> Floats:
    """The next `steps` hours after `values` (hours; NaN where nothing is known), on the scale of
    `values`. At least a day must be given.
    """
    days = len(values) // HOURS
    kept = values[len(values) - days * HOURS :].reshape(days, HOURS)
    with np.errstate(all="ignore"):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of hours that no day knows
            return _continued(kept, steps, way)


def _continued(kept: Floats, steps: int, way: Way) -> Floats:
    days = len(kept)
    means = _filled(np.nanmedian(kept, axis=1))
    place, size = shift_of(means) if way.trend in ("none", "damped") else (0, 0.0)
    if place:
        kept = kept.copy()
        kept[:place] += size
        means = means.copy()
        means[:place] += size
    profile = np.zeros(HOURS)
    if way.season != "none":
        profile = np.nan_to_num(np.nanmedian(kept - means[:, None], axis=0))
        profile -= np.median(profile)
    daily = _filled(np.nanmedian(kept - profile, axis=1))
    slope = 0.0
    week = np.zeros(DAYS)
    hours_of_week = np.tile(profile, (DAYS, 1))
    if way.season == "week" and days >= 2 * DAYS:
        slope = theil_sen(daily[-_TREND_DAYS:])
        flat = daily - slope * np.arange(days)
        around = np.median(flat)
        weekday = np.arange(days - 1, -1, -1) % DAYS  # 0: the last day
        week = np.array([np.median(flat[weekday == each]) - around for each in range(DAYS)])
        if days >= 3 * DAYS:
            own = np.array(
                [
                    np.nan_to_num(np.nanmedian((kept - daily[:, None])[weekday == each], axis=0))
                    for each in range(DAYS)
                ]
            )
            weeks = days // DAYS
            share = weeks / (weeks + _MIX)
            hours_of_week = share * own + (1 - share) * profile
        daily = daily - week[weekday]
    looked = _RECENT_DAYS if way.trend == "recent" else _TREND_DAYS
    slope = 0.0 if way.trend == "none" else theil_sen(daily[-looked:])
    if days < 3 and way.trend != "none" and way.season == "none":
        slope = theil_sen(kept.ravel()) * HOURS  # what only fills shows it within two days
    last = daily[-_LEVEL_DAYS:]
    level = float(np.median(last + slope * np.arange(len(last) - 1, -1, -1)))
    ahead = np.arange(steps)
    ahead_days = ahead // HOURS + 1
    if way.trend == "damped":
        moved = slope * _DAMP * (1 - _DAMP**ahead_days) / (1 - _DAMP)
    else:
        moved = slope * (ahead + HOURS / 2) / HOURS
    weekday_ahead = (-ahead_days) % DAYS
    found = level + moved + week[weekday_ahead] + hours_of_week[weekday_ahead, ahead % HOURS]
    within = slope * (np.arange(HOURS) - HOURS / 2) / HOURS if way.trend != "damped" else 0.0
    rest = kept[-1] - (level + week[0] + hours_of_week[0] + within)
    lately = rest[-6:]
    if np.isfinite(lately).sum() >= 3:
        rho = 1.0 if way.level == "now" else _memory(kept - daily[:, None] - profile)
        found = found + float(np.nanmedian(lately)) * rho ** (ahead + 2)
    answer: Floats = found
    return answer


def _memory(rest: Floats) -> float:
    """How much of what is left over is still there an hour later."""
    line = rest.ravel()
    now, after = line[:-1], line[1:]
    both = np.isfinite(now) & np.isfinite(after)
    if both.sum() < HOURS:
        return 0.0
    edge = 4 * float(np.median(np.abs(line[np.isfinite(line)]))) + 1e-12
    now, after = np.clip(now[both], -edge, edge), np.clip(after[both], -edge, edge)
    spread = float(now @ now)
    return min(0.95, max(0.0, float(now @ after) / spread)) if spread > 0 else 0.0


def _filled(days: Floats) -> Floats:
    """Days of which nothing is known lie between their neighbours."""
    known = np.flatnonzero(np.isfinite(days))
    if not len(known):
        return np.zeros(len(days))
    found: Floats = np.interp(np.arange(len(days)), known, days[known])
    return found
