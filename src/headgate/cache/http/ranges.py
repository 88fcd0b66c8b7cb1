"""Byte ranges (RFC 9110 14): reading `Range`, and what of a body it asks for.

Theory of operation. A `Range` with anything wrong in it, or in another unit, is as if it were not
there. Many small or overlapping ranges are an old way to make a server send or copy far more than
it holds (RFC 9110 17.15): ranges that overlap, or lie closer together than the frame of a part is
long, are joined; one that still asks for more parts than `PARTS_MAX` gets the whole body.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PARTS_MAX", "SPECS_MAX", "Spec", "parse_range", "slices_of"]

Spec = tuple[int | None, int | None]
"""First and last byte. Without a last: to the end. Without a first: that many of the end."""

SPECS_MAX: Final = 64
PARTS_MAX: Final = 16
_GAP_BYTES: Final = 80
"""What the frame of a part costs: to send what lies between is cheaper (RFC 9110 15.3.7.2)."""

_DIGITS_MAX: Final = 18
_UNIT: Final = re.compile(rb"bytes[ \t]*=", re.IGNORECASE)
_SPEC: Final = re.compile(rb"([0-9]*)-([0-9]*)")


def parse_range(value: bytes) -> tuple[Spec, ...] | None:
    """The ranges that are asked for, at least one; None if the field is not to be followed."""
    unit = _UNIT.match(value)
    if unit is None or value.count(b",") >= 2 * SPECS_MAX:
        return None
    specs: list[Spec] = []
    for member in value[unit.end() :].split(b","):
        text = member.strip(b" \t")
        if not text:
            continue
        found = _SPEC.fullmatch(text)
        if found is None:
            return None
        first, last = _number(found[1]), _number(found[2])
        if first is None:
            if last is None:
                return None
        elif last is not None and last < first:
            return None
        specs.append((first, last))
    if not specs or len(specs) > SPECS_MAX:
        return None
    return tuple(specs)


def slices_of(specs: tuple[Spec, ...], length: int) -> tuple[tuple[int, int], ...] | None:
    """`(start, end)` of a body of `length` bytes, end excluded; empty if none can be satisfied
    (416); None if the whole is to be sent instead.
    """
    found: list[tuple[int, int]] = []
    for first, last in specs:
        if first is None:
            if last:
                if not length:
                    return None
                found.append((max(length - last, 0), length))
        elif first < length:
            found.append((first, length if last is None else min(last + 1, length)))
    if len(found) > 1:
        found = _joined(found)
        if len(found) > PARTS_MAX:
            return None
    return tuple(found)


def _joined(slices: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In the order asked for, unless some touch (RFC 9110 15.3.7.2)."""
    ordered = sorted(slices)
    joined = [ordered[0]]
    for start, end in ordered[1:]:
        before_start, before_end = joined[-1]
        if start <= before_end + _GAP_BYTES:
            joined[-1] = (before_start, max(before_end, end))
        else:
            joined.append((start, end))
    return slices if len(joined) == len(slices) else joined


def _number(digits: bytes) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= _DIGITS_MAX else 10**_DIGITS_MAX
