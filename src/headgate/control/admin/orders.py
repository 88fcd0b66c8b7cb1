"""The part of the admin API about orders: those that stand, and taking them back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from headgate.control.admin.audit import actor_of
from headgate.control.admin.listing import (
    ASKED,
    Cursor,
    ListLimit,
    Search,
    Sort,
    listed,
    shown,
)
from headgate.control.admin.models import Answer
from headgate.control.admin.problem import Problem
from headgate.control.control import Control
from headgate.control.orders import Given, NoSuchThing, OrderRefused
from headgate.units import UnitError, parse_duration

__all__ = ["OrderState", "Ordered", "add_standing", "give", "held", "ordered", "standing_of"]

OrderId = Annotated[str, Path(max_length=4096, description="Its id, or its subject")]


class OrderState(Answer):
    id: str
    """Always the same for the same subject: an order that is given twice stands once."""
    subject: str
    what: str
    """breaker, instance, eject, weight, split, flag or level."""
    order: dict[str, Any]
    """What it says."""
    why: str = ""
    by: str = ""
    """Who gave it."""
    at: float = 0.0
    """When, in seconds since 1970."""
    until: float | None = None
    """When it is over; null: when it is taken back, or the gateway ends."""
    remaining_s: float | None = None
    workers: int
    """Workers of this machine that have taken it."""
    workers_of: int


class Ordered(Answer):
    message: str
    order: OrderState | None = None
    is_new: bool = True
    """False: it stood so already."""


def state_of(control: Control, given: Given) -> OrderState:
    order = dict(given.order)
    at = float(order.get("at", 0.0))
    until = order.get("until")
    links = list(control.hub.links.values())
    taken = [
        (link.snapshot or {}).get("policies", {}).get("orders", {}).get(given.id) for link in links
    ]
    meta = ("order", "at", "by", "until", "why", "what", "for_s")
    return OrderState(
        id=given.id,
        subject=given.subject,
        what=str(order.get("what")),
        order={name: said for name, said in order.items() if name not in meta},
        why=str(order.get("why", "")),
        by=str(order.get("by", "")),
        at=at,
        until=until,
        remaining_s=None if until is None else round(max(0.0, float(until) - _wall()), 1),
        workers=sum(said == at for said in taken),
        workers_of=len(links),
    )


async def ordered(control: Control, request: Request, message: str, given: Given) -> Ordered:
    """The answer to an order, with how many workers have taken it by now."""
    # Questions follow the order on every link, so one round tells. A round that was under way
    # when the order was given may not have it yet.
    await control.hub.refresh()
    state = state_of(control, given)
    if state.workers < state.workers_of:
        await control.hub.refresh()
        state = state_of(control, given)
    if given.is_new:
        control.live.tell(
            "order",
            f"{message} (by {state.by or 'somebody'})",
            order=given.id,
            subject=given.subject,
            why=state.why,
        )
    if not given.is_new:
        message = f"{message}, as before"
    return Ordered(message=message, order=state, is_new=given.is_new)


def give(order: Callable[..., Given], request: Request, *args: Any, **named: Any) -> Given:
    """Give an order in the name of who asks; a Problem where it is refused."""
    try:
        return order(*args, by=actor_of(request.scope), **named)
    except OrderRefused as error:
        raise Problem(422, str(error)) from error


def held(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except UnitError as error:
        raise Problem(422, str(error)) from error


def standing_of(control: Control, **wanted: str) -> list[str]:
    """Ids of the orders about this service, instance or breaker."""
    return [
        given.id
        for given in control.orders.standing()
        if all(given.order.get(name) == value for name, value in wanted.items())
    ]


def add_standing(router: APIRouter, control: Control) -> None:
    @router.get("/api/orders", tags=["orders"], responses=ASKED, response_model=list[OrderState])
    async def orders(
        request: Request,
        what: str = "",
        q: Search = "",
        sort: Sort = "",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """Orders that hold now: what somebody told breakers, instances, splits, flags, levels."""
        await control.hub.refresh()
        rows = [
            state_of(control, given)
            for given in control.orders.standing()
            if not what or given.order.get("what") == what
        ]
        return listed(
            request,
            rows,
            key=lambda row: str(row["subject"]),
            limit=limit,
            cursor=cursor,
            sort=sort,
            q=q,
        )

    @router.get(
        "/api/orders/{id:path}", tags=["orders"], responses=ASKED, response_model=OrderState
    )
    async def order(request: Request, id: OrderId) -> Response:  # noqa: A002 - the API's name
        """One order that holds now."""
        await control.hub.refresh()
        try:
            given = control.orders.one(id)
        except NoSuchThing as error:
            raise Problem(404, str(error)) from error
        return shown(request, state_of(control, given))

    @router.delete("/api/orders/{id:path}", tags=["orders"], responses=ASKED)
    async def withdraw(request: Request, id: OrderId) -> Ordered:  # noqa: A002 - likewise
        """Take an order back: what it is about goes by the file and its own rules again."""
        try:
            given = control.orders.withdraw(id, by=actor_of(request.scope))
        except NoSuchThing as error:
            raise Problem(404, str(error)) from error
        return await ordered(control, request, f"{given.subject}: withdrawn", given)


def _wall() -> float:
    return time.time()  # noqa: TID251  orders tell wall time
