"""Metrics as OpenTelemetry sends them (ExportMetricsServiceRequest), as families of samples.

Theory of operation
-------------------
JSON and protobuf come to one form: the fields of the message by their JSON names; of protobuf just
the fields that are used are read, all others are skipped. Names and labels become what Prometheus
makes of them: dots are underscores, a monotonic sum ends in `_total`, and a histogram is `_bucket`,
`_sum` and `_count`. Sums and histograms of deltas are left out: what each sender counts would have
to be added up for ever, for senders that may never come again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.observe.history.rules import Family
from headgate.observe.protobuf import Shape, shaped

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
        return _families(shaped(memoryview(body), _REQUEST))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
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
_ANY: Final[Shape] = {
    1: ("stringValue", "text"),
    2: ("boolValue", "flag"),
    3: ("intValue", "signed"),
    4: ("doubleValue", "double"),
}
_PAIR: Final[Shape] = {1: ("key", "text"), 2: ("value", _ANY)}
_POINT: Final[Shape] = {
    7: ("attributes", [_PAIR]),
    4: ("asDouble", "double"),
    6: ("asInt", "sfixed"),
}
_HISTOGRAM_POINT: Final[Shape] = {
    9: ("attributes", [_PAIR]),
    4: ("count", "fixed"),
    5: ("sum", "double"),
    6: ("bucketCounts", ["fixed"]),
    7: ("explicitBounds", ["double"]),
}
_GAUGE: Final[Shape] = {1: ("dataPoints", [_POINT])}
_SUM: Final[Shape] = {
    1: ("dataPoints", [_POINT]),
    2: ("aggregationTemporality", "signed"),
    3: ("isMonotonic", "flag"),
}
_HISTOGRAM: Final[Shape] = {
    1: ("dataPoints", [_HISTOGRAM_POINT]),
    2: ("aggregationTemporality", "signed"),
}
_METRIC: Final[Shape] = {
    1: ("name", "text"),
    5: ("gauge", _GAUGE),
    7: ("sum", _SUM),
    9: ("histogram", _HISTOGRAM),
}
_SCOPE: Final[Shape] = {2: ("metrics", [_METRIC])}
_RESOURCE: Final[Shape] = {
    1: ("resource", {1: ("attributes", [_PAIR])}),
    2: ("scopeMetrics", [_SCOPE]),
}
_REQUEST: Final[Shape] = {1: ("resourceMetrics", [_RESOURCE])}
