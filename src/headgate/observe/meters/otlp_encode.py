"""Families in the wire form of OTLP (opentelemetry-proto, metrics/v1), written by hand.

A message is a run of fields: a tag (the number of the field and its wire type), then a varint,
eight bytes, or a length and that many bytes. Six kinds of message are all that is needed, so no
schema compiler and no SDK is. Histograms go out as exponential histograms without any conversion
(see `sketch`), and those that were counted by fixed bounds by these. Everything is cumulative since
`start_wall`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family, Labels
from headgate.observe.meters.sketch import FLOOR, SCALE, Sketch
from headgate.observe.protobuf import bytes_field as message
from headgate.observe.protobuf import double_field as double
from headgate.observe.protobuf import fixed64_field as fixed
from headgate.observe.protobuf import varint

__all__ = ["BUCKETS_MAX", "encode"]

BUCKETS_MAX: Final = 320
"""Of each sign; with more, the scale is halved until they fit."""

_CUMULATIVE: Final = b"\x10\x02"
_MONOTONIC: Final = b"\x18\x01"
_SIGNED: Final = struct.Struct("<q")
_LARGEST: Final = 2**63


def text(field: int, value: str) -> bytes:
    return message(field, value.encode("utf-8", "replace")) if value else b""


def zigzag(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value << 1 if value >= 0 else (-value << 1) - 1)


@lru_cache(maxsize=8192)  # values of labels come again in other series, and at each push
def attribute(field: int, key: str, value: str) -> bytes:
    # An empty text must be written all the same, or it would be no value at all.
    shown = message(1, value.encode("utf-8", "replace"))
    return message(field, text(1, key) + message(2, shown))


def encode(
    families: Iterable[Family],
    resource: Mapping[str, str],
    *,
    start_wall: float,
    wall: float,
    version: str = "",
) -> bytes:
    """An ExportMetricsServiceRequest."""
    times = fixed(2, int(start_wall * 1e9)) + fixed(3, int(wall * 1e9))
    metrics = b"".join(message(2, body) for family in families for body in _metrics(family, times))
    scope = message(1, text(1, "headgate.observe") + text(2, version))
    described = b"".join(attribute(1, key, value) for key, value in resource.items())
    return message(1, message(1, described) + message(2, scope + metrics))


def _metrics(family: Family, times: bytes) -> Iterator[bytes]:
    if family.is_empty:
        return
    if family.samples:
        yield from _foreign(family, times)
        return
    head = text(1, _plain_name(family)) + text(2, family.help) + text(3, _unit(family))
    if family.sketches:
        make = _summary if family.kind == "summary" else _exponential
        yield head + make(family, times)
    elif family.buckets:
        yield head + _explicit(family, times)
    elif family.kind == "counter":
        points = _numbers(family, times)
        yield head + message(7, points + _CUMULATIVE + _MONOTONIC)
    else:
        yield head + message(5, _numbers(family, times))


def _plain_name(family: Family) -> str:
    return family.name.removesuffix("_total") if family.kind == "counter" else family.name


def _unit(family: Family) -> str:
    """As UCUM has it, which OpenTelemetry uses."""
    plain = _plain_name(family)
    unit = family.unit or next((one for one in ("seconds", "bytes") if plain.endswith(one)), "")
    return {"seconds": "s", "bytes": "By", "ratio": "1"}.get(unit, unit)


def _attributes(field: int, names: tuple[str, ...], labels: Labels) -> bytes:
    return b"".join(
        attribute(field, name, value) for name, value in zip(names, labels, strict=True)
    )


def _value(value: float) -> bytes:
    if type(value) is int and -_LARGEST <= value < _LARGEST:
        return varint(6 << 3 | 1) + _SIGNED.pack(value)
    return double(4, value)


def _numbers(family: Family, times: bytes) -> bytes:
    return b"".join(
        message(
            1,
            times
            + _value(value)
            + _exemplars(5, family.exemplars.get(labels, ()))
            + _attributes(7, family.labels, labels),
        )
        for labels, value in family.numbers.items()
    )


def _exponential(family: Family, times: bytes) -> bytes:
    points = b"".join(
        message(1, _attributes(1, family.labels, labels) + _point(family, times, labels, sketch))
        for labels, sketch in family.sketches.items()
    )
    return message(10, points + _CUMULATIVE)


def _explicit(family: Family, times: bytes) -> bytes:
    bounds = message(7, struct.pack(f"<{len(family.bounds)}d", *family.bounds))
    points = []
    for labels, (counts, total) in family.buckets.items():
        packed = message(6, struct.pack(f"<{len(counts)}Q", *counts))
        points.append(
            message(
                1,
                times
                + fixed(4, sum(counts))
                + double(5, total)
                + packed
                + bounds
                + _exemplars(8, family.exemplars.get(labels, ()))
                + _attributes(9, family.labels, labels),
            )
        )
    return message(9, b"".join(points) + _CUMULATIVE)


def _point(family: Family, times: bytes, labels: Labels, sketch: Sketch) -> bytes:
    shift = max(_shift(sketch.bins), _shift(sketch.below))
    return b"".join(
        (
            times,
            fixed(4, sketch.count),
            double(5, sketch.sum),
            zigzag(6, SCALE - shift),
            fixed(7, sketch.zeros),
            message(8, _buckets(sketch.bins, shift)),
            message(9, _buckets(sketch.below, shift)),
            _exemplars(11, family.exemplars.get(labels, ())),
            double(14, FLOOR),
        )
    )


def _shift(bins: Mapping[int, int]) -> int:
    """How often the scale is halved, which joins neighbours two by two and is exact."""
    if not bins:
        return 0
    low, high, shift = min(bins), max(bins), 0
    while (high >> shift) - (low >> shift) >= BUCKETS_MAX:
        shift += 1
    return shift


def _buckets(bins: Mapping[int, int], shift: int) -> bytes:
    if not bins:
        return b""
    offset = min(bins) >> shift
    counts = [0] * ((max(bins) >> shift) - offset + 1)
    for at, count in bins.items():
        counts[(at >> shift) - offset] += count
    return zigzag(1, offset) + message(2, b"".join(map(varint, counts)))


def _summary(family: Family, times: bytes) -> bytes:
    points = []
    for labels, sketch in family.sketches.items():
        count, total = family.totals.get(labels, (0, 0.0))
        values = sketch.quantiles(family.quantiles)
        shown = b"".join(
            message(6, double(1, q) + double(2, value))
            for q, value in zip(family.quantiles, values, strict=True)
            if value is not None
        )
        named = _attributes(7, family.labels, labels)
        points.append(message(1, times + fixed(4, count) + double(5, total) + shown + named))
    return message(11, b"".join(points))


def _foreign(family: Family, times: bytes) -> Iterator[bytes]:
    """Each name of somebody else's samples as a metric of its own."""
    by_name: dict[str, list[bytes]] = {}
    for sample in family.samples:
        named = b"".join(attribute(7, key, value) for key, value in sample.labels)
        point = message(1, times + _value(sample.value) + named)
        by_name.setdefault(sample.name, []).append(point)
    for name, points in by_name.items():
        grows = family.kind in ("counter", "histogram", "summary") and name.endswith(
            ("_total", "_bucket", "_count", "_sum")
        )
        shown = name.removesuffix("_total") if family.kind == "counter" else name
        head = text(1, shown) + text(2, family.help) + text(3, _unit(family))
        body = b"".join(points)
        yield head + (message(7, body + _CUMULATIVE + _MONOTONIC) if grows else message(5, body))


def _exemplars(field: int, shown: Iterable[Exemplar]) -> bytes:
    found = []
    for one in shown:
        try:
            trace_id = bytes.fromhex(one.trace_id)
        except ValueError:
            continue
        if len(trace_id) == 16:
            at = fixed(2, int(one.wall * 1e9))
            found.append(message(field, at + double(3, one.value) + message(5, trace_id)))
    return b"".join(found)
