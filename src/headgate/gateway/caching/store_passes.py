"""Keys whose responses cannot be kept: nobody waits for another's answer there.

Bounded in number and in bytes, the oldest mark goes first; a mark ends at its time. To have lost a
mark costs a wait, and the next answer sets it again.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Passes"]

PASSES_MAX: Final = 10_000
_BYTES_MAX: Final = 4 * 1024 * 1024


class Passes:
    __slots__ = ("_bytes", "_until")

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._until)

    def mark(self, key: str, until: float) -> None:
        """Until then (monotonic), what comes for this key is taken for not to be kept."""
        marks = self._until
        if marks.pop(key, None) is None:
            self._bytes += len(key)
        marks[key] = until
        while len(marks) > PASSES_MAX or self._bytes > _BYTES_MAX:
            self.unmark(next(iter(marks)))

    def holds(self, key: str, now: float) -> bool:
        until = self._until.get(key)
        if until is None:
            return False
        if now < until:
            return True
        self.unmark(key)
        return False

    def unmark(self, key: str) -> None:
        if self._until.pop(key, None) is not None:
            self._bytes -= len(key)

    def clear(self) -> None:
        self._until.clear()
        self._bytes = 0
