"""The log of the block that is open: what was not yet sealed when the process was killed.

    length (4), checksum (4), kind (1), payload

`S` adds series to the rows; `V` is one moment: its time and the bits by which its values differ
from the moment before; `Z` names rows that were 0 in the newest moment, as was learned later. A
record that is torn ends the log; what stands before it holds.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Final

import msgpack  # type: ignore[import-untyped]  # it has no types
import numpy as np
from backports import zstd

from headgate.observe.history.codec import Floats
from headgate.observe.history.series import Key

__all__ = ["OpenLog", "replay"]

_FRONT: Final = struct.Struct("<IIc")
_TIME: Final = struct.Struct("<d")
_MAX_RECORD: Final = 100_000_000
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    IndexError,
    zstd.ZstdError,
    struct.error,
    msgpack.UnpackException,
)


class OpenLog:
    """Appends. Any OSError is for the owner to act upon."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._before = np.empty(0, dtype=np.uint64)

    def begin(self) -> None:
        """A fresh log for a fresh block."""
        self.close()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._before = np.empty(0, dtype=np.uint64)

    def series(self, keys: list[Key], is_counter: list[bool]) -> None:
        self._write(b"S", zstd.compress(msgpack.packb([keys, is_counter]), 1))

    def moment(self, at: float, values: Floats) -> None:
        bits = values.view(np.uint64)
        before = self._before
        differs = bits.copy()
        differs[: len(before)] ^= before[: len(bits)]
        planes = np.ascontiguousarray(differs.view(np.uint8).reshape(-1, 8).T)
        self._write(b"V", _TIME.pack(at) + zstd.compress(planes.tobytes(), 1))
        self._before = bits.copy()

    def zeros(self, rows: list[int]) -> None:
        self._write(b"Z", msgpack.packb(rows))

    def _write(self, kind: bytes, payload: bytes) -> None:
        if self._file is None:
            self.begin()
        if self._file is not None:
            record = _FRONT.pack(len(payload), zlib.crc32(payload), kind) + payload
            if self._file.write(record) != len(record):
                raise OSError(28, "the disk is full")

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def replay(path: Path) -> tuple[list[Key], list[bool], list[tuple[float, Floats]]]:
    """What a log holds, as far as it is whole."""
    keys: list[Key] = []
    kinds: list[bool] = []
    moments: list[tuple[float, Floats]] = []
    try:
        data = path.read_bytes()
    except OSError:
        return keys, kinds, moments
    before = np.empty(0, dtype=np.uint64)
    at = 0
    while at + _FRONT.size <= len(data):
        length, checksum, kind = _FRONT.unpack_from(data, at)
        payload = data[at + _FRONT.size : at + _FRONT.size + length]
        if len(payload) != length or length > _MAX_RECORD or zlib.crc32(payload) != checksum:
            break
        at += _FRONT.size + length
        try:
            if kind == b"S":
                rows, more = msgpack.unpackb(zstd.decompress(payload))
                keys += [tuple((name, value) for name, value in row) for row in rows]
                kinds += more
            elif kind == b"V":
                planes = np.frombuffer(zstd.decompress(payload[_TIME.size :]), np.uint8)
                bits = np.ascontiguousarray(planes.reshape(8, -1).T).view(np.uint64).ravel()
                bits = bits.copy()
                bits[: len(before)] ^= before[: len(bits)]
                before = bits
                if len(bits) <= len(keys):
                    moments.append((_TIME.unpack_from(payload)[0], bits.view(np.float64)))
            elif kind == b"Z" and moments:
                when, values = moments[-1]
                wide = np.full(len(keys), np.nan)
                wide[: len(values)] = values
                wide[np.asarray(msgpack.unpackb(payload), dtype=np.intp)] = 0.0
                moments[-1] = (when, wide)
        except _UNREADABLE:
            break
    return keys, kinds, moments
