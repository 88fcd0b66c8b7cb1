"""The searchable store of lines: a row of files, the newest written, the oldest dropped.

Theory of operation
-------------------
`add` puts lines into a queue that is bounded in bytes and returns; what does not fit is dropped and
counted. A thread of its own writes them, some hundred milliseconds' worth in one transaction. When
the newest file has an eighth of the room another is begun, and the oldest go until all fit and none
is older than it may be. A file that is spoilt is renamed and said; the others are searched on.

Places in the store are (file, row), so "the newest first" is the order in which lines came in, and
a page can be asked for while lines come in and go. A search ends after `SEARCH_S` with what it has.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from headgate.observe.history.trusted import TrustedClock
from headgate.observe.logs.rules import StoreRules
from headgate.observe.logs.search import Query, Stored
from headgate.observe.logs.segment import Segment
from headgate.observe.sqlite_file import is_spoilt

__all__ = ["Found", "LogStore", "StoreStats"]

QUEUE_BYTES: Final = 16 * 1024 * 1024
SEARCH_S: Final = 5.0
_SEGMENTS: Final = 8
_GATHER_S: Final = 0.3
_TRY_S: Final = 5.0
_BATCH: Final = 2000
_SPOILT_KEPT: Final = 3
_NAME: Final = re.compile(r"logs-([0-9]{1,12})\.db")


@dataclass(slots=True)
class StoreStats:
    written: int = 0
    dropped: int = 0
    """The queue was full."""
    failed: int = 0
    """They could not be written."""
    rows: int = 0
    size_bytes: int = 0
    queued_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    lines: tuple[tuple[str, str], ...]
    """(place, line)."""
    after: str | None
    """Where the next page begins; None at the end."""
    is_whole: bool = True
    """False where time was over before all was looked at."""


class LogStore:
    def __init__(
        self,
        folder: Path,
        rules: StoreRules,
        *,
        queue_bytes: int = QUEUE_BYTES,
        wall: Callable[[], float] = time.time,  # noqa: TID251  lines have an age by the calendar
        mono: Callable[[], float] = time.monotonic,
        after: LogStore | None = None,
    ) -> None:
        """`after` has the same folder and is closing: what it holds is written before we begin."""
        self.folder = folder
        self.rules = rules
        self._max = queue_bytes
        self._wall = wall
        self._mono = mono
        self._after = after
        self._clock = TrustedClock()
        self._queue: SimpleQueue[tuple[Stored, int] | threading.Event | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._queued = 0
        self._segments: list[Segment] = []
        self._swept_at = 0.0
        self._tried_at = 0.0
        self._trouble = ""
        self._spoilt: list[tuple[str, str]] = []
        """(name, what was wrong) of those that were set aside."""
        self._is_closed = False
        self.stats = StoreStats()
        self._thread = threading.Thread(target=self._run, name="log-store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def worries(self) -> tuple[str, ...]:
        aside = tuple(
            f"a file was spoilt and is set aside as {name} ({why}); remove it when you have looked"
            " at it"
            for name, why in self._spoilt
            if (self.folder / name).exists()
        )
        return (self._trouble, *aside) if self._trouble else aside

    def add(self, rows: Sequence[Stored]) -> int:
        """Keep lines; how many of them there was room for."""
        taken = 0
        with self._lock:
            for row in rows:
                size = len(row.line) + len(row.words) + 300
                if self._is_closed or self._queued + size > self._max:
                    self.stats.dropped += 1
                    continue
                self._queued += size
                taken += 1
                self._queue.put((row, size))
        return taken

    @property
    def is_full(self) -> bool:
        return self._queued > self._max * 3 // 4

    def close(self, timeout_s: float) -> bool:
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def settle(self, timeout_s: float) -> bool:
        """Wait until what was added is written or lost."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout_s)

    def snapshot(self) -> StoreStats:
        segments = tuple(self._segments)
        stats = self.stats
        return StoreStats(
            stats.written,
            stats.dropped,
            stats.failed,
            sum(segment.rows for segment in segments),
            sum(segment.size_bytes() for segment in segments),
            max(0, self._queued),
        )

    # -- searching, from any thread --------------------------------------------------------------

    def find(self, query: Query, *, limit: int = 100, after: str | None = None) -> Found:
        """Lines that answer the query, the newest first. Raises ValueError for a place that is
        none.
        """
        number, row = _place(after)
        until = time.monotonic() + SEARCH_S
        found: list[tuple[str, str]] = []
        for segment in reversed(tuple(self._segments)):
            if number is not None and segment.number > number:
                continue
            before = row if segment.number == number else None
            try:
                rows = segment.find(
                    query, before, limit + 1 - len(found), lambda: time.monotonic() < until
                )
            except sqlite3.OperationalError as error:
                if "interrupted" not in str(error):
                    continue  # it went while we looked; or it is spoilt, which the writer finds
                return Found(tuple(found[:limit]), found[-1][0] if found else None, False)
            except sqlite3.Error:
                continue
            found += ((f"{segment.number}.{each}", line) for each, line in rows)
            if len(found) > limit:
                return Found(tuple(found[:limit]), found[limit - 1][0])
        return Found(tuple(found), None)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        before, self._after = self._after, None
        if before is not None and before._thread.ident is not None:  # noqa: SLF001  of our own kind
            before._thread.join()  # noqa: SLF001
        self._open_all()
        closing = False
        while not closing:
            batch: list[Stored] = []
            tokens: list[threading.Event] = []
            size = 0
            until = 0.0
            while len(batch) < _BATCH:
                try:
                    if batch and not self._is_closed:
                        item = self._queue.get(timeout=max(0.001, until - time.monotonic()))
                    else:
                        item = self._queue.get(timeout=1.0)
                except Empty:
                    break
                if item is None:
                    closing = True
                    break
                if isinstance(item, threading.Event):
                    tokens.append(item)
                    break
                if not batch:
                    until = time.monotonic() + _GATHER_S
                row, of = item
                batch.append(row)
                size += of
            try:
                if batch:
                    self._write(batch)
                self._sweep()
            except Exception as error:  # noqa: BLE001  one batch may be lost, and no more
                self.stats.failed += len(batch)
                self._trouble = f"lines are not kept: {error!r}"[:500]
            with self._lock:
                self._queued -= size
            for token in tokens:
                token.set()
        for segment in self._segments:
            segment.close()

    def _open_all(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            numbers = sorted(
                int(match[1])
                for path in self.folder.iterdir()
                if (match := _NAME.fullmatch(path.name))
            )
        except OSError as error:
            self._trouble = f"cannot use {self.folder}: {error.strerror}"
            return
        for number in numbers:
            segment = Segment(self._path(number), number)
            try:
                segment.look()
            except (sqlite3.Error, OSError) as error:
                self._set_aside(segment, error)
                continue
            self._segments.append(segment)

    def _path(self, number: int) -> Path:
        return self.folder / f"logs-{number:08d}.db"

    def _newest(self) -> Segment:
        """The one to write to; raises sqlite3.Error or OSError."""
        most = self.rules.size_bytes // _SEGMENTS
        if self._segments:
            newest = self._segments[-1]
            if newest.is_open and newest.size_bytes() < most:
                return newest
            if not newest.is_open and newest.size_bytes() < most:
                try:
                    newest.open()
                except sqlite3.Error as error:
                    if not is_spoilt(error):
                        raise
                    self._segments.remove(newest)
                    self._set_aside(newest, error)
                else:
                    return newest
            newest.close()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = max((segment.number for segment in self._segments), default=0) + 1
        while self._path(number).exists():
            number += 1
        fresh = Segment(self._path(number), number)
        fresh.open()
        self._segments = [*self._segments, fresh]
        return fresh

    def _write(self, batch: list[Stored]) -> None:
        for attempt in (1, 2):
            try:
                segment = self._newest()
            except (sqlite3.Error, OSError) as error:
                self._note(error, len(batch))
                return
            try:
                segment.add(batch)
            except (sqlite3.Error, OSError) as error:
                if attempt == 1 and is_spoilt(error):
                    self._segments = [each for each in self._segments if each is not segment]
                    self._set_aside(segment, error)
                    continue
                self._note(error, len(batch))
                return
            self.stats.written += len(batch)
            self._trouble = ""
            return

    def _note(self, error: Exception, lines: int) -> None:
        self.stats.failed += lines
        self._tried_at = self._mono()
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self._trouble = f"lines are not kept: {why}"
        if ("full" in why or "space" in why) and len(self._segments) > 1:
            self._drop_oldest()  # our own oldest lines are what we can give

    def _set_aside(self, segment: Segment, error: Exception) -> None:
        name = f"{segment.path.name}.spoilt-{int(self._wall())}"
        try:
            segment.set_aside(name)
        except OSError:
            name = segment.path.name
        self._spoilt = [*self._spoilt, (name, str(error)[:200])][-_SPOILT_KEPT:]
        with contextlib.suppress(OSError):
            old = sorted(self.folder.glob("*.spoilt-*"), key=lambda path: path.stat().st_mtime)
            for path in old[:-_SPOILT_KEPT]:
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        now = self._mono()
        if 0 <= now - self._swept_at < 1.0:
            return
        self._swept_at = now
        if self._trouble and now - self._tried_at >= _TRY_S:
            self._tried_at = now
            self._try_again()
        # A clock that is wrong for a moment must not empty the store.
        wall = self._wall()
        if not self._clock.is_set:
            known = [each.last_at for each in self._segments if each.rows]
            # The earlier of the two: a line may say that it is of next year.
            self._clock.begin(min(wall, max(known, default=wall)), now)
        self._clock.note(wall, now)
        oldest = self._clock.now - self.rules.keep_s
        while self._segments and self._segments[0].rows and self._segments[0].last_at < oldest:
            self._drop_oldest()
        sizes = [segment.size_bytes() for segment in self._segments]
        total = sum(sizes)
        while total > self.rules.size_bytes and len(self._segments) > 1:
            total -= self._segments[0].size_bytes()
            self._drop_oldest()

    def _try_again(self) -> None:
        """After a fault, when no lines come: whether it is over."""
        try:
            self._newest().probe()
        except (sqlite3.Error, OSError):
            return
        self._trouble = ""

    def _drop_oldest(self) -> None:
        oldest, *self._segments = self._segments
        with contextlib.suppress(OSError):
            oldest.remove()


def _place(text: str | None) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    number, dot, row = text.partition(".")
    if not (dot and number.isdecimal() and row.isdecimal() and len(text) < 40):
        raise ValueError("this is no place in the store; use `next` of the page before")
    return int(number), int(row)
