"""For each product the way that erred least in the past, and intervals as wide as it erred.

Theory of operation
-------------------
Every way (`methods`) is asked from several origins in the past what would come; each product takes
the way whose squared error was smallest, the plain one unless another is better by MARGIN. Squares,
because they are smallest for the mean: absolute errors would have nothing sold every day for
whatever is sold every third day.

The interval of a day goes from the expected value by what the chosen way erred so far ahead, in
shares of the root of what it expected: that is how counts spread, so errors of quiet days tell of
busy ones. Sales are whole numbers, so an interval ends at whole ones and holds what is
expected: it covers at least COVERAGE of the days, and more where little is sold.

Today is known in part. What is still to come is the expected value times the share of a usual day
that is still ahead; what was sold stands. Then today, so completed, is a day like the others before
the forecast of tomorrow is made: that is how an order moves it within seconds.

Little is known of a product in its first weeks: it is continued by its mean, with the spread of
chance alone (Poisson).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from headgate_shop.forecasting.methods import NAIVE, WARM_UP, WAYS, Floats, Ints, Past

__all__ = ["COVERAGE", "HORIZON", "Forecast", "forecast_all"]

Bools: TypeAlias = npt.NDArray[np.bool_]

HORIZON: Final = 28
COVERAGE: Final = 0.8
MARGIN: Final = 0.02
ORIGINS_EVERY: Final = 3
ORIGINS_DAYS: Final = 90
TRIES_LEAST: Final = 4
FLOOR: Final = 0.1
"""Added below the root, so that the errors of what hardly sells are not divided by nothing."""
OPTIMISM: Final = 0.9
"""The way was chosen by the errors that its intervals are made of: they look too good."""
BUCKETS: Final = ((0, 7), (7, 14), (14, HORIZON))


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one product; the first value of each line is today's."""

    method: str
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    most: tuple[float, ...]
    """As much as may be sold in all from today until each day's end; more in one of ten cases."""
    error: float | None
    """The mean absolute error of a day in the past; None where there was too little to try."""
    naive_error: float | None
    """That of the same weekday of the week before."""
    tries: int


def forecast_all(past: Past, sold_today: Floats, gone: float) -> list[Forecast]:
    """Forecasts for all products of `past`, whose last column is yesterday. `gone` is the share of
    a usual day's sales that has its time behind it.
    """
    gone = min(1.0, max(0.0, gone))
    origins = _origins(past.days)
    guesses = [way.guess(past, [*origins, past.days], HORIZON) for way in WAYS]
    valid = _valid(past, origins)
    costs = np.stack([_cost(past, guess[:-1], origins, valid) for guess in guesses])
    chosen = _chosen(costs)
    naive = [way.name for way in WAYS].index(NAIVE)
    found: list[Forecast | None] = [None] * len(past.sales)
    for number in np.unique(chosen):
        places = np.flatnonzero(chosen == number)
        part = Past(past.sales[places], past.begins[places], past.weeks, past.first_weekday)
        if number < 0:
            made = [_young(part, place, float(sold_today[places[place]]), gone)
                    for place in range(len(places))]  # fmt: skip
        else:
            made = _made(
                int(number),
                part,
                guesses[number][:, places],
                guesses[naive][:, places],
                origins,
                valid[:, places],
                sold_today[places],
                gone,
            )
        for place, forecast in zip(places, made, strict=True):
            found[place] = forecast
    return [one for one in found if one is not None]


def _origins(days: int) -> list[int]:
    """Days from which the past is tried, the last leaving one to be compared."""
    first = max(WARM_UP, days - ORIGINS_DAYS)
    return list(range(days - 1, first - 1, -ORIGINS_EVERY))[::-1]


def _valid(past: Past, origins: Sequence[int]) -> Bools:
    """[origins, products]: whether the product was known long enough by then."""
    at = np.array(origins, dtype=np.intp)
    return at[:, None] >= past.begins[None, :] + WARM_UP


def _errors(past: Past, guess: Floats, origins: Sequence[int]) -> Floats:
    """[origins, products, horizon]: what came less what was expected; nan where none came yet."""
    errors = np.full(guess.shape, np.nan)
    for place, origin in enumerate(origins):
        there = min(HORIZON, past.days - origin)
        errors[place, :, :there] = past.sales[:, origin : origin + there] - guess[place, :, :there]
    return errors


def _cost(past: Past, guess: Floats, origins: Sequence[int], valid: Bools) -> Floats:
    """The mean squared error of each product over all tries; infinite with too few."""
    if not origins:
        return np.full(len(past.sales), np.inf)
    squares = _errors(past, guess, origins) ** 2
    is_known = np.isfinite(squares) & valid[:, :, None]
    counts = is_known.sum(axis=(0, 2))
    sums = np.where(is_known, squares, 0.0).sum(axis=(0, 2))
    enough = valid.sum(axis=0) >= TRIES_LEAST
    found: Floats = np.where(enough, sums / np.maximum(counts, 1), np.inf)
    return found


def _chosen(costs: Floats) -> Ints:
    """The number of each product's way; -1 where nothing could be tried."""
    best = np.full(costs.shape[1], -1, dtype=np.intp)
    least = np.full(costs.shape[1], np.inf)
    for number, cost in enumerate(costs):
        is_better = (cost < least * (1 - MARGIN)) | ((best < 0) & np.isfinite(cost))
        best = np.where(is_better, number, best)
        least = np.where(is_better, cost, least)
    return best


def _made(
    number: int,
    past: Past,
    guesses: Floats,
    naive: Floats,
    origins: Sequence[int],
    valid: Bools,
    sold_today: Floats,
    gone: float,
) -> list[Forecast]:
    errors = _errors(past, guesses[:-1], origins)
    errors[~valid] = np.nan
    naive_errors = _errors(past, naive[:-1], origins)
    naive_errors[~valid] = np.nan
    with np.errstate(invalid="ignore"):
        scaled = errors / np.sqrt(guesses[:-1] + FLOOR)
        sums = np.cumsum(errors, axis=2)
        scaled_sums = sums / np.sqrt(np.cumsum(guesses[:-1], axis=2) + FLOOR)
    expected, rest = _completed(number, past, guesses[-1][:, 0], sold_today, gone)
    spread = np.sqrt(expected + FLOOR)
    spread[:, 0] = np.sqrt((guesses[-1][:, 0] + FLOOR) * rest)
    low_z, high_z = _by_bucket(scaled)
    base = np.zeros_like(expected)
    base[:, 0] = sold_today
    low = np.rint(np.maximum(expected + np.minimum(low_z, 0) * spread, base))
    low = np.minimum(low, np.floor(expected + 1e-9))
    high = np.rint(expected + np.maximum(high_z, 0) * spread)
    high = np.maximum(high, np.ceil(expected - 1e-9))
    whole = np.cumsum(expected, axis=1)
    most = np.ceil(whole + _sum_z(scaled_sums) * np.sqrt(whole + FLOOR) - 1e-9)
    own = np.nanmean(np.abs(errors), axis=(0, 2))
    plain = np.nanmean(np.abs(naive_errors), axis=(0, 2))
    return [
        Forecast(
            method=WAYS[number].name,
            expected=tuple(expected[place].round(3).tolist()),
            low=tuple(low[place].tolist()),
            high=tuple(high[place].tolist()),
            most=tuple(np.maximum.accumulate(most[place]).tolist()),
            error=round(float(own[place]), 4),
            naive_error=round(float(plain[place]), 4),
            tries=int(valid[:, place].sum()),
        )
        for place in range(len(past.sales))
    ]


def _completed(
    number: int, past: Past, first: Floats, sold_today: Floats, gone: float
) -> tuple[Floats, float]:
    """What is expected of today and the days after it, with today taken into account."""
    rest = 1.0 - gone
    today = sold_today + rest * first
    more = Past(
        np.concatenate([past.sales, today[:, None]], axis=1),
        past.begins,
        np.concatenate([past.weeks, past.weeks[-1:]], axis=0),
        past.first_weekday,
    )
    later = WAYS[number].guess(more, [more.days], HORIZON - 1)[0]
    return np.concatenate([today[:, None], np.maximum(later, 0.0)], axis=1), rest


def _by_bucket(scaled: Floats) -> tuple[Floats, Floats]:
    """[products, horizon] twice: how far the interval goes to either side, in roots."""
    low, high = np.full(scaled.shape[1:], -1.3), np.full(scaled.shape[1:], 1.3)
    tail = (1 - COVERAGE) / 2 * OPTIMISM
    for first, last in BUCKETS:
        pool = scaled[:, :, first:last].transpose(1, 0, 2).reshape(scaled.shape[1], -1)
        is_enough = np.isfinite(pool).sum(axis=1) >= 2 * TRIES_LEAST
        edges = np.nanquantile(np.where(is_enough[:, None], pool, 0.0), [tail, 1 - tail], axis=1)
        # So far ahead the past may be too short: what is nearer has to do, a little wider.
        nearer = max(0, first - 1)
        low[:, first:last] = np.where(is_enough, edges[0], 1.1 * low[:, nearer])[:, None]
        high[:, first:last] = np.where(is_enough, edges[1], 1.1 * high[:, nearer])[:, None]
    return low, high


def _sum_z(scaled: Floats) -> Floats:
    """[products, horizon]: what nine of ten sums stayed below, in roots."""
    found = np.full(scaled.shape[1:], 1.3)
    for ahead in range(scaled.shape[2]):
        some = scaled[:, :, ahead]
        is_enough = np.isfinite(some).sum(axis=0) >= TRIES_LEAST
        edge = np.nanquantile(np.where(is_enough, some, 0.0), 0.9, axis=0)
        found[:, ahead] = np.where(is_enough, edge, found[:, max(0, ahead - 1)])
    clipped: Floats = np.maximum(found, 0.0)
    return clipped


def _young(past: Past, place: int, sold_today: float, gone: float) -> Forecast:
    begin = int(past.begins[place])
    days = max(0, past.days - begin)
    sold = float(past.sales[place, begin:].sum()) if days else 0.0
    mean = (sold + sold_today) / (days + max(gone, 0.05)) if sold + sold_today else 0.0
    today = sold_today + (1 - gone) * mean
    expected = (today, *(mean for _ in range(HORIZON - 1)))
    low, high = _chance(mean)
    whole = [today + mean * ahead for ahead in range(HORIZON)]
    return Forecast(
        method="mean" if mean else "nothing sold yet",
        expected=tuple(round(one, 3) for one in expected),
        low=(max(sold_today, 0.0), *(low for _ in range(HORIZON - 1))),
        high=(sold_today + _chance((1 - gone) * mean)[1], *(high for _ in range(HORIZON - 1))),
        most=tuple(_chance(one)[1] for one in whole),
        error=None,
        naive_error=None,
        tries=0,
    )


def _chance(mean: float) -> tuple[float, float]:
    """Between which a count lies in eight of ten cases, if nothing but chance moves it."""
    if mean <= 0:
        return 0.0, 0.0
    if mean > 200:
        wide = 1.2816 * math.sqrt(mean)
        return math.floor(mean - wide), math.ceil(mean + wide)
    tail = (1 - COVERAGE) / 2
    below, each, count, low = 0.0, math.exp(-mean), 0, -1
    while True:
        below += each
        if low < 0 and below > tail:
            low = count
        if below >= 1 - tail:
            return float(low), float(count)
        count += 1
        each *= mean / count
