"""Spans as OTLP writes them: protobuf out, protobuf and JSON in.

Field numbers are those of opentelemetry/proto/trace/v1/trace.proto (stable since 1.0), and JSON is
its mapping with ids in hexadecimal. Spans that were not yet decided upon (see `room`) carry flags
that say "known, and not sampled", which the SDKs never send: they export sampled spans only.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from headgate.observe.protobuf import (
    BadProtobuf,
    bytes_field,
    double_field,
    double_of,
    fields,
    fixed32_field,
    fixed64_field,
    int_field,
    signed,
)
from headgate.observe.tracing.record import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_NAME,
    UNDECIDED,
    Kind,
    SpanEvent,
    SpanLink,
    SpanRecord,
    Status,
    Value,
    is_span_id,
    is_trace_id,
)
from headgate.observe.tracing.span import plain

__all__ = ["Decoded", "decode", "decode_json", "encode", "partial_success"]

_KINDS: Final[tuple[Kind, ...]] = (
    "internal",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
)
_STATUSES: Final[tuple[Status, ...]] = ("unset", "ok", "error")
_KIND_NUMBERS: Final[Mapping[str, int]] = {
    "internal": 1,
    "server": 2,
    "client": 3,
    "producer": 4,
    "consumer": 5,
}
_STATUS_NUMBERS: Final[Mapping[str, int]] = {"ok": 1, "error": 2}
_KNOWN: Final = 0x100
_MOST_SPANS: Final = 20_000
_SCOPE: Final = bytes_field(1, b"headgate")
Decoded = tuple[list[SpanRecord], int]
"""The spans, and how many more there were that are none."""


# -- out ------------------------------------------------------------------------------------------


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _nanos(at: float) -> int:
    # A time of today as a float knows no more than a quarter of a microsecond.
    return round(at * 1e6) * 1000


def _any_value(value: Value) -> bytes:
    if isinstance(value, str):
        return bytes_field(1, _utf8(value))
    if isinstance(value, bool):
        return int_field(2, value)
    if isinstance(value, int):
        return int_field(3, value)
    return double_field(4, value)


def _pairs(field: int, attributes: Mapping[str, Value]) -> list[bytes]:
    return [
        bytes_field(field, bytes_field(1, _utf8(key)) + bytes_field(2, _any_value(value)))
        for key, value in attributes.items()
        if key != UNDECIDED
    ]


def _span(span: SpanRecord) -> bytes:
    parts = [
        bytes_field(1, bytes.fromhex(span.trace_id)),
        bytes_field(2, bytes.fromhex(span.span_id)),
    ]
    if span.parent_id:
        parts.append(bytes_field(4, bytes.fromhex(span.parent_id)))
    begin = _nanos(span.start)
    parts += (
        bytes_field(5, _utf8(span.name)),
        int_field(6, _KIND_NUMBERS[span.kind]),
        fixed64_field(7, begin),
        fixed64_field(8, begin + round(span.duration_s * 1e9)),
        *_pairs(9, span.attributes),
    )
    for event in span.events:
        body = fixed64_field(1, _nanos(event.at)) + bytes_field(2, _utf8(event.name))
        parts.append(bytes_field(11, body + b"".join(_pairs(3, event.attributes))))
    for link in span.links:
        body = bytes_field(1, bytes.fromhex(link.trace_id))
        body += bytes_field(2, bytes.fromhex(link.span_id))
        parts.append(bytes_field(13, body + b"".join(_pairs(4, link.attributes))))
    if span.status != "unset":
        parts.append(bytes_field(15, int_field(3, _STATUS_NUMBERS[span.status])))
    flags = _KNOWN if span.attributes.get(UNDECIDED) else _KNOWN | 1
    parts.append(fixed32_field(16, flags))
    return b"".join(parts)


def encode(spans: Iterable[SpanRecord], resource: Mapping[str, Value] | None = None) -> bytes:
    """An ExportTraceServiceRequest; spans stand by service, each with the resource's attributes."""
    by_service: defaultdict[str, list[bytes]] = defaultdict(list)
    for span in spans:
        by_service[span.service].append(bytes_field(2, _span(span)))
    said: list[bytes] = []
    for service, rows in by_service.items():
        about = {**(resource or {}), "service.name": service or "unknown_service"}
        head = bytes_field(1, b"".join(_pairs(1, about)))
        said.append(bytes_field(1, head + bytes_field(2, bytes_field(1, _SCOPE) + b"".join(rows))))
    return b"".join(said)


def partial_success(body: bytes) -> tuple[int, str]:
    """How many spans a receiver says it refused, and why; of its answer with status 200."""
    rejected, why = 0, ""
    try:
        for number, _, value in fields(memoryview(body)):
            if number == 1 and isinstance(value, memoryview):
                for inner, _, told in fields(value):
                    if inner == 1 and isinstance(told, int):
                        rejected = max(0, signed(told))
                    elif inner == 2 and isinstance(told, memoryview):
                        why = bytes(told).decode("utf-8", "replace")
    except BadProtobuf:
        return 0, ""
    return rejected, why


# -- in: protobuf ---------------------------------------------------------------------------------


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise BadProtobuf("a number stands where a message should")
    return value


def _number(value: int | memoryview) -> int:
    if isinstance(value, int):
        return value
    raise BadProtobuf("a message stands where a number should")


def _text(value: int | memoryview) -> str:
    return bytes(_view(value)).decode("utf-8", "replace")


def _value_of(data: memoryview, depth: int = 0) -> Any:
    found: Any = ""
    for number, _, value in fields(data):
        if number == 1:
            found = _text(value)
        elif number == 2:
            found = bool(_number(value))
        elif number == 3:
            found = signed(_number(value))
        elif number == 4:
            found = double_of(_number(value))
        elif number == 5 and depth < 4:
            found = [_value_of(_view(v), depth + 1) for n, _, v in fields(_view(value)) if n == 1]
        elif number == 6 and depth < 4:
            found = dict(
                _pair_of(_view(v), depth + 1) for n, _, v in fields(_view(value)) if n == 1
            )
        elif number == 7:
            found = base64.b64encode(bytes(_view(value))).decode()
    return found


def _pair_of(data: memoryview, depth: int = 0) -> tuple[str, Any]:
    key: str = ""
    value: Any = ""
    for number, _, said in fields(data):
        if number == 1:
            key = _text(said)[:MAX_NAME]
        elif number == 2:
            value = _value_of(_view(said), depth)
    return key, value


def _one_value(value: Any) -> Value:
    if isinstance(value, list | dict):
        return plain(json.dumps(value, ensure_ascii=False, default=str))
    return plain(value)


def _put(attributes: dict[str, Value], pair: tuple[str, Any]) -> None:
    if len(attributes) < MAX_ATTRIBUTES and pair[0]:
        attributes[pair[0]] = _one_value(pair[1])


class _Draft:
    """A span as it comes in, until it is known to be one."""

    __slots__ = (
        "attributes",
        "begin",
        "end",
        "events",
        "flags",
        "ids",
        "kind",
        "links",
        "name",
        "status",
        "why",
    )

    def __init__(self) -> None:
        self.ids = ["", "", ""]
        self.name = ""
        self.kind = 0
        self.begin = self.end = 0
        self.status = 0
        self.why = ""
        self.flags = 0
        self.attributes: dict[str, Value] = {}
        self.events: list[SpanEvent] = []
        self.links: list[SpanLink] = []

    def record(self, service: str, version: str) -> SpanRecord | None:
        trace_id, span_id, parent_id = self.ids
        if parent_id == "0" * 16:
            parent_id = ""
        if not is_trace_id(trace_id) or not is_span_id(span_id):
            return None
        if parent_id and not is_span_id(parent_id):
            return None
        if not 0 < self.begin < 10**19 or self.end >= 10**19:
            return None
        if self.why:
            self.attributes.setdefault("otel.status_description", self.why)
        if version:
            self.attributes.setdefault("service.version", version)
        if self.flags & _KNOWN and not self.flags & 1:
            self.attributes[UNDECIDED] = True
        return SpanRecord(
            trace_id,
            span_id,
            parent_id,
            self.name[:MAX_NAME],
            _KINDS[self.kind] if 0 <= self.kind < len(_KINDS) else "internal",
            self.begin / 1e9,
            max(0, self.end - self.begin) / 1e9,
            _STATUSES[self.status] if 0 <= self.status < len(_STATUSES) else "unset",
            service,
            self.attributes,
            tuple(self.events),
            tuple(self.links),
        )


def _draft(data: memoryview) -> _Draft:
    draft = _Draft()
    for number, _, value in fields(data):
        if number in {1, 2}:
            draft.ids[number - 1] = bytes(_view(value)).hex()
        elif number == 4:
            draft.ids[2] = bytes(_view(value)).hex()
        elif number == 5:
            draft.name = _text(value)
        elif number == 6:
            draft.kind = _number(value)
        elif number == 7:
            draft.begin = _number(value)
        elif number == 8:
            draft.end = _number(value)
        elif number == 9:
            _put(draft.attributes, _pair_of(_view(value)))
        elif number == 11 and len(draft.events) < MAX_EVENTS:
            draft.events.append(_event_of(_view(value)))
        elif number == 13 and len(draft.links) < MAX_EVENTS:
            link = _link_of(_view(value))
            if link is not None:
                draft.links.append(link)
        elif number == 15:
            for inner, _, said in fields(_view(value)):
                if inner == 2:
                    draft.why = _text(said)
                elif inner == 3:
                    draft.status = _number(said)
        elif number == 16:
            draft.flags = _number(value)
    return draft


def _event_of(data: memoryview) -> SpanEvent:
    at, name = 0, ""
    attributes: dict[str, Value] = {}
    for number, _, value in fields(data):
        if number == 1:
            at = _number(value)
        elif number == 2:
            name = _text(value)[:MAX_NAME]
        elif number == 3:
            _put(attributes, _pair_of(_view(value)))
    return SpanEvent(min(at, 10**19) / 1e9, name, attributes)


def _link_of(data: memoryview) -> SpanLink | None:
    ids = ["", ""]
    attributes: dict[str, Value] = {}
    for number, _, value in fields(data):
        if number in {1, 2}:
            ids[number - 1] = bytes(_view(value)).hex()
        elif number == 4:
            _put(attributes, _pair_of(_view(value)))
    trace_id, span_id = ids
    if not is_trace_id(trace_id) or not is_span_id(span_id):
        return None
    return SpanLink(trace_id, span_id, attributes)


def decode(body: bytes) -> Decoded:
    """The spans of an ExportTraceServiceRequest. `BadProtobuf` if it is none."""
    found: list[SpanRecord] = []
    refused = 0
    for number, _, one in fields(memoryview(body)):
        if number != 1:
            continue
        about: dict[str, Any] = {}
        scopes: list[memoryview] = []
        for inner, _, value in fields(_view(one)):
            if inner == 1:
                about.update(_pair_of(_view(v)) for n, _, v in fields(_view(value)) if n == 1)
            elif inner == 2:
                scopes.append(_view(value))
        service, version = _who(about)
        for scope in scopes:
            for inner, _, value in fields(scope):
                if inner != 2:
                    continue
                draft = _draft(_view(value))
                record = draft.record(service, version) if len(found) < _MOST_SPANS else None
                if record is None:
                    refused += 1
                else:
                    found.append(record)
    return found, refused


def _who(about: Mapping[str, Any]) -> tuple[str, str]:
    service = about.get("service.name")
    version = about.get("service.version")
    return (
        service[:MAX_NAME] if isinstance(service, str) else "",
        version[:MAX_NAME] if isinstance(version, str) else "",
    )


# -- in: JSON -------------------------------------------------------------------------------------


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int:
    """A number, or its text: JSON of protobuf writes those of 64 bits as text."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdigit():
        return int(value)
    return 0


def _enum(value: object, names: Sequence[str], prefix: str) -> int:
    if isinstance(value, str):
        name = value.removeprefix(prefix).lower()
        return names.index(name) if name in names else 0
    return _whole(value)


def _json_value(value: Mapping[str, Any], depth: int = 0) -> Any:
    for key, said in value.items():
        if key == "intValue":
            if isinstance(said, str) and len(said) <= 20 and said.lstrip("-").isdecimal():
                return int(said)
            return said if isinstance(said, int) else 0
        if key in {"stringValue", "boolValue", "doubleValue", "bytesValue"}:
            return said if isinstance(said, str | bool | int | float) else ""
        if key == "arrayValue" and depth < 4:
            return [_json_value(_dict(one), depth + 1) for one in _list(_dict(said).get("values"))]
        if key == "kvlistValue" and depth < 4:
            return _json_pairs(_dict(said).get("values"), depth + 1)
    return ""


def _json_pairs(value: object, depth: int = 0) -> dict[str, Any]:
    return {
        str(one["key"])[:MAX_NAME]: _json_value(_dict(one.get("value")), depth)
        for one in map(_dict, _list(value))
        if one.get("key")
    }


def _attributes(value: object) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in _json_pairs(value).items():
        _put(found, pair)
    return found


def _hex(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""


def _json_draft(span: Mapping[str, Any]) -> _Draft:
    draft = _Draft()
    draft.ids = [_hex(span.get(key)) for key in ("traceId", "spanId", "parentSpanId")]
    name = span.get("name")
    draft.name = name if isinstance(name, str) else ""
    kinds = ("unspecified", "internal", "server", "client", "producer", "consumer")
    draft.kind = _enum(span.get("kind"), kinds, "SPAN_KIND_")
    draft.begin = _whole(span.get("startTimeUnixNano"))
    draft.end = _whole(span.get("endTimeUnixNano"))
    draft.attributes = _attributes(span.get("attributes"))
    status = _dict(span.get("status"))
    draft.status = _enum(status.get("code"), _STATUSES, "STATUS_CODE_")
    why = status.get("message")
    draft.why = why if isinstance(why, str) else ""
    draft.flags = _whole(span.get("flags"))
    for event in map(_dict, _list(span.get("events"))[:MAX_EVENTS]):
        at = min(_whole(event.get("timeUnixNano")), 10**19) / 1e9
        said = event.get("name")
        named = said[:MAX_NAME] if isinstance(said, str) else ""
        draft.events.append(SpanEvent(at, named, _attributes(event.get("attributes"))))
    for link in map(_dict, _list(span.get("links"))[:MAX_EVENTS]):
        ids = _hex(link.get("traceId")), _hex(link.get("spanId"))
        if is_trace_id(ids[0]) and is_span_id(ids[1]):
            draft.links.append(SpanLink(*ids, _attributes(link.get("attributes"))))
    return draft


def decode_json(body: bytes) -> Decoded:
    """The same of the JSON form. `ValueError` if it is none."""
    try:
        document = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("it is no mapping")
    found: list[SpanRecord] = []
    refused = 0
    for one in map(_dict, _list(document.get("resourceSpans"))):
        service, version = _who(_json_pairs(_dict(one.get("resource")).get("attributes")))
        for scope in map(_dict, _list(one.get("scopeSpans"))):
            for span in map(_dict, _list(scope.get("spans"))):
                draft = _json_draft(span)
                record = draft.record(service, version) if len(found) < _MOST_SPANS else None
                if record is None:
                    refused += 1
                else:
                    found.append(record)
    return found, refused
