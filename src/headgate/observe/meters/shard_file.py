"""What a process tells the others about its metrics: families as bytes and back.

Layout: a magic word, the length of the rest, its CRC-32, then blocks. A block is one family: a head
in JSON (definition and the labels of each series), the figures as doubles, the bins of sketches as
whole numbers, and exemplars in JSON. Heads change only when series come or go, so the writer keeps
them as bytes and the reader keeps them parsed; what changes all the time is copied by `array`.

The file is read by the same version of Headgate on the same machine, so its numbers are in the
machine's own order. A file that does not add up raises `ShardSpoilt`.
"""

from __future__ import annotations

import json
import struct
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from headgate.observe.meters.exemplars import Exemplar
from headgate.observe.meters.families import Family, Labels, Sample
from headgate.observe.meters.sketch import Sketch

__all__ = ["Heads", "ShardSpoilt", "pack", "unpack"]

MAGIC: Final = b"HGMETER1"
_FRONT: Final = struct.Struct("=8sQI")
_BLOCK: Final = struct.Struct("=IIII")
_HEADS_MAX: Final = 4096


class ShardSpoilt(ValueError):
    """Bytes that are not what a process writes."""


class Heads:
    """Heads of families, parsed; the least recently read is forgotten first."""

    def __init__(self, most: int = _HEADS_MAX) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, tuple[dict[str, Any], list[Labels]]] = OrderedDict()

    def parsed(self, head: bytes) -> tuple[dict[str, Any], list[Labels]]:
        there = self._kept.get(head)
        if there is None:
            said = json.loads(head)
            there = said, [tuple(labels) for labels in said["series"]]
            self._kept[head] = there
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(head)
        return there


def pack(families: Iterable[Family], kept: dict[str, tuple[list[Labels], bytes]]) -> bytes:
    """Families as bytes. `kept` is the writer's memory of heads, by the name of the family."""
    parts: list[bytes] = []
    for family in families:
        _pack_family(parts, family, kept)
    body = b"".join(parts)
    return _FRONT.pack(MAGIC, len(body), zlib.crc32(body)) + body


def _pack_family(
    parts: list[bytes], family: Family, kept: dict[str, tuple[list[Labels], bytes]]
) -> None:
    numbers, whole = array("d"), array("q")
    if family.samples:
        series: list[Labels] = []
        numbers.extend(sample.value for sample in family.samples)
    elif family.sketches:
        series = list(family.sketches)
        for labels, sketch in family.sketches.items():
            count, total = family.totals.get(labels, (0, 0.0))
            numbers.extend((sketch.sum, total))
            whole.extend((count, sketch.zeros))
            for bins in (sketch.bins, sketch.below):
                whole.append(len(bins))
                whole.extend(bins.keys())
                whole.extend(bins.values())
    else:
        series = list(family.numbers)
        numbers.extend(family.numbers.values())
    head = _head(family, series, kept)
    seen = [
        [list(labels), [[one.value, one.trace_id, one.wall] for one in shown]]
        for labels, shown in family.exemplars.items()
    ]
    extra = json.dumps(seen).encode() if seen else b""
    parts.append(_BLOCK.pack(len(head), len(numbers), len(whole), len(extra)))
    parts += (head, numbers.tobytes(), whole.tobytes(), extra)


def _head(
    family: Family, series: list[Labels], kept: dict[str, tuple[list[Labels], bytes]]
) -> bytes:
    if not family.samples:
        there = kept.get(family.name)
        if there is not None and there[0] == series:
            return there[1]
    said = {
        "name": family.name,
        "kind": family.kind,
        "help": family.help,
        "labels": family.labels,
        "unit": family.unit,
        "merge": family.merge,
        "bounds": family.bounds,
        "quantiles": family.quantiles,
        "is_sketch": bool(family.sketches),
        "series": series,
        "samples": [(one.name, one.labels) for one in family.samples],
    }
    head = json.dumps(said, separators=(",", ":")).encode()
    if not family.samples:
        kept[family.name] = series, head
    return head


def unpack(data: bytes, heads: Heads) -> list[Family]:
    """The families of one process."""
    if len(data) < _FRONT.size:
        raise ShardSpoilt("the file is too short")
    magic, length, crc = _FRONT.unpack_from(data)
    body = memoryview(data)[_FRONT.size :]
    if magic != MAGIC:
        raise ShardSpoilt("the file is of another version, or no file of metrics")
    if len(body) != length or zlib.crc32(body) != crc:
        raise ShardSpoilt("the file is not whole")
    try:
        found = []
        at = 0
        while at < length:
            family, at = _unpack_family(body, at, heads)
            found.append(family)
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise ShardSpoilt(f"the file does not add up: {error}") from error
    return found


def _unpack_family(body: memoryview, at: int, heads: Heads) -> tuple[Family, int]:
    head_length, n_numbers, n_whole, extra_length = _BLOCK.unpack_from(body, at)
    at += _BLOCK.size
    said, series = heads.parsed(bytes(body[at : at + head_length]))
    at += head_length
    numbers = array("d", bytes(body[at : at + 8 * n_numbers]))
    at += 8 * n_numbers
    whole = array("q", bytes(body[at : at + 8 * n_whole])).tolist()
    at += 8 * n_whole
    extra = bytes(body[at : at + extra_length])
    at += extra_length
    family = Family(
        said["name"],
        said["kind"],
        said["help"],
        tuple(said["labels"]),
        said["unit"],
        said["merge"],
        tuple(said["bounds"]),
        tuple(said["quantiles"]),
    )
    if said["samples"]:
        family.samples = tuple(
            Sample(name, tuple((key, text) for key, text in labels), value)
            for (name, labels), value in zip(said["samples"], numbers, strict=True)
        )
    elif said["is_sketch"]:
        _unpack_sketches(family, series, numbers.tolist(), whole)
    else:
        family.numbers = dict(zip(series, numbers, strict=True))
    if extra:
        family.exemplars = {
            tuple(labels): tuple(Exemplar(*one) for one in shown)
            for labels, shown in json.loads(extra)
        }
    return family, at


def _unpack_sketches(
    family: Family, series: list[Labels], numbers: list[float], whole: list[int]
) -> None:
    at = 0
    for place, labels in enumerate(series):
        count, zeros, width = whole[at], whole[at + 1], whole[at + 2]
        at += 3
        bins = dict(zip(whole[at : at + width], whole[at + width : at + 2 * width], strict=True))
        at += 2 * width
        width = whole[at]
        at += 1
        below = dict(zip(whole[at : at + width], whole[at + width : at + 2 * width], strict=True))
        at += 2 * width
        family.sketches[labels] = Sketch(bins, zeros, below, numbers[2 * place])
        if family.kind == "summary":
            family.totals[labels] = count, numbers[2 * place + 1]
