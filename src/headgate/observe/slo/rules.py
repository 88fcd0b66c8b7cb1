"""What a service level objective says: which events are good, of which, and how many must be.

Theory of operation
-------------------
Every objective is a share of events: `good / total >= target` over a window. So "p95 below 300 ms"
is the same as "95 % of requests below 300 ms", and percentiles, availability and figures of a
business have one arithmetic, one budget and one kind of alert.

Good and total are weighted sums of counters (`Term`). Availability is all requests less the failed
ones. A bound of latency that lies between two buckets is taken from both, as if durations were
spread evenly between them, which is also what `histogram_quantile` takes for granted; at a bound of
a bucket the count is exact.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.slo.closed import Span, Weekly
from headgate.units import format_duration

__all__ = [
    "WINDOWS",
    "Matching",
    "Objective",
    "Slo",
    "SloDefaults",
    "Term",
    "availability",
    "latency",
    "le",
    "share",
]

REQUESTS: Final = "headgate_http_requests_total"
DURATIONS: Final = "headgate_http_request_duration_seconds"
_DAY_S: Final = 86400.0

WINDOWS: Final[Mapping[str, float]] = {
    "5m": 300.0,
    "30m": 1800.0,
    "1h": 3600.0,
    "2h": 7200.0,
    "6h": 21600.0,
    "1d": _DAY_S,
    "3d": 3 * _DAY_S,
}
"""The windows for which burn rates are kept."""

Matching = tuple[tuple[str, Literal["=", "!=", "=~", "!~"], str], ...]


@dataclass(frozen=True, slots=True)
class SloDefaults:
    """Defaults that the file's manual and the code share."""

    window_s: float = 30 * _DAY_S
    failed: tuple[str, ...] = ("5xx",)
    exclude: tuple[str, ...] = ("499",)
    min_requests: int = 30
    min_failures: int = 3


@dataclass(frozen=True, slots=True)
class Term:
    """The increase of all series of one name that fit, times a weight."""

    name: str
    matching: Matching = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Objective:
    name: str
    """Within its SLO: `availability`, `p95`, `below-300ms`, `indicator`."""
    target: float
    """The share of events that must be good, between 0 and 1."""
    good: tuple[Term, ...]
    total: tuple[Term, ...]
    said: str = ""
    """For people."""
    bound_s: float | None = None
    """Of latency."""
    quantile: float | None = None
    is_exact: bool = True
    """Whether the bound is that of a bucket."""

    @property
    def allowed(self) -> float:
        """The share of events that may be bad. Rounded: 1 - 0.999 is not 0.001 in binary."""
        return round(1.0 - self.target, 12)


@dataclass(frozen=True, slots=True)
class Slo:
    name: str
    objectives: tuple[Objective, ...]
    window_s: float = SloDefaults().window_s
    of: str = ""
    """What it is about, for people: `route checkout`."""
    durations: Matching | None = None
    """Which histograms of durations are its own; none for an indicator."""
    closed: tuple[Span | Weekly, ...] = ()
    """Times that do not count, as the file says them."""
    min_requests: int = SloDefaults().min_requests
    min_failures: int = SloDefaults().min_failures
    is_alerting: bool = True
    labels: tuple[tuple[str, str], ...] = ()
    description: str = ""


def of_any(label: str, values: Sequence[str]) -> Matching:
    """One of these values; nothing where none is said."""
    if not values:
        return ()
    if len(values) == 1:
        return ((label, "=", values[0]),)
    return ((label, "=~", "|".join(re.escape(each) for each in values)),)


def codes(statuses: Sequence[str]) -> str:
    """`5xx`, `429` as a regular expression for the label `code`."""
    return "|".join(each.lower().replace("x", ".") for each in statuses)


def availability(
    target: float, where: Matching, failed: Sequence[str], exclude: Sequence[str]
) -> Objective:
    """Requests that did not fail, of those that are not excluded."""
    kept: Matching = (("code", "!~", codes(exclude)),) if exclude else ()
    total = Term(REQUESTS, (*where, *kept))
    bad = Term(REQUESTS, (*where, *kept, ("code", "=~", codes(failed))), -1.0)
    what = ", ".join(failed)
    return Objective(
        "availability",
        target,
        (total, bad),
        (total,),
        f"{share(target)} of requests without {what}",
    )


def latency(
    target: float, where: Matching, bound_s: float, *, quantile: float | None = None
) -> Objective:
    """Requests that took no longer than a bound."""
    bounds = SHOWN_BOUNDS
    at = bisect_left(bounds, bound_s)
    bucket = f"{DURATIONS}_bucket"
    good: list[Term] = []
    is_exact = at < len(bounds) and bounds[at] == bound_s
    if is_exact or at >= len(bounds):
        good.append(Term(bucket, (*where, le(bounds[min(at, len(bounds) - 1)]))))
    else:
        low = bounds[at - 1] if at else 0.0
        weight = round((bound_s - low) / (bounds[at] - low), 9)
        if at:
            good.append(Term(bucket, (*where, le(low)), 1.0 - weight))
        good.append(Term(bucket, (*where, le(bounds[at])), weight))
    shown = format_duration(bound_s)
    name = f"below-{shown}" if quantile is None else f"p{quantile * 100:g}"
    return Objective(
        name,
        target,
        tuple(good),
        (Term(f"{DURATIONS}_count", where),),
        f"{share(target)} of requests within {shown}",
        bound_s,
        quantile,
        is_exact,
    )


def le(bound: float) -> tuple[str, Literal["=", "=~"], str]:
    """A bound as the label says it; Prometheus writes 1 as 1.0 since version 3."""
    text = f"{bound:g}"
    return ("le", "=~", f"{text}|{text}[.]0") if "." not in text else ("le", "=", text)


def share(value: float) -> str:
    """99.95% with as many digits as it needs."""
    return f"{round(value * 100, 6):g}%" if round(value * 100, 6) < 1e5 else "100%"
