"""Which stamp of Redis a response may carry.

Theory of operation. The gateway's barriers and those in Redis go by two clocks: control raises what
it hears above all that its machine was told before. A response that is written to Redis needs a
stamp of Redis' clock from before it was asked for. So each reading of that clock is noted with the
wall clock, and a response gets the last one from before its request: it was received at
`received_at`, and its corrected age is never less than the time from its request to then (RFC 9111
4.2.3). An upstream that says `Age: 600` gets a stamp of ten minutes ago, rightly: it may come from
a cache that a purge of five minutes ago has not reached.

A wall clock that is set back finds no reading, or an older one: then the stamp is too old, which
costs an entry and never serves one.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

__all__ = ["Readings"]

_MOST: Final = 4096
_APART_S: Final = 0.001


class Readings:
    """The clock of Redis as it was seen, by wall clock. The oldest are forgotten."""

    __slots__ = ("_at", "_stamps")

    def __init__(self) -> None:
        self._at: list[float] = []
        self._stamps: list[int] = []

    def note(self, stamp: int, wall: float) -> None:
        if not stamp or (self._stamps and self._stamps[-1] == stamp and self._at[-1] <= wall):
            return
        while self._at and self._at[-1] >= wall:
            # The clock was set back: those later readings are no guide any more.
            self._at.pop()
            self._stamps.pop()
        self._at.append(wall)
        self._stamps.append(stamp)
        if len(self._at) > _MOST:
            del self._at[: _MOST // 2], self._stamps[: _MOST // 2]

    def before(self, wall: float) -> int:
        """The last one seen before; 0 if there is none."""
        found = bisect_left(self._at, wall - _APART_S)
        return self._stamps[found - 1] if found else 0
