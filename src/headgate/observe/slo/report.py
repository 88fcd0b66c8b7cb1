"""What was promised and what was kept in a period: by objective and by day.

Theory of operation. The budget of a period is the allowed share of all events of that period, so a
month's report does not change once the month is over. Times that do not count are cut out of every
figure; times of which nothing is known are told, and are in none.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from headgate.observe.histogram import SHOWN_BOUNDS
from headgate.observe.slo.budget import Spent, spent
from headgate.observe.slo.periods import days_of
from headgate.observe.slo.rules import DURATIONS, Objective, Slo, Term, le
from headgate.observe.slo.tally import Tally

__all__ = [
    "QUANTILES",
    "Day",
    "ObjectiveReport",
    "Report",
    "SloReport",
    "bucket_columns",
    "quantile_of",
    "report_on",
    "to_csv",
    "to_json",
]

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[float, float]]
QUANTILES: Final[Mapping[str, float]] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_POINTS: Final = 160


@dataclass(frozen=True, slots=True)
class Day:
    day: date
    start: float
    end: float
    spent: Spent
    known_share: float


@dataclass(frozen=True, slots=True)
class ObjectiveReport:
    objective: Objective
    spent: Spent
    days: tuple[Day, ...]
    left: tuple[tuple[float, float], ...]
    """Moment and share of the budget that is left then."""

    @property
    def verdict(self) -> Literal["met", "missed", "unknown"]:
        left = self.spent.left
        return "unknown" if left is None else "missed" if left < 0 else "met"


@dataclass(frozen=True, slots=True)
class SloReport:
    slo: Slo
    objectives: tuple[ObjectiveReport, ...]
    known_share: float
    excluded: tuple[tuple[float, float], ...]
    quantiles: Mapping[str, float | None] = field(default_factory=dict)
    quantiles_by_day: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    start: float
    end: float
    zone: str
    made_at: float
    slos: tuple[SloReport, ...]
    is_whole: bool = True
    """Whether the period is over."""


def bucket_columns(slo: Slo) -> list[tuple[Term, ...]]:
    """All buckets of the durations of an SLO, and their count."""
    if slo.durations is None:
        return []
    where = slo.durations
    name = f"{DURATIONS}_bucket"
    columns = [(Term(name, (*where, le(bound))),) for bound in SHOWN_BOUNDS]
    return [*columns, (Term(f"{DURATIONS}_count", where),)]


def quantile_of(counts: Floats, share: float) -> float | None:
    """Out of cumulative counts at `SHOWN_BOUNDS` and of all; evenly spread within a bucket, and
    the last bound where it is passed.
    """
    running = np.maximum.accumulate(np.maximum(counts, 0.0))
    total = float(running[-1])
    if total <= 0:
        return None
    rank = share * total
    at = int(np.searchsorted(running[:-1], rank, "left"))
    if at >= len(SHOWN_BOUNDS):
        return SHOWN_BOUNDS[-1]
    low = SHOWN_BOUNDS[at - 1] if at else 0.0
    below = float(running[at - 1]) if at else 0.0
    inside = float(running[at]) - below
    return low + (SHOWN_BOUNDS[at] - low) * ((rank - below) / inside if inside > 0 else 1.0)


def report_on(
    slo: Slo,
    tally: Tally,
    buckets: Tally | None,
    start: float,
    end: float,
    zone: str,
    closed: Pairs,
) -> SloReport:
    """`tally` has two columns for each objective: good and total."""
    days = days_of(start, end, zone)
    excluded = tuple(
        (max(low, start), min(high, end)) for low, high in closed if high > start and low < end
    )
    made = []
    for number, objective in enumerate(slo.objectives):
        own = Tally(tally.times, tally.sums[2 * number : 2 * number + 2], tally.known)
        counts = own.between(start, end, excluded)
        whole = spent(float(counts[0]), float(counts[1]), objective.allowed)
        made.append(
            ObjectiveReport(
                objective,
                whole,
                tuple(_day(own, objective, *each, excluded) for each in days),
                _burn_down(own, whole, start, end, excluded),
            )
        )
    counts_s = end - start - sum(high - low for low, high in excluded)
    known = tally.known_s(start, end, excluded) / counts_s if counts_s > 0 else 0.0
    quantiles: dict[str, float | None] = {}
    by_day: dict[str, tuple[float | None, ...]] = {}
    if buckets is not None and len(buckets.times):
        over = buckets.between(start, end, excluded)
        each_day = [buckets.between(low, high, excluded) for _, low, high in days]
        for name, share in QUANTILES.items():
            quantiles[name] = quantile_of(over, share)
            by_day[name] = tuple(quantile_of(counts, share) for counts in each_day)
    return SloReport(slo, tuple(made), min(1.0, known), excluded, quantiles, by_day)


def _day(
    tally: Tally, objective: Objective, day: date, start: float, end: float, excluded: Pairs
) -> Day:
    good, total = tally.between(start, end, excluded).tolist()
    cut = sum(max(0.0, min(high, end) - max(low, start)) for low, high in excluded)
    counts_s = end - start - cut
    known = tally.known_s(start, end, excluded) / counts_s if counts_s > 0 else 0.0
    return Day(day, start, end, spent(good, total, objective.allowed), min(1.0, known))


def _burn_down(
    tally: Tally, whole: Spent, start: float, end: float, excluded: Pairs
) -> tuple[tuple[float, float], ...]:
    if whole.total <= 0:
        return ()
    budget = whole.allowed * whole.total
    moments = np.linspace(start, end, _POINTS)
    counted = tally.at(moments) - tally.at([start])
    for low, high in excluded:
        ends = tally.at(np.clip(moments, low, high))
        counted = counted - (ends - tally.at([low]))
    bad = np.maximum.accumulate(np.maximum(counted[1] - counted[0], 0.0))
    return tuple(zip(moments.tolist(), (1.0 - bad / budget).tolist(), strict=True))


# -- forms --------------------------------------------------------------------------------


def to_json(report: Report) -> dict[str, Any]:
    return {
        "start": report.start,
        "end": report.end,
        "zone": report.zone,
        "made_at": report.made_at,
        "is_whole": report.is_whole,
        "slos": [
            {
                "name": each.slo.name,
                "of": each.slo.of,
                "description": each.slo.description,
                "known_share": each.known_share,
                "excluded": [{"start": low, "end": high} for low, high in each.excluded],
                "quantiles_s": dict(each.quantiles),
                "objectives": [_objective_json(each, one) for one in each.objectives],
            }
            for each in report.slos
        ],
    }


def _objective_json(slo: SloReport, one: ObjectiveReport) -> dict[str, Any]:
    return {
        "name": one.objective.name,
        "said": one.objective.said,
        "target": one.objective.target,
        "ratio": one.spent.ratio,
        "events": one.spent.total,
        "bad": one.spent.bad,
        "budget_left": one.spent.left,
        "verdict": one.verdict,
        "days": [
            {
                "day": day.day.isoformat(),
                "events": day.spent.total,
                "bad": day.spent.bad,
                "ratio": day.spent.ratio,
                "known_share": day.known_share,
                **{f"{name}_s": values[place] for name, values in slo.quantiles_by_day.items()},
            }
            for place, day in enumerate(one.days)
        ],
    }


_COLUMNS: Final = (
    "slo", "of", "objective", "target", "from", "to", "events", "bad", "ratio", "budget_consumed",
    "verdict", "known_share", "p50_s", "p95_s", "p99_s",
)  # fmt: skip


def to_csv(report: Report) -> str:
    """A row for each objective over the period, then one for each day."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for each in report.slos:
        for one in each.objectives:
            ends = (_iso(report.start), _iso(report.end))
            said = [each.quantiles.get(name) for name in QUANTILES]
            writer.writerow(_row(each, one, ends, one.spent, each.known_share, one.verdict, said))
            for place, day in enumerate(one.days):
                values = [each.quantiles_by_day.get(name, ()) for name in QUANTILES]
                of_day = [some[place] if some else None for some in values]
                ratio = day.spent.ratio
                verdict = "unknown" if ratio is None else "met"
                if ratio is not None and ratio < one.objective.target:
                    verdict = "missed"
                ends = (_iso(day.start), _iso(day.end))
                writer.writerow(_row(each, one, ends, day.spent, day.known_share, verdict, of_day))
    return out.getvalue()


def _row(
    each: SloReport,
    one: ObjectiveReport,
    ends: tuple[str, str],
    counted: Spent,
    known: float,
    verdict: str,
    quantiles: Sequence[float | None],
) -> list[str]:
    return [
        _cell(each.slo.name),
        _cell(each.slo.of),
        _cell(one.objective.name),
        f"{one.objective.target:.9g}",
        *ends,
        f"{counted.total:.10g}",
        f"{counted.bad:.10g}",
        _figure(counted.ratio),
        _figure(counted.consumed),
        verdict,
        f"{known:.4f}",
        *(_figure(value) for value in quantiles),
    ]


def _cell(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _iso(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
