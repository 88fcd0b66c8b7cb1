"""The span of an attempt, and the fields that tell a service of the trace it is part of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headgate.observe.tracing.context import inject
from headgate.observe.tracing.process import trace
from headgate.observe.tracing.span import NoSpan, Span

if TYPE_CHECKING:
    from headgate.mesh.client.attempt import Call
    from headgate.mesh.client.sending import Line
    from headgate.wire.message import Header

__all__ = ["answered", "begun"]


def begun(service: str, call: Call, line: Line, fields: list[Header]) -> Span | None:
    """Begin a span and add its fields to those of the request; None where nothing is recorded."""
    span = trace.span(call.method, kind="client").begin()
    pairs: list[tuple[str, str]]
    if isinstance(span, (Span, NoSpan)):
        pairs = inject(span.context, trace.rules.propagate)
        if trace.baggage:
            pairs += [pair for pair in trace.inject() if pair[0] == "baggage"]
    else:
        pairs = trace.inject()
    known = {name for name, _ in call.fields}
    fields += [
        (key, value.encode("latin-1"))
        for name, value in pairs
        if (key := name.encode("latin-1")) not in known
    ]
    if not isinstance(span, Span):
        return None
    attributes = span.attributes
    attributes["http.request.method"] = call.method
    attributes["peer.service"] = service
    attributes["server.address"] = line.endpoint.host or line.endpoint.path or ""
    if line.endpoint.port:
        attributes["server.port"] = line.endpoint.port
    attributes["url.path"] = call.target.partition(b"?")[0].decode("ascii", "replace")
    if call.attempts > 1:
        attributes["http.request.resend_count"] = call.attempts - 1
    return span


def answered(span: Span, status: int) -> None:
    """End it, with what was answered."""
    span.attributes["http.response.status_code"] = status
    if status >= 400:
        span.status = "error"
        span.attributes["error.type"] = str(status)
        if status >= 500:
            span.trace.failed = True
    span.end()
