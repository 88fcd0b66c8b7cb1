"""What the page shows, and what of it a watcher has not seen yet. Pure.

Theory of operation
-------------------
The board has a number that grows with each change. A part (services, breakers, mails ...) is put
whole, and keeps the number at which it last changed; points of charts and lines of the log are kept
in rings, each with its number. A watcher says the number it has seen and gets what is newer. So a
watcher that is slow, or comes back, costs nothing that has to be kept for it, and gets one message
with the latest instead of all that it missed.

The id of a message is `<epoch>-<number>`; the epoch is that of this process, so who comes back with
one of an earlier process is told everything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

__all__ = ["Board"]

POINTS: Final = 600
NEAR_S: Final = 2.5
"""A point that is nearer than this to another one is the same moment, told twice."""
LINES: Final = 200


class Board:
    def __init__(self, epoch: str, *, points: int = POINTS, lines: int = LINES) -> None:
        self._epoch = epoch
        self._number = 1
        self._parts: dict[str, tuple[int, Any]] = {}
        self._points: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=points)
        self._lines: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=lines)

    @property
    def number(self) -> int:
        return self._number

    def part(self, name: str) -> Any:
        found = self._parts.get(name)
        return found[1] if found else None

    def put(self, name: str, value: Any) -> bool:
        """Whether it is another than before."""
        found = self._parts.get(name)
        if found is not None and found[1] == value:
            return False
        self._parts[name] = (self._next(), value)
        return True

    def add_point(self, point: Mapping[str, Any]) -> None:
        if self._points and point["t"] <= self._points[-1][1]["t"]:
            return  # the source was started again and tells what is known
        self._points.append((self._next(), point))

    def fill(self, points: Iterable[Mapping[str, Any]]) -> None:
        """What was while nobody looked: before, between and after the points that are known."""
        known = [point for _, point in self._points]
        times = [point["t"] for point in known]
        first = times[0] if times else float("inf")
        found = [p for p in points if p["t"] < first or not _is_near(times, p["t"])]
        number = self._next()
        self._points.clear()
        merged = sorted((*found, *known), key=lambda point: float(point["t"]))
        self._points.extend((number, point) for point in merged)
        self._parts["filled"] = (number, number)  # watchers take the points from the beginning

    def say(self, line: Mapping[str, Any]) -> None:
        self._lines.append((self._next(), line))

    def since(self, id_: str) -> tuple[str, dict[str, Any]] | None:
        """What is newer than a message's id, with the id to say next; None if nothing is."""
        epoch, _, text = id_.rpartition("-")
        seen = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
        is_whole = epoch != self._epoch or not 0 < seen <= self._number
        if is_whole:
            seen = 0
        if seen == self._number:
            return None
        refilled = self._parts.get("filled", (0, 0))[0] > seen
        news: dict[str, Any] = {
            "whole": is_whole,
            "refilled": is_whole or refilled,
            "parts": {
                name: value
                for name, (number, value) in self._parts.items()
                if number > seen and name != "filled"
            },
            "points": [p for number, p in self._points if refilled or number > seen],
            "log": [line for number, line in self._lines if number > seen],
        }
        return f"{self._epoch}-{self._number}", news

    def _next(self) -> int:
        self._number += 1
        return self._number


def _is_near(times: Sequence[float], t: float) -> bool:
    """Whether one of these, which are in order, is about the same as `t`."""
    place = bisect_left(times, t - NEAR_S)
    return place < len(times) and times[place] <= t + NEAR_S
