"""The same line again and again: the first few are written, the rest is counted and said once.

Theory of operation
-------------------
A place is a logger, a level and a message before its arguments are put in. Its window begins with
its first line and lasts `within_s`; of what comes in it after the first `most`, only the number is
kept. The number is said by whoever asks `due`, once the window is over, and never more than once.
Places are bounded: the one whose window began first is let go, and its number is said then.

Pure: no clock, no log. A clock that jumps back ends the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headgate.observe.logs.rules import RepeatRules

__all__ = ["Place", "Repeated", "Repeats"]

Place = tuple[str, int, str]
"""Logger, level, message."""


@dataclass(frozen=True, slots=True)
class Repeated:
    place: Place
    more: int
    over_s: float


class Repeats:
    def __init__(self, rules: RepeatRules) -> None:
        self.rules = rules
        self._windows: dict[Place, list[float]] = {}  # begin, lines, of these not written
        self._over: list[Repeated] = []
        self.suppressed = 0

    def admits(self, place: Place, now: float) -> bool:
        """Whether this line is to be written."""
        window = self._windows.get(place)
        if window is None:
            self._begin(place, now)
            return True
        if not 0.0 <= now - window[0] < self.rules.within_s:
            self._end(place, now)
            self._begin(place, now)
            return True
        window[1] += 1
        if window[1] <= self.rules.most:
            return True
        window[2] += 1
        self.suppressed += 1
        return False

    def due(self, now: float, *, all_of_them: bool = False) -> Iterator[Repeated]:
        """What is over and has not been said."""
        within_s = self.rules.within_s
        for place, window in list(self._windows.items()):
            if all_of_them or not 0.0 <= now - window[0] < within_s:
                self._end(place, now)
        said, self._over = self._over, []
        yield from said

    def _begin(self, place: Place, now: float) -> None:
        while len(self._windows) >= self.rules.places:
            self._end(next(iter(self._windows)), now)
        self._windows[place] = [now, 1, 0]

    def _end(self, place: Place, now: float) -> None:
        window = self._windows.pop(place, None)
        if window is not None and window[2]:
            over_s = max(0.0, min(now - window[0], self.rules.within_s))
            self._over.append(Repeated(place, int(window[2]), over_s))
