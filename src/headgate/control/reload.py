"""Requests to reload, from whoever makes them, as few reloads as will do.

Theory of operation
-------------------
A reload that has begun may have read the file before the change that a new request is about.
So a request never joins the reload that runs, only the one after it; all requests that arrive
while one runs share that next one. Ten saves of an editor are at most two reloads, and every
asker gets the answer of a reload that began after it asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ReloadResult", "Reloader"]


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """How one reload went."""

    ok: bool
    generation: int  # the one that serves now, whichever that is
    workers: int = 0
    took_ms: float = 0.0
    reason: str = ""
    at: float = 0.0  # wall clock
    faults: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)


class Reloader:
    """Runs `reload(reason)` one at a time and lets requests share a run."""

    def __init__(self, reload: Callable[[str], Awaitable[ReloadResult]]) -> None:
        self._reload = reload
        self._running: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[ReloadResult] | None = None
        self._reasons: list[str] = []
        self.last: ReloadResult | None = None

    async def request(self, reason: str) -> ReloadResult:
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        if reason not in self._reasons:
            self._reasons.append(reason)
        waiting = self._waiting
        if self._running is None:
            loop = asyncio.get_running_loop()
            self._running = loop.create_task(self._run(), name="reload")
        # Shielded: an asker that gives up must not take the answer from the others.
        return await asyncio.shield(waiting)

    async def _run(self) -> None:
        try:
            while self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                reason, self._reasons = ", ".join(self._reasons), []
                try:
                    result = await self._reload(reason)
                except Exception as error:  # noqa: BLE001  handed to whoever asked
                    if not waiting.done():
                        waiting.set_exception(error)
                        waiting.exception()  # nobody may be left to look at it
                    continue
                self.last = result
                if not waiting.done():
                    waiting.set_result(result)
        finally:
            self._running = None
