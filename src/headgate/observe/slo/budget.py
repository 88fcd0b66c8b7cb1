"""How much of a budget is spent, how fast it goes, and how long it lasts.

Theory of operation
-------------------
Of `total` events in the window, `allowed * total` may be bad. What is `consumed` is the bad ones as
a share of those: 1 is all of the budget, more is an objective missed. A burn rate is the share of
bad events in a shorter window over the allowed share: at 1 the budget is spent exactly when its
window ends, at 14.4 a thirty-day budget is gone in two days.

Where there are no events there is no rate: nothing is judged from nothing. Where the budget is
being spent faster than it comes back, it lasts `left * window / burn`, by the burn of six hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from headgate.observe.slo.rules import WINDOWS, Objective, Slo
from headgate.observe.slo.tally import Tally

__all__ = ["Spent", "Standing", "burn_rate", "lasts_s", "spent", "standing"]

State = Literal["met", "at_risk", "missed", "unknown"]
_PACE: Final = ("6h", "1h")
_RISK_LEFT: Final = 0.25
Pairs = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Spent:
    """The budget of one stretch of time."""

    good: float
    total: float
    allowed: float
    """The share that may be bad."""

    @property
    def bad(self) -> float:
        return max(0.0, self.total - self.good)

    @property
    def ratio(self) -> float | None:
        """The share of good events."""
        return min(1.0, self.good / self.total) if self.total > 0 else None

    @property
    def consumed(self) -> float | None:
        """Of the budget; above 1 where it is overspent."""
        return burn_rate(self.good, self.total, self.allowed)

    @property
    def left(self) -> float | None:
        consumed = self.consumed
        return None if consumed is None else 1.0 - consumed

    @property
    def left_events(self) -> float:
        """How many more may be bad, as of now."""
        return self.allowed * self.total - self.bad


@dataclass(frozen=True, slots=True)
class Standing:
    """How an objective stands at one moment."""

    slo: str
    objective: Objective
    at: float
    window_s: float
    spent: Spent
    burn: Mapping[str, float | None] = field(default_factory=dict)
    events: Mapping[str, Spent] = field(default_factory=dict)
    known_share: float = 0.0
    """Of the window, as far as it counts."""
    known_s: float = 0.0
    excluded_s: float = 0.0
    lasts_s: float | None = None
    """Until the budget is spent at the pace of now; None: not at this pace."""
    state: State = "unknown"


def spent(good: float, total: float, allowed: float) -> Spent:
    """Estimates between buckets can be a hair beyond what is possible."""
    total = max(0.0, total)
    return Spent(min(max(0.0, good), total), total, allowed)


def burn_rate(good: float, total: float, allowed: float) -> float | None:
    """How many times faster than allowed events are bad; None where there are none."""
    if total <= 0:
        return None
    return max(0.0, total - good) / total / allowed


def lasts_s(left: float | None, burn: float | None, window_s: float) -> float | None:
    """How long the rest lasts at this pace; zero where nothing is left."""
    if left is None:
        return None
    if left <= 0:
        return 0.0
    if burn is None or burn <= 1.0:
        return None
    return left * window_s / burn


def standing(slo: Slo, objective: Objective, tally: Tally, at: float, closed: Pairs) -> Standing:
    """`tally` has two columns, good and total."""
    start = at - slo.window_s
    whole = _counted(tally.between(start, at, closed), objective)
    events = {
        name: _counted(tally.between(at - length, at, closed), objective)
        for name, length in WINDOWS.items()
        if length <= slo.window_s
    }
    burn = {name: each.consumed for name, each in events.items()}
    excluded = sum(
        max(0.0, min(high, at) - max(low, start)) for low, high in closed if high > start
    )
    counting_s = slo.window_s - excluded
    known_s = tally.known_s(start, at, closed)
    pace = next((burn[name] for name in _PACE if burn.get(name) is not None), None)
    lasts = lasts_s(whole.left, pace, slo.window_s)
    return Standing(
        slo.name,
        objective,
        at,
        slo.window_s,
        whole,
        burn,
        events,
        min(1.0, known_s / counting_s) if counting_s > 0 else 0.0,
        known_s,
        excluded,
        lasts,
        _state(whole, lasts, slo.window_s),
    )


def _counted(counts: NDArray[np.float64], objective: Objective) -> Spent:
    return spent(float(counts[0]), float(counts[1]), objective.allowed)


def _state(whole: Spent, lasts: float | None, window_s: float) -> State:
    left = whole.left
    if left is None:
        return "unknown"
    if left < 0:
        return "missed"
    is_going = lasts is not None and lasts < window_s / 10
    return "at_risk" if left < _RISK_LEFT or is_going else "met"
