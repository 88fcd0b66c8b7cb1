"""Who calls whom, from what callers report: counts by edge, with the last minutes kept apart. Pure.

Theory of operation
-------------------
A report says what one process counted since its last one: requests, errors, retries and durations
in buckets, by the service that it called. Counts are added to the edge (source, destination) as
such and to a *slot* of time, of which the last ones are kept: rates and percentiles are of these,
so that what was an hour ago does not hide what is. Histograms add up bucket by bucket, however many
processes a service has.

An edge of which nothing is heard for `AGE_S` is forgotten. There are `EDGES_MAX`; what comes beyond
is counted under (`other`, `other`) until one has aged out. What processes say of their breakers is
held by process, and for a few reports only: one that has ended says nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Final

from headgate.observe.histogram import SHOWN_BOUNDS, quantile

__all__ = [
    "BreakerSaid",
    "EdgeFigures",
    "EdgeReport",
    "Edges",
    "Refusal",
    "RefusalSaid",
    "Report",
]

OTHER: Final = "other"
EDGES_MAX: Final = 2000
PROCESSES_MAX: Final = 2000
REFUSALS_MAX: Final = 1000
TOLD_EVERY_S: Final = 60.0
AGE_S: Final = 900.0
SLOT_S: Final = 15.0
SLOTS: Final = 20
PLACES: Final = len(SHOWN_BOUNDS) + 1
_BREAKERS_REPORTS: Final = 3.0
_BREAKERS_LEAST_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """What one process counted towards one service."""

    to: str
    requests: int
    errors: int
    retries: int
    hedges: int
    buckets: tuple[int, ...]
    """By `SHOWN_BOUNDS`, and one for what took longer."""
    seconds: float


@dataclass(frozen=True, slots=True)
class BreakerSaid:
    service: str
    name: str
    state: str


@dataclass(frozen=True, slots=True)
class RefusalSaid:
    """Calls to whoever reports, that rules of access speak against."""

    source: str
    why: str
    mode: str
    count: int


@dataclass(frozen=True, slots=True)
class Refusal:
    source: str
    destination: str
    why: str
    mode: str
    count: int
    heard_ago_s: float


@dataclass(frozen=True, slots=True)
class Report:
    source: str
    process: str
    every_s: float
    edges: tuple[EdgeReport, ...]
    breakers: tuple[BreakerSaid, ...] = ()
    refused: tuple[RefusalSaid, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeFigures:
    """An edge as it is shown."""

    source: str
    destination: str
    requests: int
    errors: int
    retries: int
    hedges: int
    requests_per_s: float
    """Of the last minutes, as are the following."""
    error_rate: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    mean_s: float | None
    breakers: Mapping[str, int] = field(default_factory=dict)
    """How many processes say of a breaker towards there that it is in this state."""
    heard_ago_s: float = 0.0


class _Counts:
    __slots__ = ("buckets", "errors", "hedges", "requests", "retries", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.retries = 0
        self.hedges = 0
        self.seconds = 0.0
        self.buckets = [0] * PLACES

    def add(self, said: EdgeReport | _Counts) -> None:
        self.requests += said.requests
        self.errors += said.errors
        self.retries += said.retries
        self.hedges += said.hedges
        self.seconds += said.seconds
        self.buckets[:] = map(add, self.buckets, said.buckets)


class _Edge:
    __slots__ = ("first_at", "heard_at", "slots", "total")

    def __init__(self, now: float) -> None:
        self.first_at = self.heard_at = now
        self.total = _Counts()
        self.slots: dict[int, _Counts] = {}

    def add(self, said: EdgeReport, now: float) -> None:
        self.heard_at = now
        self.total.add(said)
        at = int(now // SLOT_S)
        slot = self.slots.get(at)
        if slot is None:
            for old in [each for each in self.slots if each <= at - SLOTS]:
                del self.slots[old]
            slot = self.slots[at] = _Counts()
        slot.add(said)

    def lately(self, now: float) -> tuple[_Counts, float]:
        """What the slots hold, and of how many seconds."""
        at = int(now // SLOT_S)
        found = _Counts()
        for each, counts in self.slots.items():
            if each > at - SLOTS:
                found.add(counts)
        begins = max((at - SLOTS + 1) * SLOT_S, self.first_at - SLOT_S)
        return found, max(now - begins, SLOT_S)


@dataclass(slots=True)
class _Process:
    source: str
    breakers: tuple[BreakerSaid, ...]
    until: float


@dataclass(slots=True)
class _Refused:
    count: int = 0
    at: float = 0.0
    told_at: float = -TOLD_EVERY_S


class Edges:
    def __init__(self, edges_max: int = EDGES_MAX) -> None:
        self._most = edges_max
        self._edges: dict[tuple[str, str], _Edge] = {}
        self._processes: dict[str, _Process] = {}
        self._refusals: dict[tuple[str, str, str, str], _Refused] = {}
        self.reports = 0
        self.overflowed = 0
        """Edges of reports that were counted under `other`."""

    def __len__(self) -> int:
        return len(self._edges)

    def take(self, report: Report, now: float) -> list[RefusalSaid]:
        """Count it; the answer is which refusals are news."""
        self.reports += 1
        self._forget(now)
        for said in report.edges:
            key = (report.source, said.to)
            edge = self._edges.get(key)
            if edge is None:
                if len(self._edges) >= self._most and key != (OTHER, OTHER):
                    self.overflowed += 1
                    key = (OTHER, OTHER)
                    edge = self._edges.get(key)
                if edge is None:
                    edge = self._edges[key] = _Edge(now)
            edge.add(said, now)
        news = [one for one in report.refused if self._refuse(one, report.source, now)]
        held_s = max(report.every_s * _BREAKERS_REPORTS, _BREAKERS_LEAST_S)
        self._processes.pop(report.process, None)
        if report.breakers:
            if len(self._processes) >= PROCESSES_MAX:
                del self._processes[next(iter(self._processes))]
            told = _Process(report.source, report.breakers, now + held_s)
            self._processes[report.process] = told
        return news

    def _refuse(self, said: RefusalSaid, destination: str, now: float) -> bool:
        """Whether it is worth a word: for the first time, or again after a while."""
        key = (said.source, destination, said.why, said.mode)
        held = self._refusals.get(key)
        if held is None:
            if len(self._refusals) >= REFUSALS_MAX:
                key = (OTHER, OTHER, said.why, said.mode)
            held = self._refusals.setdefault(key, _Refused())
        held.count += said.count
        held.at = now
        if now - held.told_at < TOLD_EVERY_S:
            return False
        held.told_at = now
        return True

    def refusals(self, now: float) -> list[Refusal]:
        """Since control's start, the newest first."""
        found = [Refusal(*key, one.count, now - one.at) for key, one in self._refusals.items()]
        return sorted(found, key=lambda each: (each.heard_ago_s, each.source, each.destination))

    def _forget(self, now: float) -> None:
        # In the order heard first, not last: with few edges a look at all of them costs little, and
        # reports are few.
        for key in [key for key, edge in self._edges.items() if now - edge.heard_at > AGE_S]:
            del self._edges[key]
        for name in [name for name, one in self._processes.items() if one.until <= now]:
            del self._processes[name]

    def figures(self, now: float) -> list[EdgeFigures]:
        """All edges, by name."""
        self._forget(now)
        breakers = self._breakers()
        return [
            _figures(key, edge, breakers.get(key, {}), now)
            for key, edge in sorted(self._edges.items())
        ]

    def _breakers(self) -> dict[tuple[str, str], dict[str, int]]:
        found: dict[tuple[str, str], dict[str, int]] = {}
        for process in self._processes.values():
            for said in process.breakers:
                states = found.setdefault((process.source, said.service), {})
                states[said.state] = states.get(said.state, 0) + 1
        return found

    def totals(self) -> Iterator[tuple[str, str, int, int, int, Sequence[int], float]]:
        """Source, destination, requests, errors, retries, buckets and seconds, for metrics."""
        for (source, destination), edge in self._edges.items():
            total = edge.total
            yield (
                source,
                destination,
                total.requests,
                total.errors,
                total.retries,
                total.buckets,
                total.seconds,
            )


def _figures(
    key: tuple[str, str], edge: _Edge, breakers: Mapping[str, int], now: float
) -> EdgeFigures:
    lately, over_s = edge.lately(now)
    total = edge.total
    counted = sum(lately.buckets)
    return EdgeFigures(
        source=key[0],
        destination=key[1],
        requests=total.requests,
        errors=total.errors,
        retries=total.retries,
        hedges=total.hedges,
        requests_per_s=lately.requests / over_s,
        error_rate=lately.errors / lately.requests if lately.requests else None,
        p50_s=quantile(lately.buckets, 0.5, SHOWN_BOUNDS),
        p95_s=quantile(lately.buckets, 0.95, SHOWN_BOUNDS),
        p99_s=quantile(lately.buckets, 0.99, SHOWN_BOUNDS),
        mean_s=lately.seconds / counted if counted else None,
        breakers=breakers,
        heard_ago_s=now - edge.heard_at,
    )
