"""The body of a fill as it comes: pieces that each reader takes at its own pace."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Pieces:
    __slots__ = ("_dropped", "_hold", "_pieces", "size")

    def __init__(self, hold: Callable[[int], bool]) -> None:
        self._pieces: list[bytes] = []
        self._dropped = 0
        """Those that everybody has been given, and nobody will ask for."""
        self._hold = hold
        self.size = 0
        """Bytes that are held."""

    def take(self, data: bytes) -> bool:
        """One more; whether there is room for it beside what all other fills hold."""
        self._pieces.append(data)
        self.size += len(data)
        return self._hold(len(data))

    def get(self, at: int) -> bytes | None:
        """The piece with this number; None if it has not come yet."""
        at -= self._dropped
        return self._pieces[at] if at < len(self._pieces) else None

    def whole(self) -> bytes:
        """All that is held."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def become(self, whole: bytes) -> None:
        """Hold it as one piece, so that it stands in memory once. Nobody may have begun."""
        self._pieces = [whole]

    def drop_before(self, at: int | None) -> None:
        """Let go of what comes before this one; None: of all."""
        count = len(self._pieces) if at is None else at - self._dropped
        size = sum(map(len, self._pieces[:count]))
        del self._pieces[:count]
        self._dropped += count
        self.size -= size
        self._hold(-size)
