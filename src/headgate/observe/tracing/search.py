"""Which traces of the store are asked for, and what is told of them.

A trace is found if one of its spans fits what is said of a span (service, route, status, attribute,
text in its name), all at once, and the whole fits what is said of a trace (time, duration, whether
anything failed). The newest come first; a page ends with a cursor, and traces that come or go
between two pages do not make any other appear twice or be left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.observe.tracing.record import SpanRecord
from headgate.observe.tracing.store import span_of

__all__ = ["Found", "ServiceSummary", "TraceQuery", "TraceSummary", "find", "services", "spans_of"]

_STATUSES: Final = 1000
_SAMPLE: Final = 20_000


@dataclass(frozen=True, slots=True)
class TraceQuery:
    service: str = ""
    route: str = ""
    text: str = ""
    """In the name of a span, upper or lower case alike."""
    status: tuple[int, int] | None = None
    """From and to, both included."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Compared as text: true, 42, 0.5."""
    min_s: float | None = None
    max_s: float | None = None
    since: float | None = None
    until: float | None = None
    errors_only: bool = False


@dataclass(frozen=True, slots=True)
class TraceSummary:
    trace_id: str
    start: float
    duration_s: float
    spans: int
    errors: int
    name: str
    service: str
    route: str
    status: int


@dataclass(frozen=True, slots=True)
class Found:
    traces: tuple[TraceSummary, ...]
    after: tuple[float, str] | None
    """Where the next page begins; None at the end."""


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """What a service did in the traces that were kept: no measure of all its requests."""

    service: str
    spans: int
    errors: int
    p50_s: float
    p95_s: float
    max_s: float


def _of_spans(query: TraceQuery) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    values: list[Any] = []
    if query.service:
        where.append("s.service = ?")
        values.append(query.service)
    if query.route:
        where.append("s.route = ?")
        values.append(query.route)
    if query.text:
        where.append("s.name LIKE ? ESCAPE '\\'")
        plain = query.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values.append(f"%{plain}%")
    if query.status is not None:
        where.append("s.status BETWEEN ? AND ?")
        values += query.status
    for key, value in query.attributes.items():
        # By `json_each`, since a key may hold dots and quotes, which a path gives a meaning.
        where.append(
            "EXISTS (SELECT 1 FROM json_each(s.attributes) WHERE key = ? AND CASE type"
            " WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(value AS TEXT) END = ?)"
        )
        values += (key, value)
    return where, values


def find(
    db: sqlite3.Connection,
    query: TraceQuery,
    *,
    limit: int = 50,
    after: tuple[float, str] | None = None,
) -> Found:
    """A page of traces, the newest first."""
    where: list[str] = []
    values: list[Any] = []
    if query.since is not None:
        where.append("t.start >= ?")
        values.append(query.since)
    if query.until is not None:
        where.append("t.start <= ?")
        values.append(query.until)
    if query.min_s is not None:
        where.append("t.duration >= ?")
        values.append(query.min_s)
    if query.max_s is not None:
        where.append("t.duration <= ?")
        values.append(query.max_s)
    if query.errors_only:
        where.append("t.failed > 0")
    if after is not None:
        where.append("(t.start, t.trace_id) < (?, ?)")
        values += (after[0], bytes.fromhex(after[1]))
    of_spans, span_values = _of_spans(query)
    if of_spans:
        inner = " AND ".join(["s.trace_id = t.trace_id", *of_spans])
        where.append(f"EXISTS (SELECT 1 FROM spans s WHERE {inner})")  # noqa: S608  # all bound
        values += span_values
    clause = f"WHERE {' AND '.join(where)}" if where else ""
    rows = db.execute(
        "SELECT trace_id, start, duration, spans, failed, name, service, route, status"  # noqa: S608
        f" FROM traces t {clause} ORDER BY t.start DESC, t.trace_id DESC LIMIT ?",
        (*values, limit + 1),
    ).fetchall()
    found = tuple(TraceSummary(bytes(row[0]).hex(), *row[1:]) for row in rows[:limit])
    more = len(rows) > limit and bool(found)
    return Found(found, (found[-1].start, found[-1].trace_id) if more else None)


def spans_of(db: sqlite3.Connection, trace_id: str) -> list[SpanRecord]:
    """All that is there of one trace; a row that cannot be read is passed over."""
    rows = db.execute("SELECT * FROM spans WHERE trace_id = ?", (bytes.fromhex(trace_id),))
    found: list[SpanRecord] = []
    for row in rows:
        try:
            found.append(span_of(row))
        except (ValueError, TypeError, IndexError):
            continue
    return found


def services(
    db: sqlite3.Connection, *, since: float | None = None, until: float | None = None
) -> list[ServiceSummary]:
    """What each service did, by its own requests; of the newest twenty thousand spans."""
    rows: Sequence[tuple[str, float, int]] = db.execute(
        "SELECT s.service, s.duration, s.failed FROM traces t JOIN spans s"
        " ON s.trace_id = t.trace_id WHERE t.start >= ? AND t.start <= ?"
        " AND s.kind IN ('server', 'consumer') ORDER BY t.start DESC LIMIT ?",
        (since or 0.0, 1e12 if until is None else until, _SAMPLE),
    ).fetchall()
    by_service: dict[str, list[tuple[float, int]]] = {}
    for service, duration_s, failed in rows:
        by_service.setdefault(service, []).append((duration_s, failed))
    found: list[ServiceSummary] = []
    for service, seen in sorted(by_service.items()):
        durations = sorted(duration for duration, _ in seen)
        count = len(durations)
        found.append(
            ServiceSummary(
                service,
                count,
                sum(failed for _, failed in seen),
                durations[count // 2],
                durations[min(count - 1, count * 95 // 100)],
                durations[-1],
            )
        )
    return found
