"""The spans of a request that is kept, made from what its exchange knows when it has ended.

Theory of operation
-------------------
    server span, the gateway's own ------ policy NAME, filter NAME: each that waited
        |                                 cache fill / cache revalidate, of the exchange that asks
        +-- client span, one an attempt -- queue, connect, tls: where it had to wait for those

A mark is a tuple that begins with its kind:
    ("attempt", number, began, ended, instance, service, failure, status)
    ("wait", number, began, ended, name, failure)      number: of the attempt that waited
    ("step", name, began, ended)
    ("grpc", status)                                   always the last: the call's own fault
Times are monotonic. The last attempt has no mark unless it came to nothing.

Attributes are those of the OpenTelemetry semantic conventions for HTTP, and `headgate.*`. What a
client sent goes through the redaction of the access log, and is bounded. Who the user is is not
told: spans leave the machine more often than logs do.
"""

from __future__ import annotations

import os
import time
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headgate.gateway.log_text import TARGET_MAX, TEXT_MAX, bounded
from headgate.gateway.tracing_ids import HEDGE, own_span, span_of, trace_of
from headgate.observe.tracing.record import SpanLink, SpanRecord

if TYPE_CHECKING:
    from headgate.gateway.exchange import Exchange
    from headgate.gateway.tracing import Tracing
    from headgate.observe.tracing.record import Kind, Value

__all__ = ["SERVICE", "grpc_fault", "side_span", "spans_of"]

SERVICE: Final = "headgate"
_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"}
)
_VERSIONS: Final = {"HTTP/2": "2", "HTTP/1.0": "1.0"}
_POLICIES: Final = (
    ("auth", "auth"),
    ("bans", "bans"),
    ("access", "access"),
    ("rate_limited", "limit"),
    ("shed", "shed"),
    ("breaker_open", "breaker"),
    ("concurrency", "concurrency"),
    ("switched_off", "flag"),
    ("degraded", "degrade"),
    ("fault", "fault"),
    ("refused_by_filter", "filter"),
)
"""Which policy an exchange's error tells of, by how it begins."""


def spans_of(ex: Exchange, now: float, why: str, tracing: Tracing) -> list[SpanRecord]:
    """All spans of a request that has just ended."""
    wall = time.time() - monotonic()  # noqa: TID251 - spans tell wall time
    trace_id = trace_of(ex).decode()
    own = own_span(ex).decode()
    is_fill = ex.root_id is not None
    spans = [_fill_span(ex, trace_id, own, now, wall, why) if is_fill else
             _server_span(ex, trace_id, own, now, wall, why, tracing)]  # fmt: skip
    marks = ex.marks or ()
    attempted: set[int] = set()
    free_at = ex.started
    for mark in marks:
        kind = mark[0]
        if kind == "attempt":
            _, number, began, ended, instance, service, failure, status = mark
            attempted.add(number)
            if instance:
                began = began or free_at
                free_at = ended
                spans.append(
                    _client_span(ex, trace_id, own, number, began, ended, wall, instance, service,
                                 failure, status)
                )  # fmt: skip
        elif kind == "wait":
            _, number, began, ended, name, failure = mark
            parent = span_of(ex, number).decode()
            spans.append(_inner(trace_id, parent, name, began, ended, wall, failure))
        elif kind == "step":
            _, name, began, ended = mark
            spans.append(_inner(trace_id, own, name, began, ended, wall, ""))
    waiting = ex.waiting
    if waiting is not None:
        spans.append(_inner(trace_id, own, waiting[0], waiting[1], now, wall, ex.error or ""))
    number = ex.taken_over or ex.sent_before + ex.attempts
    if ex.attempts and number not in attempted and ex.instance and not _asked_by_fill(ex):
        # Where policies are, an attempt knows when it began; elsewhere only a stale one is before.
        began = getattr(ex, "_attempt_at", 0.0) or free_at
        if ex.waits_since and ex.connect_s < 0.0:
            parent = span_of(ex, number).decode()
            name = "connect"
            spans.append(_inner(trace_id, parent, name, ex.waits_since, now, wall, ex.error or ""))
        service = ex.service.name if ex.service is not None else ""
        failure = ex.error or grpc_fault(ex)
        status = ex.status if ex.upstream_s >= 0.0 else 0
        spans.append(
            _client_span(ex, trace_id, own, number, began, now, wall, ex.instance, service,
                         failure, status)
        )  # fmt: skip
    return spans


def grpc_fault(ex: Exchange) -> str:
    """How a gRPC call failed, by what came behind its messages; empty where it did not."""
    if ex.marks and ex.marks[-1][0] == "grpc":
        return f"grpc {ex.marks[-1][1]}"
    return ""


def _asked_by_fill(ex: Exchange) -> bool:
    """Whether what it knows of attempts is what a fill has told it, which has spans of its own."""
    return getattr(ex, "read_from", None) is not None


def side_span(
    side: tuple[str, str, str],
    now: float,
    tracing: Tracing,
    *,
    began: float,
    method: str,
    service: str,
    instance: str,
    status: int,
    failure: str,
) -> SpanRecord:
    """The copy of a request for another service. `side`: trace, span, and that of the request."""
    wall = time.time() - monotonic()  # noqa: TID251 - spans tell wall time
    attributes = _asked(method, instance, service, failure, status)
    attributes["headgate.mirror"] = True
    return SpanRecord(
        *side,
        _name(method, "mirror"),
        "client",
        began + wall,
        max(now - began, 0.0),
        "error" if failure or status >= 400 else "unset",
        SERVICE,
        attributes,
    )


def _server_span(
    ex: Exchange, trace_id: str, own: str, now: float, wall: float, why: str, tracing: Tracing
) -> SpanRecord:
    prep, route = ex.prep, ex.route
    head, trace, hidden = prep.head, prep.trace, tracing.hidden
    path = head.path if hidden.scrub is None else hidden.scrub(head.path[: 4 * TARGET_MAX])
    attributes: dict[str, Value] = {
        "http.request.method": _method(head.method),
        "http.response.status_code": ex.status,
        "url.path": bounded(path, TARGET_MAX),
        "url.scheme": prep.scheme or "http",
        "server.address": bounded(head.host, TEXT_MAX),
        "client.address": ex.client_ip,
        "network.protocol.version": _VERSIONS.get(ex.down.protocol, "1.1"),
        "http.response.body.size": ex.bytes_out,
        "headgate.kept": why,
        "headgate.request_id": bounded(ex.request_id.decode("latin-1"), TEXT_MAX),
        "headgate.worker": tracing.worker,
    }
    if ex.bytes_in:
        attributes["http.request.body.size"] = ex.bytes_in
    if head.has_query:
        attributes["url.query"] = hidden.in_query(ex.query)
    agent = head.get(b"user-agent")
    if agent is not None and "user-agent" not in hidden.names:
        text = hidden.scrubbed(agent.decode("latin-1")[: 4 * TEXT_MAX])
        attributes["user_agent.original"] = bounded(text, TEXT_MAX)
    if ex.down.tls_version:
        attributes["tls.protocol.version"] = ex.down.tls_version
    template = ""
    if route is not None:
        attributes["headgate.route"] = route.name
        template = route.template
        if template:
            attributes["http.route"] = template
    if ex.service is not None:
        attributes["headgate.service"] = ex.service.name
    if ex.instance:
        attributes["headgate.instance"] = ex.instance
    if ex.attempts > 1:
        attributes["http.request.resend_count"] = ex.attempts - 1
    outcome = getattr(ex, "outcome", "")
    if outcome:
        attributes["headgate.cache"] = outcome
    if ex.identity is not None:
        if ex.identity.tier:
            attributes["headgate.tier"] = ex.identity.tier
        if ex.identity.method:
            attributes["headgate.auth"] = ex.identity.method
    _blame(attributes, ex)
    links = []
    if trace is not None and trace.link is not None:
        links.append(SpanLink(*trace.link))
    fill: Any = getattr(ex, "read_from", None)
    if fill is not None:
        # Begun for this request, or for another one that asked for the same before.
        fill_trace = trace_of(fill).decode()
        links.append(SpanLink(fill_trace, own_span(fill).decode()))
    return SpanRecord(
        trace_id,
        own,
        trace.parent_id if trace is not None else "",
        _name(head.method, template),
        "server",
        ex.started + wall,
        max(now - ex.started, 0.0),
        "error"
        if ex.status >= 500 or (ex.error is not None and ex.status < 400) or grpc_fault(ex)
        else "unset",
        SERVICE,
        attributes,
        links=tuple(links),
    )


def _blame(attributes: dict[str, Value], ex: Exchange) -> None:
    error = ex.error
    if error is None:
        fault = grpc_fault(ex)
        if fault:
            attributes["rpc.grpc.status_code"] = int(fault.removeprefix("grpc "))
            attributes["error.type"] = fault
        elif ex.status >= 500:
            attributes["error.type"] = str(ex.status)
        return
    attributes["error.type"] = bounded(error, TEXT_MAX)
    for begins, policy in _POLICIES:
        if error.startswith(begins):
            attributes["headgate.refused_by"] = policy
            return


def _fill_span(
    ex: Exchange, trace_id: str, own: str, now: float, wall: float, why: str
) -> SpanRecord:
    fill: Any = ex.down
    attributes: dict[str, Value] = {
        "headgate.kept": why,
        "http.response.status_code": ex.status,
    }
    if ex.route is not None:
        attributes["headgate.route"] = ex.route.name
    if fill.is_background:
        attributes["headgate.cache.background"] = True
    _blame(attributes, ex)
    return SpanRecord(
        trace_id,
        own,
        (ex.asked_for or b"").decode(),
        "cache revalidate" if fill.was_held else "cache fill",
        "internal",
        ex.started + wall,
        max(now - ex.started, 0.0),
        "error" if ex.status >= 500 or ex.error is not None else "unset",
        SERVICE,
        attributes,
    )


def _client_span(
    ex: Exchange,
    trace_id: str,
    own: str,
    number: int,
    began: float,
    ended: float,
    wall: float,
    instance: str,
    service: str,
    failure: str,
    status: int,
) -> SpanRecord:
    method = ex.forward.method if ex.forward is not None else ex.prep.head.method
    attributes = _asked(method, instance, service, failure, status)
    if number > HEDGE:
        attributes["headgate.hedge"] = True
    elif number > 1:
        attributes["http.request.resend_count"] = number - 1
    return SpanRecord(
        trace_id,
        span_of(ex, number).decode(),
        own,
        _name(method, service),
        "client",
        began + wall,
        max(ended - began, 0.0),
        "error" if (failure and failure != "cancelled") or status >= 400 else "unset",
        SERVICE,
        attributes,
    )


def _asked(method: str, instance: str, service: str, failure: str, status: int) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        "http.request.method": _method(method),
        "headgate.instance": instance,
        "headgate.service": service,
    }
    host, colon, port = instance.partition("://")[2].rpartition(":")
    if colon and port.isdigit():
        attributes["server.address"] = host.strip("[]")
        attributes["server.port"] = int(port)
    elif instance:
        attributes["server.address"] = instance.partition("://")[2] or instance
    if status:
        attributes["http.response.status_code"] = status
    if failure:
        attributes["error.type"] = bounded(failure, TEXT_MAX)
    elif status >= 400:
        attributes["error.type"] = str(status)
    return attributes


def _inner(
    trace_id: str, parent: str, name: str, began: float, ended: float, wall: float, failure: str
) -> SpanRecord:
    attributes: dict[str, Value] = {"error.type": bounded(failure, TEXT_MAX)} if failure else {}
    kind: Kind = "internal"
    status: Any = "error" if failure else "unset"
    span_id = os.urandom(8).hex()
    duration_s = max(ended - began, 0.0)
    return SpanRecord(
        trace_id, span_id, parent, name, kind, began + wall, duration_s, status, SERVICE, attributes
    )


def _method(method: str) -> str:
    return method if method in _METHODS else "_OTHER"


def _name(method: str, what: str) -> str:
    method = method if method in _METHODS else "HTTP"
    return f"{method} {what}" if what else method
