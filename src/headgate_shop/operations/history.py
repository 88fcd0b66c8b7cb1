"""What the gateway's history says: the minutes before somebody looked, and what policies did."""

from __future__ import annotations

import math
from typing import Any, Final

from headgate_shop.operations.asking import Api

__all__ = ["backfill", "doing", "merged"]

BACK_S: Final = 600
STEP_S: Final = 2

_REQUESTS: Final = "headgate_http_requests_total"
_DURATION: Final = "headgate_http_request_duration_seconds"
_SAVED: Final = "hit|stale|stale_on_error|revalidated|collapsed"
_CACHE: Final = 'sum(rate(headgate_cache_total{{outcome=~"{}"}}[10s]))'

CHARTS: Final = {
    "rps": (f"sum(rate({_REQUESTS}[10s]))", 1),
    "errors": (f'sum(rate({_REQUESTS}{{code=~"5.."}}[10s])) / sum(rate({_REQUESTS}[10s]))', 1),
    "p50": (f"percentile(0.5, {_DURATION}, 10s)", 1000),
    "p95": (f"percentile(0.95, {_DURATION}, 10s)", 1000),
    "p99": (f"percentile(0.99, {_DURATION}, 10s)", 1000),
    "hits": (
        _CACHE.format(_SAVED) + " / " + _CACHE.format(f"{_SAVED}|miss"),
        1,
    ),
}
"""By the name of a point's value: the question, and by what the answer is multiplied."""

_EVENTS: Final = "sum by (event) (increase(headgate_policy_events_total[1m]))"
DOING: Final = {
    "rejected": "sum(increase(headgate_breaker_rejected_total[1m]))",
    "stale": 'sum(increase(headgate_cache_total{outcome="stale_on_error"}[1m]))',
    "limited": 'sum(increase(headgate_limit_decisions_total{outcome="refused"}[1m]))',
}


async def backfill(gateway: Api, now: float) -> list[dict[str, Any]]:
    """Points of the last ten minutes, as far as they are known."""
    answers: dict[str, tuple[Any, float]] = {}
    for name, (query, factor) in CHARTS.items():
        said = await gateway.get(
            "/api/history/range",
            query=query,
            start=f"{now - BACK_S:.0f}",
            end=f"{now:.0f}",
            step=f"{STEP_S}s",
        )
        answers[name] = (said, factor)
    return merged(answers)


def merged(answers: dict[str, tuple[Any, float]]) -> list[dict[str, Any]]:
    """Answers of a range, one for each value, as points in the order of time. Pure."""
    points: dict[float, dict[str, Any]] = {}
    for name, (said, factor) in answers.items():
        for series in _result(said)[:1]:
            for at, text in series.get("values", ()):
                value = float(text)
                if math.isfinite(value):
                    point = points.setdefault(float(at), {})
                    point[name] = round(value * factor, 4)
    return [{"t": at, **dict.fromkeys(CHARTS), **points[at]} for at in sorted(points)]


async def doing(gateway: Api) -> dict[str, float]:
    """How often policies did something in the last minute."""
    found: dict[str, float] = {}
    for row in _result(await gateway.get("/api/history/query", query=_EVENTS)):
        event = str((row.get("metric") or {}).get("event", ""))
        if event in ("retries", "hedges", "fallbacks", "shed", "budget_spent"):
            found[event] = _value(row)
    for name, query in DOING.items():
        rows = _result(await gateway.get("/api/history/query", query=query))
        found[name] = _value(rows[0]) if rows else 0.0
    return found


def _result(said: Any) -> list[Any]:
    data = said.get("data") if isinstance(said, dict) else None
    result = data.get("result") if isinstance(data, dict) else None
    return result if isinstance(result, list) else []


def _value(row: Any) -> float:
    try:
        value = float(row["value"][1])
    except (KeyError, TypeError, ValueError, IndexError):
        return 0.0
    return round(value, 1) if math.isfinite(value) else 0.0
