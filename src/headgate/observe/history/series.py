"""Which series there are: the labels of the rows of blocks, and finding rows by matchers.

A set of series is written once, under the digest of what it says, and blocks name that digest. So
blocks that hold the same series, as nearly all do, share one file, and none needs a catalogue that
could be lost. A key is the pairs of a series' labels, its name among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgpack  # type: ignore[import-untyped]  # it has no types
from backports import zstd

from headgate.observe.history.codec import Spoilt
from headgate.observe.query import Matcher

__all__ = ["Key", "SeriesSet", "name_of"]

Key = tuple[tuple[str, str], ...]

_MAX_BYTES: Final = 200_000_000
_INTERNED: dict[Key, Key] = {}
_MAX_INTERNED: Final = 200_000


def name_of(key: Key) -> str:
    return key[0][1]


class SeriesSet:
    """Rows with their labels; `is_counter` says for each whether it only rises."""

    __slots__ = ("_by_name", "_data", "_digest", "is_counter", "keys")

    def __init__(self, keys: Sequence[Key], is_counter: Sequence[bool]) -> None:
        self.keys = tuple(keys)
        self.is_counter = tuple(is_counter)
        self._by_name: dict[str, list[int]] | None = None
        self._digest = ""
        self._data = b""

    @property
    def digest(self) -> str:
        if not self._digest:
            self.to_bytes()
        return self._digest

    def to_bytes(self) -> bytes:
        if not self._data:
            packed = msgpack.packb([list(self.is_counter), self.keys])
            self._digest = hashlib.blake2b(packed, digest_size=12).hexdigest()
            self._data = zstd.compress(packed, 3)
        return self._data

    @classmethod
    def of_bytes(cls, data: bytes, digest: str) -> SeriesSet:
        """Raises `Spoilt`."""
        try:
            packed = zstd.ZstdDecompressor().decompress(data, max_length=_MAX_BYTES)
        except (zstd.ZstdError, EOFError, MemoryError) as error:
            raise Spoilt(str(error)) from error
        if hashlib.blake2b(packed, digest_size=12).hexdigest() != digest:
            raise Spoilt("its checksum is another")
        kinds, rows = msgpack.unpackb(packed)
        keys = []
        for row in rows:
            key = tuple((name, value) for name, value in row)
            if len(_INTERNED) < _MAX_INTERNED:
                key = _INTERNED.setdefault(key, key)
            keys.append(key)
        made = cls(keys, kinds)
        made._digest, made._data = digest, data
        return made

    def find(self, name: str, matchers: Sequence[Matcher]) -> list[int]:
        """Rows that are meant."""
        if self._by_name is None:
            by_name: dict[str, list[int]] = {}
            for row, key in enumerate(self.keys):
                by_name.setdefault(name_of(key), []).append(row)
            self._by_name = by_name
        if name:
            rows = self._by_name.get(name, [])
        else:
            of_name = [one for one in matchers if one.label == "__name__"]
            rows = [
                row
                for said, members in self._by_name.items()
                if all(one.is_met_by(said) for one in of_name)
                for row in members
            ]
        if not matchers:
            return rows
        return [
            row for row in rows if all(matcher.is_met(dict(self.keys[row])) for matcher in matchers)
        ]

    def names(self) -> set[str]:
        return {name_of(key) for key in self.keys}
