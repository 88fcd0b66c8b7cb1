"""The part of the admin API about instances: who serves, why not, and what can be said to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from headgate.control.admin.listing import (
    ASKED,
    Cursor,
    ListLimit,
    Search,
    Sort,
    listed,
    no_such,
    shown,
)
from headgate.control.admin.models import Answer, InstanceFigures
from headgate.control.admin.orders import Ordered, give, held, ordered
from headgate.control.admin.stats import instance_figures
from headgate.control.admin.traffic import breakers_of, services_of
from headgate.control.control import Control

__all__ = ["InstanceRow", "add_instances"]

State = Literal["serving", "out", "partly_out", "drained", "draining", "unknown"]


class InstanceRow(Answer):
    service: str
    url: str
    state: State
    """`drained` by an order; `draining` by its own wish, and soon gone; `partly_out`: some workers
    send nothing there.
    """
    why_out: str | None = None
    weight: int
    """As it counts now: an order stands in place of the file's."""
    weight_of_file: int
    priority: int
    zone: str
    in_flight: int
    health: str | None = None
    breaker: str | None = None
    """The state of its breaker, where each instance has one."""
    latency_ms: float | None = None
    """As balancing by `peak_ewma` remembers it, the mean of the workers."""
    workers_out: int
    connections: InstanceFigures | None = None
    orders: list[str] = Field(default_factory=list)
    source: Literal["file", "self", "dns", "directory"] = "file"
    """Who named it; `self` has registered."""
    id: str = ""
    """Its id in the registry."""
    version: str = ""
    listed: Literal["up", "draining", "suspect"] = "up"
    """How it stands in the registry; `suspect`: it is not heard any more, and neither are most."""
    says: Literal["up", "degraded", "down"] = "up"
    """How it says that it does, if it registered."""
    since: float | None = None
    """When the registry came to know it, in seconds since 1970."""


class _Named(Answer):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    service: Annotated[str, Field(max_length=1000)]
    instance: Annotated[str, Field(max_length=2000)]
    """Its URL, as in the file, or its id in the registry."""
    why: Annotated[str, Field(max_length=500)] = "by hand"
    hold: Annotated[str | None, Field(max_length=50)] = None
    """How long this holds, such as `1h`; until it is taken back if not said."""


class DrainOrder(_Named):
    force: bool = False
    """Also if nobody is left to serve."""


class UndrainOrder(_Named):
    pass


class WeightOrder(_Named):
    weight: Annotated[int | None, Field(ge=0, le=1_000_000)]
    """From 1 to 1000; null gives it back to the file."""


class EjectOrder(_Named):
    hold: Annotated[str | None, Field(max_length=50)] = "5min"
    """How long; a day at most."""


def rows_of(control: Control) -> list[InstanceRow]:
    figures = instance_figures(control.hub.merged())
    breakers = {state.name: state.state for state in breakers_of(control)}
    links = [link for link in control.hub.links.values() if link.snapshot is not None]
    members: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for link in links:
        told = (link.snapshot or {}).get("policies", {}).get("services", {})
        for name, said in told.items():
            for member in said["group"]["members"]:
                members.setdefault((name, member["id"]), []).append(member)
    orders: dict[tuple[str, str], list[str]] = {}
    for given in control.orders.standing():
        place = (str(given.order.get("service")), str(given.order.get("instance")))
        orders.setdefault(place, []).append(given.id)
    rows = []
    for service in services_of(control):
        for one in service.instances:
            place = (service.name, one.url)
            said = members.get(place, [])
            latencies = [member["latency_s"] for member in said if member["latency_s"] > 0.0]
            rows.append(
                InstanceRow(
                    service=service.name,
                    url=one.url,
                    state="draining" if one.listed == "draining" else _state(one.workers_out, said),
                    why_out=one.why_out,
                    weight=said[0]["weight"] if said else one.weight,
                    weight_of_file=one.weight,
                    priority=one.priority,
                    zone=one.zone,
                    in_flight=one.in_flight,
                    health=one.health,
                    breaker=breakers.get(f"{service.name} {one.url}"),
                    latency_ms=(
                        round(sum(latencies) / len(latencies) * 1000, 3) if latencies else None
                    ),
                    workers_out=one.workers_out,
                    connections=figures.get(place),
                    orders=orders.get(place, []),
                    source=one.source,
                    id=one.id,
                    version=one.version,
                    listed=one.listed,
                    says=one.says,
                    since=one.since,
                )
            )
    return rows


def _state(workers_out: int, said: list[dict[str, Any]]) -> State:
    if not said:
        return "unknown"
    if all(member["is_drained"] for member in said):
        return "drained"
    if not workers_out:
        return "serving"
    return "out" if workers_out >= len(said) else "partly_out"


def _url_of(control: Control, order: _Named) -> str:
    """Orders go by URL, which the file and the registry have in common."""
    one = control.registry.book.find(order.service, order.instance)
    return one.url if one is not None else order.instance


def add_instances(router: APIRouter, control: Control) -> None:
    _add_views(router, control)
    _add_orders(router, control)


def _add_views(router: APIRouter, control: Control) -> None:
    @router.get(
        "/api/instances", tags=["instances"], responses=ASKED, response_model=list[InstanceRow]
    )
    async def instances(
        request: Request,
        service: Annotated[str, Query(max_length=1000)] = "",
        state: State | None = None,
        q: Search = "",
        sort: Sort = "",
        limit: ListLimit = 1000,
        cursor: Cursor = "",
    ) -> Response:
        """Every instance of every service."""
        if service and service not in control.plan().services:
            raise no_such("service", service, list(control.plan().services))
        await control.hub.refresh()
        rows = [
            row
            for row in rows_of(control)
            if (not service or row.service == service) and (state is None or row.state == state)
        ]
        return listed(
            request,
            rows,
            key=lambda row: f"{row['service']} {row['url']}",
            limit=limit,
            cursor=cursor,
            sort=sort,
            q=q,
        )

    @router.get(
        "/api/instances/one", tags=["instances"], responses=ASKED, response_model=InstanceRow
    )
    async def instance(
        request: Request,
        service: Annotated[str, Query(max_length=1000)],
        url: Annotated[str, Query(max_length=2000)],
    ) -> Response:
        """One instance."""
        await control.hub.refresh()
        rows = rows_of(control)
        mine = [row for row in rows if row.service == service]
        if not mine:
            raise no_such("service", service, sorted({row.service for row in rows}))
        for row in mine:
            if row.url == url:
                return shown(request, row)
        raise no_such(f"instance of {service}", url, [row.url for row in mine])


def _add_orders(router: APIRouter, control: Control) -> None:
    @router.post("/api/instances/drain", tags=["instances"], status_code=202, responses=ASKED)
    async def drain(request: Request, order: DrainOrder) -> Ordered:
        """Give it no new requests; what is under way goes on."""
        given = give(
            control.orders.instance,
            request,
            order.service,
            _url_of(control, order),
            out=True,
            why=order.why,
            for_s=held(order.hold),
            force=order.force,
        )
        message = f"{order.instance} of {order.service} is drained"
        return await ordered(control, request, message, given)

    @router.post("/api/instances/undrain", tags=["instances"], status_code=202, responses=ASKED)
    async def undrain(request: Request, order: UndrainOrder) -> Ordered:
        """Let a drained one serve again."""
        given = give(
            control.orders.instance,
            request,
            order.service,
            _url_of(control, order),
            out=False,
            why=order.why,
        )
        message = f"{order.instance} of {order.service} may serve again"
        return await ordered(control, request, message, given)

    @router.post("/api/instances/weight", tags=["instances"], status_code=202, responses=ASKED)
    async def weight(request: Request, order: WeightOrder) -> Ordered:
        """Give it another weight than the file does. It holds until it is taken back, or until a
        reload brings another weight for this instance: then the file has spoken last.
        """
        given = give(
            control.orders.weight,
            request,
            order.service,
            _url_of(control, order),
            order.weight,
            why=order.why,
            for_s=held(order.hold) if order.weight is not None else None,
        )
        said = "its weight of the file" if order.weight is None else f"weight {order.weight}"
        message = f"{order.instance} of {order.service} has {said}"
        return await ordered(control, request, message, given)

    @router.post("/api/instances/eject", tags=["instances"], status_code=202, responses=ASKED)
    async def eject(request: Request, order: EjectOrder) -> Ordered:
        """Put it out for a while, as if for its answers. Unlike a drained one it is used all the
        same where too few are left (panic).
        """
        given = give(
            control.orders.eject,
            request,
            order.service,
            _url_of(control, order),
            out=True,
            why=order.why,
            for_s=held(order.hold),
        )
        message = f"{order.instance} of {order.service} is put out"
        return await ordered(control, request, message, given)

    @router.post("/api/instances/readmit", tags=["instances"], status_code=202, responses=ASKED)
    async def readmit(request: Request, order: UndrainOrder) -> Ordered:
        """Let one in that was put out, by hand or for its answers, before its time."""
        given = give(
            control.orders.eject,
            request,
            order.service,
            _url_of(control, order),
            out=False,
            why=order.why,
        )
        message = f"{order.instance} of {order.service} is let in again"
        return await ordered(control, request, message, given)
