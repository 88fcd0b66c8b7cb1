"""What a sidecar tells of whom its process calls, and of who may not call it, from what its worker
counts. Pure.

Counts of a worker only grow, so what is told is the difference to what arrived last; what did not
arrive goes along with the next report (as `mesh.client.edges` does for a client).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from headgate.mesh.client.edges import EdgeSnapshot
from headgate.mesh.sidecar.document import OUTBOUND
from headgate.observe.histogram import cumulative

__all__ = ["EdgesSeen", "Refusals", "RefusalsSeen", "breakers_of", "edges_of", "refusals_of"]

_REQUESTS: Final = "headgate_http_requests_total"
_DURATIONS: Final = "headgate_http_request_duration_seconds"
_RETRIES: Final = "headgate_upstream_retries_total"
_REFUSED: Final = "headgate_mesh_refused_total"


def edges_of(rows: Mapping[str, Any], name_of: Callable[[str], str]) -> dict[str, EdgeSnapshot]:
    """Each service that is called, by name, since the worker's start."""
    requests: dict[str, int] = {}
    errors: dict[str, int] = {}
    retries: dict[str, int] = {}
    buckets: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    for (route, service, _method, code), count in rows.get(_REQUESTS, ()):
        if service and route.startswith(OUTBOUND):
            name = name_of(service)
            requests[name] = requests.get(name, 0) + count
            if code.startswith("5"):
                errors[name] = errors.get(name, 0) + count
    for (route, service), counted in rows.get(_DURATIONS, ()):
        if service and route.startswith(OUTBOUND):
            name = name_of(service)
            seconds[name] = seconds.get(name, 0.0) + counted["sum"]
            before = 0
            held = buckets.setdefault(name, [])
            for at, upto in enumerate(cumulative(counted["counts"])):
                if at == len(held):
                    held.append(0)
                held[at] += upto - before
                before = upto
    for (service, _instance), count in rows.get(_RETRIES, ()):
        name = name_of(service)
        retries[name] = retries.get(name, 0) + count
    return {
        name: EdgeSnapshot(
            name,
            count,
            errors.get(name, 0),
            retries.get(name, 0),
            0,
            tuple(buckets.get(name, ())),
            seconds.get(name, 0.0),
        )
        for name, count in requests.items()
    }


Refusals = dict[tuple[str, str, str], int]
"""By caller, reason and mode."""


def refusals_of(rows: Mapping[str, Any]) -> Refusals:
    """Calls to the process that the rules speak against, since the worker's start."""
    found: Refusals = {}
    for (source, _, why, mode), count in rows.get(_REFUSED, ()):
        found[source, why, mode] = found.get((source, why, mode), 0) + count
    return found


class RefusalsSeen:
    """Which of them are to be told since the last report that arrived."""

    def __init__(self) -> None:
        self._told: Refusals = {}
        self._under_way: Refusals = {}

    def take(self, now: Refusals) -> list[dict[str, Any]]:
        self._under_way = dict(now)
        return [
            {"source": source, "why": why, "mode": mode, "count": since}
            for (source, why, mode), count in now.items()
            if (since := count - self._told.get((source, why, mode), 0)) > 0
        ]

    def taken(self) -> None:
        self._told = self._under_way


class EdgesSeen:
    """What is to be told since the last report that arrived."""

    def __init__(self) -> None:
        self._told: dict[str, EdgeSnapshot] = {}
        self._under_way: dict[str, EdgeSnapshot] = {}

    def take(self, now: Mapping[str, EdgeSnapshot]) -> list[EdgeSnapshot]:
        self._under_way = dict(now)
        found = []
        for name, each in now.items():
            before = self._told.get(name)
            since = each if before is None else each - before
            if since.requests > 0:
                found.append(since)
        return found

    def taken(self) -> None:
        self._told = self._under_way


def breakers_of(rows: Mapping[str, Any], own: Mapping[str, str]) -> list[dict[str, Any]]:
    """Those that do not let everything through."""
    found = []
    for (service, instance, state), is_so in rows.get("headgate_breaker_state", ()):
        if is_so and state != "closed":
            name = own.get(service, service)
            found.append(
                {
                    "service": name,
                    "name": f"{name}/{instance}" if instance else name,
                    "state": state,
                }
            )
    return found
