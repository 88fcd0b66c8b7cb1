"""How far this machine has heard the news of a Redis, kept for the next control process.

Whoever starts to listen cannot know what it missed, unless it knows how far it had come and Redis
still has all that came after. So the position is written about once a second while there are news;
what is heard twice for that does no harm. Without one, or in another history, there is a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, Protocol, runtime_checkable

from headgate.control.state_dir import StateDir, StateDirUnusable

__all__ = ["POSITION_FILE", "Position", "Resuming"]

POSITION_FILE: Final = "cache-news.json"
EVERY_S: Final = 1.0
_PARTS: Final = (int, int, str)


@runtime_checkable
class Resuming(Protocol):
    """A layer that can go on listening where another process has stopped."""

    @property
    def position(self) -> tuple[int, int, str]:
        """The clock, the stamp of the last news, and the history they belong to."""
        ...

    def resume(self, position: tuple[int, int, str]) -> None:
        """Before the start; for a process that listens and reads no entries."""
        ...


class Position:
    def __init__(self, state: StateDir) -> None:
        self._state = state
        self._layer: Resuming | None = None
        self._saved: tuple[int, int, str] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, layer: object) -> bool:
        """Have a layer go on where we were, before its start; False if that is not known."""
        self.leave()
        if not isinstance(layer, Resuming):
            return False
        self._layer = layer
        kept = self._state.read_json(POSITION_FILE).get("position")
        if isinstance(kept, list) and [type(part) for part in kept] == list(_PARTS) and kept[2]:
            self._saved = (kept[0], kept[1], kept[2])
            layer.resume(self._saved)
        return self._saved is not None

    def moved(self) -> None:
        """There were news; they have been passed on. On the running loop."""
        if self._layer is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._save)

    def leave(self) -> None:
        """The layer is let go of."""
        self._save()
        self._layer = None
        self._saved = None

    def _save(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        layer = self._layer
        if layer is None or layer.position == self._saved or not layer.position[2]:
            return
        position = layer.position
        content: dict[str, Any] = {"position": list(position)}
        with contextlib.suppress(StateDirUnusable):
            self._state.write_json(POSITION_FILE, content)
            self._saved = position
