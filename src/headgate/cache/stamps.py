"""The clock of the barriers, kept by one process for itself.

A stamp is microseconds of wall clock, but never less than the last one and one: it grows with every
invalidation whatever the clock of the machine does. `barriers` says what stamps are for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["LocalStamps"]


class LocalStamps:
    """May be asked by any thread."""

    __slots__ = ("_last", "_lock", "_wall")

    def __init__(self, wall: Callable[[], float], last: int = 0) -> None:
        self._wall = wall
        self._last = last
        self._lock = threading.Lock()

    @property
    def last(self) -> int:
        return self._last

    def next(self, at_least: int = 0) -> int:
        """A stamp above every one given out before, and above `at_least`."""
        with self._lock:
            self._last = max(self._last + 1, at_least + 1, int(self._wall() * 1e6))
            return self._last
