"""The part of the admin API about logs: searching, watching, sending them; levels at run time."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any, Final, Literal, Protocol

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from headgate.control.admin.audit import when
from headgate.control.admin.live import Event, stream
from headgate.control.admin.models import Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.admin.turns import Turns
from headgate.control.observing.logs import Logs, TooManySearches, row_of
from headgate.observe.logs import search
from headgate.observe.logs.incoming import of_lines, of_otlp_json, of_otlp_protobuf
from headgate.observe.logs.levels import loggers_of
from headgate.observe.logs.rules import level_number
from headgate.units import UnitError, parse_duration

__all__ = ["HasLogs", "LevelOrderIn", "LogLevels", "LogPage", "add_logs"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    422: {"description": "This is no question", "content": _PROBLEM},
}
_SENT: dict[int | str, dict[str, Any]] = {
    400: {"description": "This cannot be read", "content": _PROBLEM},
    401: _ASKED[401],
    413: {"description": "It is too large", "content": _PROBLEM},
    415: {"description": "It is neither protobuf nor JSON", "content": _PROBLEM},
    503: {"description": "There is no room at the moment", "content": _PROBLEM},
}
BODY_MAX: Final = 8 * 1024 * 1024
_LONGEST_S: Final = 7 * 86400.0


class HasLogs(Protocol):
    @property
    def logs(self) -> Logs: ...


class LogLine(Answer):
    id: str
    """Its place in the store."""
    line: dict[str, Any]
    """`time`, `level`, `logger`, `message` and what else it has. With a `trace_id`, the trace is at
    `/api/traces/{trace_id}`."""


class LogPage(Answer):
    lines: list[LogLine]
    next: str | None
    """Ask again with this as `cursor` for the next page; null at the end."""
    complete: bool
    """False when the search took too long: ask for the next page, or a smaller span of time."""


class LevelOrder(Answer):
    logger: str
    level: str
    remaining_s: float | None
    """Null: until it is taken back, or control and all workers end."""


class LogLevels(Answer):
    levels: dict[str, str]
    """By logger; `root` is all that is not named."""
    orders: list[LevelOrder]
    """What was set at run time."""


class LevelOrderIn(Answer):
    logger: str = Field(default="root", max_length=200, examples=["headgate.gateway"])
    """It and those below it; `root` is all."""
    level: Literal["debug", "info", "warning", "error", "critical"] | None = None
    """Null takes the order back."""
    for_: str | float | SkipJsonSchema[None] = Field(
        default=None, alias="for", examples=["10min"], description="After this it ends by itself"
    )


class Taken(Answer):
    taken: int
    refused: int
    """Lines that could not be read."""


_Text = Annotated[str, Query(max_length=search.TEXT_MAX)]
_Name = Annotated[str, Query(max_length=200)]
_When = Annotated[
    str | None,
    Query(max_length=40, description="A time such as 2026-01-31T12:00:00Z, or an age such as 2h"),
]
_Level = Annotated[str, Query(max_length=20, description="From this level on")]


def _query(
    text: _Text = "",
    level: _Level = "",
    logger: _Name = "",
    service: _Name = "",
    route: _Name = "",
    request_id: _Name = "",
    trace_id: _Name = "",
    since: _When = None,
    until: _When = None,
) -> search.Query:
    try:
        least = level_number(level) if level else 0
    except ValueError as error:
        raise Problem(422, str(error)) from error
    return search.Query(
        text,
        least,
        logger,
        service,
        route,
        request_id,
        trace_id.lower(),
        when(since),
        when(until),
    )


def add_logs(router: APIRouter, control: HasLogs) -> None:
    add_searching(router, control)
    add_levels(router, control)
    add_sending(router, control)


def add_searching(router: APIRouter, control: HasLogs) -> None:
    busy: dict[int | str, dict[str, Any]] = {
        503: {"description": "Too many searches at once", "content": _PROBLEM}
    }

    @router.get("/api/logs", tags=["logs"], responses={**_ASKED, **busy})
    async def lines(
        text: _Text = "",
        level: _Level = "",
        logger: _Name = "",
        service: _Name = "",
        route: _Name = "",
        request_id: _Name = "",
        trace_id: _Name = "",
        since: _When = None,
        until: _When = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str, Query(max_length=40)] = "",
    ) -> LogPage:
        """Lines of gateway, control and services, the newest first. In `text` all words must be
        there; `"two words"` stand together, `word*` is a beginning.
        """
        query = _query(text, level, logger, service, route, request_id, trace_id, since, until)
        try:
            found = await control.logs.find(query, limit=limit, after=cursor or None)
        except ValueError as error:
            raise Problem(422, str(error)) from error
        except TooManySearches as error:
            raise Problem(503, "too many searches at once; ask again") from error
        rows = [LogLine(id=place, line=row_of(line)) for place, line in found.lines]
        return LogPage(lines=rows, next=found.after, complete=found.is_whole)

    @router.get(
        "/api/logs/tail",
        tags=["logs"],
        response_class=Response,
        responses={**_ASKED, 200: {"content": {"text/event-stream": {}}}},
    )
    async def tail(
        request: Request,
        text: _Text = "",
        level: _Level = "",
        logger: _Name = "",
        service: _Name = "",
        route: _Name = "",
        request_id: _Name = "",
        trace_id: _Name = "",
    ) -> Response:
        """Lines as they come, as Server-Sent Events of the kind `line`; `dropped` says how many
        were left out because there were too many.
        """
        query = _query(text, level, logger, service, route, request_id, trace_id)

        async def source() -> AsyncIterator[Event]:
            async for row in control.logs.tail(query):
                if isinstance(row, int):
                    yield Event({"count": row}, "dropped")
                else:
                    yield Event(row.line, "line")

        return stream(request, source())


def add_levels(router: APIRouter, control: HasLogs) -> None:
    @router.get("/api/logs/levels", tags=["logs"], responses=_ASKED)
    async def levels() -> LogLevels:
        """Levels by logger, and those that were set at run time."""
        return LogLevels.model_validate(control.logs.levels())

    @router.put("/api/logs/levels", tags=["logs"], responses=_ASKED)
    async def set_level(order: LevelOrderIn) -> LogLevels:
        """Set the level of a logger in control and all workers at once, for a while if `for` says
        so. It outlives reloads; a level of null gives the logger back to the file.
        """
        for_s: float | None = None
        if order.for_ is not None:
            try:
                for_s = parse_duration(order.for_)
            except UnitError as error:
                raise Problem(422, f"`for`: {error.rule}") from error
            if not 0 < for_s <= _LONGEST_S:
                raise Problem(422, "`for` is more than nothing and at most 7d")
        level = level_number(order.level) if order.level is not None else None
        try:
            control.logs.set_level(loggers_of(order.logger), level, for_s)
        except ValueError as error:
            raise Problem(422, str(error)) from error
        return LogLevels.model_validate(control.logs.levels())


def add_sending(router: APIRouter, control: HasLogs) -> None:
    turns = Turns()

    @router.post("/v1/logs", tags=["logs"], responses=_SENT, response_class=Response)
    async def otlp(request: Request) -> Response:
        """Logs of services, by OTLP over HTTP: protobuf or JSON, gzip or plain."""
        kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
        if kind not in {"application/x-protobuf", "application/json"}:
            raise Problem(415, "send application/x-protobuf or application/json")
        body = await _body(request)
        wall = time.time()  # noqa: TID251  for lines without a time
        read = of_otlp_json if kind == "application/json" else of_otlp_protobuf
        try:
            rows, lost, _ = await turns.run(_rows, control, partial(read, body, wall))
        except ValueError as error:
            raise Problem(400, str(error)) from error
        _give(control, rows, lost)
        content = b"{}" if kind == "application/json" else b""
        return Response(content, media_type=kind)

    @router.post("/api/logs", tags=["logs"], responses=_SENT)
    async def ndjson(request: Request) -> Taken:
        """Logs of services: one JSON object a line, with `message` and, if there are, `time`,
        `level`, `logger`, `service`, `request_id`, `trace_id` and any other field.
        """
        body = await _body(request)
        wall = time.time()  # noqa: TID251  for lines without a time
        try:
            rows, lost, refused = await turns.run(_rows, control, partial(of_lines, body, wall))
        except ValueError as error:
            raise Problem(413, str(error)) from error
        if refused and not rows:
            raise Problem(400, "none of these lines is a JSON object with a message")
        return Taken(taken=_give(control, rows, lost), refused=refused)


def _rows(control: HasLogs, read: Callable[[], Any]) -> tuple[list[search.Stored], int, int]:
    """Rows, how many lines cannot be kept, and how many could not be read. On a thread."""
    found = read()
    told, refused = found if isinstance(found, tuple) else (found, 0)
    rows, lost = control.logs.rows_of(told)
    return rows, lost, refused


def _give(control: HasLogs, rows: list[search.Stored], lost: int) -> int:
    taken = control.logs.take_in(rows, lost)
    if rows and not taken and control.logs.is_full:
        raise Problem(503, "the store has no room at the moment; send it again later")
    return taken


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_MAX:
            raise Problem(413, f"more than {BODY_MAX} bytes at once; send them in parts")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return bytes(body)
    if encoding != "gzip":
        raise Problem(415, "of encodings only gzip is understood")
    return await asyncio.to_thread(_unpacked, bytes(body))


def _unpacked(body: bytes) -> bytes:
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = unpacking.decompress(body, BODY_MAX + 1)
    except zlib.error as error:
        raise Problem(400, "this is no gzip") from error
    if len(plain) > BODY_MAX or unpacking.unconsumed_tail:
        raise Problem(413, f"more than {BODY_MAX} bytes once unpacked; send them in parts")
    if not unpacking.eof:
        raise Problem(400, "this gzip ends in the middle")
    return plain
