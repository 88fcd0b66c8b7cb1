"""What reading leaves to be written later: what was asked for, and rows that are worth nothing.

A read does not write. That a key was asked for is written at most once a minute for each key, and
all of them together every few seconds; until then it is remembered here, up to a bound, beyond
which it is as if it had not been asked for.
"""

from __future__ import annotations

from typing import Final

from headgate.cache.file.entries import Row

__all__ = ["Uses"]

_EVERY_S: Final = 5.0
_COARSE_S: Final = 60.0
_USED_MAX: Final = 10_000
_MARKED_MAX: Final = 100_000
_DEAD_MAX: Final = 2000


class Uses:
    __slots__ = ("_due_at", "_marked", "_used", "dead")

    def __init__(self) -> None:
        self.dead: list[Row] = []
        self._used: dict[bytes, None] = {}
        self._marked: dict[bytes, float] = {}
        """When each was written last, by the wall clock."""
        self._due_at = 0.0

    def was_used(self, key: bytes, wall: float) -> None:
        if wall - self._marked.get(key, 0.0) > _COARSE_S and len(self._used) < _USED_MAX:
            self._used[key] = None

    def is_dead(self, row: Row) -> None:
        if len(self.dead) < _DEAD_MAX:
            self.dead.append(row)

    def due(self, now: float) -> list[bytes]:
        """Keys to be written now."""
        return list(self._used) if now >= self._due_at else []

    def written(self, used: list[bytes], now: float, wall: float) -> None:
        self.dead.clear()
        if not used:
            return
        self._due_at = now + _EVERY_S
        self._used.clear()
        if len(self._marked) > _MARKED_MAX:
            self._marked.clear()
        self._marked |= dict.fromkeys(used, wall)
