"""Traces that are not decided upon yet: where spans wait for one that decides.

Theory of operation
-------------------
A service cannot know what becomes of a trace elsewhere. One that was asked to (`undecided=True`)
sends also the spans that it would not keep for itself, marked as undecided, and here they wait. As
soon as anybody sends a span of the same trace that is kept, or one that failed or was slow, the
trace is kept: what waits is given out, and what comes later passes at once. What nobody wanted is
forgotten after `wait_s`.

Bounds: so many spans wait; of more, the trace that has waited the longest goes and is counted. That
a trace was kept is remembered for so many traces. Pure: `now` is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from headgate.observe.tracing.record import UNDECIDED, SpanRecord, Value
from headgate.observe.tracing.rules import TracingRules

__all__ = ["WaitingRoom"]

_REMEMBERED: Final = 20_000


class WaitingRoom:
    def __init__(self, rules: TracingRules, *, most: int = 20_000, wait_s: float = 15.0) -> None:
        self._slow_s = rules.keep_slow_s if rules.keep_slow_s > 0 else float("inf")
        self._errors = rules.keep_errors
        self._most = most
        self._wait_s = wait_s
        self._waiting: OrderedDict[str, tuple[float, list[SpanRecord]]] = OrderedDict()
        self._kept: OrderedDict[str, None] = OrderedDict()
        self.count = 0
        """Spans that wait."""
        self.expired = 0
        """Spans that nobody wanted."""
        self.overflowed = 0
        """Spans that had to go before their time."""

    def take(self, spans: Iterable[SpanRecord], now: float) -> list[SpanRecord]:
        """What of these, and of those that have waited for them, is to be kept."""
        found: list[SpanRecord] = []
        for span in spans:
            trace_id = span.trace_id
            is_undecided = UNDECIDED in span.attributes
            if is_undecided:
                span = replace(span, attributes=_without(span.attributes))
            if trace_id in self._kept:
                self._kept.move_to_end(trace_id)
                found.append(span)
            elif not is_undecided or self._decides(span):
                found += self._keep(trace_id)
                found.append(span)
            else:
                self._wait(trace_id, span, now)
        self.expire(now)
        return found

    def _decides(self, span: SpanRecord) -> bool:
        return (self._errors and span.status == "error") or span.duration_s >= self._slow_s

    def _keep(self, trace_id: str) -> list[SpanRecord]:
        self._kept[trace_id] = None
        if len(self._kept) > _REMEMBERED:
            self._kept.popitem(last=False)
        waiting = self._waiting.pop(trace_id, None)
        if waiting is None:
            return []
        self.count -= len(waiting[1])
        return waiting[1]

    def _wait(self, trace_id: str, span: SpanRecord, now: float) -> None:
        waiting = self._waiting.get(trace_id)
        if waiting is None:
            waiting = self._waiting[trace_id] = (now, [])
        waiting[1].append(span)
        self.count += 1
        while self.count > self._most:
            self.overflowed += self._forget_oldest()

    def expire(self, now: float) -> None:
        """Forget those that have waited long enough."""
        while self._waiting:
            since, _ = next(iter(self._waiting.values()))
            if now - since < self._wait_s:
                return
            self.expired += self._forget_oldest()

    def _forget_oldest(self) -> int:
        _, (_, spans) = self._waiting.popitem(last=False)
        self.count -= len(spans)
        return len(spans)


def _without(
    attributes: Mapping[str, Value],
) -> dict[str, Value]:
    return {key: value for key, value in attributes.items() if key != UNDECIDED}
