"""A matrix of samples (a row a series, a column a moment) in few bytes, and back.

Theory of operation
-------------------
Samples of one series are near each other. A row whose values are decimals with few places is
written as whole numbers (value x 10^k, where that gives the very same value back), each as the
difference from the one before; any other row as the bits that differ from the one before. Either
way most high bytes are zero. The bytes are laid out by significance, all first bytes, all second
bytes and so on, and zstd makes nearly nothing of planes of zeros.

A sample that is absent is NaN here. What is filled in for it costs nothing; which ones they are is
a bit a sample, kept only where there are any.

What an editor must not break: `decode(encode(x))` is `x` to the last bit.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from backports import zstd
from numpy.typing import NDArray

__all__ = ["Spoilt", "decode", "encode", "nine_digits"]

Floats = NDArray[np.float64]

_LEVEL: Final = 3
_HEAD: Final = struct.Struct("<HHB")
_PLACES: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
_RAW: Final = 255
_MAX_WHOLE: Final = float(2**53)
_HAS_ABSENT: Final = 1
_MAX_ROWS: Final = 65535
_MAX_BYTES: Final = 256_000_000


class Spoilt(Exception):
    """These bytes are not what was written."""


def nine_digits(values: Floats) -> Floats:
    """Round as the exposition shows numbers: nine digits; whole numbers stay whole."""
    is_whole = values == np.floor(values)
    if (is_whole | np.isnan(values)).all():
        return values
    with np.errstate(all="ignore"):
        places = 8 - np.floor(np.log10(np.abs(values)))
        places = np.where(np.isfinite(places), np.clip(places, -300, 300), 0)
        up = np.power(10.0, np.clip(places, 0, 300))
        rounded = np.round(values * up) / up
    return np.where(is_whole | ~np.isfinite(rounded) | (places <= 0), values, rounded)


def encode(matrix: Floats) -> bytes:
    """`matrix` (rows, columns) as bytes."""
    rows, columns = matrix.shape
    absent = np.isnan(matrix)
    flags = 0
    parts = []
    if absent.any():
        flags |= _HAS_ABSENT
        parts.append(np.packbits(absent).tobytes())
        matrix = _filled(matrix, absent)
    places, whole = _whole(matrix)
    differs = np.empty((rows, columns), dtype=np.uint64)
    is_raw = places == _RAW
    if not is_raw.all():
        numbers = whole[~is_raw].astype(np.int64)
        numbers[:, 1:] -= numbers[:, :-1].copy()
        differs[~is_raw] = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    if is_raw.any():
        bits = np.ascontiguousarray(matrix[is_raw]).view(np.uint64)
        bits = bits.copy()
        bits[:, 1:] ^= bits[:, :-1].copy()
        differs[is_raw] = bits
    planes = differs.view(np.uint8).reshape(rows, columns, 8).transpose(2, 0, 1)
    parts = [places.astype(np.uint8).tobytes(), *parts, np.ascontiguousarray(planes).tobytes()]
    return _HEAD.pack(rows, columns, flags) + zstd.compress(b"".join(parts), _LEVEL)


def decode(data: bytes | memoryview) -> Floats:
    """The matrix again. Raises `Spoilt`."""
    try:
        rows, columns, flags = _HEAD.unpack_from(data)
        size = rows * columns
        absent_bytes = (size + 7) // 8 if flags & _HAS_ABSENT else 0
        expected = rows + absent_bytes + size * 8
        if expected > _MAX_BYTES:
            raise Spoilt("it claims to be huge")
        reader = zstd.ZstdDecompressor()
        raw = reader.decompress(bytes(data[_HEAD.size :]), max_length=expected + 1)
    except (struct.error, zstd.ZstdError, EOFError, MemoryError) as error:
        raise Spoilt(str(error)) from error
    if len(raw) != expected:
        raise Spoilt("it has another length than it says")
    places = np.frombuffer(raw, np.uint8, rows)
    planes = np.frombuffer(raw, np.uint8, size * 8, rows + absent_bytes)
    differs = (
        np.ascontiguousarray(planes.reshape(8, rows, columns).transpose(1, 2, 0))
        .view(np.uint64)
        .reshape(rows, columns)
    )
    found = np.empty((rows, columns))
    is_raw = places == _RAW
    if not is_raw.all():
        zigzag = differs[~is_raw]
        numbers = (zigzag >> np.uint64(1)).view(np.int64) ^ -(zigzag & np.uint64(1)).view(np.int64)
        whole = np.cumsum(numbers, axis=1)
        found[~is_raw] = whole / np.power(10.0, places[~is_raw])[:, None]
    if is_raw.any():
        bits = np.bitwise_xor.accumulate(differs[is_raw], axis=1)
        found[is_raw] = bits.view(np.float64)
    if absent_bytes:
        packed = np.frombuffer(raw, np.uint8, absent_bytes, rows)
        found[np.unpackbits(packed, count=size).reshape(rows, columns).astype(bool)] = np.nan
    return found


def _filled(matrix: Floats, absent: NDArray[np.bool_]) -> Floats:
    """Absent places with the value before them, or, at the beginning, the first there is."""
    columns = np.arange(matrix.shape[1])
    first = np.argmin(absent, axis=1)
    last = np.maximum.accumulate(np.where(absent, -1, columns), axis=1)
    last = np.where(last < 0, first[:, None], last)
    filled = np.take_along_axis(matrix, last, axis=1)
    return np.where(np.isnan(filled), 0.0, filled)


def _whole(matrix: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """With how many places each row is whole numbers, and those numbers."""
    rows = len(matrix)
    places = np.full(rows, _RAW, dtype=np.uint8)
    whole = np.zeros_like(matrix)
    left = np.arange(rows)
    # minus zero would come back as zero
    left = left[~((matrix == 0) & np.signbit(matrix)).any(axis=1)]
    for place in _PLACES:
        if not len(left):
            break
        factor = 10.0**place
        values = matrix[left]
        with np.errstate(all="ignore"):
            numbers = np.round(values * factor)
            is_so = (np.abs(numbers) < _MAX_WHOLE) & (numbers / factor == values)
        fits = is_so.all(axis=1)
        places[left[fits]] = place
        whole[left[fits]] = numbers[fits]
        left = left[~fits]
    return places, whole
