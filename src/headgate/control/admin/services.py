"""The part of the admin API about services: balancing, breaker, health, pools, figures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from headgate.control.admin import models
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
from headgate.control.admin.orders import standing_of
from headgate.control.admin.stats import service_figures
from headgate.control.admin.traffic import breakers_of, services_of
from headgate.control.control import Control

__all__ = ["add_services"]


def add_services(router: APIRouter, control: Control) -> None:
    async def states() -> list[models.ServiceState]:
        await control.hub.refresh()
        figures = service_figures(control.hub.merged(), control.hub.rates())
        plans = control.plan().services
        breakers = breakers_of(control)
        rows = services_of(control)
        for row in rows:
            plan = plans[row.name]
            row.figures = figures.get(row.name)
            row.policies = [
                f"{policy}: {says} (from {level})" for policy, says, level in plan.policies
            ]
            row.is_checked = plan.health is not None
            row.breakers = [state for state in breakers if state.name.partition(" ")[0] == row.name]
            row.instances_out = sum(each.workers_out > 0 for each in row.instances)
            row.connections_max = plan.pool.connections
            row.orders = standing_of(control, service=row.name)
        return rows

    @router.get(
        "/api/services",
        tags=["traffic"],
        responses=ASKED,
        response_model=list[models.ServiceState],
    )
    async def services(
        request: Request,
        q: Search = "",
        sort: Sort = "",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """Every service with its instances: who serves, who is out, since when and why."""
        return listed(
            request,
            await states(),
            key=lambda row: str(row["name"]),
            limit=limit,
            cursor=cursor,
            sort=sort,
            q=q,
        )

    @router.get(
        "/api/services/{name:path}",
        tags=["traffic"],
        responses=ASKED,
        response_model=models.ServiceState,
    )
    async def service(request: Request, name: Annotated[str, Path(max_length=1000)]) -> Response:
        """One service."""
        return shown(request, one_of("service", name, await states(), lambda row: str(row.name)))
