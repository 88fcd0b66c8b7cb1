"""Heads already judged, by their bytes.

A client on a kept connection sends nearly the same head again and again, and so does an
instance. Looking a head up by its bytes costs a hash; judging, routing and rendering it costs
twenty times that. The cache holds two generations: new entries go to the young one; when it is
full it becomes the old one, and what is still used moves back on its next hit. That is a bound
in entries and in bytes with no bookkeeping per hit, and a flood of unique heads can push out at
most what has not been used since the last turn-over.

Most heads that are not found are never seen again (a browser's differ by path, cookie or trace),
and to keep those costs more than the room: what is made for them is not freed at once, so the
next request works in memory that no processor cache holds. So a head is kept when it comes for the
second time, which `Sightings` tells.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_ENTRIES: Final = 1024
_BYTES: Final = 1024 * 1024
_ENTRY_BYTES: Final = 4096
_PLACES: Final = 8192


class Sightings:
    """Whether something has come before: a byte of its hash in one of 8,192 places.

    What comes later takes the place, so the answer is wrong at times: once in 256 that something
    new was seen, or after thousands of others that something seen is new. Hashes of bytes differ
    from process to process, so nobody outside can aim at a place.
    """

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks = bytearray(_PLACES)

    def again(self, value: Hashable) -> bool:
        """Whether this was seen before, and note that it has been now."""
        found = hash(value)
        at = found & (_PLACES - 1)
        mark = (found >> 13) & 0xFF
        if self._marks[at] == mark:
            return True
        self._marks[at] = mark
        return False


class Kept(Generic[K, T]):
    """What was found out about keys that come again; emptied when it is full.

    For what is cheap to find out once more. `found` is asked directly, and stays the same dict.
    """

    __slots__ = ("_bytes", "_bytes_max", "_entries_max", "_key_bytes", "_seen", "found")

    def __init__(self, entries: int, key_bytes: int, bytes_max: int = _BYTES) -> None:
        self._entries_max = entries
        self._key_bytes = key_bytes
        self._bytes_max = bytes_max
        self._bytes = 0
        self._seen = Sightings()
        self.found: Final[dict[K, T]] = {}

    def put(self, key: K, size: int, value: T) -> None:
        """Keep `value` if its key, `size` bytes long, does not come for the first time."""
        if size > self._key_bytes or not self._seen.again(key):
            return
        if len(self.found) >= self._entries_max or self._bytes + size > self._bytes_max:
            self.found.clear()
            self._bytes = 0
        self.found[key] = value
        self._bytes += size


class HeadCache(Generic[T]):
    __slots__ = ("_bytes", "_entries_max", "_old", "_seen", "young")

    def __init__(self, entries: int = _ENTRIES) -> None:
        self._entries_max = entries
        self._bytes = 0
        self._seen = Sightings()
        self.young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}

    def get(self, block: bytes) -> T | None:
        """What is known by these bytes. A loop may ask `young` itself first and spare the call."""
        found = self.young.get(block)
        if found is None and self._old:
            found = self._old.pop(block, None)
            if found is not None:
                self._keep(block, found)
        return found

    def put(self, block: bytes, value: T) -> None:
        """Keep what was made of these bytes, if it is not for the first time."""
        if self._seen.again(block) and len(block) <= _ENTRY_BYTES:
            self._keep(block, value)

    def _keep(self, block: bytes, value: T) -> None:
        if len(self.young) >= self._entries_max or self._bytes + len(block) > _BYTES:
            self._old = self.young
            self.young = {}
            self._bytes = 0
        self.young[block] = value
        self._bytes += len(block)

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
