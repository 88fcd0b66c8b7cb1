"""The live part of the admin API: an overview, requests and events, as Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from headgate.control.admin.listing import ASKED, no_such
from headgate.control.admin.live import Event, stream
from headgate.control.admin.problem import Problem
from headgate.control.control import Control
from headgate.control.observing.live_views import RequestFilter
from headgate.units import UnitError, parse_duration

__all__ = ["add_overview", "statuses_of"]

_LIVE: dict[int | str, dict[str, Any]] = {
    **ASKED,
    200: {"description": "Server-Sent Events", "content": {"text/event-stream": {}}},
    503: {"description": "As many live views as there may be are open already"},
}


def statuses_of(text: str) -> tuple[int, int]:
    """`404`, `5xx` or `400-499` as the first and the last status."""
    said = text.strip().lower()
    if not said:
        return 0, 999
    if len(said) == 3 and said.endswith("xx") and said[0] in "12345":
        return int(said[0]) * 100, int(said[0]) * 100 + 99
    first, dash, last = said.partition("-")
    if first.isascii() and first.isdigit() and len(first) == 3:
        if not dash:
            return int(first), int(first)
        if last.isascii() and last.isdigit() and len(last) == 3 and first <= last:
            return int(first), int(last)
    raise Problem(422, f'"{text[:40]}" is no status; write 404, 5xx or 400-499')


def add_overview(router: APIRouter, control: Control) -> None:
    @router.get("/api/live/overview", tags=["live"], responses=_LIVE)
    async def overview(request: Request) -> Response:
        """Once a second: requests, errors, percentiles, what is in flight, the busiest routes."""

        async def events() -> AsyncIterator[Event]:
            async with aclosing(control.live.overviews()) as views:
                async for said in views:
                    yield Event(said, "overview")

        return stream(request, events())

    @router.get("/api/live/requests", tags=["live"], responses=_LIVE)
    async def requests(
        request: Request,
        route: Annotated[str, Query(max_length=1000)] = "",
        status: Annotated[str, Query(max_length=20, description="`404`, `5xx` or `400-499`")] = "",
        min_duration: Annotated[str, Query(max_length=20, description="Such as `250ms`")] = "",
    ) -> Response:
        """Requests as they end. Of many a sample, with how many were left out; failures come
        first. No query, no header and no address is among it.
        """
        if route:
            known = [known.name for known in control.plan().routes]
            if route not in known:
                raise no_such("route", route, known)
        low, top = statuses_of(status)
        try:
            least_s = parse_duration(min_duration) if min_duration else 0.0
        except UnitError as error:
            raise Problem(422, str(error)) from error
        wanted = RequestFilter(route, low, top, least_s)

        async def events() -> AsyncIterator[Event]:
            async with aclosing(control.live.requests(wanted)) as rows:
                async for said in rows:
                    yield Event(said, "left_out" if "left_out" in said else "request")

        return stream(request, events())

    @router.get("/api/live/events", tags=["live"], responses=_LIVE)
    async def events(request: Request) -> Response:
        """Health, breakers, ejections, reloads, workers, bans, orders, alerts: what is kept, and
        what comes. Who comes back with `Last-Event-ID` gets what came since; `gap` says that some
        of it is gone.
        """

        async def told(after: str) -> AsyncIterator[Event]:
            async with aclosing(control.live.events(after)) as lately:
                async for event in lately:
                    if event is None:
                        yield Event({"text": "some events are gone"}, "gap")
                    else:
                        yield Event(event.to_json(), event.kind, event.id)

        return stream(request, told)

    @router.get("/api/events", tags=["live"], responses=ASKED)
    async def lately(
        after: Annotated[str, Query(max_length=200, description="An id; empty: all")] = "",
        kind: Annotated[str, Query(max_length=40)] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[dict[str, Any]]:
        """The events that are kept, the newest last."""
        found = [
            {**event.to_json(), "id": event.id}
            for event in control.live.missed(after).events
            if not kind or event.kind == kind
        ]
        return found[-limit:]
