"""The gateway now: what changed between two looks at the totals. Pure.

Totals only grow, so the difference of two of them is what happened in between, percentiles too: the
buckets of a histogram are counts like any other. Where a total has fallen all the same (a control
process that was started again without what it knew), it counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.observe import Merged, histogram

__all__ = ["Look", "look", "overview"]

_REQUESTS = "headgate_http_requests_total"
_DURATIONS = "headgate_http_request_duration_seconds"


@dataclass(slots=True)
class _Counted:
    requests: float = 0.0
    client_errors: float = 0.0
    server_errors: float = 0.0
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """The totals at one moment."""

    at: float
    routes: Mapping[tuple[str, str], _Counted]
    in_flight: int
    connections: int


def look(merged: Merged, at: float) -> Look:
    routes: dict[tuple[str, str], _Counted] = {}
    for (route, service, _, code), count in merged.numbers.get(_REQUESTS, {}).items():
        counted = routes.setdefault((route, service), _Counted())
        counted.requests += count
        if code[:1] == "4":
            counted.client_errors += count
        elif code[:1] == "5":
            counted.server_errors += count
    for labels, seen in merged.histograms.get(_DURATIONS, {}).items():
        counted = routes.setdefault((labels[0], labels[1]), _Counted())
        counted.counts = list(seen.counts)
        counted.sum = seen.sum
    return Look(
        at,
        routes,
        int(merged.total("headgate_http_requests_in_flight")),
        int(merged.total("headgate_connections")),
    )


def overview(before: Look, after: Look, most: int = 20) -> dict[str, Any]:
    """What happened in between: as a whole, and of the routes that had most."""
    seconds = max(after.at - before.at, 1e-3)
    total = _Counted(counts=histogram.empty())
    rows: list[tuple[float, dict[str, Any]]] = []
    for key, now in after.routes.items():
        was = before.routes.get(key, _Counted())
        part = _Counted(
            max(0.0, now.requests - was.requests),
            max(0.0, now.client_errors - was.client_errors),
            max(0.0, now.server_errors - was.server_errors),
            _less(now.counts, was.counts),
            max(0.0, now.sum - was.sum),
        )
        if not part.requests:
            continue
        total.requests += part.requests
        total.client_errors += part.client_errors
        total.server_errors += part.server_errors
        if part.counts:
            histogram.add(total.counts, part.counts)
        total.sum += part.sum
        rows.append((part.requests, {"route": key[0], "service": key[1], **_said(part, seconds)}))
    rows.sort(key=lambda row: (-row[0], row[1]["route"], row[1]["service"]))
    return {
        "over_s": round(seconds, 3),
        **_said(total, seconds),
        "in_flight": after.in_flight,
        "connections": after.connections,
        "routes": [row for _, row in rows[:most]],
        "routes_busy": len(rows),
    }


def _less(now: list[int], was: list[int]) -> list[int]:
    if len(was) != len(now):
        return now
    return [max(0, one - other) for one, other in zip(now, was, strict=True)]


def _said(part: _Counted, seconds: float) -> dict[str, Any]:
    return {
        "requests_per_s": round(part.requests / seconds, 3),
        "client_error_rate": _share(part.client_errors, part.requests),
        "error_rate": _share(part.server_errors, part.requests),
        "p50_ms": _ms(part.counts, 0.5),
        "p95_ms": _ms(part.counts, 0.95),
        "p99_ms": _ms(part.counts, 0.99),
    }


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0


def _ms(counts: list[int], q: float) -> float | None:
    found = histogram.quantile(counts, q) if counts else None
    return None if found is None else round(found * 1000, 3)
