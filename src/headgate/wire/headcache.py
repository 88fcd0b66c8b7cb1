"""Heads already judged, by their bytes.

A client on a kept connection sends nearly the same head again and again, and so does an
instance. Looking a head up by its bytes costs a hash; judging, routing and rendering it costs
twenty times that. The cache holds two generations: new entries go to the young one; when it is
full it becomes the old one, and what is still used moves back on its next hit. That is a bound
in entries and in bytes with no bookkeeping per hit, and a flood of unique heads can push out at
most what has not been used since the last turn-over.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

T = TypeVar("T")

_ENTRIES: Final = 1024
_BYTES: Final = 1024 * 1024
_ENTRY_BYTES: Final = 4096


class HeadCache(Generic[T]):
    __slots__ = ("_bytes", "_entries_max", "_old", "young")

    def __init__(self, entries: int = _ENTRIES) -> None:
        self._entries_max = entries
        self._bytes = 0
        self.young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}

    def get(self, block: bytes) -> T | None:
        """What is known by these bytes. A loop may ask `young` itself first and spare the call."""
        found = self.young.get(block)
        if found is None and self._old:
            found = self._old.pop(block, None)
            if found is not None:
                self.put(block, found)
        return found

    def put(self, block: bytes, value: T) -> None:
        if len(block) > _ENTRY_BYTES:
            return
        if len(self.young) >= self._entries_max or self._bytes + len(block) > _BYTES:
            self._old = self.young
            self.young = {}
            self._bytes = 0
        self.young[block] = value
        self._bytes += len(block)

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
