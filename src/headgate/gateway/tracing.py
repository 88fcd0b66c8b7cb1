"""Traces of requests: what services are told, which requests are kept, and where kept spans wait.

Theory of operation
-------------------
While a request runs there are no spans. Its own 128-bit id is the trace's where none came with it;
the first half is the id of the gateway's own span, the second that of the first attempt, and those
of further attempts follow from it by arithmetic, so that nothing is drawn, kept or looked up. What
happens on slow ways alone (a wait in a line, a connection, an attempt that came to nothing, a
policy that took its time) is noted as a small tuple, a *mark*, in a list that is made only then.

When the request ends it is decided whether it is kept: sampled by its head, or an error, or slow.
Only then the spans are made (`tracing_spans`), into a list that the worker hands over once a
second. The list is bounded; when it is full, whole traces are dropped and counted, before anything
is made of them: a storm of errors costs no more than a full list a second.

`Tracing` is what one plan says and dies with it; `KeptTraces` belongs to the worker.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headgate.gateway.tracing_heads import (
    HeadTrace,
    floor_of,
    head_trace,
    lines_of,
    names,
)
from headgate.gateway.tracing_ids import SAMPLED_PART, own_span, span_of, trace_of
from headgate.gateway.tracing_spans import grpc_fault, side_span, spans_of
from headgate.observe.histogram import SHOWN_BOUNDS, quantile
from headgate.observe.tracing.rules import AUTO

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from headgate.gateway.exchange import Exchange
    from headgate.gateway.log_text import Hidden
    from headgate.gateway.route import RouteRuntime
    from headgate.observe.shard import Rows
    from headgate.observe.tracing.record import SpanRecord
    from headgate.observe.tracing.rules import TracingRules
    from headgate.wire.message import Header

__all__ = ["KeptTraces", "Tracing"]

SPANS_MAX: Final = 2048
"""Kept spans of a worker that wait to be handed over."""
EVENT_BYTES: Final = 50_000
"""Of one handing over: more would hold requests up for milliseconds."""
_SPAN_BYTES: Final = 250
_NUMBER_BYTES: Final = 24
_EVERY_S: Final = 1.0
_NEXT_S: Final = 0.2
"""Until what is left over follows."""
_LEARN_S: Final = 10.0
_LEARN_FROM: Final = 200
_SLOWEST: Final = 0.99
_EXEMPLARS_MAX: Final = 1000
"""Pairs of a route and a service."""
_ENDS_THERE: Final = frozenset({"client_gone", "write_timeout"})
"""Errors that are the client's own."""


class KeptTraces:
    """Spans that wait to be handed over, and what is told of them; one for each worker."""

    def __init__(self) -> None:
        self.spans: list[SpanRecord] = []
        self.dropped = 0
        """Traces, since the start."""
        self.kept: dict[str, int] = {}
        self._tell_at = -inf
        self.exemplars: dict[tuple[str, str], dict[int, tuple[str, float, float]]] = {}

    def has_room(self) -> bool:
        if len(self.spans) < SPANS_MAX:
            return True
        self.dropped += 1
        return False

    def note(self, why: str, labels: tuple[str, str], trace_id: str, value: float) -> None:
        """A trace has been kept; `labels`: of the series that counts its duration."""
        self.kept[why] = self.kept.get(why, 0) + 1
        places = self.exemplars.get(labels)
        if places is None:
            if len(self.exemplars) >= _EXEMPLARS_MAX:
                # The oldest: where it is still used, it comes back with its next trace.
                del self.exemplars[next(iter(self.exemplars))]
            places = self.exemplars[labels] = {}
        wall = time.time()  # noqa: TID251 - exemplars tell wall time
        places[bisect_left(SHOWN_BOUNDS, value)] = (trace_id, value, wall)

    def keep_routes(self, names: Collection[str]) -> None:
        """These are the routes of the plan; exemplars of others go."""
        self.exemplars = {
            labels: places
            for labels, places in self.exemplars.items()
            if not labels[0] or labels[0] in names
        }

    def told(self, now: float, *, is_last: bool = False) -> dict[str, Any] | None:
        """What control is to hear: once a second, and what is left over in pieces between."""
        if not is_last and now < self._tell_at:
            return None
        if not self.spans:
            return None
        rows: list[list[Any]] = []
        size = 0
        for span in self.spans:
            row = span.to_json()
            size += _size(span)
            if rows and size > EVENT_BYTES:
                break
            rows.append(row)
        del self.spans[: len(rows)]
        self._tell_at = now + (_NEXT_S if self.spans else _EVERY_S)
        return {"event": "spans", "spans": rows}

    def rows_into(self, rows: Rows) -> None:
        for why, count in self.kept.items():
            rows["headgate_traces_kept_total"].append(([why], count))
        if self.kept or self.dropped:
            rows["headgate_traces_dropped_total"].append((["gateway"], self.dropped))
        if not self.exemplars:
            return
        timed = rows["headgate_http_request_duration_seconds"]
        for row, (labels, value) in enumerate(timed):
            places = self.exemplars.get((labels[0], labels[1]))
            if places:
                # The rows of a quiet route are those of the last snapshot as well.
                said = [[at, *each] for at, each in sorted(places.items())]
                timed[row] = (labels, {**value, "exemplars": said})


class Tracing:
    """What one plan says of traces, as one worker goes by it."""

    def __init__(
        self,
        rules: TracingRules,
        kept: KeptTraces,
        hidden: Hidden,
        worker: int = 0,
        tells: Sequence[str] = (),
    ) -> None:
        """`tells`: headers in which clients are told, `traceresponse` and `server-timing`."""
        self.rules = rules
        self.kept = kept
        self.hidden = hidden
        self.worker = worker
        self.tells = tuple(tells)
        self.floor = floor_of(rules.sample)
        """A trace is sampled whose id's last 14 digits are not before these."""
        self.quick_floor = self.floor if rules.propagate == ("w3c",) else None
        """None: what services are told takes more than the one header."""
        self.names = names(rules.propagate)
        self.is_auto = rules.keep_slow_s == AUTO
        self.slow_s = inf if self.is_auto or not rules.keep_slow_s else rules.keep_slow_s
        """No route's request is slow that takes less."""
        self._slow_of: dict[str, float] = {}
        self._watched: list[tuple[str, RouteRuntime, list[int]]] = []
        self._learn_at = 0.0

    # -- while a request runs ------------------------------------------------------------------

    def of_head(self, headers: Sequence[Header], *, trusted: bool) -> HeadTrace | None:
        for name, _ in headers:
            if name in self.names:
                return head_trace(headers, self.rules, self.floor, trusted=trusted)
        return None

    def is_sampled(self, ex: Exchange) -> bool:
        """Whether the head says that it is kept, whatever comes of it."""
        trace = ex.prep.trace
        if trace is not None and trace.sampled is not None:
            return trace.sampled
        return (ex.root_id or ex.own_id)[SAMPLED_PART] >= self.floor

    def lines(self, ex: Exchange) -> bytes:
        """What the service is told by the attempt under way."""
        trace = ex.prep.trace
        return lines_of(
            self.rules.propagate,
            trace_of(ex),
            span_of(ex, ex.taken_over or ex.sent_before + ex.attempts),
            trace.state if trace is not None else "",
            sampled=self.is_sampled(ex),
            is_random=trace is None or trace.is_random,
        )

    def answer_lines(self, ex: Exchange) -> bytes:
        """What the client is told of its trace with the answer."""
        ids = b"00-%b-%b-%02x" % (trace_of(ex), own_span(ex), self.is_sampled(ex))
        lines = b""
        if "traceresponse" in self.tells:
            lines += b"traceresponse: %b\r\n" % ids
        if "server-timing" in self.tells:
            lines += b'server-timing: traceparent;desc="%b"\r\n' % ids
        return lines

    def told_to_client(self, ex: Exchange, status: int) -> str | None:
        """The trace that the answer to an error names: only one that can be looked up."""
        if (self.rules.keep_errors and status >= 500) or self.is_sampled(ex):
            return trace_of(ex).decode()
        return None

    # -- when it has ended ---------------------------------------------------------------------

    def ended(self, ex: Exchange, now: float, duration_s: float) -> bool:
        """Keep the trace if there is a reason to; whether it is kept."""
        why = self._why(ex, duration_s)
        kept = self.kept
        if why is None or not kept.has_room():
            return False
        kept.spans += spans_of(ex, now, why, self)
        route, service = ex.route, ex.service
        labels = (
            route.name if route is not None else "",
            service.name if service is not None else "",
        )
        kept.note(why, labels, trace_of(ex).decode(), duration_s)
        return True

    def fill_ended(self, ex: Exchange, now: float) -> None:
        """The request of a cache's fill has ended: its spans stand in its reader's trace."""
        why = self._why(ex, now - ex.started)
        if why is not None and self.kept.has_room():
            self.kept.spans += spans_of(ex, now, why, self)

    def side_ended(self, side: tuple[str, str, str], **what: Any) -> None:
        """A copy for another service has been answered, or not."""
        if self.kept.has_room():
            self.kept.spans.append(side_span(side, monotonic(), self, **what))

    def _why(self, ex: Exchange, duration_s: float) -> str | None:
        if self.is_sampled(ex):
            return "sampled"
        if self.rules.keep_errors:
            error = ex.error
            if ex.status >= 500 or (
                error is not None and ex.status < 400 and error not in _ENDS_THERE
            ):
                return "error"
            if grpc_fault(ex):
                return "error"
        if duration_s >= self.slow_s:
            route = ex.route
            slow_s = self.slow_s
            if self.is_auto:
                slow_s = self._slow_of.get(route.name, inf) if route is not None else inf
            # What is meant to stay open is as slow as its beginning.
            took_s = ex.upstream_s if _stays_open(ex) else duration_s
            if took_s >= slow_s:
                return "slow"
        return None

    # -- off the path --------------------------------------------------------------------------

    def watch(self, routes: Iterable[RouteRuntime], before: Tracing | None) -> None:
        """These are the plan's. Learn how long each route's requests take, where that says what is
        slow.
        """
        routes = tuple(routes)
        self.kept.keep_routes({route.name for route in routes})
        if not self.is_auto:
            return
        self._watched = [(route.name, route, _counts(route)) for route in routes]
        if before is not None and before.is_auto:
            named = {name for name, _, _ in self._watched}
            self._slow_of = {n: s for n, s in before._slow_of.items() if n in named}  # noqa: SLF001 - its like
            self.slow_s = min(self._slow_of.values(), default=inf)

    def turn(self, now: float) -> None:
        if not self.is_auto or now < self._learn_at:
            return
        self._learn_at = now + _LEARN_S
        for at, (name, route, before) in enumerate(self._watched):
            counts = _counts(route)
            new = [a - b for a, b in zip(counts, before, strict=True)]
            if sum(new) >= _LEARN_FROM:
                self._watched[at] = (name, route, counts)
                slow_s = quantile(new, _SLOWEST)
                if slow_s is not None:
                    self._slow_of[name] = slow_s
        self.slow_s = min(self._slow_of.values(), default=inf)


def _size(span: SpanRecord) -> int:
    """About how long it becomes as JSON. To find out exactly would cost what sending it costs."""
    size = _SPAN_BYTES
    for name, value in span.attributes.items():
        size += len(name) + _NUMBER_BYTES
        if isinstance(value, str):
            size += len(value) if value.isascii() and value.isprintable() else 6 * len(value)
    return size


def _counts(route: RouteRuntime) -> list[int]:
    stats = route.stats
    return [a + b for a, b in zip(stats.duration, stats.whole, strict=True)]


def _stays_open(ex: Exchange) -> bool:
    if ex.is_tunnel:
        return True
    for name, value in ex.response_headers:
        if name == b"content-type":
            return value.startswith((b"text/event-stream", b"application/grpc"))
    return False
