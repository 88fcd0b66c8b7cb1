"""Metrics as OpenTelemetry sends them (ExportMetricsServiceRequest), as families of samples.

Theory of operation
-------------------
JSON and protobuf come to one form: the fields of the message by their JSON names. Protobuf is read
by a small reader that knows just the fields that are used and skips all others. Names and labels
become what Prometheus makes of them: dots are underscores, a monotonic sum ends in `_total`, and a
histogram is `_bucket`, `_sum` and `_count`. Sums and histograms of deltas are left out: what each
sender counts would have to be added up for ever, for senders that may never come again.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.observe.history.rules import Family

__all__ = ["OtlpUnreadable", "of_json", "of_protobuf"]

_BAD: Final = re.compile(r"[^a-zA-Z0-9_:]")
_MAX_POINTS: Final = 20_000
_MAX_LABELS: Final = 30
_LONGEST: Final = 256
_CUMULATIVE: Final = {2, "AGGREGATION_TEMPORALITY_CUMULATIVE"}


class OtlpUnreadable(HeadgateError):
    """This is no export of metrics."""


def of_json(body: bytes) -> tuple[str, list[Family], int]:
    """The name of the service, what it counts, and how many points were left out."""
    try:
        said = json.loads(body)
        return _families(said)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise OtlpUnreadable(f"this is no OTLP in JSON: {type(error).__name__}") from error


def of_protobuf(body: bytes) -> tuple[str, list[Family], int]:
    """Likewise."""
    try:
        return _families(_message(memoryview(body), _REQUEST))
    except (ValueError, TypeError, AttributeError, KeyError, struct.error, IndexError) as error:
        raise OtlpUnreadable(f"this is no OTLP in protobuf: {type(error).__name__}") from error


def _families(request: Mapping[str, Any]) -> tuple[str, list[Family], int]:
    found: dict[tuple[str, str, tuple[str, ...]], dict[tuple[str, ...], float]] = {}
    left_out = points = 0
    source = "unknown"
    for resource in request.get("resourceMetrics", ()):
        of_resource = _attributes(resource.get("resource", {}).get("attributes", ()))
        common = {
            label: of_resource[name]
            for label, name in (
                ("service", "service_name"),
                ("service_instance", "service_instance_id"),
            )
            if name in of_resource
        }
        source = " ".join(common.values()) or source
        for scope in resource.get("scopeMetrics", ()):
            for metric in scope.get("metrics", ()):
                for name, kind, labels, value in _samples(metric):
                    points += 1
                    if value is None or points > _MAX_POINTS or len(labels) > _MAX_LABELS:
                        left_out += 1
                        continue
                    labels = {**labels, **common}
                    names = tuple(sorted(labels))
                    family = found.setdefault((name, kind, names), {})
                    family[tuple(labels[one] for one in names)] = value
    return (
        source[:_LONGEST],
        [Family(name, kind, names, held) for (name, kind, names), held in found.items()],  # type: ignore[arg-type]
        left_out,
    )


Found = tuple[str, str, dict[str, str], float | None]


def _samples(metric: Mapping[str, Any]) -> Iterator[Found]:
    name = _BAD.sub("_", str(metric.get("name", "")))[:_LONGEST]
    if not name or name[0].isdigit():
        name = f"_{name}"
    if "gauge" in metric:
        for point in metric["gauge"].get("dataPoints", ()):
            yield name, "gauge", _attributes(point.get("attributes", ())), _value(point)
    elif "sum" in metric:
        held = metric["sum"]
        rises = bool(held.get("isMonotonic"))
        is_whole = held.get("aggregationTemporality") in _CUMULATIVE
        shown = f"{name.removesuffix('_total')}_total" if rises else name
        for point in held.get("dataPoints", ()):
            value = _value(point) if is_whole else None
            labels = _attributes(point.get("attributes", ()))
            yield shown, "counter" if rises else "gauge", labels, value
    elif "histogram" in metric:
        held = metric["histogram"]
        is_whole = held.get("aggregationTemporality") in _CUMULATIVE
        for point in held.get("dataPoints", ()):
            labels = _attributes(point.get("attributes", ()))
            if not is_whole:
                yield f"{name}_count", "counter", labels, None
                continue
            bounds = [f"{float(bound):g}" for bound in point.get("explicitBounds", ())]
            running = 0
            for le, count in zip([*bounds, "+Inf"], point.get("bucketCounts", ()), strict=False):
                running += int(count)
                yield f"{name}_bucket", "counter", {**labels, "le": le}, float(running)
            yield f"{name}_count", "counter", labels, float(point.get("count", running))
            if "sum" in point:
                yield f"{name}_sum", "counter", labels, float(point["sum"])


def _value(point: Mapping[str, Any]) -> float | None:
    if "asDouble" in point:
        return float(point["asDouble"])
    return float(int(point["asInt"])) if "asInt" in point else None


def _attributes(pairs: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        held = pair.get("value", {})
        value = next(iter(held.values()), "") if isinstance(held, dict) else ""
        if isinstance(value, bool):
            value = "true" if value else "false"
        name = _BAD.sub("_", str(pair.get("key", "")))[:_LONGEST].replace(":", "_")
        if name and not name[0].isdigit() and not name.startswith("__"):
            found[name] = str(value)[:_LONGEST]
    return found


# ------------------------------------------------------------------------------------ protobuf
# Fields by number: the JSON name, and what it is. A dict is a message; a list stands for many.

_ANY: Final[dict[int, Any]] = {
    1: ("stringValue", "text"),
    2: ("boolValue", "flag"),
    3: ("intValue", "signed"),
    4: ("doubleValue", "double"),
}
_PAIR: Final[dict[int, Any]] = {1: ("key", "text"), 2: ("value", _ANY)}
_POINT: Final[dict[int, Any]] = {
    7: ("attributes", [_PAIR]),
    4: ("asDouble", "double"),
    6: ("asInt", "sfixed"),
}
_HISTOGRAM_POINT: Final[dict[int, Any]] = {
    9: ("attributes", [_PAIR]),
    4: ("count", "fixed"),
    5: ("sum", "double"),
    6: ("bucketCounts", ["fixed"]),
    7: ("explicitBounds", ["double"]),
}
_GAUGE: Final[dict[int, Any]] = {1: ("dataPoints", [_POINT])}
_SUM: Final[dict[int, Any]] = {
    1: ("dataPoints", [_POINT]),
    2: ("aggregationTemporality", "signed"),
    3: ("isMonotonic", "flag"),
}
_HISTOGRAM: Final[dict[int, Any]] = {
    1: ("dataPoints", [_HISTOGRAM_POINT]),
    2: ("aggregationTemporality", "signed"),
}
_METRIC: Final[dict[int, Any]] = {
    1: ("name", "text"),
    5: ("gauge", _GAUGE),
    7: ("sum", _SUM),
    9: ("histogram", _HISTOGRAM),
}
_SCOPE: Final[dict[int, Any]] = {2: ("metrics", [_METRIC])}
_RESOURCE: Final[dict[int, Any]] = {
    1: ("resource", {1: ("attributes", [_PAIR])}),
    2: ("scopeMetrics", [_SCOPE]),
}
_REQUEST: Final[dict[int, Any]] = {1: ("resourceMetrics", [_RESOURCE])}
_EIGHT: Final = {"double": "<d", "fixed": "<Q", "sfixed": "<q"}


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has no end")


def _message(data: memoryview, fields: Mapping[int, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        raw: Any
        if wire == 0:
            raw, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            raw, at = data[at : at + size], at + size
        else:
            size = {1: 8, 5: 4}[wire]
            raw, at = data[at : at + size], at + size
        if at > len(data):
            raise ValueError("a field is cut short")
        if number not in fields:
            continue
        name, kind = fields[number]
        if not isinstance(kind, list):
            found[name] = _field(kind, raw, wire)
            continue
        many = found.setdefault(name, [])
        if isinstance(kind[0], str) and wire == 2:
            if len(raw) % 8:
                raise ValueError("numbers are cut short")
            many += [one[0] for one in struct.iter_unpack(_EIGHT[kind[0]], raw)]
        else:
            many.append(_field(kind[0], raw, wire))
    return found


def _field(kind: Any, raw: Any, wire: int) -> Any:
    if isinstance(kind, dict):
        return _message(raw, kind)
    if isinstance(kind, str) and kind in _EIGHT:
        return struct.unpack(_EIGHT[kind], raw)[0]
    if kind == "text":
        return bytes(raw).decode(errors="replace")
    if wire != 0:
        raise ValueError("a field has another form")
    if kind == "flag":
        return bool(raw)
    return raw - (1 << 64) if raw >> 63 else raw
