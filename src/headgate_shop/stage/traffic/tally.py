"""What visitors noticed: totals since the start, and the last minute."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final

__all__ = ["Tally"]

WINDOW_S: Final = 60
SLOW_S: Final = 2.0


class Tally:
    """Seconds of the last minute in a ring, and totals; nothing grows with time."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self._seconds: deque[tuple[int, Counter[str]]] = deque()

    def add(self, what: str, now: float) -> None:
        self.totals[what] += 1
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
            self._forget(second)
        self._seconds[-1][1][what] += 1

    def answered(self, status: int, took_s: float, now: float) -> None:
        """Count an answer; a status of 0 is none at all."""
        self.add("requests", now)
        if status == 0 or status >= 500:
            self.add("failed", now)
        elif status == 429:
            self.add("turned_away", now)
        if took_s > SLOW_S:
            self.add("slow", now)

    def snapshot(self, now: float) -> dict[str, Any]:
        self._forget(int(now))
        minute: Counter[str] = Counter()
        for _, counts in self._seconds:
            minute += counts
        return {"totals": dict(self.totals), "last_minute": dict(minute)}

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - WINDOW_S:
            self._seconds.popleft()
