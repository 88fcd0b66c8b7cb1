"""The part of the admin API about who calls whom: what callers report, and the picture of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from headgate.control.admin.listing import PROBLEM
from headgate.control.admin.mesh import latency_of
from headgate.control.admin.models import Accepted, Answer, LatencyFigures
from headgate.control.admin.speaking import must_speak_for
from headgate.control.control import Control
from headgate.control.topology import gateway_edges
from headgate.control.topology_edges import (
    PLACES,
    BreakerSaid,
    EdgeFigures,
    EdgeReport,
    Refusal,
    RefusalSaid,
    Report,
)

__all__ = ["MeshCall", "add_mesh_report", "calls_of"]

_NAME: Final = r"^[A-Za-z0-9_(][A-Za-z0-9_.:/()-]{0,127}$"
_REFUSED: Final = "headgate_mesh_refused_total"
_COUNT_MAX: Final = 10**12
_SECONDS_MAX: Final = 1e12

Name = Annotated[str, Field(pattern=_NAME)]
Count = Annotated[int, Field(ge=0, le=_COUNT_MAX)]


class _Said(BaseModel):
    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)


class ReportedDurations(_Said):
    count: Count
    sum: Annotated[float, Field(ge=0, le=_SECONDS_MAX, allow_inf_nan=False)]
    """In seconds."""
    buckets: Annotated[list[Count], Field(min_length=PLACES, max_length=PLACES)]
    """Not added up, by upper bound: 250us, 500us, 1ms, 2.5ms, 5ms, 10ms, 25ms, 50ms, 100ms, 250ms,
    500ms, 1s, 2.5s, 5s, 10s, 25s, 50s, and what took longer."""


class ReportedEdge(_Said):
    """Calls to one service since the last report that arrived."""

    to: Name
    requests: Count
    errors: Count = 0
    """Those that ended with 5xx, or without an answer."""
    retries: Count = 0
    hedges: Count = 0
    duration_s: ReportedDurations


class ReportedBreaker(_Said):
    service: Name
    name: Annotated[str, Field(max_length=300)] = ""
    state: Annotated[str, Field(max_length=40)]


class ReportedRefusal(_Said):
    source: Name
    """By its certificate, or `anonymous`."""
    why: Literal["rule", "default", "no_identity"]
    mode: Literal["strict", "permissive"]
    """`permissive`: it passed all the same."""
    count: Annotated[int, Field(ge=1, le=_COUNT_MAX)]


class MeshReport(_Said):
    """What one process counted of its calls."""

    source: Name
    """The service that calls."""
    process: Annotated[str, Field(max_length=200)] = ""
    """Which of its processes."""
    every_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 5.0
    edges: Annotated[list[ReportedEdge], Field(max_length=1000)] = []
    breakers: Annotated[list[ReportedBreaker], Field(max_length=1000)] = []
    """Those that do not let everything through, and those that do again."""
    refused: Annotated[list[ReportedRefusal], Field(max_length=1000)] = []
    """Calls to this service that rules of access speak against."""


class MeshRefusal(Answer):
    """Calls that rules of access speak against."""

    source: str
    destination: str
    why: str
    """`rule`, `default` or `no_identity`."""
    mode: str
    """`strict`: refused; `permissive`: passed, and would be refused."""
    count: int
    last_ago_s: float | None
    """Null where a worker of the gateway counted them."""


class MeshCall(Answer):
    """One service that calls another."""

    source: str
    destination: str
    seen_by: str
    """`caller`: a client or a sidecar reported it; `gateway`: it passed the gateway."""
    requests: int
    errors: int
    retries: int
    hedges: int
    requests_per_s: float
    error_rate: float | None
    """Of the last five minutes; of all that passed, where the gateway saw it."""
    latency: LatencyFigures
    breakers: dict[str, int]
    """How many breakers towards there are in a state other than closed, by state."""


def calls_of(control: Control) -> list[MeshCall]:
    """Every edge that is known; callers first, who know more than the gateway does."""
    topology = control.topology
    passed = gateway_edges(control.hub.merged(), control.hub.rates(), topology.own_name)
    return [
        *(_call(each, "caller") for each in topology.figures()),
        *(_call(each, "gateway") for each in passed),
    ]


def _call(each: EdgeFigures, seen_by: str) -> MeshCall:
    return MeshCall(
        source=each.source,
        destination=each.destination,
        seen_by=seen_by,
        requests=each.requests,
        errors=each.errors,
        retries=each.retries,
        hedges=each.hedges,
        requests_per_s=round(each.requests_per_s, 3),
        error_rate=each.error_rate,
        latency=latency_of(each),
        breakers=dict(each.breakers),
    )


def _refusal(key: tuple[str, ...], count: int, heard: Refusal | None) -> MeshRefusal:
    source, destination, why, mode = key
    return MeshRefusal(
        source=source,
        destination=destination,
        why=why,
        mode=mode,
        count=count,
        last_ago_s=round(heard.heard_ago_s, 1) if heard is not None else None,
    )


def add_mesh_report(router: APIRouter, control: Control) -> None:
    @router.post(
        "/api/mesh/report",
        tags=["mesh"],
        status_code=202,
        responses={
            401: {"description": "The token is missing or wrong", "content": PROBLEM},
            403: {"description": "Not for this service", "content": PROBLEM},
            422: {"description": "This is no report", "content": PROBLEM},
        },
    )
    async def report(request: Request, said: MeshReport) -> Accepted:
        """Tell whom a process called since its last report. Once every few seconds is enough."""
        must_speak_for(request, said.source)
        control.topology.hear(
            Report(
                said.source,
                said.process or said.source,
                said.every_s,
                tuple(
                    EdgeReport(
                        edge.to,
                        edge.requests,
                        edge.errors,
                        edge.retries,
                        edge.hedges,
                        tuple(edge.duration_s.buckets),
                        edge.duration_s.sum,
                    )
                    for edge in said.edges
                ),
                tuple(
                    BreakerSaid(each.service, each.name, each.state)
                    for each in said.breakers
                    if each.state != "closed"
                ),
                tuple(
                    RefusalSaid(each.source, each.why, each.mode, each.count)
                    for each in said.refused
                ),
            )
        )
        return Accepted(message=f"{len(said.edges)} edges")

    @router.get("/api/mesh/calls", tags=["mesh"])
    async def calls() -> list[MeshCall]:
        """Which service calls which: rate, errors, latency, retries and breakers."""
        await control.hub.refresh()
        return calls_of(control)

    @router.get("/api/mesh/refusals", tags=["mesh"])
    async def refusals() -> list[MeshRefusal]:
        """Who was refused, where and why: by sidecars, and by listeners of the mesh."""
        await control.hub.refresh()
        heard: dict[tuple[str, ...], Refusal] = {
            (each.source, each.destination, each.why, each.mode): each
            for each in control.topology.refusals()
        }
        # Of those that control heard of, too: its own figures are among them, a moment later.
        counts: dict[tuple[str, ...], float] = {key: each.count for key, each in heard.items()}
        for key, count in control.hub.merged().numbers.get(_REFUSED, {}).items():
            counts[key] = max(count, counts.get(key, 0))
        rows = [_refusal(key, int(count), heard.get(key)) for key, count in counts.items()]
        return sorted(rows, key=lambda row: (-row.count, row.source, row.destination))
