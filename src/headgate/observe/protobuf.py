"""As much of the protobuf wire format as OTLP needs: fields written, fields read.

Reading is strict and bounded by the message itself: a length that leads out of it, a varint that
does not end, a group, a field number of zero are all `BadProtobuf`. Unknown fields are handed to
the caller, who passes over them: that is how newer senders are understood. `shaped` reads a whole
message by a table, into the form that it has as JSON, so that both forms are understood by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = [
    "BadProtobuf",
    "Shape",
    "bytes_field",
    "double_field",
    "double_of",
    "fields",
    "fixed32_field",
    "fixed64_field",
    "int_field",
    "shaped",
    "signed",
    "varint",
]

Shape = Mapping[int, tuple[str, Any]]
"""Number of a field: its name in JSON and its kind. That is one of text, hex, flag, signed, double,
fixed and sfixed, or the shape of a message; a list of one such is a field that comes many times."""

VARINT: Final = 0
EIGHT_BYTES: Final = 1
LENGTH: Final = 2
FOUR_BYTES: Final = 5

_F64: Final = struct.Struct("<Q")
_F32: Final = struct.Struct("<I")
_DOUBLE: Final = struct.Struct("<d")
_SFIXED: Final = struct.Struct("<q")
_EIGHT: Final = {"double": _DOUBLE, "fixed": _F64, "sfixed": _SFIXED}
_SMALL: Final = tuple(bytes((number,)) for number in range(0x80))


class BadProtobuf(ValueError):
    """These bytes are no message."""


def varint(number: int) -> bytes:
    if number < 0x80:
        return _SMALL[number]
    out = bytearray()
    while number >= 0x80:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def bytes_field(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def int_field(field: int, value: int) -> bytes:
    """int32, int64, bool, enum: negative ones take ten bytes."""
    return varint(field << 3) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def fixed64_field(field: int, value: int) -> bytes:
    return varint(field << 3 | 1) + _F64.pack(value)


def fixed32_field(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + _F32.pack(value)


def double_field(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + _DOUBLE.pack(value)


def double_of(bits: int) -> float:
    """The double whose bits a field of 8 bytes held."""
    found: float = _DOUBLE.unpack(_F64.pack(bits))[0]
    return found


def signed(number: int) -> int:
    """An int64 that was read as a varint."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise BadProtobuf("a number does not end")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of each field: a view of bytes, or the bits of a number."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise BadProtobuf("a field has no number")
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield number, kind, value
        elif kind == LENGTH:
            size, at = _read_varint(data, at)
            if size > end - at:
                raise BadProtobuf("a field is longer than the message")
            yield number, kind, data[at : at + size]
            at += size
        elif kind in {EIGHT_BYTES, FOUR_BYTES}:
            size = 8 if kind == EIGHT_BYTES else 4
            if size > end - at:
                raise BadProtobuf("a field is longer than the message")
            yield number, kind, int.from_bytes(data[at : at + size], "little")
            at += size
        else:
            raise BadProtobuf("a field is of no kind that is in use")


def shaped(data: memoryview, shape: Shape, deepest: int = 30) -> dict[str, Any]:
    """The fields that the shape knows, by name. Raises BadProtobuf, also for one of another form
    than it should have.
    """
    if deepest <= 0:
        raise BadProtobuf("it is too deep")
    found: dict[str, Any] = {}
    for number, wire, value in fields(data):
        known = shape.get(number)
        if known is None:
            continue
        name, kind = known
        if not isinstance(kind, list):
            found[name] = _meant(kind, wire, value, deepest)
            continue
        many = found.setdefault(name, [])
        of = kind[0]
        packed = _EIGHT.get(of) if isinstance(of, str) and isinstance(value, memoryview) else None
        if packed is None:
            many.append(_meant(of, wire, value, deepest))
        elif len(value) % 8:  # type: ignore[arg-type]  # it is packed only where it is a view
            raise BadProtobuf("packed numbers are cut short")
        else:
            many += [one for (one,) in packed.iter_unpack(value)]  # type: ignore[arg-type]
    return found


def _meant(kind: Any, wire: int, value: int | memoryview, deepest: int) -> Any:
    if isinstance(value, memoryview):
        if isinstance(kind, str):
            if kind == "text":
                return bytes(value).decode(errors="replace")
            if kind == "hex":
                return value.hex()
        else:
            return shaped(value, kind, deepest - 1)
    elif wire == VARINT:
        if kind == "signed":
            return signed(value)
        if kind == "flag":
            return bool(value)
    elif wire == EIGHT_BYTES and isinstance(kind, str) and (form := _EIGHT.get(kind)) is not None:
        return form.unpack(_F64.pack(value))[0]
    raise BadProtobuf("a field has another form than it should have")
