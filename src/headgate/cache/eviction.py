"""A shelf of values, bounded in number and in bytes; safe to use from several threads.

Theory of operation. What stays when it is full is decided in `eviction_rooms`.

Threads. `get` and `peek` take no lock: each is one look into a dictionary, which the interpreter
does not interrupt, and one addition to a count, of which two threads at once may lose one; nothing
is decided by a single count. Everything that changes the shelf holds a lock, also under the GIL,
for a change is many steps. Nothing but the shelf's own code runs while the lock is held: what was
dropped is told to `on_drop`, and let go, after it is released, on the thread whose call caused it.
One exception cannot be excluded, a finalizer that the garbage collector runs in the midst of a
change. If it comes back into the same shelf, a `put` is declined and a `pop` is done a moment
later, when the change is complete.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from headgate.cache.eviction_rooms import Dropped, Drops, Rooms

__all__ = ["Dropped", "Shelf", "ShelfSnapshot"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class ShelfSnapshot:
    items: int
    items_max: int
    bytes: int
    bytes_max: int
    hits: int
    misses: int
    evictions: int
    refused: int
    """Values that were too large for the shelf."""
    window_share: float
    """How much of it is kept for what is new, as the load now asks for."""


class Shelf(Rooms[V]):
    """Values by key, within `items_max` and `bytes_max`. A size is what the caller says it is.

    `on_drop(key, value, why)` hears of each value that leaves: evicted, replaced by another value
    under its key, removed, expired, cleared, or too big after it grew.
    """

    __slots__ = (
        "__weakref__",
        "_acquire",
        "_is_busy",
        "_late",
        "_lock",
        "_release",
        "find_node",
        "on_drop",
    )

    def __init__(
        self,
        items_max: int,
        bytes_max: int,
        on_drop: Callable[[str, V, Dropped], None] | None = None,
        *,
        largest_share: float = 0.25,
    ) -> None:
        super().__init__(*_bounds(items_max, bytes_max), largest_share)
        self.on_drop = on_drop
        self.find_node = self._nodes.get
        """For whoever cannot afford the call of `get`, and counts `uses`, `hits` and `misses`
        himself. The value of a node that is leaving is None."""
        self._lock = threading.RLock()
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._is_busy = False
        self._late: list[str] = []
        """What finalizers want removed."""

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, key: str) -> bool:
        return key in self._nodes

    @property
    def bytes(self) -> int:
        return self._bytes

    def get(self, key: str) -> V | None:
        """What is here under this key; it counts as a use."""
        node = self._nodes.get(key)
        if node is None:
            self.misses += 1
            return None
        node.uses += 1
        self.hits += 1
        return node.value

    def peek(self, key: str) -> V | None:
        """The same without counting."""
        node = self._nodes.get(key)
        return None if node is None else node.value

    def size_of(self, key: str) -> int:
        """Bytes it is charged with; 0 if it is not here."""
        node = self._nodes.get(key)
        return 0 if node is None else node.size

    def keys(self) -> list[str]:
        """All keys as they are at this moment, in no order."""
        return list(self._nodes)  # one step of the interpreter: no other thread comes between

    def put(self, key: str, value: V, size: int) -> bool:
        """Keep it. False: it is too large, and what was under this key is gone too."""
        if size < 0:
            raise ValueError(f"size of {key!r} is {size}; write 0 or more")
        dropped: Drops[V] = []
        self._acquire()  # a `with` costs twice as much
        if self._is_busy:
            self._release()
            return False
        self._is_busy = True
        try:
            is_kept = self._put(key, value, size, dropped)
            if self._late:
                self._remove_late(dropped)
        finally:
            self._is_busy = False
            self._release()
        if dropped and self.on_drop is not None:
            self._tell(dropped)
        return is_kept

    def pop(self, key: str, why: Dropped = "removed") -> V | None:
        """Take it out; what it was."""
        value = self.peek(key)
        while value is not None and not self.pop_if(key, value, why):
            value = self.peek(key)  # another thread has put something else meanwhile
        return value

    def pop_if(self, key: str, value: V, why: Dropped = "removed") -> bool:
        """Take it out if it is still this very value."""
        dropped: Drops[V] = []
        with self._lock:
            node = self._nodes.get(key)
            if node is None or node.value is not value:
                return False
            if self._is_busy:
                self._late.append(key)
                return True
            self._is_busy = True
            try:
                self._remove(node, why, dropped)
            finally:
                self._is_busy = False
            if self._late:
                self._remove_late(dropped)
        self._tell(dropped)
        return True

    def resized(self, key: str, size: int) -> bool:
        """What is here under this key has another size now. False: it is not here (any more)."""
        if size < 0:
            raise ValueError(f"size of {key!r} is {size}; write 0 or more")
        dropped: Drops[V] = []
        with self._lock:
            node = self._nodes.get(key)
            if node is None or self._is_busy:
                return False
            self._is_busy = True
            try:
                is_kept = self._put(key, node.value, size, dropped)
            finally:
                self._is_busy = False
            if self._late:
                self._remove_late(dropped)
        self._tell(dropped)
        return is_kept

    def resize(self, items_max: int, bytes_max: int) -> None:
        """Other bounds from now on; what is too much goes at once."""
        items_max, bytes_max = _bounds(items_max, bytes_max)
        dropped: Drops[V] = []
        with self._lock:
            self.items_max, self.bytes_max = items_max, bytes_max
            self._widen(self._window_share)
            if self._is_busy:
                return  # the change that is under way ends within the new bounds
            self._is_busy = True
            try:
                self._settle(dropped)
            finally:
                self._is_busy = False
            if self._late:
                self._remove_late(dropped)
        self._tell(dropped)

    def clear(self) -> int:
        """Forget all; how many they were. What was learned of the load is kept."""
        dropped: Drops[V] = []
        with self._lock:
            self._late.extend(self._nodes)
            if self._is_busy:
                return len(self._nodes)
            self._remove_late(dropped, "cleared")
        self._tell(dropped)
        return len(dropped)

    def snapshot(self) -> ShelfSnapshot:
        return ShelfSnapshot(
            items=len(self._nodes),
            items_max=self.items_max,
            bytes=self._bytes,
            bytes_max=self.bytes_max,
            hits=self.hits,
            misses=self.misses,
            evictions=self.evictions,
            refused=self.refused,
            window_share=self._window_share,
        )

    def _remove_late(self, dropped: Drops[V], why: Dropped = "removed") -> None:
        self._is_busy = True
        try:
            while self._late:
                node = self._nodes.get(self._late.pop())
                if node is not None:
                    self._remove(node, why, dropped)
        finally:
            self._is_busy = False

    def _tell(self, dropped: Drops[V]) -> None:
        hear = self.on_drop
        if hear is not None:
            for key, value, why in dropped:
                hear(key, value, why)


def _bounds(items_max: int, bytes_max: int) -> tuple[int, int]:
    if items_max < 1 or bytes_max < 1:
        raise ValueError(f"bounds are {items_max} items and {bytes_max} bytes; write 1 or more")
    return items_max, bytes_max
