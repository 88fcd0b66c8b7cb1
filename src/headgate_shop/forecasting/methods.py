"""Ways to continue daily sales, for many products at once.

Theory of operation
-------------------
`sales` has a row for each product and a column for each day. A way is run once over all days; where
the past ends at an *origin*, it says what it expects of the days from there on, out of the days
before alone. So one pass answers for every origin of a back-test, and for today.

A product begins with its first sale; the days before say nothing. What a way starts from is the
mean of the product's first WARM_UP days, so no origin may lie before these are over.

    same weekday     what was sold on this weekday, in the mean of the last 1, 4 or 8 weeks
    level            exponential smoothing: all days alike
    level on weeks   the same, on the whole shop's week: for what sells too little to have its own
    holt-winters     level, damped trend and a week of its own
    croston, tsb     for what sells now and then: how often, and how much at a time
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["NAIVE", "WARM_UP", "WAYS", "Floats", "Ints", "Past", "Way", "shop_weeks"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.intp]

WEEK: Final = 7
WARM_UP: Final = 14
DAMPING: Final = 0.92
LEAST: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    sales: Floats
    """[products, days]"""
    begins: Ints
    """The day of each product's first sale."""
    weeks: Floats
    """[days + 1, 7]: the shop's week as it was known before each day; `shop_weeks` makes it."""
    first_weekday: int
    """Of the first column; Monday is 0."""

    @property
    def days(self) -> int:
        return int(self.sales.shape[1])

    def weekday(self, day: int) -> int:
        return (self.first_weekday + day) % WEEK


Guess: TypeAlias = Callable[[Past, Sequence[int], int], Floats]


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    guess: Guess
    """(past, origins, horizon) -> [origins, products, horizon]"""


def shop_weeks(totals: Floats, first_weekday: int) -> Floats:
    """What share of an average day each weekday has, as known before each day and at the end."""
    sums, counts = np.zeros(WEEK), np.zeros(WEEK)
    weeks = np.ones((len(totals) + 1, WEEK))
    for day, total in enumerate(totals):
        weekday = (first_weekday + day) % WEEK
        sums[weekday] += total
        counts[weekday] += 1
        if counts.min() >= 2 and sums.sum() > 0:
            means = sums / counts
            weeks[day + 1] = np.maximum(means / means.mean(), 0.05)
    return weeks


def _start(past: Past) -> Floats:
    """The mean of each product's first days."""
    days = np.arange(past.days)
    inside = (days >= past.begins[:, None]) & (days < past.begins[:, None] + WARM_UP)
    counts = np.maximum(inside.sum(axis=1), 1)
    found: Floats = np.where(inside, past.sales, 0.0).sum(axis=1) / counts
    return found


def _same_weekday(count: int) -> Guess:
    def guess(past: Past, origins: Sequence[int], horizon: int) -> Floats:
        found = np.zeros((len(origins), len(past.sales), horizon))
        for place, origin in enumerate(origins):
            for ahead in range(min(WEEK, horizon)):
                last = origin + ahead - WEEK
                days = np.arange(last, last - WEEK * count, -WEEK)
                days = days[days >= 0]
                if not len(days):
                    continue
                there = days[None, :] >= past.begins[:, None]
                sums = np.where(there, past.sales[:, days], 0.0).sum(axis=1)
                mean = sums / np.maximum(there.sum(axis=1), 1)
                found[place, :, ahead::WEEK] = mean[:, None]
        return found

    return guess


def _level(alpha: float, *, on_weeks: bool) -> Guess:
    def guess(past: Past, origins: Sequence[int], horizon: int) -> Floats:
        level = _start(past)
        found = np.zeros((len(origins), len(past.sales), horizon))
        places = {origin: place for place, origin in enumerate(origins)}
        for day in range(max(origins) + 1):
            if day in places:
                found[places[day]] = level[:, None] * _shares(past, day, horizon, on_weeks)
            if day < past.days:
                share = past.weeks[day, past.weekday(day)] if on_weeks else 1.0
                moved = level + alpha * (past.sales[:, day] / share - level)
                level = np.where(day >= past.begins, moved, level)
        return found

    return guess


def _shares(past: Past, origin: int, horizon: int, on_weeks: bool) -> Floats:
    if not on_weeks:
        return np.ones(horizon)
    weekdays = [past.weekday(origin + ahead) for ahead in range(horizon)]
    found: Floats = past.weeks[origin, weekdays]
    return found


def _holt_winters(alpha: float, beta: float, gamma: float) -> Guess:
    def guess(past: Past, origins: Sequence[int], horizon: int) -> Floats:
        level = _start(past)
        trend = np.zeros_like(level)
        week = np.zeros((len(level), WEEK))
        found = np.zeros((len(origins), len(past.sales), horizon))
        places = {origin: place for place, origin in enumerate(origins)}
        ahead = np.cumsum(DAMPING ** np.arange(1, horizon + 1))
        for day in range(max(origins) + 1):
            if day in places:
                weekdays = [past.weekday(day + one) for one in range(horizon)]
                line = level[:, None] + trend[:, None] * ahead + week[:, weekdays]
                found[places[day]] = np.maximum(line, 0.0)
            if day < past.days:
                weekday = past.weekday(day)
                is_on = day >= past.begins
                sold = past.sales[:, day]
                before = level + DAMPING * trend
                moved = before + alpha * (sold - week[:, weekday] - before)
                turned = DAMPING * trend + beta * (moved - before)
                season = week[:, weekday] + gamma * (sold - moved - week[:, weekday])
                trend = np.where(is_on, turned, trend)
                week[:, weekday] = np.where(is_on, season, week[:, weekday])
                level = np.where(is_on, moved, level)
        return found

    return guess


def _croston(alpha: float) -> Guess:
    def guess(past: Past, origins: Sequence[int], horizon: int) -> Floats:
        mean = np.maximum(_start(past), LEAST)
        size = np.maximum(mean, 1.0)
        gap = size / mean
        since = np.ones_like(size)
        found = np.zeros((len(origins), len(past.sales), horizon))
        places = {origin: place for place, origin in enumerate(origins)}
        for day in range(max(origins) + 1):
            if day in places:
                # Syntetos and Boylan: without the factor the quotient is too high in the mean.
                found[places[day]] = ((1 - alpha / 2) * size / gap)[:, None]
            if day < past.days:
                sold = past.sales[:, day]
                is_sale = (sold > 0) & (day >= past.begins)
                size = np.where(is_sale, size + alpha * (sold - size), size)
                gap = np.where(is_sale, np.maximum(gap + alpha * (since - gap), 1.0), gap)
                since = np.where(is_sale, 1.0, since + 1.0)
        return found

    return guess


def _tsb(alpha: float, beta: float, *, on_weeks: bool) -> Guess:
    """Teunter, Syntetos and Babai: how often is updated on days without a sale too, so what is
    bought no longer fades.
    """

    def guess(past: Past, origins: Sequence[int], horizon: int) -> Floats:
        mean = _start(past)
        size = np.maximum(mean, 1.0)
        often = np.clip(mean / size, 0.0, 1.0)
        found = np.zeros((len(origins), len(past.sales), horizon))
        places = {origin: place for place, origin in enumerate(origins)}
        for day in range(max(origins) + 1):
            if day in places:
                found[places[day]] = (often * size)[:, None] * _shares(past, day, horizon, on_weeks)
            if day < past.days:
                sold = past.sales[:, day]
                is_on = day >= past.begins
                is_sale = is_on & (sold > 0)
                size = np.where(is_sale, size + beta * (sold - size), size)
                often = np.where(is_on, often + alpha * (is_sale - often), often)
        return found

    return guess


WAYS: Final[tuple[Way, ...]] = (
    # The plain ones first: another has to be better than they are by some margin.
    Way("mean of weekdays, 8 weeks", _same_weekday(8)),
    Way("level 0.05", _level(0.05, on_weeks=False)),
    Way("level 0.15", _level(0.15, on_weeks=False)),
    Way("level 0.3", _level(0.3, on_weeks=False)),
    Way("level 0.05 on the shop's week", _level(0.05, on_weeks=True)),
    Way("level 0.15 on the shop's week", _level(0.15, on_weeks=True)),
    Way("mean of weekdays, 4 weeks", _same_weekday(4)),
    Way("same weekday", _same_weekday(1)),
    Way("croston 0.1", _croston(0.1)),
    Way("tsb 0.03", _tsb(0.03, 0.1, on_weeks=True)),
    Way("tsb 0.1", _tsb(0.1, 0.1, on_weeks=False)),
    Way("holt-winters 0.05", _holt_winters(0.05, 0.005, 0.05)),
    Way("holt-winters 0.15", _holt_winters(0.15, 0.02, 0.1)),
    Way("holt-winters 0.3", _holt_winters(0.3, 0.05, 0.15)),
)
NAIVE: Final = "same weekday"
"""What every forecast is measured against."""
