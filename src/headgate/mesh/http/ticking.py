"""The loop's side of the wheel: a timer that goes only while somebody waits."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.wire.wheel import NEVER, Wheel

if TYPE_CHECKING:
    from headgate.wire.wheel import Sleeper

TICK_S: Final = 0.05
"""How late a deadline may be noticed. A quarter of a second, as in the gateway, would be long for a
call that has half a second."""


_HELD_UP_S: Final = 0.1
_LONGEST_S: Final = 3600.0


class Ticking:
    """Deadlines of everything that one client holds, with one timer of the loop."""

    __slots__ = ("_due", "_is_late", "_loop", "_timer", "_wheel")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wheel = Wheel(monotonic(), TICK_S)
        self._due = NEVER
        self._is_late = False
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, item: Sleeper) -> None:
        """Call when `item.deadline` has become earlier than `item.wake`."""
        self._wheel.arm(item)
        if item.wake < self._due:
            self._set(item.wake)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = NEVER

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        # uvloop's timers go by whole milliseconds and may be early by less than one.
        wait_s = min(max(due - monotonic(), 0.0) + 0.001, _LONGEST_S)
        self._timer = self._loop.call_later(wait_s, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = monotonic()
        if now - self._due > _HELD_UP_S and not self._is_late:
            # The loop was held up, and what came meanwhile waits in the sockets: read that first.
            self._is_late = True
            self._set(now)
            return
        self._is_late = False
        self._due = NEVER
        self._wheel.turn(now)
        due = self._wheel.next_turn
        if due < self._due:
            self._set(due)
