"""What became of one request that is over, told from what was kept of it. Pure.

Theory of operation
-------------------
A request leaves a trace (where it was sampled, slow, or failed), and a line of the access log
(where it failed, or all are kept). The gateway's span of a trace knows most: who asked for what,
what the answer was, and below it each attempt and each wait. A line knows the same but for the
steps. So a story is made of the span where there is one, and else of the line.

What is told is what services and clients sent, cut and redacted when it was kept; it is made safe
to show on a terminal once more, in `text_of`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from headgate.observe.tracing.record import SpanRecord

__all__ = ["Meaning", "Step", "Story", "meaning_of", "of_lines", "of_spans", "text_of"]

GATEWAY: Final = "headgate"
"""The service under which the gateway's own spans are."""
STEPS_MAX: Final = 60
_DEPTH_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the word in `error` says, and what to look at."""

    says: str
    look_at: str


_MEANINGS: Final[tuple[tuple[str, Meaning], ...]] = tuple(
    (begins, Meaning(says, look_at))
    for begins, says, look_at in (
        ("breaker_open", "a circuit breaker let nothing through", "headgate ctl breakers list"),
        ("rate_limited", "a rate limit turned it away", "headgate ctl limits list"),
        ("auth", "it did not show, well enough, who asks", "`auth` of the route"),
        ("access", "who asked may not do this", "`allow` and `deny` of the route"),
        ("bans", "the address it came from is banned", "headgate ctl bans list"),
        ("shed", "the worker had too much to do", "headgate ctl top; `importance` of the route"),
        ("concurrency", "no seat was free", "`concurrency` of the route or service"),
        ("switched_off", "its flag is off", "headgate ctl flags list"),
        ("degraded", "the gateway does less at the moment", "headgate ctl flags list"),
        ("fault", "a fault was put in on purpose", "`fault` of the route"),
        ("refused_by_filter", "a filter of the route answered", "`filters` of the route"),
        ("client_gone", "the client left before the answer was there", "how long it took"),
        ("write_timeout", "the client did not read its answer", "`timeout` of the listener"),
        ("upstream_connect", "no connection to the instance", "headgate ctl instances list"),
        ("upstream_timeout", "the instance was silent for too long", "`timeout` of the route"),
        ("upstream_reset", "the instance broke off", "the log of the service"),
        ("upstream_protocol", "the instance broke the rules of HTTP", "the log of the service"),
        ("upstream_tls", "no TLS with the instance", "`tls` of the service"),
        ("upstream_dns", "the name of the instance is not known", "headgate instances"),
        ("upstream_no_instance", "no instance could serve", "headgate ctl instances list"),
        ("upstream_queue", "no connection was free in time", "`pool` of the service"),
        ("upstream", "the service did not answer as it should", "headgate ctl instances list"),
        ("timeout", "its time was over before it was sent", "`timeout` of the route"),
        ("no route", "no route takes this host and path", "headgate explain METHOD URL"),
    )
)


@dataclass(frozen=True, slots=True)
class Step:
    at_s: float
    """After the request had come."""
    took_s: float
    what: str
    said: str
    depth: int
    is_failed: bool


@dataclass(frozen=True, slots=True)
class Story:
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
    client: str
    route: str
    service: str
    instance: str
    error: str
    cache: str
    """What the cache of the route had for it; empty where it has none."""
    kept: str
    """Why its trace was kept: sampled, error or slow; empty where only its line was."""
    retries: int
    steps: tuple[Step, ...]
    took_part: tuple[str, ...]
    """Other services whose spans are in the trace."""
    meaning: Meaning | None


def meaning_of(error: str) -> Meaning | None:
    return next((meaning for begins, meaning in _MEANINGS if error.startswith(begins)), None)


# -- of a trace ------------------------------------------------------------------------------------


def of_spans(spans: Sequence[SpanRecord], request_id: str = "") -> list[Story]:
    """A story for each request that the gateway served in a trace, the newest first; with an id,
    of those that had it.
    """
    children: dict[str, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda one: (one.start, one.span_id)):
        children.setdefault(span.parent_id, []).append(span)
    found = [
        _story(span, spans, children)
        for span in spans
        if span.kind == "server"
        and span.service == GATEWAY
        and (not request_id or span.attributes.get("headgate.request_id") == request_id)
    ]
    return sorted(found, key=lambda story: -story.at)


def _story(
    span: SpanRecord, spans: Sequence[SpanRecord], children: Mapping[str, Sequence[SpanRecord]]
) -> Story:
    said = span.attributes

    def text(name: str) -> str:
        return str(said.get(name, ""))

    error = text("error.type")
    others = {one.service for one in spans if one.service not in {"", GATEWAY}}
    return Story(
        request_id=text("headgate.request_id"),
        trace_id=span.trace_id,
        at=span.start,
        took_s=span.duration_s,
        method=text("http.request.method"),
        host=text("server.address"),
        path=text("url.path"),
        query=text("url.query"),
        status=_number(said.get("http.response.status_code")),
        client=text("client.address"),
        route=text("headgate.route"),
        service=text("headgate.service"),
        instance=text("headgate.instance"),
        error=error,
        cache=text("headgate.cache"),
        kept=text("headgate.kept"),
        retries=_number(said.get("http.request.resend_count")),
        steps=tuple(_steps(span, children)),
        took_part=tuple(sorted(others)),
        meaning=meaning_of(error),
    )


def _steps(root: SpanRecord, children: Mapping[str, Sequence[SpanRecord]]) -> list[Step]:
    """What lies below the gateway's span, in the order of time; of other services only what they
    were asked, as `headgate traces show` has the rest.
    """
    found: list[Step] = []
    seen = {root.span_id}
    todo = [(one, 0) for one in reversed(children.get(root.span_id, ()))]
    while todo and len(found) < STEPS_MAX:
        span, depth = todo.pop()
        if span.span_id in seen:
            continue  # a circle of parents, which only a faulty sender makes
        seen.add(span.span_id)
        found.append(_step(span, root, depth))
        if span.service == GATEWAY and depth < _DEPTH_MAX:
            todo += [(one, depth + 1) for one in reversed(children.get(span.span_id, ()))]
    return found


def _step(span: SpanRecord, root: SpanRecord, depth: int) -> Step:
    said = span.attributes
    status = _number(said.get("http.response.status_code"))
    error = str(said.get("error.type", ""))
    parts: list[str] = []
    if span.service != GATEWAY:
        what = span.service
        parts.append(span.name)
    elif span.kind == "client":
        number = _number(said.get("http.request.resend_count")) + 1
        what = f"attempt {number}"
        if said.get("headgate.mirror"):
            what = "copy"
        elif said.get("headgate.hedge"):
            what = "attempt beside it"
        parts.append(str(said.get("headgate.instance", "")))
    else:
        what = span.name
    if status:
        parts.append(f"answered {status}")
    if error and error != str(status):
        parts.append(error)
    return Step(
        max(0.0, span.start - root.start),
        span.duration_s,
        what,
        ", ".join(part for part in parts if part),
        depth,
        span.status == "error",
    )


# -- of lines --------------------------------------------------------------------------------------


def of_lines(rows: Iterable[Mapping[str, Any]]) -> list[Story]:
    """Of lines of the access log; others are passed over."""
    return [
        _of_line(row)
        for row in rows
        if "request_id" in row and "status" in row and "duration_ms" in row
    ]


def _of_line(row: Mapping[str, Any]) -> Story:
    def text(name: str) -> str:
        return str(row.get(name) or "")

    error = text("error")
    return Story(
        request_id=text("request_id"),
        trace_id=text("trace_id"),
        at=_moment(text("time")),
        took_s=_number(row.get("duration_ms"), float) / 1000,
        method=text("method"),
        host=text("host"),
        path=text("path"),
        query=text("query"),
        status=_number(row.get("status")),
        client=text("client_ip"),
        route=text("route"),
        service=text("service"),
        instance=text("instance"),
        error=error,
        cache="",
        kept="",
        retries=_number(row.get("retries")),
        steps=(),
        took_part=(),
        meaning=meaning_of(error),
    )


def _number(value: Any, kind: Any = int) -> Any:
    """What others have sent may be anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return kind(0)
    try:
        return kind(value)
    except (ValueError, OverflowError):  # no number, or more than there is
        return kind(0)


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


# -- for people ------------------------------------------------------------------------------------


def text_of(story: Story) -> str:
    """As the command prints it."""
    query = f"?{story.query}" if story.query else ""
    when = datetime.fromtimestamp(story.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    end = story.status or "no answer"
    asked = f"{story.method or '?'} {story.host}{story.path}{query}"
    lines = [
        f"{asked}: {end} after {_ms(story.took_s)}, {when} UTC",
        _row("request", story.request_id),
        _row("trace", story.trace_id and f"{story.trace_id}{_why(story)}"),
        _row("client", story.client),
        _row("route", story.route or "none"),
        _row("service", story.service),
        _row("instance", story.instance),
        _row("retries", str(story.retries or "")),
        _row("cache", story.cache),
        _row("error", story.error),
    ]
    if story.meaning is not None:
        lines += [_row("", f"{story.meaning.says}; look at {story.meaning.look_at}")]
    if story.steps:
        lines.append("what happened")
        width = max(len(step.what) + 2 * step.depth for step in story.steps)
        for step in story.steps:
            what = f"{'  ' * step.depth}{step.what}".ljust(width)
            mark = "!" if step.is_failed else " "
            lines.append(
                f" {mark} +{_ms(step.at_s).rjust(8)}  {what}  {_ms(step.took_s).rjust(8)}"
                f"  {step.said}".rstrip()
            )
        if len(story.steps) == STEPS_MAX:
            lines.append(f"    and more: headgate traces show {story.trace_id}")
    if story.took_part:
        lines.append(_row("also", f"{', '.join(story.took_part)}: headgate traces show"
                                  f" {story.trace_id}"))  # fmt: skip
    return "\n".join(_shown(line) for line in lines if line)


def _why(story: Story) -> str:
    return f"  (kept: {story.kept})" if story.kept else ""


def _row(name: str, value: str) -> str:
    return f"  {name.ljust(8)}  {value}" if value else ""


def _ms(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _shown(text: str) -> str:
    """What others have sent is not for the terminal to act upon."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
