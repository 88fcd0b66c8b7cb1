"""Traces: one request on its way through gateway and services, as spans.

    from headgate.observe import trace
    from headgate.observe.tracing import setup

    setup("users", export="http://localhost:4318")

    @trace.traced
    async def load(user_id): ...

    with trace.span("load user", user=42) as span:
        span.event("asked twice")

A service is traced by `TracingMiddleware` around its app; what it calls by `instrument`. What is
kept goes to a collector, to the store of a gateway, or is carried away by `trace.take()`.
"""

from __future__ import annotations

from headgate.observe.tracing.asgi import TracingMiddleware
from headgate.observe.tracing.baggage import Entry, parse_baggage, write_baggage
from headgate.observe.tracing.context import (
    Incoming,
    SpanContext,
    extract,
    inject,
    parse_traceparent,
    parse_tracestate,
    put_member,
)
from headgate.observe.tracing.process import setup, shutdown, trace
from headgate.observe.tracing.record import SpanEvent, SpanLink, SpanRecord
from headgate.observe.tracing.rules import ExportRules, StoreRules, TracingRules
from headgate.observe.tracing.span import Span
from headgate.observe.tracing.tracer import Stats, Tracer

__all__ = [
    "Entry",
    "ExportRules",
    "Incoming",
    "Span",
    "SpanContext",
    "SpanEvent",
    "SpanLink",
    "SpanRecord",
    "Stats",
    "StoreRules",
    "Tracer",
    "TracingMiddleware",
    "TracingRules",
    "current_ids",
    "extract",
    "inject",
    "parse_baggage",
    "parse_traceparent",
    "parse_tracestate",
    "put_member",
    "setup",
    "shutdown",
    "trace",
    "write_baggage",
]

current_ids = trace.current_ids
