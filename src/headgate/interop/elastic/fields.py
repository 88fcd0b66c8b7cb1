"""What the fields of our log lines are called in the Elastic Common Schema, and their types.

Theory of operation. ACCESS has a row for every field of the access log (a test holds it against
`gateway.log_fields`), LINES for every key of a JSON log line. What ECS has no name for stands below
`headgate.`. Lines that are written as ECS by us need no renaming; their templates are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["ACCESS", "ECS", "LINES", "To", "is_ours"]

Type = Literal[
    "date", "keyword", "wildcard", "ip", "long", "float", "boolean", "match_only_text", "flattened"
]
Change = Literal["", "date", "http_version", "tls_version", "nanoseconds"]


@dataclass(frozen=True, slots=True)
class To:
    field: str
    type: Type = "keyword"
    change: Change = ""
    """What is done to the value besides renaming."""


ACCESS: Final[dict[str, To]] = {
    "time": To("@timestamp", "date", "date"),
    "client_ip": To("client.ip", "ip"),
    "method": To("http.request.method"),
    "host": To("url.domain"),
    "path": To("url.path", "wildcard"),
    "query": To("url.query"),
    "protocol": To("http.version", "keyword", "http_version"),
    "status": To("http.response.status_code", "long"),
    "bytes_in": To("http.request.body.bytes", "long"),
    "bytes_out": To("http.response.body.bytes", "long"),
    "duration_ms": To("event.duration", "long", "nanoseconds"),
    "upstream_ms": To("headgate.upstream_ms", "float"),
    "connect_ms": To("headgate.connect_ms", "float"),
    "route": To("headgate.route"),
    "service": To("headgate.service"),
    "instance": To("headgate.instance"),
    "retries": To("headgate.retries", "long"),
    "request_id": To("http.request.id"),
    "trace_id": To("trace.id"),
    "span_id": To("span.id"),
    "sampled": To("headgate.sampled", "boolean"),
    "user_agent": To("user_agent.original"),
    "referer": To("http.request.referrer"),
    "error": To("event.reason"),
    "user": To("user.name"),
    "tls_version": To("tls.version", "keyword", "tls_version"),
    "worker": To("headgate.worker", "long"),
}

LINES: Final[dict[str, To]] = {
    "time": To("@timestamp", "date", "date"),
    "level": To("log.level"),
    "logger": To("log.logger"),
    "message": To("message", "match_only_text"),
    "service": To("service.name"),
    "version": To("service.version"),
    "host": To("host.hostname"),
    "pid": To("process.pid", "long"),
    "request_id": To("http.request.id"),
    "trace_id": To("trace.id"),
    "span_id": To("span.id"),
    "error.type": To("error.type"),
    "error.message": To("error.message", "match_only_text"),
    "error.stack": To("error.stack_trace", "wildcard"),
}
"""Keys with a point are keys of an object. What a line has besides goes below `labels`."""

ECS: Final[dict[str, Type]] = {
    "@timestamp": "date",
    "client.address": "keyword",
    "client.ip": "ip",
    "data_stream.dataset": "keyword",
    "ecs.version": "keyword",
    "error.message": "match_only_text",
    "error.stack_trace": "wildcard",
    "error.type": "keyword",
    "event.category": "keyword",
    "event.dataset": "keyword",
    "event.duration": "long",
    "event.kind": "keyword",
    "event.outcome": "keyword",
    "event.reason": "keyword",
    "event.type": "keyword",
    "host.hostname": "keyword",
    "host.name": "keyword",
    "http.request.body.bytes": "long",
    "http.request.id": "keyword",
    "http.request.method": "keyword",
    "http.request.referrer": "keyword",
    "http.response.body.bytes": "long",
    "http.response.status_code": "long",
    "http.version": "keyword",
    "labels": "flattened",
    "log.level": "keyword",
    "log.logger": "keyword",
    "message": "match_only_text",
    "process.pid": "long",
    "service.name": "keyword",
    "service.version": "keyword",
    "span.id": "keyword",
    "tls.version": "keyword",
    "trace.id": "keyword",
    "url.domain": "keyword",
    "url.path": "wildcard",
    "url.query": "keyword",
    "user.name": "keyword",
    "user_agent.original": "keyword",
}
"""The fields of ECS that are used, as it types them. `labels` is an object of keywords there;
flattened takes any number of names without a mapping for each.
"""


def is_ours(field: str) -> bool:
    return field.startswith("headgate.")
