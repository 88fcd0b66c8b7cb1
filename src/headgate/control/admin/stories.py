"""The part of the admin API that tells what became of one request, by its id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import Field

from headgate.config import Config
from headgate.config.tracing import TracingSpec
from headgate.control.admin.logs import LogLine
from headgate.control.admin.models import Answer
from headgate.control.admin.problem import MEDIA_TYPE, Problem
from headgate.control.control import Control
from headgate.control.observing.happenings import Happened
from headgate.control.observing.logs import TooManySearches, row_of
from headgate.control.observing.traces import NotKept, TooSlow
from headgate.control.story import Story, of_lines, of_spans, text_of
from headgate.observe.logs import search as lines_search
from headgate.observe.tracing import search
from headgate.observe.tracing.record import SpanRecord, is_trace_id
from headgate.observe.tracing.rules import AUTO
from headgate.units import format_duration, format_percent

__all__ = ["add_stories"]

_PROBLEM = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_ASKED: Final[dict[int | str, dict[str, Any]]] = {
    401: {"description": "The token is missing or wrong", "content": _PROBLEM},
    404: {"description": "Nothing is kept of such a request", "content": _PROBLEM},
    503: {"description": "Too many searches at once", "content": _PROBLEM},
}
_TRACES: Final = 5
"""So many requests that share an id are told of; a proxy in front may give one to several."""
_LINES: Final = 100
_EVENTS: Final = 20
_BEFORE_S: Final = 60.0
_OF_ALL: Final = frozenset({"reload", "worker", "health"})
"""Kinds of events that concern every request."""


class StepTold(Answer):
    at_s: float
    """After the request had come."""
    took_s: float
    what: str
    said: str
    depth: int
    """It lies within the one before of a depth less."""
    is_failed: bool


class MeaningTold(Answer):
    says: str
    look_at: str


class RequestTold(Answer):
    request_id: str
    trace_id: str
    """Empty where no trace was made."""
    at: float
    """When it came, in seconds since 1970."""
    took_s: float
    method: str
    host: str
    path: str
    query: str
    status: int
    """499: the client left first."""
    client: str
    route: str
    service: str
    instance: str
    """Which answered or was tried last."""
    error: str
    """Why the gateway answered in place of the service; empty where it did not."""
    cache: str
    """What the cache of the route had for it."""
    kept: str
    """Why its trace was kept: sampled, error or slow; empty where only its line was."""
    retries: int
    steps: list[StepTold]
    """Attempts and waits in the order of time; from the trace alone."""
    took_part: list[str]
    """Other services whose spans are in its trace."""
    meaning: MeaningTold | None
    """What `error` says, and what to look at."""


class Explained(Answer):
    id: str
    requests: list[RequestTold]
    """The newest first; more than one where they share the id."""
    lines: list[LogLine]
    """What gateway and services have logged of it, the oldest first."""
    events: list[dict[str, Any]] = Field(default_factory=list)
    """What happened to its service and the gateway in the minute before and until its end."""
    is_of_before: bool
    """The file has been read again since."""
    text: str
    """All of it as the command prints it."""


def add_stories(router: APIRouter, control: Control) -> None:
    @router.get("/api/explain/{id:path}", tags=["traces"], responses=_ASKED)
    async def explained(
        id: Annotated[  # noqa: A002 - its name in the path
            str, Path(max_length=200, examples=["0af7651916cd43dd8448eb211c80319c"])
        ],
    ) -> Explained:
        """What became of a request that is over, by the id of its answer's `x-request-id` or by
        its trace id: who answered, each attempt and wait, why it was refused, what was logged,
        what else happened at that time.
        """
        return await _explained(control, id.strip())


async def _explained(control: Control, id_: str) -> Explained:
    stories = await _traced(control, id_)
    trace_ids = {story.trace_id for story in stories if story.trace_id}
    lines = await _lines(control, id_, trace_ids)
    if not stories:
        stories = of_lines(line.line for line in lines)[-_TRACES:]
    if not stories and not lines:
        raise Problem(404, f"nothing is kept of such a request; {what_is_kept(_config(control))}")
    events = _around(control.live.missed("").events, stories)
    last = control.reloader.last
    is_of_before = bool(
        stories and last is not None and last.ok and last.at > max(one.at for one in stories)
    )
    return Explained(
        id=id_,
        requests=[RequestTold.model_validate(asdict(story)) for story in stories],
        lines=lines,
        events=[event.to_json() for event in events],
        is_of_before=is_of_before,
        text=_text(stories, lines, events, is_of_before=is_of_before),
    )


def _config(control: Control) -> Config:
    return control.current.config


async def _traced(control: Control, id_: str) -> list[Story]:
    """From the store of traces: by the trace's own id, else by what the gateway's span says."""
    try:
        if is_trace_id(id_.lower()):
            spans = await control.traces.ask(partial(_spans, trace_id=id_.lower()))
            stories = of_spans(spans)
            if stories:
                return stories[:_TRACES]
        found = await control.traces.ask(partial(_of_request, id_=id_))
    except NotKept:
        return []
    except TooSlow as error:
        raise Problem(503, "the search took too long; ask by the trace id") from error
    return [story for spans in found for story in of_spans(spans, id_)][:_TRACES]


def _spans(db: Any, trace_id: str) -> list[SpanRecord]:
    return search.spans_of(db, trace_id)


def _of_request(db: Any, id_: str) -> list[list[SpanRecord]]:
    query = search.TraceQuery(service="headgate", attributes={"headgate.request_id": id_})
    found = search.find(db, query, limit=_TRACES)
    return [search.spans_of(db, trace.trace_id) for trace in found.traces]


async def _lines(control: Control, id_: str, trace_ids: Iterable[str]) -> list[LogLine]:
    """Of the request's id and of its traces, each once, the oldest first."""
    asked = [lines_search.Query(request_id=id_)]
    ids = {*trace_ids, *([id_.lower()] if is_trace_id(id_.lower()) else [])}
    asked += [lines_search.Query(trace_id=each) for each in sorted(ids)]
    rows: dict[str, str] = {}
    for query in asked:
        try:
            found = await control.logs.find(query, limit=_LINES, after=None)
        except TooManySearches as error:
            raise Problem(503, "too many searches at once; ask again") from error
        rows.update(found.lines)
    told = await asyncio.to_thread(
        lambda: [LogLine(id=place, line=row_of(line)) for place, line in rows.items()]
    )
    return sorted(told, key=lambda line: str(line.line.get("time", "")))[-_LINES:]


def _around(events: Sequence[Happened], stories: Sequence[Story]) -> list[Happened]:
    """What happened at the time, to what the requests had to do with."""
    found = []
    for event in events:
        said = event.attributes
        breaker = str(said.get("breaker", "")).partition(" ")[0]
        for story in stories:
            if not story.at - _BEFORE_S <= event.at <= story.at + story.took_s + 1.0:
                continue
            named = {said.get("service"), breaker, said.get("route")} - {None, ""}
            if event.kind in _OF_ALL or named & {story.service, story.route}:
                found.append(event)
                break
    return found[-_EVENTS:]


def what_is_kept(config: Config) -> str:
    """Which requests leave anything, by the file."""
    said = []
    tracing = config.tracing
    if isinstance(tracing, TracingSpec) and tracing.store is not False:
        kinds = [f"{format_percent(tracing.sample)} of requests"]
        if tracing.keep_errors:
            kinds.append("those that fail with a status of 500 or more")
        if tracing.keep_slow == AUTO:
            kinds.append("the slowest of each route")
        elif tracing.keep_slow:
            kinds.append(f"those that take longer than {format_duration(tracing.keep_slow)}")
        said.append(f"traces are kept of {', '.join(kinds)} (`tracing`)")
    else:
        said.append("no traces are kept (`tracing`)")
    rules = config.logging.store_rules()
    if not rules.is_on or rules.access == "off":
        said.append("no lines of the access log (`logging: store:`)")
    elif rules.access == "errors":
        said.append("lines of the access log of those that failed (`logging: store: access:`)")
    else:
        said.append("lines of the access log of all, as long as there is room")
    return "; ".join(said)


def _text(
    stories: Sequence[Story],
    lines: Sequence[LogLine],
    events: Sequence[Happened],
    *,
    is_of_before: bool,
) -> str:
    parts = [text_of(story) for story in stories]
    logged = [text for line in lines if (text := _logged(line.line))]
    if logged:
        parts.append("\n".join(["what was logged", *logged]))
    if events:
        told = [f"    {_clock(event.at)}  {event.kind}: {event.text}" for event in events]
        parts.append("\n".join(["what else happened", *told]))
    if is_of_before:
        parts.append("the file has been read again since: `headgate config history`")
    return "\n".join(
        "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in part)
        for part in parts
    )


def _logged(said: dict[str, Any]) -> str:
    """A line in short; that of the access log has been told."""
    if "message" not in said:
        return ""
    time_of_day = str(said.get("time", ""))[11:19]
    who = said.get("service") or said.get("logger") or ""
    message = " ".join(str(said["message"])[:300].split())
    return f"    {time_of_day}  {str(said.get('level', '')).lower():<8}  {who}: {message}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
