"""The part of the admin API about health in detail, and about monitors of things outside."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal, Protocol

from fastapi import APIRouter, Path, Query, Request, Response

from headgate import __version__
from headgate.control.admin import models
from headgate.control.admin.listing import ASKED, ListLimit, Search, Sort, listed, no_such
from headgate.control.admin.models import Answer
from headgate.control.admin.paging import Cursor
from headgate.control.control import Control
from headgate.control.observing.monitors import Monitors, Watched
from headgate.observe.health.asgi import RETRY_AFTER_S

__all__ = ["HasMonitors", "add_health_parts", "add_monitors"]

Status = Literal["ok", "unknown", "degraded", "failing"]
_LATER: Final[dict[int | str, dict[str, Any]]] = {503: {"description": "No; ask again later"}}

DaysAsked = Annotated[int, Query(ge=1, le=90, description="So many days, today included")]
Name = Annotated[str, Path(max_length=64)]


class Probe(Answer):
    status: Literal["pass", "fail"]
    reasons: list[str]


class Component(Answer):
    name: str
    status: Status
    critical: bool
    """Whether nothing is served while it fails."""
    since: float | None
    """Since when it is so, in seconds since 1970."""
    reasons: list[str]
    value: float | None
    unit: str
    checked_at: float | None


class HealthDetails(Answer):
    status: Literal["ok", "degraded", "down"]
    """The worst of `/api/health` and of the components."""
    reasons: list[str]
    version: str
    generation: int
    uptime_s: float
    last_reload: models.Reload | None
    components: list[Component]


class MonitorState(Answer):
    name: str
    kind: Literal["url", "tcp", "dns", "certificate", "redis", "postgres"]
    target: str
    """Without user, password and query."""
    critical: bool
    status: Status
    why: str
    since: float | None
    last_at: float | None
    last_ms: float | None
    next_in_s: float | None
    every_s: float
    timeout_s: float
    certificate_ends: float | None
    days: int
    """What the following figures are over, today included."""
    uptime: float | None
    """A share of the time of which anything is known; null if nothing is."""
    known_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    uptime_by_day: list[float | None]
    """The oldest first, days of UTC; null where nothing is known."""


class MonitorDay(Answer):
    date: str
    uptime: float | None
    up_s: float
    """Degraded time included."""
    degraded_s: float
    down_s: float
    unknown_s: float
    """In which nobody looked, as when the gateway did not run."""
    checks: int
    failures: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    longest_ms: float | None


class MonitorResult(Answer):
    at: float
    status: Status
    ms: float
    why: str
    code: int | None
    """The status of HTTP, if it was asked over HTTP."""


class MonitorDetails(MonitorState):
    by_day: list[MonitorDay]
    results: list[MonitorResult]
    """The newest first."""


class HasMonitors(Protocol):
    monitors: Monitors


def add_monitors(router: APIRouter, control: HasMonitors) -> None:
    def found(name: str) -> Watched:
        monitors = control.monitors
        if name not in monitors.names:
            raise no_such("monitor", name, monitors.names)
        return monitors.get(name)

    @router.get(
        "/api/monitors", tags=["health"], response_model=list[MonitorState], responses=ASKED
    )
    async def every_monitor(
        request: Request,
        days: DaysAsked = 30,
        limit: ListLimit = 100,
        cursor: Cursor = "",
        sort: Sort = "",
        q: Search = "",
    ) -> Response:
        """Things outside that are asked now and then: how they are, and how they were."""
        monitors = control.monitors
        rows = [MonitorState.model_validate(monitors.state(one, days)) for one in monitors.all()]
        return listed(
            request, rows, key=lambda row: row["name"], limit=limit, cursor=cursor, sort=sort, q=q
        )

    @router.get("/api/monitors/{name}", tags=["health"], responses=ASKED)
    async def one_monitor(
        name: Name,
        days: DaysAsked = 90,
        results: Annotated[int, Query(ge=0, le=500, description="So many at most")] = 100,
    ) -> MonitorDetails:
        """One of them, day by day, with its last results."""
        return _details(control.monitors, found(name), days, results)

    @router.post("/api/monitors/{name}/check", tags=["health"], responses=ASKED)
    async def check(name: Name) -> MonitorDetails:
        """Look now, and answer what was found. Counts like any other check."""
        found(name)
        monitors = control.monitors
        return _details(monitors, await monitors.check(name), 1, 1)


def _details(monitors: Monitors, watched: Watched, days: int, results: int) -> MonitorDetails:
    last = list(watched.results)[-results:] if results else []
    return MonitorDetails.model_validate(
        {
            **monitors.state(watched, days),
            "by_day": monitors.days_of(watched, days),
            "results": [
                {
                    "at": each.at,
                    "status": each.status,
                    "ms": round(each.took_s * 1000, 1),
                    "why": each.why,
                    "code": each.code,
                }
                for each in reversed(last)
            ],
        }
    )


def add_health_parts(router: APIRouter, control: Control) -> None:
    def told(response: Response, is_fine: bool, reasons: list[str]) -> Probe:
        response.headers["cache-control"] = "no-store"
        if is_fine:
            return Probe(status="pass", reasons=reasons)
        response.status_code = 503
        response.headers["retry-after"] = str(RETRY_AFTER_S)
        return Probe(status="fail", reasons=reasons)

    @router.get("/api/health/live", tags=["health"])
    async def live(response: Response) -> Probe:
        """Whether the control process turns. Needs no token, and asks nothing else."""
        return told(response, True, [])

    @router.get("/api/health/ready", tags=["health"], responses=_LATER)
    async def ready(response: Response) -> Probe:
        """Whether requests are wanted here: a worker is ready, nothing drains. Needs no token."""
        status, reasons = control.health()
        return told(response, status != "down", reasons)

    @router.get("/api/health/startup", tags=["health"], responses=_LATER)
    async def startup(response: Response) -> Probe:
        """Whether workers were ever ready. Needs no token."""
        has_started = control.components.has_started()
        return told(response, has_started, [] if has_started else ["no worker was ready yet"])

    @router.get("/api/health/details", tags=["health"], responses={401: ASKED[401]})
    async def details() -> HealthDetails:
        """Every part of the gateway: its status, since when, and why."""
        report = await control.components.report()
        status, reasons = control.health()
        if status == "ok" and report.status != "ok":
            status = "degraded"
        last = control.reloader.last
        more = [why for why in report.reasons if why not in reasons]
        return HealthDetails(
            status=status,
            reasons=[*reasons, *more],
            version=__version__,
            generation=control.current.generation,
            uptime_s=round(time.time() - control.start.started, 1),  # noqa: TID251  for people
            last_reload=models.Reload.model_validate(asdict(last)) if last else None,
            components=[
                Component(
                    name=one.name,
                    status=one.status,
                    critical=one.critical,
                    since=one.since,
                    reasons=[one.why] if one.why else [],
                    value=one.value,
                    unit=one.unit,
                    checked_at=one.at,
                )
                for one in report.checks
            ],
        )
