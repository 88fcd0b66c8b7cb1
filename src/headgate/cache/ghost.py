"""What the hit ratio would be with more memory or less: small copies of the shelf, without values.

Theory of operation. A few shelves hold keys and sizes only, each for another size of the real one,
and decide by the same rules. Only a sample of the keys passes through them, chosen by the hash of
the key, so that all uses of a key are seen or none (Waldspurger and others, 2015 and 2017), and the
shelves are scaled down by the same rate. A cache of ten thousand items is judged within a few
points, a small one more roughly. A few hot keys, in the sample by chance or not, would shift the
ratio; the surplus of uses over what the sample should have had is taken for hits, a lack of them is
added.

Whoever owns the ghost asks `is_sampled` once for a key, when its value comes in, and tells of the
uses of those only: a key that is not sampled costs a hit nothing. A use is a line in `notes`, which
any thread may add; they are read, in their order, before anything else is done or said.

All counts are halved from time to time: the curve is of today.

Bound: `SAMPLE_MOST` keys in the largest shelf; a key is kept as its hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headgate.cache.eviction import Shelf

__all__ = ["NOTES_MOST", "SCALES", "Ghost", "Note", "Point"]

Note = tuple[str, int]
"""The short name of a sampled key that was asked for, and its size; -1 if it was not there."""

SCALES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
SAMPLE_MOST: Final = 2000
"""Keys in the ghost of four times the size."""
_RATE_LEAST: Final = 16
"""No more than one key in sixteen: a use that is sampled costs three times one that is not, and ten
times if a smaller shelf would have missed it."""
_PLACES_ENOUGH: Final = 32
"""At the real size. A cache of so many times thirty-two has every second of these keys sampled."""
NOTES_MOST: Final = 32
"""So many are read at once. Whoever adds more has them read (`read_notes`)."""
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
    __slots__ = (
        "_at",
        "_bytes",
        "_items",
        "_lookups",
        "_seen",
        "_shelves",
        "expected",
        "mask",
        "notes",
    )

    def __init__(self, items: int, bytes_: int) -> None:
        self._at = 0
        self.notes: list[Note] = []
        self.scale_to(items, bytes_, items)

    def scale_to(self, items: int, bytes_: int, expected: int) -> None:
        """Begin anew, for a cache with these bounds that holds about so many items."""
        self._items, self._bytes = items, bytes_
        self.expected = expected
        rate = _RATE_LEAST
        if expected >= 2 * rate * _PLACES_ENOUGH:
            rate *= 2
        while expected * SCALES[-1] / rate > SAMPLE_MOST:
            rate *= 2
        self.mask = rate - 1
        """Read where it is hot, as in `is_sampled`."""
        self._shelves: tuple[Shelf[bool], ...] = tuple(
            Shelf(
                max(1, round(items * scale / rate)),
                max(1, round(bytes_ * scale / rate)),
                largest_share=1.0,
            )
            for scale in SCALES
        )
        self._lookups = self._seen = 0.0
        self.notes.clear()

    @property
    def rate(self) -> int:
        """One key in so many is sampled."""
        return self.mask + 1

    def is_sampled(self, key: str) -> bool:
        # Other bits of the hash than those by which a dictionary or the sketch seats a key.
        return not hash(key) >> 40 & self.mask

    @staticmethod
    def note(key: str, size: int) -> Note:
        """What is to be added to `notes` at each use of this key, which is sampled."""
        return format(hash(key), "x"), size

    def used(self, key: str, size: int) -> None:
        """A sampled key was asked for, and was there."""
        self.notes.append(self.note(key, size))
        self.read_notes()

    def missed(self, key: str) -> None:
        """A sampled key was asked for, and was not there; `came` follows if it is loaded."""
        self.notes.append(self.note(key, -1))
        self.read_notes()

    def read_notes(self) -> None:
        """To be called by one thread at a time, as all else here."""
        many = len(self.notes)
        read = self.notes[:many]
        del self.notes[:many]  # and not those that came meanwhile
        self._seen += many
        for shelf in self._shelves:
            find, hits = shelf.find_node, 0
            for name, size in read:
                node = find(name)
                if node is not None:
                    node.uses += 1
                    hits += 1
                elif size >= 0:
                    shelf.put(name, True, size)
            shelf.hits += hits
            shelf.misses += many - hits

    def came(self, key: str, size: int) -> None:
        """A sampled key was put."""
        if self.notes:
            self.read_notes()
        name, _ = self.note(key, size)
        for shelf in self._shelves:
            if name not in shelf:
                shelf.put(name, True, size)
            elif shelf.size_of(name) != size:
                shelf.resized(name, size)

    def went(self, key: str) -> None:
        """A sampled key is no longer good: removed or over, not evicted."""
        if self.notes:
            self.read_notes()
        name, _ = self.note(key, -1)
        for shelf in self._shelves:
            shelf.pop(name)

    def heard(self, lookups: int) -> None:
        """How often the cache was asked so far, for any key."""
        if self.notes:
            self.read_notes()
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
        if self.notes:
            self.read_notes()
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
