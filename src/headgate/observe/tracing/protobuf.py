"""As much of the protobuf wire format as OTLP needs: fields written, fields read.

Reading is strict and bounded by the message itself: a length that leads out of it, a varint that
does not end, a group, a field number of zero are all `BadProtobuf`. Unknown fields are handed to
the caller, who passes over them: that is how newer senders are understood.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["BadProtobuf", "bytes_field", "double_field", "fields", "fixed64_field", "int_field"]

_F64: Final = struct.Struct("<Q")
_F32: Final = struct.Struct("<I")
_DOUBLE: Final = struct.Struct("<d")


class BadProtobuf(ValueError):
    """These bytes are no message."""


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def bytes_field(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def int_field(field: int, value: int) -> bytes:
    """int32, int64, bool, enum: negative ones take ten bytes."""
    return _varint(field << 3) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def fixed64_field(field: int, value: int) -> bytes:
    return _varint(field << 3 | 1) + _F64.pack(value)


def fixed32_field(field: int, value: int) -> bytes:
    return _varint(field << 3 | 5) + _F32.pack(value)


def double_field(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + _DOUBLE.pack(value)


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


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: a view of bytes, or the bits of a number."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise BadProtobuf("a field has no number")
        if kind == 0:
            value, at = _read_varint(data, at)
            yield number, value
        elif kind == 2:
            size, at = _read_varint(data, at)
            if size > end - at:
                raise BadProtobuf("a field is longer than the message")
            yield number, data[at : at + size]
            at += size
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
            if size > end - at:
                raise BadProtobuf("a field is longer than the message")
            yield number, int.from_bytes(data[at : at + size], "little")
            at += size
        else:
            raise BadProtobuf("a field is of no kind that is in use")
