"""What becomes of the calls of a process, by whom it calls. Pure counts; `reporting` tells them.

Theory of operation
-------------------
An *edge* is one service that is called. Its counts only grow, and the call itself adds to them in
place: three additions and a bisection. `take` answers what has been counted since it was taken
last, and keeps that until `taken` says that it has arrived; what did not arrive goes along with
the next report. A report that arrived without our hearing of it is counted twice, which is rare,
and better than calls that are in no figure.

The number of edges is bounded by the services that a program names. One that names services
without end has its calls to all beyond `MOST` counted in one edge.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Final

from headgate.observe.histogram import SHOWN_BOUNDS

__all__ = ["MOST", "OTHERS", "Edge", "EdgeSnapshot", "Edges"]

MOST: Final = 500
OTHERS: Final = "(others)"
_BOUNDS: Final = SHOWN_BOUNDS


@dataclass(frozen=True, slots=True)
class EdgeSnapshot:
    to: str
    requests: int
    """Calls, however many attempts each took."""
    errors: int
    """Calls that ended with a 5xx or without an answer."""
    retries: int
    hedges: int
    buckets: tuple[int, ...]
    """Calls by duration: a count for each bound of `SHOWN_BOUNDS`, and one for what took longer."""
    seconds: float
    """All durations together."""

    def __sub__(self, before: EdgeSnapshot) -> EdgeSnapshot:
        return EdgeSnapshot(
            self.to,
            self.requests - before.requests,
            self.errors - before.errors,
            self.retries - before.retries,
            self.hedges - before.hedges,
            tuple(now - then for now, then in zip(self.buckets, before.buckets, strict=True)),
            self.seconds - before.seconds,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "to": self.to,
            "requests": self.requests,
            "errors": self.errors,
            "retries": self.retries,
            "hedges": self.hedges,
            "duration_s": {
                "count": sum(self.buckets),
                "sum": round(self.seconds, 6),
                "buckets": list(self.buckets),
            },
        }


class Edge:
    """The counts of one service. The call adds to them itself."""

    __slots__ = ("buckets", "errors", "hedges", "requests", "retries", "seconds", "to")

    def __init__(self, to: str) -> None:
        self.to = to
        self.requests = 0
        self.errors = 0
        self.retries = 0
        self.hedges = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(_BOUNDS) + 1)

    def ended(self, took_s: float, *, failed: bool) -> None:
        """A call has ended, one way or the other."""
        self.requests += 1
        self.seconds += took_s
        self.buckets[bisect_left(_BOUNDS, took_s)] += 1
        if failed:
            self.errors += 1

    def snapshot(self) -> EdgeSnapshot:
        return EdgeSnapshot(
            self.to,
            self.requests,
            self.errors,
            self.retries,
            self.hedges,
            tuple(self.buckets),
            self.seconds,
        )


class Edges:
    def __init__(self) -> None:
        self._edges: dict[str, Edge] = {}
        self._told: dict[str, EdgeSnapshot] = {}
        self._under_way: dict[str, EdgeSnapshot] = {}

    def to(self, service: str) -> Edge:
        """The edge to a service; a new one begins at zero."""
        found = self._edges.get(service)
        if found is None:
            if len(self._edges) >= MOST:
                service = OTHERS
            found = self._edges.setdefault(service, Edge(service))
        return found

    def snapshot(self) -> tuple[EdgeSnapshot, ...]:
        """All of it, since the start."""
        return tuple(edge.snapshot() for edge in self._edges.values())

    def take(self) -> list[EdgeSnapshot]:
        """What has been counted since the last one that arrived."""
        self._under_way = {each.to: each for each in self.snapshot()}
        found: list[EdgeSnapshot] = []
        for to, now in self._under_way.items():
            before = self._told.get(to)
            since = now if before is None else now - before
            if since.requests or since.retries or since.hedges:
                found.append(since)
        return found

    def taken(self) -> None:
        """What `take` gave out has arrived."""
        self._told = self._under_way
