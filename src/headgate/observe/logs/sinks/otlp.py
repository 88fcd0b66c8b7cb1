"""OpenTelemetry logs, by OTLP over HTTP as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from headgate.observe.logs.formats import Identity
from headgate.observe.logs.pump import Line, Sent
from headgate.observe.logs.rules import SinkRules, level_name
from headgate.observe.logs.sinks.posting import Poster

__all__ = ["OtlpCarrier", "record_of"]

_SEVERITY: Final = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
_OURS: Final = frozenset(
    {
        "time",
        "level",
        "logger",
        "message",
        "service",
        "version",
        "host",
        "pid",
        "trace_id",
        "span_id",
    }
)


class OtlpCarrier:
    is_local = False

    def __init__(self, rules: SinkRules, who: Identity) -> None:
        self.name = rules.name
        self._poster = Poster(rules.url, "/v1/logs", dict(rules.headers), rules.ca_file)
        about = {
            "service.name": who.service or "unknown_service",
            "service.version": who.version,
            "host.name": who.host,
            "process.pid": who.pid,
        }
        self._resource = {"attributes": [_pair(k, v) for k, v in about.items() if v]}

    def send(self, lines: Sequence[Line], deadline: float) -> Sent:
        scopes: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            scopes.setdefault(line.logger, []).append(record_of(line))
        told = [{"scope": {"name": name}, "logRecords": said} for name, said in scopes.items()]
        body = {"resourceLogs": [{"resource": self._resource, "scopeLogs": told}]}
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        answer = self._poster.post(text.encode(), "application/json", deadline)
        if answer.is_busy or answer.status in {401, 403}:
            why = f"it answers {answer.status}"
            return Sent(0, 0, tuple(lines), answer.retry_after_s, why)
        if answer.status != 200:
            return Sent(0, len(lines), why=f"it refuses a batch with {answer.status}")
        refused, why = _partial(answer.body)
        refused = min(refused, len(lines))
        return Sent(len(lines) - refused, refused, why=why if refused else "")

    def reopen(self) -> None:
        """It has no file."""

    def close(self) -> None:
        self._poster.close()


def record_of(line: Line) -> dict[str, Any]:
    said: Mapping[str, Any] = json.loads(line.data)
    level = level_name(line.level)
    record: dict[str, Any] = {
        "timeUnixNano": str(int(line.wall * 1e9)),
        "severityNumber": _SEVERITY[level],
        "severityText": level.upper(),
        "body": {"stringValue": said.get("message", "")},
        "attributes": [],
    }
    for name, value in said.items():
        if name == "error" and isinstance(value, Mapping):
            for field, key in (("type", "type"), ("message", "message"), ("stack", "stacktrace")):
                if value.get(field):
                    record["attributes"].append(_pair(f"exception.{key}", value[field]))
        elif name not in _OURS:
            record["attributes"].append(_pair(name, value))
    for name, key in (("trace_id", "traceId"), ("span_id", "spanId")):
        if said.get(name):
            record[key] = said[name]
    return record


def _pair(name: str, value: Any) -> dict[str, Any]:
    return {"key": name, "value": _any(value)}


def _any(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": [_pair(str(k), v) for k, v in value.items()]}}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_any(each) for each in value]}}
    return {"stringValue": "" if value is None else str(value)}


def _partial(body: bytes) -> tuple[int, str]:
    try:
        said = json.loads(body).get("partialSuccess") or {}
        return max(0, int(said.get("rejectedLogRecords", 0))), str(said.get("errorMessage"))[:200]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return 0, ""
