"""The cache and the guards of the toolkit in traces.

    trace_cache(cache)
    breaker = Breaker(..., on_event=on_guard)

Of the cache only loads are spans, and what took long; a hit is a hundred times quicker than a span
is made. What guards tell (a retry, a rejection, a state that changed) are events of the span under
way, since they take no time of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from headgate.observe.tracing.process import trace
from headgate.observe.tracing.tracer import Tracer

__all__ = ["guard_events", "on_guard", "trace_cache"]

_LOADS: Final = frozenset({"load", "load_failed"})


def trace_cache(cache: Any, *, slow_s: float = 0.005, tracer: Tracer = trace) -> Callable[[], None]:
    """Trace a `headgate.cache.Cache`; the answer ends that."""

    def heard(event: Any) -> None:
        if event.what not in _LOADS and event.took_s < slow_s:
            return
        if not tracer.current.is_recording:
            return
        said: dict[str, Any] = {
            "headgate.cache.family": event.family,  # and not the key, which may be somebody's
            "headgate.cache.event": event.what,
            "headgate.cache.layer": event.layer or None,
        }
        failed = event.why or "failed" if event.what.endswith("failed") else None
        tracer.past(f"cache {event.what}", event.took_s, said, kind="internal", error=failed)

    end: Callable[[], None] = cache.on_event(heard)
    return end


def guard_events(tracer: Tracer = trace) -> Callable[[Any], None]:
    """A listener for `on_event` of breakers, retries, limits, bulkheads and the like."""

    def heard(event: Any) -> None:
        span = tracer.current
        if not span.is_recording:
            return
        said = {
            f"headgate.{name}": value
            for name in ("name", "why", "after_s", "attempt")
            if (value := getattr(event, name, None)) not in (None, "")
        }
        span.event(
            f"{getattr(event, 'policy', 'guard')} {getattr(event, 'what', '')}".strip(), said
        )

    return heard


on_guard: Final = guard_events()
