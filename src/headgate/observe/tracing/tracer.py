"""Where spans begin, and where kept traces wait until somebody takes them.

Theory of operation
-------------------
One tracer a process, as a rule: `trace` of this package. Until `setup` it does nothing, at the cost
of a call. Bounds: so many traces are under way at once, so many kept spans wait in the ring; what
finds no room is counted in `stats` and forgotten, and nobody waits.

A recorded trace that the head did not choose takes a place among those under way; when there is
none, it is not recorded (its errors are then lost, and counted). One that the head did choose is
recorded in any case.

The counts are moved by `+=` from all threads without a lock: an addition that is lost once in
millions is cheaper than a lock around each span. The one count that bounds something, of the traces
under way, cannot drift: it is the size of a set.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import random
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from headgate.observe.tracing.baggage import Baggage, Entry, write_baggage
from headgate.observe.tracing.context import (
    DEBUG,
    RANDOM,
    SAMPLED,
    TRACESTATE_KEY,
    Headers,
    Incoming,
    put_member,
)
from headgate.observe.tracing.context import extract as extract_headers
from headgate.observe.tracing.context import inject as inject_headers
from headgate.observe.tracing.ids import SHARE_MASK, Ids, Share, hex_span, hex_trace
from headgate.observe.tracing.record import UNDECIDED, Kind, SpanRecord
from headgate.observe.tracing.rules import TracingRules
from headgate.observe.tracing.sampling import Tail
from headgate.observe.tracing.span import (
    CURRENT,
    QUIET,
    USUAL_SPANS,
    LocalTrace,
    NoSpan,
    Quiet,
    Span,
)

__all__ = ["Stats", "Tracer"]

P = ParamSpec("P")
R = TypeVar("R")
BAGGAGE: Final[ContextVar[Baggage]] = ContextVar("headgate_baggage", default=MappingProxyType({}))
_UNDER_WAY: Final = 2048
_RING: Final = 8192


@dataclass(slots=True)
class Stats:
    """What became of traces and spans since the start."""

    kept: int = 0
    """Local traces that were kept."""
    let_go: int = 0
    """Recorded, judged, and not kept."""
    unsampled: int = 0
    """Not recorded."""
    no_room: int = 0
    """Not recorded, because too many were under way."""
    dropped_spans: int = 0
    """Kept, and lost because nobody took them in time, or their trace had too many."""


class Exports(Protocol):
    def start(self) -> None: ...
    def close(self, timeout_s: float = ...) -> None: ...


class Tracer:
    def __init__(
        self,
        rules: TracingRules | None = None,
        *,
        service: str = "",
        rng: random.Random | None = None,
        under_way: int = _UNDER_WAY,
        ring: int = _RING,
    ) -> None:
        """Without rules it does nothing until `take_up`."""
        self._ids = Ids(rng or random.Random())  # ids are no secret
        self._bits = self._ids.bits
        self._most_under_way = under_way
        self.extra = 0
        self._ring: deque[Span] = deque(maxlen=ring)
        self._under_way: set[int] = set()
        self.stats = Stats()
        self.service = service
        self.is_on = False
        self.exporter: Exports | None = None
        """Who carries kept spans away; `setup` sets it, and a fork begins it anew."""
        self.sends_undecided = False
        """Whether what is not kept is handed on too, marked, for a store that sees the whole."""
        self.rules = TracingRules()
        self._share = Share(0.0)
        self._from = self._share.least
        self._tail = Tail(self.rules)
        self._judges = False
        if rules is not None:
            self.take_up(rules)
        _TRACERS.add(self)

    def take_up(self, rules: TracingRules | None) -> None:
        """Trace by these rules from now on; None is off."""
        self.is_on = rules is not None
        if rules is not None:
            self.rules = rules
            self._share = Share(rules.sample)
            self._from = self._share.least
            self._tail = Tail(rules)
            self._judges = self._tail.judges

    # -- spans --------------------------------------------------------------------------------

    def span(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        /,
        *,
        kind: Kind = "internal",
        **more: Any,
    ) -> Span | Quiet:
        """A part of what is going on, as `with trace.span("load user", user=42) as span:`.

        A child of the current span; without one, the root of a new trace. Names that are no Python
        words go into the mapping: `trace.span("call", {"server.address": host})`.
        """
        if attributes is not None:
            more = {**attributes, **more}
        parent = CURRENT.get()
        if parent is None:
            if not self.is_on:
                return QUIET
            trace_id = self._bits(128) or 1
            if not self._judges and (trace_id & SHARE_MASK) < self._from:
                self.stats.unsampled += 1
                return NoSpan(trace_id, 0, RANDOM, "")
            return self._root(name, kind, more, None, trace_id=trace_id)
        if parent.is_recording:
            return Span(
                cast("Span", parent).trace, self._bits(64) or 1, parent.number, name, kind, more
            )
        return QUIET

    def root(
        self,
        name: str,
        incoming: Incoming | None = None,
        attributes: Mapping[str, Any] | None = None,
        *,
        kind: Kind = "server",
        is_trusted: bool = True,
    ) -> Span | Quiet:
        """The first span of a request, whatever span is current; it goes on with what came in."""
        if not self.is_on:
            return QUIET
        return self._root(name, kind, dict(attributes or ()), incoming, is_trusted=is_trusted)

    def _root(
        self,
        name: str,
        kind: Kind,
        attributes: dict[str, Any],
        incoming: Incoming | None = None,
        *,
        is_trusted: bool = True,
        trace_id: int = 0,
    ) -> Span | Quiet:
        number = self._bits(64) or 1
        parent_id, flags, state = 0, RANDOM, ""
        parent = incoming.parent if incoming is not None else None
        follows = is_trusted or self.rules.trust_sampled == "all"
        if parent is not None and (is_trusted or self.rules.trust):
            trace_id = int(parent.trace_id, 16)
            parent_id = int(parent.span_id, 16)
            flags, state = parent.flags & RANDOM, parent.state
        elif not trace_id:
            trace_id = self._bits(128) or 1
        decision = incoming.decision if incoming is not None and follows else None
        sampled = self._share.holds(trace_id) if decision is None else decision
        if incoming is not None and incoming.is_debug and follows:
            sampled = True
            state = put_member(state, TRACESTATE_KEY, DEBUG)
        if sampled:
            flags |= SAMPLED
            records = True
        elif not self._judges:
            records = False
        elif len(self._under_way) >= self._most_under_way:
            self.stats.no_room += 1
            records = False
        else:
            records = True
        if not records:
            self.stats.unsampled += 1
            return NoSpan(trace_id, number, flags, state)
        wall = time.time()  # noqa: TID251  # the rim: where a trace begins, once for all its spans
        trace = LocalTrace(self, trace_id, flags, state, wall, perf_counter())
        span = Span(trace, number, parent_id, name, kind, attributes)
        trace.root = number
        self._under_way.add(id(trace))
        if parent is not None and parent_id == 0:
            span.link(parent)  # of a stranger: not gone on with, and not forgotten
        return span

    def past(
        self,
        name: str,
        took_s: float,
        attributes: Mapping[str, Any] | None = None,
        /,
        *,
        kind: Kind = "internal",
        error: BaseException | str | None = None,
    ) -> None:
        """A child of the current span that has just ended, as whoever measured it says."""
        parent = CURRENT.get()
        if not isinstance(parent, Span):
            return
        span = Span(
            parent.trace, self._bits(64) or 1, parent.number, name, kind, dict(attributes or ())
        )
        span.start_s -= max(0.0, took_s)
        if error is not None:
            span.error(error)
        span.end()

    def decide(self, trace: LocalTrace, root: Span) -> None:
        """The local root has ended: keep all of it, or nothing."""
        self._under_way.discard(id(trace))
        # The root is the last, and took its place without asking.
        if len(trace.spans) - 1 > USUAL_SPANS:
            self.extra -= len(trace.spans) - 1 - USUAL_SPANS
        duration_s = root.end_s - root.start_s
        kept = self._tail.keeps(root.name, duration_s, failed=trace.failed)
        if not kept and not trace.flags & SAMPLED:
            trace.is_kept = False
            self.stats.let_go += 1
        else:
            trace.is_kept = True
            self.stats.kept += 1
            self.stats.dropped_spans += trace.dropped
        if trace.is_kept or self.sends_undecided:
            if not trace.is_kept:
                for span in trace.spans:
                    span.attributes[UNDECIDED] = True
            ring = self._ring
            over = len(ring) + len(trace.spans) - cast("int", ring.maxlen)
            if over > 0:
                self.stats.dropped_spans += over
            ring.extend(trace.spans)
        # The spans point at the trace: the two would wait for the garbage collector.
        trace.spans = []

    def late(self, span: Span) -> None:
        """A span of a kept trace whose root has ended before."""
        if len(self._ring) == self._ring.maxlen:
            self.stats.dropped_spans += 1
        self._ring.append(span)

    def forget(self, trace: LocalTrace) -> None:
        """A trace whose root will never end."""
        self._under_way.discard(id(trace))
        if len(trace.spans) > USUAL_SPANS:
            self.extra -= len(trace.spans) - USUAL_SPANS

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def take(self, most: int = 512) -> list[SpanRecord]:
        """Carry away kept spans, the oldest first."""
        found: list[SpanRecord] = []
        ring = self._ring
        while len(found) < most:
            try:
                span = ring.popleft()
            except IndexError:
                break
            found.append(span.record(self.service))
        return found

    # -- the current span ---------------------------------------------------------------------

    @property
    def current(self) -> Span | Quiet:
        """The span under way; one that takes all calls and does nothing, if there is none."""
        return CURRENT.get() or QUIET

    def current_ids(self) -> tuple[str, str] | None:
        """Trace id and span id, for a line of the log."""
        span = CURRENT.get()
        if span is None:
            return None
        return hex_trace(span.trace_number), hex_span(span.number)

    def names(self) -> Mapping[str, str]:
        """The same as fields; none outside of any trace."""
        ids = self.current_ids()
        return {} if ids is None else {"trace_id": ids[0], "span_id": ids[1]}

    def exemplar(self) -> str | None:
        """The trace id that a metric notes beside a value: only of one that is sure to be kept."""
        span = CURRENT.get()
        if span is None or not span.flags & SAMPLED:
            return None
        return hex_trace(span.trace_number)

    def extract(self, headers: Headers) -> Incoming:
        """What a message says of its trace; give it to `root`."""
        return extract_headers(headers, self.rules.propagate)

    def inject(self, headers: Any = None) -> list[tuple[str, str]]:
        """The headers that carry the current span on; also set in `headers`, if that is given."""
        span = CURRENT.get()
        if span is None:
            found: list[tuple[str, str]] = []
        else:
            context = span.context
            if not span.is_recording:
                # Each message has a parent of its own, also where that parent is in no record.
                context = replace(context, span_id=self._ids.span_id())
            found = inject_headers(context, self.rules.propagate)
        baggage = BAGGAGE.get()
        if baggage:
            found.append(("baggage", write_baggage(baggage)))
        if headers is not None:
            for name, value in found:
                headers[name] = value
        return found

    @property
    def baggage(self) -> Baggage:
        """What travels with the trace, by name."""
        return BAGGAGE.get()

    @contextlib.contextmanager
    def carrying(self, **values: str) -> Iterator[None]:
        """Have these travel on with every message that goes out meanwhile."""
        entries = {key: Entry(value) for key, value in values.items()}
        write_baggage(entries)  # a key that cannot be said is refused here, and not far away
        token = BAGGAGE.set({**BAGGAGE.get(), **entries})
        try:
            yield
        finally:
            with contextlib.suppress(ValueError, RuntimeError):  # closed in another context
                BAGGAGE.reset(token)

    # -- functions and threads ----------------------------------------------------------------

    def traced(
        self, function: Callable[P, R] | None = None, /, *, name: str | None = None, **more: Any
    ) -> Any:
        """`@trace.traced`: a span around each call; of a generator, around all of its run."""
        if function is None:
            return functools.partial(self.traced, name=name, **more)
        called = name or str(getattr(function, "__qualname__", type(function).__name__))
        target: Any = function
        if inspect.iscoroutinefunction(target):

            @functools.wraps(target)
            async def around(*args: Any, **kwargs: Any) -> Any:
                with self.span(called, **more):
                    return await target(*args, **kwargs)

        elif inspect.isasyncgenfunction(target):

            @functools.wraps(target)
            async def around(*args: Any, **kwargs: Any) -> Any:
                # Not made current: the consumer's own spans between two items are none of its.
                span = self.span(called, **more).begin()
                try:
                    async for item in target(*args, **kwargs):
                        yield item
                except BaseException as error:
                    _failed(span, error)
                    raise
                finally:
                    span.end()

        elif inspect.isgeneratorfunction(target):

            @functools.wraps(target)
            def around(*args: Any, **kwargs: Any) -> Any:
                span = self.span(called, **more).begin()
                try:
                    return (yield from target(*args, **kwargs))
                except BaseException as error:
                    _failed(span, error)
                    raise
                finally:
                    span.end()

        else:

            @functools.wraps(target)
            def around(*args: Any, **kwargs: Any) -> Any:
                with self.span(called, **more):
                    return target(*args, **kwargs)

        return around

    def carry(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, to be called in another thread and still below the current span."""
        context = copy_context()

        @functools.wraps(function)
        def carried(*args: P.args, **kwargs: P.kwargs) -> R:
            return context.copy().run(function, *args, **kwargs)

        return carried

    def after_fork(self) -> None:
        """In the child: other ids, and nothing of what the parent has still to deliver."""
        self._ids.reseed()
        self._ring.clear()
        self._under_way.clear()
        self.extra = 0
        self.stats = Stats()
        if self.exporter is not None:
            self.exporter.start()


def _failed(span: Span | Quiet, error: BaseException) -> None:
    if not isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit) and (
        type(error).__name__ != "CancelledError"
    ):
        span.error(error)


_TRACERS: Final[weakref.WeakSet[Tracer]] = weakref.WeakSet()


def _all_after_fork() -> None:
    for tracer in list(_TRACERS):
        tracer.after_fork()


os.register_at_fork(after_in_child=_all_after_fork)
