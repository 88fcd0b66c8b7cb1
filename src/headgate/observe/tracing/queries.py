"""Which statements a route sends to databases, by their shape: from the traces that are kept.

Theory of operation. Statements that differ only in their values, in the names of their parameters,
in spaces or in capitals of SQL's own words are the same; a *fingerprint* names what they have in
common. For each we add up how often it ran, how long it took and in how many traces, and keep where
in the code it comes from.

A statement that runs many times under one and the same span, each time for another value, is most
often a loop that could be one statement ("N+1"). `repeated` says how often it did so at most; from
`SUSPECT` on it is worth a look.

As failed and slow traces are kept by preference, this is no measure of all requests. It answers
what a slow one waited for.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.observe.tracing.instrument.statements import operation_of, without_literals

__all__ = ["SUSPECT", "QuerySummary", "fingerprint_of", "queries"]

SUSPECT: Final = 5
_TRACES: Final = 2_000
_SPANS: Final = 50_000
_KINDS: Final = 2_000
"""Statements that are told apart; more are passed over."""
_PLACE: Final = re.compile(r"\$\d+|%\(\w+\)s|%s|(?<![:\w]):\w+|@\w+")
_LIST: Final = re.compile(r"\(\s*\?(?:\s*,\s*\?)*\s*\)|\(\.\.\.\)")
_ROWS: Final = re.compile(r"(?:\(\?\)\s*,\s*)+\(\?\)")


@dataclass(frozen=True, slots=True)
class QuerySummary:
    fingerprint: str
    statement: str
    """Without values."""
    operation: str
    service: str
    system: str
    calls: int
    traces: int
    """In how many it ran."""
    failed: int
    total_s: float
    p95_s: float
    max_s: float
    repeated: int
    """How often it ran under one span, at most."""
    place: str
    """Where in the code it was last seen, as file:line, if it says so."""
    example: str
    """The id of the trace in which it ran most often."""


def fingerprint_of(statement: str) -> str:
    """The same for statements that differ in values, names of parameters, spaces and capitals."""
    return hashlib.sha256(_shape(without_literals(statement)).encode()).hexdigest()[:12]


def _shape(statement: str) -> str:
    text = _PLACE.sub("?", statement)
    text = _ROWS.sub("(?)", _LIST.sub("(?)", text))
    return " ".join(text.rstrip("; ").lower().split())


@dataclass(slots=True)
class _Sum:
    statement: str
    service: str
    system: str
    durations: list[float] = field(default_factory=list)
    failed: int = 0
    place: str = ""
    by_trace: dict[bytes, int] = field(default_factory=dict)
    by_parent: dict[tuple[bytes, str], int] = field(default_factory=dict)


def queries(
    db: sqlite3.Connection,
    *,
    route: str = "",
    service: str = "",
    since: float | None = None,
    until: float | None = None,
    limit: int = 50,
) -> list[QuerySummary]:
    """Of the newest traces of a route: what took longest in all comes first. `service` is who
    asked the database.
    """
    where, values = ["t.start >= ?", "t.start <= ?"], [since or 0.0, until or 1e12]
    more: list[Any] = []
    if route:
        where.append("EXISTS (SELECT 1 FROM spans r WHERE r.trace_id = t.trace_id AND r.route = ?)")
        more.append(route)
    rows = db.execute(
        "SELECT s.trace_id, s.service, s.duration, s.failed, s.attributes, s.more FROM"  # noqa: S608
        f" (SELECT trace_id FROM traces t WHERE {' AND '.join(where)}"
        " ORDER BY t.start DESC LIMIT ?) n JOIN spans s ON s.trace_id = n.trace_id"
        " WHERE instr(s.attributes, 'db.query.text') > 0 LIMIT ?",
        (*values, *more, _TRACES, _SPANS),
    )
    sums: dict[tuple[str, str], _Sum] = {}
    for trace_id, asker, duration_s, failed, text, rest in rows:
        said = _mapping(text)
        statement = said.get("db.query.text")
        if not isinstance(statement, str) or (service and asker != service):
            continue
        shape = without_literals(statement)
        key = (asker, fingerprint_of(shape))
        found = sums.get(key)
        if found is None:
            if len(sums) >= _KINDS:
                continue
            found = sums[key] = _Sum(shape, asker, str(said.get("db.system.name", "")))
        _add(found, bytes(trace_id), float(duration_s), bool(failed), said, _parent(rest))
    made = [_summary(mark, found) for (_, mark), found in sums.items()]
    made.sort(key=lambda one: -one.total_s)
    return made[:limit]


def _add(
    found: _Sum,
    trace_id: bytes,
    duration_s: float,
    failed: bool,
    said: Mapping[str, Any],
    parent: str,
) -> None:
    found.durations.append(duration_s)
    found.failed += failed
    found.by_trace[trace_id] = found.by_trace.get(trace_id, 0) + 1
    found.by_parent[trace_id, parent] = found.by_parent.get((trace_id, parent), 0) + 1
    file, line = said.get("code.file.path"), said.get("code.line.number")
    if isinstance(file, str):
        found.place = f"{file}:{line}" if line else file


def _summary(mark: str, found: _Sum) -> QuerySummary:
    durations = sorted(found.durations)
    return QuerySummary(
        fingerprint=mark,
        statement=found.statement,
        operation=operation_of(found.statement),
        service=found.service,
        system=found.system,
        calls=len(durations),
        traces=len(found.by_trace),
        failed=found.failed,
        total_s=sum(durations),
        p95_s=durations[min(len(durations) - 1, len(durations) * 95 // 100)],
        max_s=durations[-1],
        repeated=max(found.by_parent.values()),
        place=found.place,
        example=max(found.by_trace.items(), key=lambda each: each[1])[0].hex(),
    )


def _mapping(text: object) -> Mapping[str, Any]:
    found = _read(text)
    return found if isinstance(found, dict) else {}


def _parent(more: object) -> str:
    """The store keeps it first among what is not searched for."""
    found = _read(more)
    return found[0] if isinstance(found, list) and found and isinstance(found[0], str) else ""


def _read(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
