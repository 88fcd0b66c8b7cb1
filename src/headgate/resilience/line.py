"""Waiting in turn: a line for each key, and one turn that its first holds.

Theory of operation. The first in a line sleeps until its hit is allowed, the others wait for the
turn. If all slept, all would wake for one place. Who comes while there is a line goes into it, so
that nobody is overtaken. A line that is `MOST_WAITING` long takes nobody in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Final

__all__ = ["MOST_WAITING", "Line", "Lines"]

MOST_WAITING: Final = 1000
"""In one line."""


class Line:
    """Those who wait for one key; they hold the turn one after the other."""

    __slots__ = ("length", "turn")

    def __init__(self, turn: Any) -> None:
        self.turn = turn  # a lock, of threads or of asyncio
        self.length = 0


class Lines:
    """The lines of one limit, by place: a key, and whether tasks or threads wait there."""

    __slots__ = ("_full", "_lines", "_lock")

    def __init__(self, full: Callable[[], Exception]) -> None:
        self._full = full
        self._lines: dict[Hashable, Line] = {}
        self._lock = threading.Lock()

    def find(self, place: Hashable) -> Line | None:
        """Stand in the line of this place, if there is one."""
        with self._lock:
            line = self._lines.get(place)
            return None if line is None else self._enter(line)

    def join(self, place: Hashable, turn: Callable[[], Any]) -> Line:
        """Stand in the line of this place; `turn` makes what its first holds."""
        with self._lock:
            line = self._lines.get(place)
            if line is None:
                line = self._lines[place] = Line(turn())
            return self._enter(line)

    def _enter(self, line: Line) -> Line:
        if line.length >= MOST_WAITING:
            raise self._full()
        line.length += 1
        return line

    def leave(self, place: Hashable, line: Line) -> None:
        with self._lock:
            line.length -= 1
            if not line.length:
                del self._lines[place]

    def __len__(self) -> int:
        return len(self._lines)
