"""How a service ends: not ready first, then without leaving anybody in the middle.

Theory of operation
-------------------
    SIGTERM, Ctrl-C   readiness says no, responses say `connection: close`; the signal is held back
    + leave           the signal goes on to the server, which takes no new connections; event
                      streams are ended, for their clients come again by themselves
    + finish          what is still under way is cancelled, and told so by 503 where it can be
    then              the server ends the app's lifespan, and the process

Signals are held back by the same object as in `headgate.mesh`: with a registration in the app's
lifespan, the registry hears of it first. A second signal goes through at once.

Where signals cannot be handled (not the main thread) only the end of the lifespan is heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from headgate.mesh.client.terminating import Terminating
from headgate.observe.health import Checks

__all__ = ["Ending"]

CUT: Final = "headgate: the service ends"


class Ending:
    """The requests that are under way, and the end of them."""

    def __init__(self, checks: Checks, leave_s: float, finish_s: float | None) -> None:
        self._checks = checks
        self._leave_s = leave_s
        self._finish_s = finish_s
        self._under_way: dict[asyncio.Task[Any], Callable[[], bool]] = {}
        self._cut: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._terminating: Terminating | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self.is_leaving = False

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def enter(self, task: asyncio.Task[Any], is_stream: Callable[[], bool]) -> None:
        self._under_way[task] = is_stream

    def exit(self, task: asyncio.Task[Any]) -> None:
        self._under_way.pop(task, None)
        self._cut.discard(task)

    def take_back(self, task: asyncio.Task[Any]) -> bool:
        """Whether a task was cancelled by us and nobody else, who then may answer after all."""
        if task not in self._cut:
            return False
        self._cut.discard(task)
        return task.uncancel() == 0

    def install(self) -> None:
        """Hold signals back from now on, where that is possible. On the loop that serves."""
        self._loop = asyncio.get_running_loop()
        self._terminating = Terminating(self._came)
        self._terminating.install()

    def remove(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._terminating is not None:
            self._terminating.remove()
        self._terminating = self._loop = None

    def _came(self) -> None:
        """In a signal handler."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self._pass_on()
            return
        loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        """Stop being ready, and end in time."""
        if self.is_leaving:
            return
        self.is_leaving = True
        self._checks.drain()
        self._after(self._leave_s, self._pass_on)
        self._after(self._leave_s, self._end_streams)
        if self._finish_s is not None:
            self._after(self._leave_s + self._finish_s, self._end_all)

    def _after(self, wait_s: float, act: Callable[[], None]) -> None:
        loop = self._loop or asyncio.get_running_loop()
        if wait_s <= 0.0:
            loop.call_soon(act)
        else:
            self._timers.append(loop.call_later(wait_s, act))

    def _pass_on(self) -> None:
        if self._terminating is not None:
            self._terminating.pass_on()

    def _end_streams(self) -> None:
        for task, is_stream in tuple(self._under_way.items()):
            if is_stream():
                self._cancel(task)

    def _end_all(self) -> None:
        for task in tuple(self._under_way):
            self._cancel(task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if task not in self._cut and not task.done():
            self._cut.add(task)
            task.cancel(CUT)
