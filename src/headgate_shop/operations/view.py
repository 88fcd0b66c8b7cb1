"""From what the gateway and the stage say to what the page shows. Pure.

What comes in is JSON of other programs, of this version or a later one: what is missing is shown as
not known, and what is new is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from headgate_shop.base.settings import SERVICES

__all__ = [
    "State",
    "alert_rows",
    "breaker_rows",
    "hit_ratio",
    "integration_rows",
    "order_rows",
    "point",
    "sales",
    "service_rows",
    "split_rows",
    "worst",
]

State = Literal["ok", "warn", "down", "unknown"]
Row = Mapping[str, Any]

_ORDER: Final[tuple[State, ...]] = ("down", "warn", "unknown", "ok")
_SHUT: Final = ("open", "forced_open")
_CALM: Final = ("closed", "metrics_only", "disabled")


def worst(states: Iterable[State]) -> State:
    """Of several; nothing is `unknown`."""
    found = set(states)
    return next((state for state in _ORDER if state in found), "unknown")


def point(said: Row, hits: float | None) -> dict[str, Any]:
    """One moment of the charts, from the gateway's overview of the last seconds."""
    return {
        "t": _number(said.get("at")) or 0.0,
        "rps": _number(said.get("requests_per_s")),
        "p50": _number(said.get("p50_ms")),
        "p95": _number(said.get("p95_ms")),
        "p99": _number(said.get("p99_ms")),
        "errors": _number(said.get("error_rate")),
        "hits": hits,
    }


def hit_ratio(before: Row | None, now: Row) -> float | None:
    """Of what was asked between two looks at the cache's totals, the share nobody was asked for.

    Totals are of the workers that run: where one was started again they fall, and nothing is said.
    """
    if before is None:
        return None
    saved = ("hits", "stale", "collapsed", "revalidated")
    part = sum(_delta(before, now, name) for name in saved)
    whole = part + _delta(before, now, "misses")
    if whole <= 0 or any(_delta(before, now, name) < 0 for name in (*saved, "misses")):
        return None
    return round(part / whole, 4)


def _delta(before: Row, now: Row, name: str) -> float:
    return (_number(now.get(name)) or 0.0) - (_number(before.get(name)) or 0.0)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if value == value else None  # noqa: PLR0124 - NaN is no number


def service_rows(
    services: Sequence[Row] | None,
    registry: Sequence[Row] | None,
    processes: Sequence[Row] | None,
    calls: Sequence[Row] | None,
) -> list[dict[str, Any]]:
    """Every service of the shop, in the order of its start; None where nothing was heard.

    The gateway knows instances and figures of those that it sends requests to; of the others the
    registry knows that they are there, and those who call them how they answer.
    """
    by_gateway = {str(row.get("name")): row for row in services or ()}
    by_registry = {str(row.get("service")): row for row in registry or ()}
    by_stage = {str(row.get("name")): row for row in processes or ()}
    names = [*SERVICES, *sorted({*by_gateway, *by_registry} - set(SERVICES))]
    rows = []
    for name in names:
        known = by_gateway.get(name), by_registry.get(name), by_stage.get(name)
        if any(row is not None for row in known):
            rows.append(_service(name, *known, _called(name, calls or ())))
    return rows


def _service(
    name: str, gateway: Row | None, registry: Row | None, process: Row | None, called: Row
) -> dict[str, Any]:
    instances = [_instance(row) for row in (gateway or {}).get("instances", ())]
    figures = (gateway or {}).get("figures") or {}
    breakers = [
        {"name": str(row.get("name")), "state": _breaker_state(row)}
        for row in (gateway or {}).get("breakers", ())
    ]
    state, why = _health(gateway, registry, process, instances, breakers)
    latency = figures.get("latency") or called.get("latency") or {}
    return {
        "name": name,
        "state": state,
        "why": why,
        "instances": instances,
        "up": sum(row["state"] == "ok" for row in instances)
        if instances
        else int((registry or {}).get("up", 0)),
        "breakers": breakers,
        "of": len(instances) or sum(int((registry or {}).get(k, 0)) for k in ("up", "suspect")),
        "rps": _number(figures.get("requests_per_s", called.get("requests_per_s"))),
        # A stream of news takes a minute by intention; nobody waits for its end.
        "p95_ms": None if name == "operations" else _number(latency.get("p95_ms")),
        "process": None
        if process is None
        else {
            "state": str(process.get("state", "")),
            "pid": process.get("pid"),
            "restarts": int(process.get("restarts") or 0),
            "since": _number(process.get("since")),
        },
    }


def _instance(row: Row) -> dict[str, Any]:
    listed, says = str(row.get("listed", "up")), str(row.get("says", "up"))
    state: State = "ok"
    why = str(row.get("why_out") or "")
    if row.get("workers_out"):
        state = "down"
    elif listed != "up":
        state, why = "warn", why or listed
    elif says != "up":
        state, why = "warn", why or f"says it is {says}"
    return {
        "url": str(row.get("url", "")),
        "state": state,
        "why": why,
        "version": str(row.get("version", "")),
        "in_flight": int(row.get("in_flight") or 0),
        "weight": int(row.get("weight") or 0),
    }


def _health(
    gateway: Row | None,
    registry: Row | None,
    process: Row | None,
    instances: Sequence[Row],
    breakers: Sequence[Row],
) -> tuple[State, str]:
    """How a service is, and the shortest reason."""
    process_state = str((process or {}).get("state", "running"))
    if process_state in ("stopped", "failed"):
        return "down", f"its process is {process_state}"
    if process_state == "starting":
        return "warn", "its process starts"
    if gateway is None and registry is None:
        return ("down", "nobody has registered") if process is None else ("unknown", "")
    if gateway is not None:
        out = [row for row in instances if row["state"] == "down"]
        if not instances:
            return "down", "no instance is registered"
        if len(out) == len(instances):
            return "down", out[0]["why"] or "no instance serves"
        for row in breakers:
            if row["state"] in _SHUT:
                return "down", "its breaker is open"
            if row["state"] not in _CALM:
                return "warn", "its breaker lets a few calls through"
        if out:
            return "warn", f"{len(out)} of {len(instances)} instances out: {out[0]['why']}"
        doubtful = [row for row in instances if row["state"] != "ok"]
        return ("warn", doubtful[0]["why"]) if doubtful else ("ok", "")
    serving = int((registry or {}).get("up", 0)) - int((registry or {}).get("down", 0))
    return ("ok", "") if serving > 0 else ("down", "no instance is registered")


def _called(name: str, calls: Iterable[Row]) -> Row:
    """How those who call a service by the mesh find it, the busiest of them for its percentiles."""
    to = [row for row in calls if row.get("destination") == name and row.get("seen_by") == "caller"]
    if not to:
        return {}
    busiest = max(to, key=lambda row: _number(row.get("requests_per_s")) or 0.0)
    total = sum(_number(row.get("requests_per_s")) or 0.0 for row in to)
    return {"requests_per_s": round(total, 3), "latency": busiest.get("latency") or {}}


def _breaker_state(row: Row) -> str:
    """An open one whose time is over waits for a request alone, which it will try: a worker that
    nobody asks stays like this, and keeps nobody out.
    """
    state = str(row.get("state", ""))
    return "half_open" if state == "open" and row.get("retry_after_s") == 0 else state


def breaker_rows(
    breakers: Sequence[Row] | None, calls: Sequence[Row] | None
) -> list[dict[str, Any]]:
    """Those of the gateway, and of mesh clients those that are not closed."""
    rows = [
        {
            "name": str(row.get("name", "")),
            "at": "gateway",
            "state": _breaker_state(row),
            "failure_rate": rate if (rate := _number(row.get("failure_rate"))) != -1 else None,
            "calls": row.get("calls"),
            "rejected": row.get("rejected_total"),
            "retry_after_s": _number(row.get("retry_after_s")),
        }
        for row in breakers or ()
    ]
    for call in calls or ():
        said = call.get("breakers") or {}
        state = next((each for each in ("forced_open", "open", "half_open") if said.get(each)), "")
        if state and call.get("seen_by") == "caller":
            rows.append(
                {
                    "name": str(call.get("destination", "")),
                    "at": str(call.get("source", "")),
                    "state": state,
                    "failure_rate": _number(call.get("error_rate")),
                    "calls": call.get("requests"),
                    "rejected": None,
                    "retry_after_s": None,
                }
            )
    return rows


def split_rows(splits: Sequence[Row] | None) -> list[dict[str, Any]]:
    rows = []
    for row in splits or ():
        now = {str(name): _number(share) or 0.0 for name, share in (row.get("now") or {}).items()}
        whole = sum(now.values())
        rows.append(
            {
                "route": str(row.get("route", "")),
                "shares": {name: round(v / whole, 4) if whole else 0.0 for name, v in now.items()},
            }
        )
    return rows


def alert_rows(said: Row | None) -> list[dict[str, Any]]:
    """What fires or is about to, without what is over."""
    return [
        {
            "id": str(row.get("id", "")),
            "rule": str(row.get("rule", "")),
            "state": str(row.get("state", "")),
            "level": str(row.get("level", "")),
            "summary": str(row.get("summary", "")),
            "since": _number(row.get("since")),
        }
        for row in (said or {}).get("alerts", ())
        if row.get("state") in ("firing", "pending")
    ]


def sales(summary: Any) -> dict[str, Any]:
    """Today, as analytics has it."""
    said: Row = summary if isinstance(summary, Mapping) else {}
    names = ("orders", "units", "revenue", "visitors", "carts", "average_order", "conversion")
    return {
        "currency": str(said.get("currency", "EUR")),
        **{name: _number(said.get(name)) for name in names},
    }


def order_rows(totals: Any) -> list[dict[str, Any]]:
    """How many orders there are of each status, and what they come to."""
    said = totals.get("by_status", totals) if isinstance(totals, Mapping) else {}
    return [
        {"status": str(status), "count": row.get("count"), "total": row.get("total")}
        for status, row in (said.items() if isinstance(said, Mapping) else ())
        if isinstance(row, Mapping)
    ]


def integration_rows(said: Any) -> list[dict[str, Any]]:
    rows = said
    if isinstance(said, Mapping):
        rows = said.get("integrations") or said.get("items") or []
    found = []
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, Mapping):
            health = str(row.get("health") or row.get("state") or row.get("status") or "unknown")
            state: State = "warn"
            if health in ("ok", "up", "healthy", "idle", "synced", "syncing", "running"):
                state = "ok"
            elif health in ("down", "failing", "failed", "error"):
                state = "down"
            elif row.get("enabled") is False or health in ("unknown", "off", "disabled"):
                state = "unknown"
            found.append(
                {
                    "name": str(row.get("name", "")),
                    "state": state,
                    "health": "off" if row.get("enabled") is False else health,
                    "error": str(row.get("trouble") or row.get("last_error") or "")[:300],
                }
            )
    return found
