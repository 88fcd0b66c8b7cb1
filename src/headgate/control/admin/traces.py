"""The part of the admin API about traces: taken in from services, searched, one as a tree."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Path, Query, Request, Response

from headgate.control.admin.models import Answer
from headgate.control.admin.paging import Cursor, cursor_of, position_of
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.admin.turns import Turns
from headgate.control.observing.traces import NotKept, TooSlow, Traces
from headgate.observe.protobuf import bytes_field, int_field
from headgate.observe.tracing import search
from headgate.observe.tracing.otlp import Decoded, decode, decode_json
from headgate.observe.tracing.queries import queries
from headgate.observe.tracing.record import SpanRecord, is_trace_id
from headgate.observe.tracing.tree import tree
from headgate.units import UnitError, parse_duration

__all__ = ["HasTraces", "add_traces"]

MAX_BODY: Final = 16 * 1024 * 1024
"""Of a batch, unpacked."""
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: Final[dict[int | str, dict[str, Any]]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    404: {"description": "No traces are kept, or not this one", "content": _PROBLEM},
    422: {"description": "It cannot be asked so", "content": _PROBLEM},
    503: {"description": "The search took too long", "content": _PROBLEM},
}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Taken, if need be in part: see `partialSuccess`",
        "content": {_PROTOBUF: {}, _JSON: {"schema": {"type": "object"}}},
    },
    400: {"description": "This is no batch of spans", "content": _PROBLEM},
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    413: {"description": "It is too large; send fewer spans in one", "content": _PROBLEM},
    415: {"description": "Neither protobuf nor JSON, or packed otherwise", "content": _PROBLEM},
    503: {"description": "The disk does not keep up; send it again later", "content": _PROBLEM},
}


class HasTraces(Protocol):
    @property
    def traces(self) -> Traces: ...


class TraceSummary(Answer):
    trace_id: str
    start: float
    """Seconds since 1970."""
    duration_s: float
    spans: int
    errors: int
    """Spans that failed."""
    name: str
    """Of the first span."""
    service: str
    route: str
    status: int
    """0 for none."""


class TracesFound(Answer):
    traces: list[TraceSummary]
    """The newest first."""
    next: str | None
    """Ask again with this as `cursor` for the next page; null at the end."""


class SpanEventOut(Answer):
    at: float
    name: str
    attributes: dict[str, str | int | float | bool]


class SpanLinkOut(Answer):
    trace_id: str
    span_id: str
    attributes: dict[str, str | int | float | bool]


class SpanOut(Answer):
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the first of a trace."""
    name: str
    kind: str
    start: float
    duration_s: float
    status: str
    service: str
    attributes: dict[str, str | int | float | bool]
    events: list[SpanEventOut]
    links: list[SpanLinkOut]


class NodeOut(Answer):
    span: SpanOut
    depth: int
    self_s: float
    """In which none of its children ran."""
    is_critical: bool
    """A shorter one would have made the whole shorter."""
    is_torn: bool
    """Its parent is not among the spans."""
    children: list[str]


class TreeOut(Answer):
    trace_id: str
    start: float
    duration_s: float
    services: list[str]
    nodes: list[NodeOut]
    """In the order in which it is drawn: parents before children."""


class ServiceOut(Answer):
    service: str
    spans: int
    """Requests that it answered, of the traces that are kept."""
    errors: int
    p50_s: float
    p95_s: float
    max_s: float


class QueryOut(Answer):
    fingerprint: str
    """The same for statements that differ only in their values."""
    statement: str
    """Without values."""
    operation: str
    service: str
    """Who asked the database."""
    system: str
    calls: int
    traces: int
    """In how many it ran."""
    failed: int
    total_s: float
    p95_s: float
    max_s: float
    repeated: int
    """How often it ran under one span, at most: many are often a loop that could be one
    statement."""
    place: str
    """Where in the code it was last seen; empty where the service does not say."""
    example: str
    """The id of the trace in which it ran most often."""


_Text = Annotated[str, Query(max_length=500)]
_When = Annotated[
    str | None,
    Query(max_length=40, description="A time such as 2026-01-31T12:00:00Z, or an age such as 2h"),
]
_Long = Annotated[str | None, Query(max_length=40, description="Such as 250ms")]


def add_traces(router: APIRouter, control: HasTraces) -> None:
    add_taking(router, control)

    @router.get("/api/traces", tags=["traces"], responses=_ASKED)
    async def find(
        service: _Text = "",
        route: _Text = "",
        q: Annotated[str, Query(max_length=500, description="In the name of a span")] = "",
        status: Annotated[str, Query(max_length=7, examples=["503", "5xx", "400-499"])] = "",
        attribute: Annotated[
            list[str] | None, Query(max_length=8, description="`name=value`, up to eight")
        ] = None,
        min_duration: _Long = None,
        max_duration: _Long = None,
        since: _When = None,
        until: _When = None,
        errors: Annotated[bool, Query(description="Only traces in which something failed")] = False,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Cursor = "",
    ) -> TracesFound:
        """Traces, the newest first. What is said of a span (`service`, `route`, `q`, `status`,
        `attribute`) has to fit one span of the trace, the rest the trace as a whole.
        """
        wall = time.time()  # noqa: TID251  # ages count from now
        query = search.TraceQuery(
            service=service,
            route=route,
            text=q,
            status=_statuses(status),
            attributes=_attributes(attribute or []),
            min_s=_seconds(min_duration),
            max_s=_seconds(max_duration),
            since=_moment(since, wall),
            until=_moment(until, wall),
            errors_only=errors,
        )
        after = _after(cursor)
        found = await _asked(control, partial(search.find, query=query, limit=limit, after=after))
        return TracesFound(
            traces=[TraceSummary.model_validate(asdict(one)) for one in found.traces],
            next=None if found.after is None else cursor_of(list(found.after)),
        )

    @router.get("/api/traces/services", tags=["traces"], responses=_ASKED)
    async def services(since: _When = None, until: _When = None) -> list[ServiceOut]:
        """What each service did in the traces that are kept. As failed and slow ones are kept by
        preference, this is no measure of all requests: see the metrics for that.
        """
        wall = time.time()  # noqa: TID251  # ages count from now
        ask = partial(search.services, since=_moment(since, wall), until=_moment(until, wall))
        return [ServiceOut.model_validate(asdict(one)) for one in await _asked(control, ask)]

    @router.get("/api/traces/queries", tags=["traces"], responses=_ASKED)
    async def statements(
        route: _Text = "",
        service: _Text = "",
        since: _When = None,
        until: _When = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> list[QueryOut]:
        """Which statements the requests of a route send to databases, from the newest traces that
        are kept: those that took longest in all come first.
        """
        wall = time.time()  # noqa: TID251  # ages count from now
        ask = partial(
            queries,
            route=route,
            service=service,
            since=_moment(since, wall),
            until=_moment(until, wall),
            limit=limit,
        )
        return [QueryOut.model_validate(asdict(one)) for one in await _asked(control, ask)]

    @router.get("/api/traces/{trace_id}", tags=["traces"], responses=_ASKED)
    async def one(trace_id: Annotated[str, Path(max_length=64)]) -> list[SpanOut]:
        """All spans of a trace, by their beginnings."""
        spans = await _spans(control, trace_id)
        return [_span_out(span) for span in sorted(spans, key=lambda span: span.start)]

    @router.get("/api/traces/{trace_id}/tree", tags=["traces"], responses=_ASKED)
    async def as_tree(trace_id: Annotated[str, Path(max_length=64)]) -> TreeOut:
        """A trace as a tree, with the time each span took for itself and the critical path."""
        drawn = await asyncio.to_thread(tree, await _spans(control, trace_id))
        return TreeOut(
            trace_id=drawn.trace_id,
            start=drawn.start,
            duration_s=drawn.duration_s,
            services=list(drawn.services),
            nodes=[
                NodeOut(
                    span=_span_out(node.span),
                    depth=node.depth,
                    self_s=node.self_s,
                    is_critical=node.is_critical,
                    is_torn=node.is_torn,
                    children=list(node.children),
                )
                for node in drawn.nodes
            ],
        )


def add_taking(router: APIRouter, control: HasTraces) -> None:
    turns = Turns()

    @router.post(
        "/v1/traces",
        tags=["traces"],
        responses=_TAKEN,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    _JSON: {"schema": {"type": "object"}, "example": {"resourceSpans": []}},
                    _PROTOBUF: {"schema": {"type": "string", "format": "binary"}},
                },
            }
        },
    )
    async def take(request: Request) -> Response:
        """Take spans of services in, by OTLP over HTTP: give an exporter this address, and a token
        for `ingest` as `authorization: Bearer ...`. Packed with gzip or not.
        """
        if not control.traces.is_on:
            raise Problem(404, "no traces are kept: see `tracing` in the file")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in {_PROTOBUF, _JSON}:
            raise Problem(415, f"spans come as {_PROTOBUF} or {_JSON}")
        packing = request.headers.get("content-encoding", "identity").strip().lower()
        if packing not in {"gzip", "identity"}:
            raise Problem(415, "a batch is packed with gzip, or not at all")
        body = await request.body()
        work = partial(_read, body, kind, is_packed=packing == "gzip")
        spans, refused = await turns.run(work)
        if not control.traces.put(spans):
            raise Problem(503, "the disk does not keep up; send it again later")
        return _taken(kind, refused)


def _read(body: bytes, kind: str, *, is_packed: bool) -> Decoded:
    if is_packed:
        body = unpacked(body)
    try:
        return decode(body) if kind == _PROTOBUF else decode_json(body)
    except ValueError as error:
        raise Problem(400, f"this is no batch of spans: {error}") from error


def unpacked(body: bytes) -> bytes:
    """Of gzip, never more than `MAX_BODY`: a small body may say that it is a very large one."""
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = unpack.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise Problem(400, "this is no gzip") from error
    if len(found) > MAX_BODY:
        raise Problem(413, "a batch has 16MB at most, unpacked; send fewer spans in one")
    if not unpack.eof:
        raise Problem(400, "the gzip does not end")
    return found


def _taken(kind: str, refused: int) -> Response:
    why = "without a proper trace id, span id or time, or too many in one batch"
    if kind == _JSON:
        body: dict[str, Any] = {}
        if refused:
            body = {"partialSuccess": {"rejectedSpans": str(refused), "errorMessage": why}}
        return Response(json.dumps(body), media_type=_JSON)
    told = b""
    if refused:
        told = bytes_field(1, int_field(1, refused) + bytes_field(2, why.encode()))
    return Response(told, media_type=_PROTOBUF)


async def _asked(control: HasTraces, ask: Any) -> Any:
    try:
        return await control.traces.ask(ask)
    except NotKept as error:
        raise Problem(404, "no traces are kept: see `tracing.store` in the file") from error
    except TooSlow as error:
        raise Problem(503, "the search took too long; ask for less time, or for a route") from error


async def _spans(control: HasTraces, trace_id: str) -> list[SpanRecord]:
    trace_id = trace_id.lower()
    if not is_trace_id(trace_id):
        raise Problem(422, "a trace id is 32 hexadecimal digits")
    found: list[SpanRecord] = await _asked(control, partial(_of_trace, trace_id=trace_id))
    if not found:
        raise Problem(404, "there is no such trace; it was not kept, or is no longer")
    return found


def _of_trace(db: sqlite3.Connection, trace_id: str) -> list[SpanRecord]:
    return search.spans_of(db, trace_id)


def _span_out(span: SpanRecord) -> SpanOut:
    return SpanOut.model_validate(asdict(span))


def _statuses(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    first, dash, last = text.strip().lower().partition("-")
    if not dash and len(first) == 3 and first.endswith("xx") and first[0] in "12345":
        return int(first[0]) * 100, int(first[0]) * 100 + 99
    last = last if dash else first
    if all(each.isascii() and each.isdigit() and len(each) == 3 for each in (first, last)):
        return int(first), int(last)
    raise Problem(422, "write `status` as 503, 5xx or 400-499")


def _attributes(said: list[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for each in said:
        name, equals, value = each.partition("=")
        if not equals or not name or len(each) > 1000:
            raise Problem(422, "write `attribute` as name=value")
        found[name] = value
    return found


def _seconds(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return parse_duration(text)
    except UnitError as error:
        raise Problem(422, f"a duration {error.rule}") from error


def _moment(text: str | None, wall: float) -> float | None:
    if not text:
        return None
    try:
        return wall - parse_duration(text) if not _is_time(text) else _time(text)
    except (UnitError, ValueError, OverflowError) as error:
        raise Problem(
            422, "a time is written as 2026-01-31T12:00:00Z, in seconds since 1970, or as 2h ago"
        ) from error


def _is_time(text: str) -> bool:
    return "-" in text or (text.replace(".", "", 1).isdigit() and float(text) > 1e8)


def _time(text: str) -> float:
    if "-" not in text:
        return float(text)
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _after(cursor: str) -> tuple[float, str] | None:
    if not cursor:
        return None
    position = position_of(cursor)
    if (
        isinstance(position, list)
        and len(position) == 2
        and isinstance(position[0], float | int)
        and is_trace_id(position[1])
    ):
        return float(position[0]), position[1]
    raise Problem(422, "this is no cursor of this list; begin again without one")
