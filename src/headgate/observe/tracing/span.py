"""A span while it lasts.

Theory of operation
-------------------
What costs is put off. While a span lasts it holds numbers: ids as integers, times of the monotonic
clock, attributes in the very dict of the call. Texts and wall times are made when somebody asks: a
header goes out, or the trace was kept and is carried away by whoever takes it from the ring.

All spans of one local root share a `LocalTrace`. A span that ends is put into its list; when the
root ends the tracer decides, and the list is kept or let go whole. A span that ends after its root
(a task that outlived the request) follows that decision by itself.

Nothing here raises into the code that is traced: an attribute of a wrong type becomes its text when
the record is made, and whatever is beyond the bounds is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from headgate.observe.tracing.context import SpanContext
from headgate.observe.tracing.ids import hex_span, hex_trace
from headgate.observe.tracing.record import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_NAME,
    MAX_TEXT,
    Kind,
    SpanEvent,
    SpanLink,
    SpanRecord,
    Status,
    Value,
)

if TYPE_CHECKING:
    from headgate.observe.tracing.tracer import Tracer

__all__ = ["CURRENT", "QUIET", "USUAL_SPANS", "LocalTrace", "NoSpan", "Quiet", "Span", "plain"]

MOST_SPANS: Final = 1000
"""Of one local root; those beyond it are counted on the root and not kept."""
USUAL_SPANS: Final = 32
MOST_EXTRA: Final = 65_536
"""Spans beyond the usual number that all traces under way may hold together: with the bound of
those it bounds the memory."""
_LONG: Final = 1 << 63


def plain(value: object) -> Value:
    """What may stand as an attribute; anything else becomes its text."""
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT]
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_LONG <= value < _LONG else str(value)[:MAX_TEXT]
    if isinstance(value, float) and value - value == 0:  # neither infinite nor NaN
        return float(value)
    try:
        return str(value)[:MAX_TEXT]
    except Exception:  # noqa: BLE001  # a foreign __str__ must not break the traced code
        return f"<{type(value).__name__}>"


def _message(error: BaseException) -> str:
    """Its first line. What databases say below it, and SQLAlchemy, holds rows and parameters."""
    inner = getattr(error, "orig", None)
    text = str(plain(inner if isinstance(inner, BaseException) else error))
    return text.split("\n", 1)[0][:500]


def _plain_all(attributes: Mapping[str, Any]) -> dict[str, Value]:
    return {
        str(key)[:MAX_NAME]: plain(value)
        for key, value in list(attributes.items())[:MAX_ATTRIBUTES]
        if value is not None
    }


class LocalTrace:
    """What the recorded spans of one local root share."""

    __slots__ = (
        "dropped",
        "failed",
        "flags",
        "is_kept",
        "root",
        "spans",
        "start",
        "state",
        "trace_id",
        "tracer",
        "wall",
    )

    def __init__(
        self, tracer: Tracer, trace_id: int, flags: int, state: str, wall: float, start: float
    ) -> None:
        self.tracer = tracer
        self.trace_id = trace_id
        self.flags = flags
        self.state = state
        self.wall = wall
        self.start = start
        self.spans: list[Span] = []
        self.root = 0
        """The number of the local root: no reference, which would make a ring of garbage."""
        self.is_kept: bool | None = None
        self.failed = False
        self.dropped = 0

    def __del__(self) -> None:
        # A root that was begun and never ended: its place among those under way is free again.
        if self.is_kept is None:
            self.tracer.forget(self)


class Quiet:
    """A span that nobody will see: it takes all calls. Its names are those of the current one."""

    __slots__ = ()
    is_recording: ClassVar[bool] = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Nothing."""

    @property
    def context(self) -> SpanContext | None:
        """What it is called in headers; None outside of any trace."""
        span = CURRENT.get()
        return span.context if span is not None else None

    def set(self, attributes: object = None, /, **more: Any) -> None:
        """Nothing."""

    def rename(self, name: str) -> None:
        """Nothing."""

    def event(self, name: str, attributes: object = None, /, **more: Any) -> None:
        """Nothing."""

    def error(self, error: object = None) -> None:
        """Nothing."""

    def ok(self) -> None:
        """Nothing."""

    def link(self, context: SpanContext, **attributes: Any) -> None:
        """Nothing."""

    def begin(self) -> Self:
        return self

    def end(self) -> None:
        """Nothing."""


class NoSpan(Quiet):
    """The root of a trace that is not recorded: it hands the context on, and no more."""

    __slots__ = ("_number", "_token", "flags", "state", "trace_number")

    def __init__(self, trace_number: int, number: int, flags: int, state: str) -> None:
        """`number` is 0 where it begins its trace: then its id is a half of that of the trace,
        which nobody else's can be, and costs nothing while nobody asks.
        """
        self.trace_number = trace_number
        self._number = number
        self.flags = flags
        self.state = state
        self._token: Token[Any] | None = None

    def __enter__(self) -> Self:
        self._token = CURRENT.set(self)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        token = self._token
        if token is not None:
            self._token = None
            try:  # as `leave` does, without the call
                CURRENT.reset(token)
            except (ValueError, RuntimeError):
                return

    @property
    def number(self) -> int:
        return self._number or self.trace_number >> 64 or 1

    @property
    def context(self) -> SpanContext:
        return SpanContext(
            hex_trace(self.trace_number), hex_span(self.number), self.flags, self.state
        )


class Span:
    """One that is written down. Made by `trace.span`; begins on `with`, or by `begin`."""

    __slots__ = (
        "_token",
        "attributes",
        "end_s",
        "events",
        "kind",
        "links",
        "name",
        "number",
        "parent_id",
        "start_s",
        "status",
        "trace",
    )
    is_recording: ClassVar[bool] = True

    def __init__(
        self,
        trace: LocalTrace,
        number: int,
        parent_id: int,
        name: str,
        kind: Kind,
        attributes: dict[str, Any],
    ) -> None:
        self.trace = trace
        self.number = number
        self.parent_id = parent_id
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.events: list[tuple[float, str, Mapping[str, Any]]] | None = None
        self.links: list[tuple[SpanContext, Mapping[str, Any]]] | None = None
        self.status: Status = "unset"
        self.end_s = -1.0
        self._token: Token[Any] | None = None
        self.start_s = perf_counter()

    @property
    def context(self) -> SpanContext:
        """What it is called in headers."""
        trace = self.trace
        return SpanContext(
            hex_trace(trace.trace_id), hex_span(self.number), trace.flags, trace.state
        )

    @property
    def flags(self) -> int:
        return self.trace.flags

    @property
    def trace_number(self) -> int:
        return self.trace.trace_id

    def __enter__(self) -> Self:
        self._token = CURRENT.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token = self._token
        if token is not None:
            self._token = None
            leave(token)
        if error is not None:
            self._raised(error)
        self.end()

    def begin(self) -> Self:
        """Begin without becoming the current span: for work that others go on with. `end` it."""
        return self

    def end(self) -> None:
        """End it. Again: nothing."""
        if self.end_s >= 0:
            return
        self.end_s = perf_counter()
        trace = self.trace
        if trace.is_kept is None:
            count = len(trace.spans)
            if count < USUAL_SPANS or trace.root == self.number:
                trace.spans.append(self)
            elif count < MOST_SPANS and trace.tracer.extra < MOST_EXTRA:
                trace.tracer.extra += 1
                trace.spans.append(self)
            else:
                trace.dropped += 1
            if trace.root == self.number:
                trace.tracer.decide(trace, self)
        elif trace.is_kept:
            trace.tracer.late(self)

    def _raised(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit):
            return
        if type(error).__name__ == "CancelledError":
            self.set({"headgate.cancelled": True})
            return
        self.error(error)

    def set(self, attributes: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Say more about it. None as a value says nothing."""
        if attributes is not None:
            self.attributes.update(attributes)
        if more:
            self.attributes.update(more)

    def rename(self, name: str) -> None:
        """Another name, known only later, as of the route."""
        self.name = name

    def event(self, name: str, attributes: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Something that happens now."""
        events = self.events
        if events is None:
            events = self.events = []
        if len(events) < MAX_EVENTS:
            events.append((perf_counter(), name, {**attributes, **more} if attributes else more))

    def error(self, error: BaseException | str | None = None) -> None:
        """It failed: because of this exception, or for this reason."""
        self.status = "error"
        self.trace.failed = True
        if isinstance(error, BaseException):
            kind = type(error)
            name = (
                kind.__qualname__
                if kind.__module__ == "builtins"
                else f"{kind.__module__}.{kind.__qualname__}"
            )
            self.attributes.setdefault("error.type", name)
            self.event("exception", {"exception.type": name, "exception.message": _message(error)})
        elif error is not None:
            self.attributes.setdefault("error.type", error)

    def ok(self) -> None:
        """It did what it should, whatever was said before."""
        self.status = "ok"

    def link(self, context: SpanContext, **attributes: Any) -> None:
        """It has to do with that other span, and is no child of it."""
        links = self.links
        if links is None:
            links = self.links = []
        if len(links) < MAX_EVENTS:
            links.append((context, attributes))

    def record(self, service: str) -> SpanRecord:
        """The value that is stored and sent."""
        trace = self.trace
        shift = trace.wall - trace.start
        attributes = _plain_all(self.attributes)
        if trace.dropped and trace.root == self.number:
            attributes["headgate.dropped_spans"] = trace.dropped
        return SpanRecord(
            hex_trace(trace.trace_id),
            hex_span(self.number),
            hex_span(self.parent_id) if self.parent_id else "",
            str(self.name)[:MAX_NAME],
            self.kind,
            max(0.0, self.start_s + shift),
            max(0.0, self.end_s - self.start_s),
            self.status,
            service,
            attributes,
            tuple(
                SpanEvent(max(0.0, at + shift), str(name)[:MAX_NAME], _plain_all(said))
                for at, name, said in self.events or ()
            ),
            tuple(
                SpanLink(context.trace_id, context.span_id, _plain_all(said))
                for context, said in self.links or ()
            ),
        )


CURRENT: Final[ContextVar[Span | NoSpan | None]] = ContextVar("headgate_span", default=None)


def leave(token: Token[Any]) -> None:
    """Make the span before the current one again, if this is still the context it was set in.

    A generator that is closed by somebody else, and a task that is handed over, end in another
    context; there is nothing to put back there.
    """
    try:
        CURRENT.reset(token)
    except (ValueError, RuntimeError):
        return


QUIET: Final = Quiet()
"""All spans below one that is not recorded, and all spans while tracing is off."""
