"""One SQLite connection on a thread of its own, to which work is handed over.

Theory of operation
-------------------
A commit waits for the disk, and that is nearly all it costs. So what has come in while the last
commit was under way is done together in the next transaction; its callers are told after the
commit, and not before. Work must leave nothing half done: it answers values and raises for what is
broken alone, and when something is, the transaction is undone and each piece is tried by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from headgate_shop.queue.message import QueueAway

__all__ = ["Desk"]

TOGETHER: Final = 64
BUSY_S: Final = 10.0

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
log = logging.getLogger("headgate_shop.queue")


@dataclass(slots=True)
class _Piece:
    work: Work[Any]
    is_writing: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Desk:
    def __init__(self, path: Path, prepare: Work[None]) -> None:
        """`prepare` is done once a connection is open, before anything else."""
        self._path = path
        self._prepare = prepare
        self._line: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._db: sqlite3.Connection | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="queue desk", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """After what was handed over before."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._line.put(None)
            await asyncio.to_thread(thread.join)

    async def read(self, work: Work[T]) -> T:
        return await self._hand(work, is_writing=False)

    async def write(self, work: Work[T]) -> T:
        """When this returns, it is on the disk."""
        return await self._hand(work, is_writing=True)

    async def _hand(self, work: Work[T], *, is_writing: bool) -> T:
        if self._thread is None:
            raise QueueAway(f"{self._path}: the queue is not open")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._line.put(_Piece(work, is_writing, loop, future))
        return await future

    # ---- on the thread

    def _run(self) -> None:
        is_last = False
        while not is_last:
            piece = self._line.get()
            if piece is None:
                break
            batch = [piece]
            while len(batch) < TOGETHER:
                try:
                    piece = self._line.get_nowait()
                except queue.Empty:
                    break
                if piece is None:
                    is_last = True
                    break
                batch.append(piece)
            self._do(batch)
            for one in batch:
                # The loop may have ended before its answer.
                with contextlib.suppress(RuntimeError):
                    one.loop.call_soon_threadsafe(_settle, one)
        self._drop()

    def _do(self, batch: list[_Piece]) -> None:
        try:
            self._together(batch)
        except (sqlite3.Error, OSError):
            if len(batch) == 1:
                return
            for piece in batch:
                with contextlib.suppress(sqlite3.Error, OSError):
                    self._together([piece])

    def _together(self, batch: list[_Piece]) -> None:
        """One transaction. Raises what broke it, which is every piece's error then."""
        try:
            db = self._connected()
            is_writing = any(piece.is_writing for piece in batch)
            if is_writing:
                db.execute("BEGIN IMMEDIATE")
            for piece in batch:
                piece.error = None
                piece.result = piece.work(db)
            if is_writing:
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            away = QueueAway(f"{self._path}: {_said(error)}")
            away.__cause__ = error
            self._undo(batch, away)
            raise
        except BaseException as error:  # noqa: BLE001 - told to the callers; the thread lives
            self._undo(batch, error)

    def _undo(self, batch: list[_Piece], error: BaseException) -> None:
        for piece in batch:
            piece.error = error
        if self._db is not None and self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop()

    def _connected(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _drop(self) -> None:
        if self._db is not None:
            try:
                self._db.close()
            except sqlite3.Error as error:
                log.warning("%s: %s", self._path, error)
            self._db = None


def _said(error: Exception) -> str:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return (
            f"{text}; the file is damaged: stop the services, move it and its -wal away "
            "(messages in it can be looked for with `sqlite3 FILE .recover`), start them again"
        )
    return text


def _settle(piece: _Piece) -> None:
    if piece.future.done():
        return  # its caller has gone
    if piece.error is not None:
        piece.future.set_exception(piece.error)
    else:
        piece.future.set_result(piece.result)
