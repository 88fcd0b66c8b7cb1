"""Connections to SQLite for SQLAlchemy's async engines that can be closed by two at once.

Theory of operation
-------------------
`aiosqlite` runs each connection on a thread, which ends with the last thing it is told: to stop.
When a task is cancelled in the middle of a statement, SQLAlchemy begins to close its connection,
and if it is cancelled once more (a loop that ends does that) it also stops it by force. It is told
to stop twice then, the thread ends at the first time, and whoever waits for the second waits for
ever; if that is somebody who was cancelled already, the process does not end. Here the second one
waits for what the first one waits for.

A thread that nobody waits for any more may outlive the loop. So all are known here, and `close`
stops and waits for those that are left, whatever became of who had them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, Final

import aiosqlite

__all__ = ["SqliteConnections"]

_ROWS_AT_ONCE: Final = 64


class SqliteConnections:
    """Connections that `connect` makes, each on its thread.

    `open` is for `create_async_engine("sqlite+aiosqlite://", async_creator=connections.open)`.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._open: set[_StoppedOnce] = set()

    async def open(self) -> aiosqlite.Connection:
        made = _StoppedOnce(self._connect, self._open)
        self._open.add(made)
        return await made

    async def close(self, longest_s: float) -> None:
        """Stop those that are left, and wait for them."""
        stopped = [found for one in list(self._open) if (found := one.stop()) is not None]
        if stopped:
            await asyncio.wait(stopped, timeout=longest_s)


class _StoppedOnce(aiosqlite.Connection):
    def __init__(self, connect: Callable[[], sqlite3.Connection], known: set[_StoppedOnce]) -> None:
        super().__init__(connect, _ROWS_AT_ONCE)
        self._thread.daemon = True  # a process may end without having closed it
        self._known = known
        self._is_stopped = False
        self._stopped: asyncio.Future[Any] | None = None

    def stop(self) -> asyncio.Future[Any] | None:
        """After what it was told before, close and end the thread. Once."""
        if not self._is_stopped:
            self._is_stopped = True
            self._stopped = super().stop()
            if self._stopped is None:  # there is no loop any more
                self._known.discard(self)
            else:
                self._stopped.add_done_callback(self._gone)
        return self._stopped

    def _gone(self, stopped: asyncio.Future[Any]) -> None:
        self._known.discard(self)
        if not stopped.cancelled():
            stopped.exception()  # it could not be closed; nobody can do more about it

    async def close(self) -> None:
        stopped = self.stop()
        if stopped is not None:
            await asyncio.shield(stopped)  # others may wait for it too
