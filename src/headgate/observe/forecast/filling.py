"""When something is full: where the forecast, and its interval, reach the limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.observe.forecast.forecasting import Forecast
from headgate.observe.forecast.regular import Floats

__all__ = ["Full", "full"]


@dataclass(frozen=True, slots=True)
class Full:
    """Seconds from the beginning of the forecast; None: not as far as it reaches."""

    likely_s: float | None
    soonest_s: float | None
    latest_s: float | None
    """Of the 80 % interval."""
    reach_s: float
    limit: float


def full(made: Forecast, limit: float, *, now: float | None = None) -> Full:
    """`now` is what is in use; what is full already is full in no time."""
    if now is not None and now >= limit:
        return Full(0.0, 0.0, 0.0, made.reach_s, limit)
    return Full(
        _first(made.middle, limit, made.step_s),
        _first(made.high80, limit, made.step_s),
        _first(made.low80, limit, made.step_s),
        made.reach_s,
        limit,
    )


def _first(line: Floats, limit: float, step_s: float) -> float | None:
    over = np.flatnonzero(line >= limit)
    return float(over[0]) * step_s if len(over) else None
