"""Names of the Elastic Common Schema, version 8, that log lines here may carry."""

from __future__ import annotations

from typing import Final

__all__ = ["ECS_VERSION", "WRITTEN", "is_ecs", "label_of"]

ECS_VERSION: Final = "8.11.0"
WRITTEN: Final = frozenset(
    {
        "@timestamp", "message", "labels", "ecs.version", "log.level", "log.logger",
        "service.name", "service.version", "event.dataset", "host.hostname", "process.pid",
        "http.request.id", "trace.id", "span.id",
        "error.type", "error.message", "error.stack_trace",
    }
)  # fmt: skip
"""What we write ourselves."""
_TAKEN: Final = frozenset(
    {
        "client.address", "client.ip", "client.port", "container.id", "container.name",
        "destination.address", "destination.ip", "destination.port", "destination.domain",
        "event.action", "event.category", "event.duration", "event.kind", "event.outcome",
        "event.reason", "event.type", "http.request.bytes", "http.request.body.bytes",
        "http.request.method", "http.request.mime_type", "http.request.referrer",
        "http.response.bytes", "http.response.body.bytes", "http.response.mime_type",
        "http.response.status_code", "http.version", "log.origin.file.name",
        "log.origin.file.line", "log.origin.function", "network.protocol",
        "process.name", "process.thread.id", "process.thread.name", "server.address",
        "server.ip", "server.port", "service.environment", "service.node.name", "source.address",
        "source.ip", "source.port", "tags", "tls.cipher", "tls.version", "transaction.id",
        "url.domain", "url.full", "url.original", "url.path", "url.port", "url.query",
        "url.scheme", "user.email", "user.id", "user.name", "user_agent.original",
    }
)  # fmt: skip
"""What a program may set by itself, as in `logger.info("served", **{"url.path": path})`."""


def is_ecs(name: str) -> bool:
    return name in _TAKEN


def label_of(name: str) -> str:
    """A name under `labels`, where points would make objects."""
    return name.replace(".", "_")
