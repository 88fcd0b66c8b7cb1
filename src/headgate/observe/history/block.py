"""A sealed block: the samples of one tier over a stretch of time, in one file.

    "HGB1", length of head (4), checksum of head (4), head (msgpack), chunks

The head names the set of series, the time of each column, and for each field (`last`; of gauges in
the rolled-up tiers also `count`, `sum`, `min`, `max`) where its chunks are: at most `CHUNK` rows
each, each with a checksum, so that few series over a long time cost little to read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # it has no types
import numpy as np
from numpy.typing import NDArray

from headgate.observe.history.codec import Floats, Spoilt, decode, encode

__all__ = ["CHUNK", "Block", "read_head", "to_bytes"]

CHUNK: Final = 256
_MAGIC: Final = b"HGB1"
_FRONT: Final = struct.Struct("<4sII")
_MAX_HEAD: Final = 16_000_000


@dataclass(slots=True, eq=False)
class Block:
    """A block by its head. Its chunks are in `data` until they are in `path`."""

    tier: int
    sequence: int
    series: str
    """The digest of its set."""
    times: Floats
    fields: Mapping[str, Sequence[tuple[int, int, int]]]
    """By name: offset, length and checksum of each chunk."""
    rows: Mapping[str, NDArray[np.int64] | None]
    """Which rows of the set a field has; None: all."""
    size: int
    start_of_chunks: int
    path: Path | None = None
    data: bytes | None = None

    @property
    def start(self) -> float:
        return float(self.times.min())

    @property
    def end(self) -> float:
        return float(self.times.max())

    def read(self, field: str, rows: Sequence[int]) -> Floats:
        """These rows of a field; NaN where the field has none. Raises `Spoilt`, OSError."""
        found = np.full((len(rows), len(self.times)), np.nan)
        chunks = self.fields.get(field)
        if chunks is None:
            return found
        places = np.asarray(rows, dtype=np.int64)
        held = self.rows.get(field)
        there = np.ones(len(places), dtype=bool)
        if held is not None:
            if not len(held):
                return found
            at = np.minimum(np.searchsorted(held, places), len(held) - 1)
            there = held[at] == places
            places = at
        for number in np.unique(places[there] // CHUNK):
            if number >= len(chunks):
                raise Spoilt("a chunk is missing")
            matrix = decode(self._bytes_of(*chunks[int(number)]))
            mine = there & (places // CHUNK == number)
            inside = places[mine] - number * CHUNK
            if matrix.shape[1] != len(self.times) or inside.max() >= len(matrix):
                raise Spoilt("a chunk has another shape")
            found[mine] = matrix[inside]
        return found

    def _bytes_of(self, offset: int, length: int, checksum: int) -> bytes:
        offset += self.start_of_chunks
        if self.data is not None:
            data = self.data[offset : offset + length]
        else:
            if self.path is None:
                raise Spoilt("it is nowhere")
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        if zlib.crc32(data) != checksum or len(data) != length:
            raise Spoilt("a checksum is another")
        return data


def to_bytes(
    tier: int,
    sequence: int,
    series: str,
    times: Floats,
    fields: Mapping[str, tuple[Floats, NDArray[np.int64] | None]],
) -> bytes:
    """A block as the bytes of its file. A field is a matrix, and the rows it has."""
    chunks: list[bytes] = []
    places: dict[str, Any] = {}
    offset = 0
    for name, (matrix, rows) in fields.items():
        spans = []
        for first in range(0, len(matrix), CHUNK):
            data = encode(matrix[first : first + CHUNK])
            spans.append((offset, len(data), zlib.crc32(data)))
            offset += len(data)
            chunks.append(data)
        held = None if rows is None else zlib.compress(np.diff(rows, prepend=0).tobytes(), 1)
        places[name] = [spans, held]
    head = msgpack.packb([tier, sequence, series, times.tobytes(), places])
    return b"".join([_FRONT.pack(_MAGIC, len(head), zlib.crc32(head)), head, *chunks])


def read_head(data: bytes, size: int) -> Block:
    """The head of a block that begins with `data` and is `size` long. Raises `Spoilt`."""
    try:
        magic, length, checksum = _FRONT.unpack_from(data)
        head = data[_FRONT.size : _FRONT.size + length]
        if magic != _MAGIC or length > _MAX_HEAD or zlib.crc32(head) != checksum:
            raise Spoilt("it does not begin as a block")
        tier, sequence, series, times, places = msgpack.unpackb(head)
        fields = {name: [tuple(span) for span in spans] for name, (spans, _) in places.items()}
        rows = {
            name: None
            if held is None
            else np.cumsum(np.frombuffer(zlib.decompress(held), dtype=np.int64))
            for name, (_, held) in places.items()
        }
        ends = [offset + length for spans in fields.values() for offset, length, _ in spans]
        start = _FRONT.size + len(head)
        if size < start + max(ends, default=0):
            raise Spoilt("it is cut short")
        made = Block(tier, sequence, series, np.frombuffer(times), fields, rows, size, start)
    except (
        struct.error, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
        zlib.error, msgpack.UnpackException,
    ) as error:  # fmt: skip
        raise Spoilt(str(error)) from error
    if not len(made.times) or not np.isfinite(made.times).all():
        raise Spoilt("it has no times")
    return made


def head_length(front: bytes) -> int:
    """How many bytes to read for the whole head."""
    if len(front) < _FRONT.size:
        raise Spoilt("it is cut short")
    magic, length, _ = _FRONT.unpack_from(front)
    if magic != _MAGIC or length > _MAX_HEAD:
        raise Spoilt("it does not begin as a block")
    return int(_FRONT.size + length)
