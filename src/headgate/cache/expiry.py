"""Which keys are over, without looking at those that are not.

Theory of operation. Keys lie in buckets of one second, and the seconds that have a bucket in a
heap. A key is taken from its bucket when its value goes for another reason, so the wheel never
holds more keys than the cache. Buckets that became empty are forgotten when they are the majority.
A key is due at the end of its second: whoever reads a value compares the exact time himself.
Not locked.
"""

from __future__ import annotations

import heapq
from typing import Final

__all__ = ["NEVER", "Wheel"]

NEVER: Final = float("inf")
_EMPTY_MOST: Final = 64


class Wheel:
    __slots__ = ("_buckets", "_empty", "_seconds", "next_at")

    def __init__(self) -> None:
        self._buckets: dict[int, set[str]] = {}
        self._seconds: list[int] = []
        self._empty = 0
        self.next_at = NEVER
        """Nothing is due before this."""

    def add(self, key: str, until: float) -> None:
        if until == NEVER:
            return
        second = int(until) + 1
        bucket = self._buckets.get(second)
        if bucket:
            bucket.add(key)
        elif bucket is None:
            self._buckets[second] = {key}
            heapq.heappush(self._seconds, second)
            self.next_at = self._seconds[0]
        else:
            self._empty -= 1
            bucket.add(key)

    def remove(self, key: str, until: float) -> None:
        if until == NEVER:
            return
        bucket = self._buckets.get(int(until) + 1)
        if not bucket or key not in bucket:
            return
        bucket.remove(key)
        if not bucket:
            self._empty += 1
            if self._empty > _EMPTY_MOST + len(self._buckets) // 2:
                self._buckets = {at: keys for at, keys in self._buckets.items() if keys}
                self._seconds = sorted(self._buckets)
                self._empty = 0
                self.next_at = self._seconds[0] if self._seconds else NEVER

    def due(self, now: float, most: int) -> list[str]:
        """Up to so many keys whose second is over; they are no longer here."""
        found: list[str] = []
        while self._seconds and self._seconds[0] <= now and len(found) < most:
            bucket = self._buckets[self._seconds[0]]
            if not bucket:
                self._empty -= 1
            while bucket and len(found) < most:
                found.append(bucket.pop())
            if not bucket:
                del self._buckets[heapq.heappop(self._seconds)]
        self.next_at = self._seconds[0] if self._seconds else NEVER
        return found

    def clear(self) -> None:
        self._buckets.clear()
        self._seconds.clear()
        self._empty = 0
        self.next_at = NEVER

    @property
    def keys(self) -> int:
        return sum(map(len, self._buckets.values()))

    @property
    def buckets(self) -> int:
        return len(self._buckets)
