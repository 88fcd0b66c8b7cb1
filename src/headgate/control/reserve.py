"""One worker process held in reserve.

Theory of operation
-------------------
Importing a worker's code takes half a second of a core, longer on a busy machine, and a killed
worker is to be back within one. So one process has imported everything and has no seat and no
configuration. Whoever dies is succeeded by it, and another is started a little later, when the
machine may have its breath back. If there is none, a worker is started as if there were no
reserve. It never survives an upgrade: it would bring the old code back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from headgate.control.backoff import Backoff
from headgate.control.children import Child, ending

__all__ = ["Reserve"]

AFTER_S = 2.0
AFTER_FAILURE_S = 30.0

log = logging.getLogger("headgate.supervisor")


class Reserve:
    def __init__(self, start: Callable[[], Child]) -> None:
        """`start` starts a worker process without a seat, or raises OSError."""
        self._start = start
        self._child: Child | None = None
        self._backoff = Backoff()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, child: Child) -> bool:
        return child is self._child

    def keep(self, after_s: float = AFTER_S) -> None:
        """Have one a little later."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(after_s, self._fill)

    def _fill(self) -> None:
        self._timer = None
        if self._child is not None:
            return
        try:
            self._child = self._start()
        except OSError as error:
            log.warning("no worker in reserve: %s", error)
            self.keep(AFTER_FAILURE_S)

    def try_take(self, index: int) -> Child | None:
        """The process that was in reserve, seated at `index`; another follows."""
        child, self._child = self._child, None
        if child is None or child.channel.is_closed:
            return None
        child.index = index
        child.started_at = time.monotonic()
        self.keep()
        return child

    def ended(self, child: Child) -> None:
        self._child = None
        wait_s = max(self._backoff.crashed(time.monotonic(), child.started_at), AFTER_S)
        how = ending(child.status or 0)
        log.warning("the worker in reserve (pid %d) %s; another in %g s", child.pid, how, wait_s)
        self.keep(wait_s)

    def drop(self) -> None:
        """Have none until `keep` is said again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        child, self._child = self._child, None
        if child is not None:
            child.kill()
