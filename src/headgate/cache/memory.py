"""The first layer: decoded values in this process, bounded in number and in bytes.

Theory of operation. What stays is decided in `eviction_rooms`, what a value weighs in `sizes`,
whether callers share it in `copying`. Here is time: an entry is not served past `usable_until`, to
the moment; what is over frees its memory within a second or two of being over, as soon as anything
is asked of the cache, some at a time and without looking at the rest (`expiry`). In a process that
asks nothing it stays, within the bounds, until `sweep` is called.

A size is the estimate, or what the caller says, and `ENTRY_BYTES` for what an entry costs besides.

Threads. `get` of what is here takes no lock. `put`, `delete` and what expires take one, so that the
wheel and the shelf agree; values are copied and weighed before it is taken, and `on_drop` is called
after it is released.

A ghost (`ghost`) sees a sample of the keys and knows what other sizes would hit; with `sizing` the
cache moves its size within bounds accordingly. A hit on a key that is not sampled pays nothing.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from headgate.cache.barriers import compiled
from headgate.cache.copying import SCALARS, Copying, taken_in
from headgate.cache.entry import Entry
from headgate.cache.eviction import Dropped, Shelf
from headgate.cache.expiry import Wheel
from headgate.cache.ghost import NOTES_MOST, Ghost, Note, Point
from headgate.cache.sizes import size_of
from headgate.cache.sizing import Advice, Size, SizingRules, advise, next_size

__all__ = ["BYTES_MAX", "ENTRY_BYTES", "ITEMS_MAX", "Memory", "MemorySnapshot"]

ITEMS_MAX: Final = 10_000
BYTES_MAX: Final = 100 * 1024 * 1024
ENTRY_BYTES: Final = 900
"""What an entry costs without its key and value: seats, times, a bucket of its own. Measured."""

_SWEPT_AT_ONCE: Final = 32
_ADAPT_EVERY: Final = 2000
"""Puts between two looks at the size."""
_getsizeof: Final = sys.getsizeof


class _Held:
    __slots__ = ("copier", "entry", "is_plain", "note", "until")

    def __init__(
        self,
        entry: Entry,
        until: float,
        copier: Callable[[Any], Any] | None,
        note: Note | None,
    ) -> None:
        self.entry = entry
        self.until = until
        self.copier = copier
        self.note = note
        """For the ghost, if it samples this key."""
        self.is_plain = copier is None and note is None
        """Nothing but the time is to be looked at when it is asked for."""


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    items: int
    items_max: int
    bytes: int
    bytes_max: int
    hits: int
    misses: int
    puts: int
    refused: int
    """Values that were too large."""
    evictions: int
    expirations: int
    removals: int
    window_share: float
    copying: Copying
    sampled: int
    """The ghost sees one key in so many; 0 without one."""

    @property
    def hit_ratio(self) -> float:
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0


class Memory:
    def __init__(
        self,
        items_max: int = ITEMS_MAX,
        bytes_max: int = BYTES_MAX,
        *,
        copying: Copying = "copy",
        largest_share: float = 0.25,
        has_ghost: bool = True,
        sizing: SizingRules | None = None,
        on_drop: Callable[[str, Entry, Dropped], None] | None = None,
    ) -> None:
        if copying not in ("copy", "frozen", "shared"):
            raise ValueError(f'copying is {copying!r}; write "copy", "frozen" or "shared"')
        if sizing is not None and not has_ghost:
            raise ValueError("sizing needs the ghost; leave has_ghost out")
        self.copying: Copying = copying
        self.sizing = sizing
        self.on_drop = on_drop
        self.puts = 0
        self.expirations = 0
        self.removals = 0
        self._shelf: Shelf[_Held] = Shelf(
            items_max, bytes_max, self._dropped, largest_share=largest_share
        )
        self._find = self._shelf.find_node
        self._wheel = Wheel()
        self._sweep_at = self._wheel.next_at
        self._lock = threading.RLock()
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._to_tell: deque[tuple[str, Entry, Dropped]] = deque()
        self._ghost = Ghost(items_max, bytes_max) if has_ghost else None
        self._adapt_at = _ADAPT_EVERY

    def __len__(self) -> int:
        return len(self._shelf)

    @property
    def items(self) -> int:
        return len(self._shelf)

    @property
    def bytes(self) -> int:
        return self._shelf.bytes

    @property
    def items_max(self) -> int:
        return self._shelf.items_max

    @property
    def bytes_max(self) -> int:
        return self._shelf.bytes_max

    @property
    def hits(self) -> int:
        return self._shelf.hits

    @property
    def misses(self) -> int:
        return self._shelf.misses

    @property
    def evictions(self) -> int:
        return self._shelf.evictions

    @property
    def refused(self) -> int:
        return self._shelf.refused

    def get(self, key: str, now_wall: float) -> Entry | None:
        """What is kept under this key, unless it is over. It may be stale: see `fresh_until`."""
        node = self._find(key)
        if now_wall >= self._sweep_at:
            self.sweep(now_wall)
        if node is not None and (held := node.value) is not None:
            if now_wall >= held.until:
                self._over(key, held)
                return None
            node.uses += 1
            self._shelf.hits += 1
            return held.entry if held.is_plain else self._handed_out(held)
        self._shelf.misses += 1
        ghost = self._ghost
        if ghost is not None and not hash(key) >> 40 & ghost.mask:
            self._note(ghost, ghost.note(key, -1))
        return None

    def peek(self, key: str, now_wall: float) -> Entry | None:
        """The same as it is kept, neither counted nor copied. Not to be handed to a caller."""
        held = self._shelf.peek(key)
        return None if held is None or now_wall >= held.until else held.entry

    def put(self, key: str, entry: Entry, size: int | None = None) -> bool:
        """Keep it. `size`: of the value, if the caller knows better than the estimate.

        False: it is larger than this cache keeps, and what was under the key is gone too.
        """
        if type(key) is not str:
            raise TypeError(f"a key is a str; this is a {type(key).__qualname__}")
        until = entry.usable_until
        if until != until:  # noqa: PLR0124 - the quickest way to ask for NaN
            raise ValueError(f"usable_until of {key!r} is not a number")
        value = entry.value
        copier: Callable[[Any], Any] | None = None
        if type(value) not in SCALARS:
            value, copier = taken_in(value, self.copying)
            if value is not entry.value:
                entry = _with_value(entry, value)
            if size is None:
                size = size_of(value)
        elif size is None:
            size = _getsizeof(value)
        weight = ENTRY_BYTES + _getsizeof(key) + size
        if entry.tags or entry.validator:
            weight += sum(map(_getsizeof, entry.tags)) + _getsizeof(entry.validator)
        ghost = self._ghost
        note: Note | None = None
        if ghost is not None and not hash(key) >> 40 & ghost.mask:
            note = ghost.note(key, weight)
        held = _Held(entry, until, copier, note)
        self._acquire()  # a `with` costs twice as much
        try:
            self.puts += 1
            # What it replaces leaves the wheel in here, through `_dropped`.
            is_kept = self._shelf.put(key, held, weight)
            if is_kept:
                self._wheel.add(key, until)
                self._sweep_at = self._wheel.next_at
            if note is not None and ghost is not None:
                ghost.came(key, weight)
            if self.puts >= self._adapt_at:
                self.adapt()
        finally:
            self._release()
        if self._to_tell:
            self._tell()
        return is_kept

    def delete(self, key: str) -> bool:
        """Forget it; whether it was here."""
        with self._lock:
            held = self._shelf.pop(key)
            if held is not None and held.note is not None and self._ghost is not None:
                self._ghost.went(key)
        if self._to_tell:
            self._tell()
        return held is not None

    def clear(self) -> int:
        """Forget all; how many they were."""
        with self._lock:
            many = self._shelf.clear()
            self._wheel.clear()
            self._sweep_at = self._wheel.next_at
        if self._to_tell:
            self._tell()
        return many

    def scan(self, glob: str = "*") -> Iterator[str]:
        """Keys that fit, as they were when it began; `*` stands for any characters."""
        keys = self._shelf.keys()
        if glob.strip("*") == "" and glob:
            return iter(keys)
        fits = compiled(glob).fullmatch
        return (key for key in keys if fits(key))

    def sweep(self, now_wall: float, most: int = _SWEPT_AT_ONCE) -> int:
        """Drop up to so many of what is over; how many they were. `get` does so by itself."""
        with self._lock:
            many = 0
            for key in self._wheel.due(now_wall, most):
                held = self._shelf.peek(key)
                if held is not None and now_wall >= held.until:
                    many += self._shelf.pop_if(key, held, "expired")
                    if held.note is not None and self._ghost is not None:
                        self._ghost.went(key)
            self._sweep_at = self._wheel.next_at
        if self._to_tell:
            self._tell()
        return many

    def resize(self, items_max: int, bytes_max: int) -> None:
        """Other bounds from now on; what is too much goes at once."""
        with self._lock:
            self._shelf.resize(items_max, bytes_max)
            self._rescale()
        if self._to_tell:
            self._tell()

    def curve(self) -> tuple[Point, ...]:
        """Hit ratio by size; empty while too little was seen, or without a ghost."""
        if self._ghost is None:
            return ()
        with self._lock:
            self._ghost.heard(self._shelf.hits + self._shelf.misses)
            return self._ghost.curve()

    def advice(self) -> Advice:
        """What the curve says of the size of this cache, in words and numbers."""
        return advise(self.curve(), self.sizing.worth if self.sizing else 0.02)

    def adapt(self) -> None:
        """Move the size, if that is wanted. Done by itself once in a while."""
        self._adapt_at = self.puts + _ADAPT_EVERY
        ghost, shelf = self._ghost, self._shelf
        if ghost is None:
            return
        curve = self.curve()
        if self.sizing is not None:
            now = Size(shelf.items_max, shelf.bytes_max)
            then = next_size(curve, now, self.sizing)
            if then != now:
                self.resize(then.items, then.bytes)
                return
        # If the bytes bind long before the items do, the sample is too thin: begin anew.
        if shelf.evictions and len(shelf) * 2 < ghost.expected:
            self._rescale()

    def snapshot(self) -> MemorySnapshot:
        shelf = self._shelf.snapshot()
        return MemorySnapshot(
            items=shelf.items,
            items_max=shelf.items_max,
            bytes=shelf.bytes,
            bytes_max=shelf.bytes_max,
            hits=shelf.hits,
            misses=shelf.misses,
            puts=self.puts,
            refused=shelf.refused,
            evictions=shelf.evictions,
            expirations=self.expirations,
            removals=self.removals,
            window_share=shelf.window_share,
            copying=self.copying,
            sampled=self._ghost.rate if self._ghost is not None else 0,
        )

    def _rescale(self) -> None:
        shelf, ghost = self._shelf, self._ghost
        if ghost is not None:
            expected = len(shelf) if shelf.evictions else shelf.items_max
            ghost.heard(shelf.hits + shelf.misses)
            ghost.scale_to(shelf.items_max, shelf.bytes_max, max(1, expected))

    def _over(self, key: str, held: _Held) -> None:
        with self._lock:
            self._shelf.misses += 1
            self._shelf.pop_if(key, held, "expired")
            if held.note is not None and self._ghost is not None:
                self._ghost.went(key)
                self._ghost.missed(key)
        if self._to_tell:
            self._tell()

    def _handed_out(self, held: _Held) -> Entry:
        note, ghost = held.note, self._ghost
        if note is not None and ghost is not None:
            self._note(ghost, note)
        entry, copier = held.entry, held.copier
        return entry if copier is None else _with_value(entry, copier(entry.value))

    def _note(self, ghost: Ghost, note: Note) -> None:
        ghost.notes.append(note)
        if len(ghost.notes) >= NOTES_MOST:
            with self._lock:
                ghost.read_notes()

    def _dropped(self, key: str, held: _Held, why: Dropped) -> None:
        # Whoever moves the shelf holds the lock.
        self._wheel.remove(key, held.until)
        if why == "expired":
            self.expirations += 1
        elif why == "removed" or why == "cleared":  # noqa: PLR1714 - a set is built each time
            self.removals += 1
        if self.on_drop is not None:
            self._to_tell.append((key, held.entry, why))

    def _tell(self) -> None:
        hear = self.on_drop
        while hear is not None:
            try:
                each = self._to_tell.popleft()
            except IndexError:
                return
            hear(*each)


def _with_value(entry: Entry, value: Any) -> Entry:
    return Entry(
        value,
        entry.made_at,
        entry.fresh_until,
        entry.usable_until,
        stamp=entry.stamp,
        tags=entry.tags,
        cost_s=entry.cost_s,
        validator=entry.validator,
        is_nothing=entry.is_nothing,
    )
