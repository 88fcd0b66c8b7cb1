"""What the hit ratio would be with more memory or less: small copies of the shelf, without values.

Theory of operation. A few shelves hold keys and sizes only, each for another size of the real one,
and decide by the same rules. Only a sample of the keys passes through them, chosen by the hash of
the key, so that all uses of a key are seen or none (Waldspurger and others, 2015 and 2017), and the
shelves are scaled down by the same rate. A cache of ten thousand items is judged within a few
points, a small one more roughly. A few hot keys, in the sample by chance or not, would shift the
ratio; the surplus of uses over what the sample should have had is taken for hits, a lack of them is
added.

Whoever owns the ghost asks `is_sampled` once for a key, when its value comes in, and tells of the
uses of those only: a key that is not sampled costs a hit nothing.

All counts are halved from time to time: the curve is of today.

Bound: `SAMPLE_MOST` keys in the largest shelf; a key is kept as its hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headgate.cache.eviction import Shelf

__all__ = ["SCALES", "Ghost", "Point"]

SCALES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
SAMPLE_MOST: Final = 2000
"""Keys in the ghost of four times the size."""
_RATE_LEAST: Final = 16
"""No more than one key in sixteen: a use that is sampled costs five times one that is not."""
_PLACES_LEAST: Final = 16
"""At the real size; with fewer, nothing is said."""
_SEEN_LEAST: Final = 200
_REQUESTS_KEPT: Final = 40
"""Requests per item, after which counts are halved."""


@dataclass(frozen=True, slots=True)
class Point:
    """One size and the hit ratio there."""

    scale: float
    """Of the size that the cache has."""
    items: int
    bytes: int
    ratio: float


class Ghost:
    __slots__ = ("_at", "_bytes", "_items", "_lookups", "_mask", "_seen", "_shelves", "expected")

    def __init__(self, items: int, bytes_: int) -> None:
        self._at = 0
        self.scale_to(items, bytes_, items)

    def scale_to(self, items: int, bytes_: int, expected: int) -> None:
        """Begin anew, for a cache with these bounds that holds about so many items."""
        self._items, self._bytes = items, bytes_
        self.expected = expected
        rate = _RATE_LEAST
        while expected * SCALES[-1] / rate > SAMPLE_MOST:
            rate *= 2
        self._mask = rate - 1
        self._shelves: tuple[Shelf[bool], ...] = tuple(
            Shelf(
                max(1, round(items * scale / rate)),
                max(1, round(bytes_ * scale / rate)),
                largest_share=1.0,
            )
            for scale in SCALES
        )
        self._lookups = self._seen = 0.0

    @property
    def rate(self) -> int:
        """One key in so many is sampled."""
        return self._mask + 1

    def is_sampled(self, key: str) -> bool:
        # Other bits of the hash than those by which a dictionary or the sketch seats a key.
        return not hash(key) >> 40 & self._mask

    def used(self, key: str, size: int) -> None:
        """A sampled key was asked for, and was there."""
        self._seen += 1
        name = _short(key)
        for shelf in self._shelves:
            if shelf.get(name) is None:
                shelf.put(name, True, size)

    def missed(self, key: str) -> None:
        """A sampled key was asked for, and was not there; `came` follows if it is loaded."""
        self._seen += 1
        name = _short(key)
        for shelf in self._shelves:
            shelf.get(name)

    def came(self, key: str, size: int) -> None:
        """A sampled key was put."""
        name = _short(key)
        for shelf in self._shelves:
            if name not in shelf:
                shelf.put(name, True, size)
            elif shelf.size_of(name) != size:
                shelf.resized(name, size)

    def went(self, key: str) -> None:
        """A sampled key is no longer good: removed or over, not evicted."""
        name = _short(key)
        for shelf in self._shelves:
            shelf.pop(name)

    def heard(self, lookups: int) -> None:
        """How often the cache was asked so far, for any key."""
        self._lookups += lookups - self._at
        self._at = lookups
        if self._lookups > _REQUESTS_KEPT * max(1000, self.expected):
            self._lookups /= 2
            self._seen /= 2
            for shelf in self._shelves:
                shelf.hits //= 2
                shelf.misses //= 2

    def curve(self) -> tuple[Point, ...]:
        """The hit ratio at each size; empty while too little was seen."""
        expected = self._lookups / self.rate
        if min(self._seen, expected) < _SEEN_LEAST or self.expected < _PLACES_LEAST * self.rate:
            return ()
        points: list[Point] = []
        best = 0.0
        for scale, shelf in zip(SCALES, self._shelves, strict=True):
            ratio = (shelf.hits + expected - self._seen) / expected
            # More memory never hits less, but for chance.
            best = max(best, min(1.0, ratio))
            size = round(self._items * scale), round(self._bytes * scale)
            points.append(Point(scale, *size, ratio=best))
        return tuple(points)


def _short(key: str) -> str:
    return format(hash(key), "x")
