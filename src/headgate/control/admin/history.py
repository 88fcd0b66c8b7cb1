"""The part of the admin API about the history: questions, export, markers, figures sent in.

The paths without `history` (`/api/query`, which is also `/api/v1/query`, and its like) answer in
the shape of Prometheus' HTTP API, faults too, so that what asks a Prometheus can ask Headgate.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Protocol

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from headgate.control.admin.models import Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.admin.turns import Turns
from headgate.control.observing.history import History, HistoryOff
from headgate.errors import HeadgateError

__all__ = ["HasHistory", "MarkerOrder", "MarkerOut", "add_history"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    404: {"description": "There is no history", "content": _PROBLEM},
    422: {"description": "This is no question", "content": _PROBLEM},
    503: {"description": "Too many questions at once", "content": _PROBLEM},
}
_AT_ONCE: Final = 2
_WAITING: Final = 16
_LONGEST_S: Final = 4e9
_STEPS: Final = 250
_MAX_LISTED: Final = 10_000
_DURATION: Final = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")


class HasHistory(Protocol):
    @property
    def history(self) -> History: ...


class MarkerOut(Answer):
    at: float
    """In seconds since 1970."""
    kind: str
    text: str
    attributes: dict[str, str]


class MarkerOrder(BaseModel):
    """Something that has happened, such as a deploy."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    text: Annotated[str, Field(min_length=1, max_length=1000)]
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")] = "deploy"
    at: Annotated[float, Field(ge=0, le=_LONGEST_S)] | None = None
    """In seconds since 1970; now if not said."""
    attributes: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=1000)]],
        Field(max_length=20),
    ] = {}


class _Fault(Exception):
    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.more = status, kind, message, more


def _time(said: str | None, otherwise: float, what: str) -> float:
    if said is None or said == "":
        return otherwise
    try:
        found = float(said)
    except ValueError:
        try:
            when = datetime.fromisoformat(said)
        except ValueError as error:
            hint = "write seconds since 1970 or 2026-01-31T12:00:00Z"
            raise _Fault(422, "bad_data", f"{what} is no time; {hint}") from error
        found = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if not 0 <= found <= _LONGEST_S:
        raise _Fault(422, "bad_data", f"{what} is no time between 1970 and 2096")
    return found


def _seconds(said: str | None, otherwise: float, what: str) -> float:
    from headgate.observe.query.lexer import duration_s

    if said is None or said == "":
        return otherwise
    try:
        said = said.replace("min", "m")  # as the file says it
        found = duration_s(said) if _DURATION.fullmatch(said) else float(said)
    except ValueError as error:
        raise _Fault(422, "bad_data", f"{what} is no duration; write 15s or 1h") from error
    if not (0 < found <= _LONGEST_S and math.isfinite(found)):
        raise _Fault(422, "bad_data", f"{what} is not longer than nothing")
    return found


class _Asking:
    """Questions on threads, few at a time."""

    def __init__(self, control: HasHistory) -> None:
        self._control = control
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def run(self, work: Any, *arguments: Any) -> Any:
        from headgate.observe.query import QueryFault

        if self._waiting >= _WAITING:
            raise _Fault(503, "unavailable", "too many questions at once; ask again")
        self._waiting += 1
        try:
            async with self._places:
                return await asyncio.to_thread(work, *arguments)
        except QueryFault as error:
            more = {"position": error.position, "hint": error.hint}
            raise _Fault(422, "bad_data", str(error), **more) from error
        except HistoryOff as error:
            raise _Fault(404, "unavailable", str(error)) from error
        except HeadgateError as error:
            raise _Fault(422, "bad_data", str(error)) from error
        finally:
            self._waiting -= 1

    async def at(self, fields: Mapping[str, str]) -> tuple[Any, list[str], float, Any]:
        at = _time(fields.get("time"), _now(), "time")

        def work() -> tuple[Any, list[str]]:
            from headgate.observe.history.asking import unknown_names
            from headgate.observe.query import parse

            expr = parse(fields.get("query", ""))
            found = self._control.history.ask(expr, at)
            if found:
                return expr, [], found  # type: ignore[return-value]
            said = unknown_names(expr, self._control.history.store, at - 300, at)
            return expr, said, found  # type: ignore[return-value]

        expr, said, found = await self.run(work)
        return expr, said, at, found

    async def over(self, fields: Mapping[str, str]) -> tuple[list[str], Any]:
        end = _time(fields.get("end"), _now(), "end")
        since_s = _seconds(fields.get("since"), 3600.0, "since")
        start = _time(fields.get("start"), end - since_s, "start")
        each_s = max(1.0, math.ceil((end - start) / _STEPS))
        step_s = _seconds(fields.get("step"), each_s, "step")

        def work() -> tuple[list[str], Any]:
            from headgate.observe.history.asking import unknown_names
            from headgate.observe.query import parse

            expr = parse(fields.get("query", ""))
            found = self._control.history.ask_range(expr, start, end, step_s)
            if found:
                return [], found
            return unknown_names(expr, self._control.history.store, start, end), found

        answer: tuple[list[str], Any] = await self.run(work)
        return answer

    async def keys(self, fields: Mapping[str, str], matches: Sequence[str]) -> list[dict[str, str]]:
        """Labels of series, as `match[]` asks for them; all without one."""
        end = _time(fields.get("end"), _now(), "end")
        start = _time(fields.get("start"), end - 3600.0, "start")

        def work() -> list[dict[str, str]]:
            from headgate.observe.query import Matcher, QueryFault, parse
            from headgate.observe.query.syntax import Select

            store = self._control.history.store
            every = ("", (Matcher("__name__", "=~", ".+"),))
            asked: list[tuple[str, Sequence[Matcher]]] = [every]
            if matches:
                asked = []
                for text in matches[:50]:
                    expr = parse(text)
                    if not isinstance(expr, Select):
                        raise QueryFault("a selector is wanted", 0, 'such as name{label="value"}')
                    asked.append((expr.name, expr.matchers))
            found = {key: None for one in asked for key in store.series(*one, start, end)}
            return [dict(key) for key in found]

        found: list[dict[str, str]] = await self.run(work)
        return found


def _now() -> float:
    return time.time()  # noqa: TID251  what samples are known by


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _said(result_type: str, result: Any, infos: Sequence[str]) -> dict[str, Any]:
    content = {"status": "success", "data": {"resultType": result_type, "result": result}}
    return {**content, "infos": list(infos)} if infos else content


def _instant(expr: Any, found: Any, at: float, infos: Sequence[str]) -> dict[str, Any]:
    from headgate.observe.query.syntax import kind_of

    if kind_of(expr) == "scalar":
        return _said("scalar", [at, _number(found[0].value)], infos)
    rows = [{"metric": dict(one.labels), "value": [at, _number(one.value)]} for one in found]
    return _said("vector", rows, infos)


def _matrix(found: Any, infos: Sequence[str]) -> dict[str, Any]:
    rows = [
        {
            "metric": dict(one.labels),
            "values": [
                [at, _number(value)]
                for at, value in zip(one.times.tolist(), one.values.tolist(), strict=True)
            ],
        }
        for one in found
    ]
    return _said("matrix", rows, infos)


def add_history(router: APIRouter, control: HasHistory) -> None:
    asking = _Asking(control)
    _add_questions(router, asking)
    _add_markers(router, control)
    _add_prometheus(router, asking)
    _add_reports(router, control)


def _add_questions(router: APIRouter, asking: _Asking) -> None:
    text: dict[str, Any] = {"text/csv": {}, "application/vnd.apache.parquet": {}}

    async def exported(form: str, series: Any) -> Response:
        from headgate.observe.history.export import to_csv, to_parquet

        if form == "csv":
            return Response(await asyncio.to_thread(to_csv, series), media_type="text/csv")
        data = await asking.run(to_parquet, series)
        return Response(data, media_type="application/vnd.apache.parquet")

    @router.get(
        "/api/history/query", tags=["history"], responses={**_ASKED, 200: {"content": text}}
    )
    async def query(
        query: Annotated[str, Query(description="An expression, as in `up` or `rate(x[5m])`")],
        time: Annotated[str | None, Query(description="Now if not said")] = None,
        format: Literal["json", "csv", "parquet"] = "json",  # noqa: A002  as it is asked for
    ) -> Response:
        """The answer to an expression at one moment."""
        from headgate.observe.history.export import as_series

        try:
            expr, infos, at, found = await asking.at({"query": query, "time": time or ""})
            if format != "json":
                return await exported(format, as_series(found, at))
        except _Fault as fault:
            raise Problem(fault.status, fault.message, **fault.more) from fault
        return JSONResponse(_instant(expr, found, at, infos))

    @router.get(
        "/api/history/range", tags=["history"], responses={**_ASKED, 200: {"content": text}}
    )
    async def over(
        query: Annotated[str, Query(description="An expression, as in `rate(x[5m])`")],
        start: Annotated[str | None, Query(description="Seconds since 1970, or RFC 3339")] = None,
        end: Annotated[str | None, Query(description="Now if not said")] = None,
        since: Annotated[str | None, Query(description="In place of start: 1h, 7d")] = None,
        step: Annotated[str | None, Query(description="15s; 250 steps if not said")] = None,
        format: Literal["json", "csv", "parquet"] = "json",  # noqa: A002  as it is asked for
    ) -> Response:
        """The answers to an expression over time."""
        fields = {"query": query, "start": start, "end": end, "since": since, "step": step}
        try:
            infos, found = await asking.over({n: v for n, v in fields.items() if v is not None})
            if format != "json":
                return await exported(format, found)
        except _Fault as fault:
            raise Problem(fault.status, fault.message, **fault.more) from fault
        return JSONResponse(await asyncio.to_thread(_matrix, found, infos))


def _add_markers(router: APIRouter, control: HasHistory) -> None:
    @router.get("/api/markers", tags=["history"], responses=_ASKED)
    async def markers(
        start: str | None = None,
        end: str | None = None,
        kind: str = "",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> list[MarkerOut]:
        """What has happened, in the order of time; the newest where there are more than `limit`."""
        try:
            until = _time(end, _now(), "end")
            since = _time(start, until - 7 * 86400.0, "start")
        except _Fault as fault:
            raise Problem(fault.status, fault.message) from fault
        found = control.history.markers(since, until, kind)[-limit:]
        return [
            MarkerOut(at=one.at, kind=one.kind, text=one.text, attributes=dict(one.attributes))
            for one in found
        ]

    @router.post("/api/markers", tags=["history"], status_code=201, responses=_ASKED)
    async def mark(order: MarkerOrder) -> MarkerOut:
        """Say that something has happened, such as a deploy."""
        at = _now() if order.at is None else order.at
        made = await asyncio.to_thread(
            control.history.mark, at, order.kind, order.text, order.attributes, waits=True
        )
        return MarkerOut(
            at=made.at, kind=made.kind, text=made.text, attributes=dict(made.attributes)
        )


def _add_prometheus(router: APIRouter, asking: _Asking) -> None:
    def refused(fault: _Fault) -> Response:
        status = 400 if fault.status == 422 else fault.status
        content = {"status": "error", "errorType": fault.kind, "error": fault.message}
        return JSONResponse(content, status)

    async def fields_of(request: Request) -> tuple[dict[str, str], list[str]]:
        found = dict(request.query_params)
        matches = request.query_params.getlist("match[]")
        if request.method == "POST":
            from urllib.parse import parse_qsl

            pairs = parse_qsl((await request.body()).decode(errors="replace"), max_num_fields=100)
            found |= dict(pairs)
            matches += [value for name, value in pairs if name == "match[]"]
        return found, matches

    async def query(request: Request) -> Response:
        """As Prometheus answers `/api/v1/query`."""
        try:
            fields, _ = await fields_of(request)
            expr, infos, at, found = await asking.at(fields)
        except _Fault as fault:
            return refused(fault)
        return JSONResponse(_instant(expr, found, at, infos))

    async def query_range(request: Request) -> Response:
        """As Prometheus answers `/api/v1/query_range`."""
        try:
            fields, _ = await fields_of(request)
            infos, found = await asking.over(fields)
        except _Fault as fault:
            return refused(fault)
        return JSONResponse(await asyncio.to_thread(_matrix, found, infos))

    async def series(request: Request) -> Response:
        """As Prometheus answers `/api/v1/series`."""
        try:
            found = await asking.keys(*await fields_of(request))
        except _Fault as fault:
            return refused(fault)
        return JSONResponse({"status": "success", "data": found[:_MAX_LISTED]})

    async def labels(request: Request) -> Response:
        """As Prometheus answers `/api/v1/labels`."""
        try:
            found = await asking.keys(*await fields_of(request))
        except _Fault as fault:
            return refused(fault)
        names = sorted({name for one in found for name in one})
        return JSONResponse({"status": "success", "data": names[:_MAX_LISTED]})

    async def values(name: str, request: Request) -> Response:
        """As Prometheus answers `/api/v1/label/NAME/values`."""
        try:
            found = await asking.keys(*await fields_of(request))
        except _Fault as fault:
            return refused(fault)
        said = sorted({one[name] for one in found if name in one})
        return JSONResponse({"status": "success", "data": said[:_MAX_LISTED]})

    async def metadata() -> Response:
        """As Prometheus answers `/api/v1/metadata`."""
        from headgate.observe import METRICS

        data = {
            one.name: [{"type": one.kind, "help": one.help, "unit": ""}] for one in METRICS.values()
        }
        return JSONResponse({"status": "success", "data": data})

    shown: dict[int | str, dict[str, Any]] = {
        400: {"description": "This is no question"},
        401: _ASKED[401],
        404: {"description": "There is no history"},
        503: {"description": "Too many questions at once"},
    }
    for path, endpoint in (
        ("/api/query", query),
        ("/api/query_range", query_range),
        ("/api/series", series),
        ("/api/labels", labels),
    ):
        for method in ("GET", "POST"):
            router.add_api_route(
                path,
                endpoint,
                methods=[method],
                tags=["history"],
                responses=shown,
                operation_id=f"{method.lower()}_{endpoint.__name__}_as_prometheus",
            )
    router.add_api_route("/api/label/{name}/values", values, tags=["history"], responses=shown)
    router.add_api_route("/api/metadata", metadata, tags=["history"], responses=shown)


def _add_reports(router: APIRouter, control: HasHistory) -> None:
    turns = Turns()

    @router.post("/v1/metrics", tags=["history"], responses=_ASKED)
    async def otlp(request: Request) -> Response:
        """Take metrics that a service sends as OTLP over HTTP, as protobuf or as JSON."""
        from headgate.observe.history.otlp import OtlpUnreadable, of_json, of_protobuf

        body = await request.body()
        is_json = request.headers.get("content-type", "").startswith("application/json")
        try:
            decode = of_json if is_json else of_protobuf
            source, families, left_out = await turns.run(decode, body)
        except OtlpUnreadable as error:
            raise Problem(422, str(error)) from error
        left_out += control.history.give(f"otlp {source}", families)
        if not is_json:
            return Response(b"", media_type="application/x-protobuf")
        rejected = {"rejectedDataPoints": str(left_out), "errorMessage": "too many series"}
        return JSONResponse({"partialSuccess": rejected} if left_out else {})
