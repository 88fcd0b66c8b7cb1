"""The part of the admin API about budgets: how they stand, reports, times that do not count."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final, Literal, Protocol

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ConfigDict, Field

from headgate.control.admin.audit import actor_of, origin_of
from headgate.control.admin.models import Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.auditing import Auditing
from headgate.control.observing.history import HistoryOff
from headgate.control.observing.slos import NoSuchSlo, Slos
from headgate.errors import HeadgateError
from headgate.observe.slo.closed import Exclusion
from headgate.units import UnitError, parse_duration

__all__ = ["HasSlos", "add_slos"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    404: {"description": "There is none", "content": _PROBLEM},
    422: {"description": "It cannot be told so", "content": _PROBLEM},
}
_LATEST: Final = 4e9
_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


class HasSlos(Protocol):
    @property
    def slos(self) -> Slos: ...

    @property
    def auditing(self) -> Auditing: ...


class ObjectiveState(Answer):
    name: str
    said: str
    target: float
    bound_s: float | None
    is_exact: bool
    """Whether the bound is one that durations are counted at."""
    state: Literal["met", "at_risk", "missed", "unknown"]
    """`at_risk`: a quarter of the budget is left, or it lasts for less than a tenth of the
    window."""
    ratio: float | None
    """The share of good events in the window."""
    events: float
    bad: float
    budget_left: float | None
    """1 is all of it; below 0 it is overspent."""
    budget_left_events: float
    """How many more may be bad."""
    burn: dict[str, float | None]
    """By window: how many times as fast as allowed."""
    lasts_s: float | None
    """Until the budget is spent at this pace; none if it is not."""
    known_share: float
    """Of the window, for how much there are figures."""
    excluded_s: float
    """Of the window, how much does not count."""


class SloState(Answer):
    name: str
    of: str
    description: str
    window_s: float
    at: float | None
    """When it was judged; none if it was not yet."""
    took_ms: float
    quantiles_s: dict[str, float | None]
    """p50, p95 and p99 of the window."""
    objectives: list[ObjectiveState]


class SloDetail(SloState):
    left: dict[str, list[tuple[float, float]]]
    """By objective: moments, and what was left of the budget then."""


class ExclusionState(Answer):
    id: str
    slo: str
    """Empty: for all."""
    start: float
    end: float
    why: str
    author: str
    created: float


class ExclusionOrder(Answer):
    """Time that does not count: from `start` (now if not said) to `end`, or `for` so long."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    slo: Annotated[str, Field(max_length=64)] = ""
    """For all if not said."""
    start: Annotated[float, Field(ge=0, le=_LATEST)] | None = None
    end: Annotated[float, Field(ge=0, le=_LATEST)] | None = None
    for_: Annotated[str, Field(alias="for", max_length=20)] = ""
    why: Annotated[str, Field(max_length=500)] = ""


def add_slos(router: APIRouter, control: HasSlos) -> None:
    tags: list[Any] = ["slos"]

    @router.get("/api/slos", tags=tags, responses={401: _ASKED[401]})
    async def slos() -> list[SloState]:
        """Every SLO: what was reached, what is left of its budget and how fast it goes."""
        return [
            SloState.model_validate(_shown(control.slos, each.name)) for each in control.slos.slos
        ]

    @router.get(
        "/api/slos/report",
        tags=tags,
        responses={**_ASKED, 200: {"content": {"text/html": {}, "text/csv": {}}}},
        response_model=None,
    )
    async def report(
        period: Annotated[
            str,
            Query(
                max_length=60, description="2026-10, 2026-10-03/2026-10-15, 30d, month, last-month"
            ),
        ] = "month",
        format: Literal["html", "csv", "json"] = "json",  # noqa: A002  as it is asked for
        zone: Annotated[str, Query(max_length=60, description="Whose days: Europe/Berlin")] = "UTC",
        slo: Annotated[list[str] | None, Query(description="Only these")] = None,
    ) -> Response:
        """What was promised and what was kept in a period."""
        try:
            made = await control.slos.report(period, zone, slo or ())
        except NoSuchSlo as error:
            raise Problem(404, str(error)) from error
        except HistoryOff as error:
            raise Problem(404, str(error)) from error
        except HeadgateError as error:
            raise Problem(422, str(error)) from error
        from headgate.observe.slo.page import to_html
        from headgate.observe.slo.report import to_csv, to_json

        if format == "html":
            headers = {"content-security-policy": _PAGE_POLICY}
            return HTMLResponse(await asyncio.to_thread(to_html, made), headers=headers)
        if format == "csv":
            headers = {"content-disposition": 'attachment; filename="slo-report.csv"'}
            return Response(to_csv(made), media_type="text/csv; charset=utf-8", headers=headers)
        return JSONResponse(to_json(made))

    @router.get("/api/slos/exclusions", tags=tags, responses={401: _ASKED[401]})
    async def exclusions() -> list[ExclusionState]:
        """Times that do not count, as they were said while the gateway ran."""
        found = sorted(control.slos.exclusions.values(), key=lambda one: one.start)
        return [_exclusion(one) for one in found]

    @router.post("/api/slos/exclusions", tags=tags, status_code=201, responses=_ASKED)
    async def exclude(order: ExclusionOrder, request: Request) -> ExclusionState:
        """Say that a time does not count. One that is past corrects what was judged."""
        start = order.start if order.start is not None else time.time()  # noqa: TID251  wall time
        if (order.end is None) == (not order.for_):
            raise Problem(422, "say one of `end` and `for`")
        end = order.end if order.end is not None else start + _duration(order.for_)
        try:
            made = control.slos.exclude(order.slo, start, end, order.why, actor_of(request.scope))
        except NoSuchSlo as error:
            raise Problem(404, str(error)) from error
        except HeadgateError as error:
            raise Problem(422, str(error)) from error
        _record(control, request, "slo.excluded", made)
        return _exclusion(made)

    @router.delete("/api/slos/exclusions/{id}", tags=tags, responses=_ASKED)
    async def include(id: str, request: Request) -> ExclusionState:  # noqa: A002
        """Take that back."""
        try:
            made = control.slos.include(id)
        except NoSuchSlo as error:
            raise Problem(404, str(error)) from error
        _record(control, request, "slo.included", made)
        return _exclusion(made)

    @router.get("/api/slos/{name}", tags=tags, responses=_ASKED)
    async def one_slo(name: str) -> SloDetail:
        """One SLO, with what was left of its budget over the window."""
        try:
            shown = _shown(control.slos, control.slos.of(name).name)
            left = await control.slos.plot(name)
        except HeadgateError as error:
            raise Problem(404, str(error)) from error
        return SloDetail.model_validate({**shown, "left": left})


def _shown(slos: Slos, name: str) -> dict[str, Any]:
    held = slos.standings.get(name)
    if held is not None:
        return slos.shown(held)
    slo = slos.of(name)
    return {
        "name": slo.name,
        "of": slo.of,
        "description": slo.description,
        "window_s": slo.window_s,
        "at": None,
        "took_ms": 0.0,
        "quantiles_s": {},
        "objectives": [],
    }


def _exclusion(one: Exclusion) -> ExclusionState:
    return ExclusionState.model_validate(one.to_json())


def _record(control: HasSlos, request: Request, action: str, made: Exclusion) -> None:
    control.auditing.record(
        action,
        actor_of(request.scope),
        target=made.slo or "all",
        origin=origin_of(request.scope),
        detail={"id": made.id, "start": made.start, "end": made.end, "why": made.why},
    )


def _duration(text: str) -> float:
    try:
        found = parse_duration(text)
    except UnitError as error:
        raise Problem(422, str(error)) from error
    if found <= 0:
        raise Problem(422, f"{text!r} is no time at all")
    return found
