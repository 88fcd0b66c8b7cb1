"""The part of the admin API about circuit breakers."""

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
from headgate.control.admin.orders import Ordered, give, held, ordered
from headgate.control.admin.traffic import breakers_of
from headgate.control.control import Control

__all__ = ["add_breakers"]


def add_breakers(router: APIRouter, control: Control) -> None:
    @router.get(
        "/api/breakers",
        tags=["breakers"],
        responses=ASKED,
        response_model=list[models.BreakerState],
    )
    async def breakers(
        request: Request,
        state: str = "",
        q: Search = "",
        sort: Sort = "",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """Every circuit breaker; of several workers the worst state."""
        await control.hub.refresh()
        rows = [row for row in breakers_of(control) if not state or row.state == state]
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
        "/api/breakers/{name:path}",
        tags=["breakers"],
        responses=ASKED,
        response_model=models.BreakerState,
    )
    async def breaker(request: Request, name: Annotated[str, Path(max_length=4096)]) -> Response:
        """One breaker: its service's name, and after a space its instance's, if each has one."""
        await control.hub.refresh()
        found = one_of("circuit breaker", name, breakers_of(control), lambda row: str(row.name))
        return shown(request, found)

    @router.post("/api/breakers", tags=["breakers"], status_code=202, responses=ASKED)
    async def order(request: Request, order: models.BreakerOrder) -> Ordered:
        """Force a breaker open or closed, switch it off, or give it back to its rules."""
        given = give(
            control.orders.breaker,
            request,
            order.name,
            order.do,
            order.why,
            for_s=held(order.hold),
        )
        return await ordered(control, request, f"{order.name}: {order.do}", given)
