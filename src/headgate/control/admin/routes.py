"""The part of the admin API about routes: what each takes, where it goes, how it does."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from headgate.control.admin.listing import (
    ASKED,
    Cursor,
    ListLimit,
    Search,
    Sort,
    listed,
    one_of,
    shown,
)
from headgate.control.admin.models import Answer, RouteFigures
from headgate.control.admin.stats import route_figures
from headgate.control.admin.traffic import instances_out
from headgate.control.control import Control
from headgate.plan.plan import Plan, RoutePlan

__all__ = ["RouteState", "add_routes"]


class PolicyState(Answer):
    policy: str
    says: str
    level: str
    """Where it was said: the route, its service, a group, the file as a whole, or by default."""


class RouteState(Answer):
    name: str
    index: int
    """Its place in the file."""
    match: dict[str, Any]
    target: str
    """In words, what it does."""
    services: list[str]
    policies: list[PolicyState]
    limits: list[str]
    """Ids of its limits."""
    flag: str | None = None
    is_guarded: bool
    """Somebody is asked who they are, or kept out."""
    is_cached: bool
    figures: RouteFigures | None = None
    """All its services together; null before the first request."""
    instances_out: list[str] = Field(default_factory=list)
    """Of one route alone: instances of its services that do not serve, with the reason."""


def routes_of(plan: Plan) -> list[RouteState]:
    return [_state(plan, route) for route in plan.routes]


def _state(plan: Plan, route: RoutePlan) -> RouteState:
    spec = plan.config.routes[route.index]
    return RouteState(
        name=route.name,
        index=route.index,
        match=spec.match.model_dump(mode="json", exclude_defaults=True, by_alias=True),
        target=route.target,
        services=[name for name in route.services if name],
        policies=[
            PolicyState(policy=policy, says=says, level=str(level))
            for policy, says, level in route.policies
        ],
        limits=[limit.id for limit in route.limits],
        flag=route.flag,
        is_guarded=route.is_guarded,
        is_cached=route.cache is not None and route.cache.keeps,
    )


def add_routes(router: APIRouter, control: Control) -> None:
    async def states() -> list[RouteState]:
        await control.hub.refresh()
        figures = route_figures(control.hub.merged(), control.hub.rates())
        rows = routes_of(control.plan())
        for row in rows:
            row.figures = figures.get(row.name)
        return rows

    @router.get("/api/routes", tags=["traffic"], responses=ASKED, response_model=list[RouteState])
    async def routes(
        request: Request,
        service: str = "",
        q: Search = "",
        sort: Sort = "index",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """Every route in the order of the file, with its policies and its figures."""
        rows = [row for row in await states() if not service or service in row.services]
        return listed(
            request,
            rows,
            key=lambda row: str(row["name"]),
            limit=limit,
            cursor=cursor,
            sort=sort,
            q=q,
        )

    @router.get(
        "/api/routes/{name:path}", tags=["traffic"], responses=ASKED, response_model=RouteState
    )
    async def route(request: Request, name: Annotated[str, Path(max_length=1000)]) -> Response:
        """One route."""
        row = one_of("route", name, await states(), lambda row: str(row.name))
        row.instances_out = instances_out(control, name)
        return shown(request, row)
