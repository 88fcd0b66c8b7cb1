"""What waits for Redis to come back: writes, the newest of each key, and invalidations.

Theory of operation. Writes are bounded by number and bytes; the oldest goes when there are too
many, since a cache may forget. Invalidations may not be forgotten: too many become one of
everything. They are told first. A write is judged again when its turn has come.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from headgate.cache.invalidation import Invalidation

__all__ = ["Pending", "Write"]

WRITES_MAX: Final = 10_000
BYTES_MAX: Final = 16 * 1024 * 1024
INVALIDATIONS_MAX: Final = 1000


class Write:
    __slots__ = ("data", "ends", "fence", "stamp", "tags")

    def __init__(
        self, data: bytes, stamp: int, tags: tuple[str, ...], ends: float, fence: str = ""
    ) -> None:
        self.data = data
        self.fence = fence
        self.stamp = stamp
        self.tags = tags
        self.ends = ends
        """Wall clock; infinite for no end."""


class Pending:
    def __init__(
        self,
        writes_max: int = WRITES_MAX,
        bytes_max: int = BYTES_MAX,
        invalidations_max: int = INVALIDATIONS_MAX,
    ) -> None:
        self._writes: dict[str, Write] = {}
        self._bytes = 0
        self._writes_max = writes_max
        self._bytes_max = bytes_max
        self._invalidations: deque[Invalidation] = deque()
        self._invalidations_max = invalidations_max
        self.dropped = 0
        """Writes for which there was no room."""

    def __len__(self) -> int:
        return len(self._writes) + len(self._invalidations)

    @property
    def bytes(self) -> int:
        return self._bytes

    def write(self, key: str, write: Write) -> None:
        before = self._writes.get(key)
        if before is not None:
            if before.stamp > write.stamp:
                return  # it knows of something that this one does not
            self._drop(key)
        self._writes[key] = write
        self._bytes += len(write.data)
        while self._writes and (
            len(self._writes) > self._writes_max or self._bytes > self._bytes_max
        ):
            self._drop(next(iter(self._writes)))
            self.dropped += 1

    def forget(self, key: str) -> None:
        """Something newer was written past the queue."""
        if key in self._writes:
            self._drop(key)

    def _drop(self, key: str) -> None:
        self._bytes -= len(self._writes.pop(key).data)

    @property
    def is_to_tell(self) -> bool:
        return bool(self._invalidations)

    def invalidate(self, invalidation: Invalidation) -> None:
        waiting = self._invalidations
        waiting.append(invalidation)
        if len(waiting) > self._invalidations_max:
            last = max(waiting, key=lambda one: one.stamp)
            waiting.clear()
            waiting.append(Invalidation(everything="all", stamp=last.stamp, by="too many to tell"))

    def some_invalidations(self, most: int) -> list[Invalidation]:
        """The oldest ones, which stay until they are told."""
        return [one for one, _ in zip(self._invalidations, range(most), strict=False)]

    def told(self, invalidation: Invalidation) -> None:
        """It has been said; it may have become part of a larger one meanwhile."""
        if self._invalidations and self._invalidations[0] is invalidation:
            self._invalidations.popleft()

    def some_writes(self, most: int) -> dict[str, Write]:
        """Take out the oldest ones."""
        keys = [key for key, _ in zip(self._writes, range(most), strict=False)]
        found = {key: self._writes[key] for key in keys}
        for key in keys:
            self._drop(key)
        return found

    def put_back(self, key: str, write: Write) -> None:
        """It was not written after all; what came meanwhile is newer."""
        if key not in self._writes:
            self.write(key, write)
