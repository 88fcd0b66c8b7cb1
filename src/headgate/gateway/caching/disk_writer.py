"""The one thread of a worker that writes responses to the disk.

Theory of operation. What is to be written waits in a queue bounded in number and in bytes; beyond
that it is dropped and counted. Invalidations go before everything, are kept until they are on the
disk, and are never dropped: too many become one over everything.

Whatever fails, the thread goes on: a spoilt file is abandoned for a new one; a read-only or
vanished disk makes the store be away, and is tried again with growing pauses. On a full disk what
was used least makes room, and so beyond a quota, which SQLite reports as an error of writing; where
that cannot be written either, what is there is read on, and nothing more is written for a pause. An
invalidation that cannot be written, or not be acted on while the file is opened, takes the whole
file with it, where that is still possible; also when another process was stopped while it wrote. A
file that comes back must not answer as if it had not been heard.

Reads are allowed (`path`) only once the file is open and everything recorded in it has been acted
on.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from headgate.cache.invalidation import Invalidation
from headgate.cache.sqlite_faults import is_busy, is_corrupt, is_full, reason_of
from headgate.gateway.caching.disk_file import ResponseFile
from headgate.gateway.caching.disk_place import Place, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from headgate.gateway.caching.variants import Kept

__all__ = ["DiskWriter"]

QUEUED_MAX: Final = 1000
QUEUED_BYTES_MAX: Final = 32 * 1024 * 1024
_BATCH: Final = 64
_BATCH_BYTES: Final = 4 * 1024 * 1024
_PENDING_MAX: Final = 1000
_TOUCHED_MAX: Final = 10_000
_TURN_S: Final = 1.0
_TOUCH_S: Final = 5.0
_PAUSE_S: Final = 1.0
_PAUSE_MAX_S: Final = 30.0

_BUSY_PAUSE_S: Final = 0.2
_BUSY_MAX_S: Final = 5.0
"""An invalidation does not wait longer for another process that was stopped while writing."""
_SPOILT_AGAIN_S: Final = 5.0

log: Final = logging.getLogger("headgate.cache")


class DiskWriter:
    def __init__(
        self,
        place: Place,
        bytes_max: int,
        wall: Callable[[], float],
        opened: Callable[[int], None],
    ) -> None:
        """`opened` is called by the thread with the latest stamp, each time the file was opened."""
        self._place = place
        self._bytes_max = bytes_max
        self._wall = wall
        self._opened = opened
        self._turn = threading.Condition()
        self._queue: deque[tuple[Kept, bool]] = deque()
        self._queued_bytes = 0
        self._pending: list[Invalidation] = []
        self._waiting: list[Callable[[bool], None]] = []
        self._touched: set[int] = set()
        self._gone: set[int] = set()
        self._forgotten: set[str] = set()
        self.forgets = self.forgets_done = 0
        """How often it was told to forget, and how many of them are on the disk."""
        self._is_stopping = self._is_spoilt = False
        self._file: ResponseFile | None = None
        self._used: Path | None = None
        self._retry_at = 0.0
        self._spoilt_at = -_SPOILT_AGAIN_S
        self._busy_since: float | None = None
        self._pause_s = _PAUSE_S
        self._has_acted = False
        """On what was recorded in the file before it was opened."""
        self._full_until = 0.0
        self._full_s = _PAUSE_S
        self._owing_until = 0.0
        self._house_at = self._touch_at = 0.0
        self._thread = threading.Thread(target=self._run, name="responses-disk", daemon=True)
        self.path: Path | None = None
        """The file that may be read; None: none."""
        self.why = "not opened yet"
        self.is_tried = threading.Event()
        self.writes = self.dropped = self.failures = self.spoilt = 0
        self.struck = self.evictions = 0
        self.entries = self.bytes = 0

    # Called by the loop

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Write what is queued and end. Waits: not for the loop's thread."""
        with self._turn:
            self._is_stopping = True
            self._turn.notify()
        self._thread.join(timeout_s)

    def put(self, kept: Kept, *, is_removal: bool = False) -> None:
        with self._turn:
            has_no_room = len(self._queue) >= QUEUED_MAX
            is_large = self._queued_bytes + kept.size > QUEUED_BYTES_MAX
            has_no_room |= time.monotonic() < self._full_until
            if has_no_room or is_large or self.path is None or kept.size > self._bytes_max // 4:
                self.dropped += 1
                return
            self._queue.append((kept, is_removal))
            self._queued_bytes += kept.size
            self._turn.notify()

    def record(self, invalidation: Invalidation) -> None:
        with self._turn:
            self._pending.append(invalidation)
            if len(self._pending) > _PENDING_MAX:
                last = max(each.stamp for each in self._pending)
                soft = all(each.soft for each in self._pending)
                whole = Invalidation(everything="responses", soft=soft, stamp=last)
                self._pending = [whole]
            self._turn.notify()

    def forget(self, urls: Iterable[str]) -> None:
        """Those that are on the disk or in the queue now."""
        gone = frozenset(urls)
        with self._turn:
            if any(kept.url in gone for kept, _ in self._queue):
                self._queue = deque(each for each in self._queue if each[0].url not in gone)
                self._queued_bytes = sum(kept.size for kept, _ in self._queue)
            self._forgotten |= gone
            self.forgets += 1
            if len(self._forgotten) > _TOUCHED_MAX:
                # More than can be remembered: all that is there now goes.
                self._forgotten = {"*"}
            self._turn.notify()

    def settle(self, settled: Callable[[bool], None]) -> None:
        """Be told, by the thread, once everything pending is on the disk."""
        with self._turn:
            self._waiting.append(settled)
            self._turn.notify()

    def touch(self, number: int) -> None:
        with self._turn:
            if len(self._touched) < _TOUCHED_MAX:
                self._touched.add(number)

    def spoilt_row(self, number: int) -> None:
        with self._turn:
            self.spoilt += 1
            if len(self._gone) < _TOUCHED_MAX:
                self._gone.add(number)
            self._turn.notify()

    def spoilt_file(self) -> None:
        """A reader found it so: look at it now."""
        with self._turn:
            self.path = None
            self._is_spoilt = True
            self._turn.notify()

    @property
    def queued(self) -> int:
        return len(self._queue)

    # The thread

    def _run(self) -> None:
        while True:
            with self._turn:
                if self.is_tried.is_set() and (not self._has_work() or self._is_pausing()):
                    self._turn.wait(_TURN_S)
                is_stopping = self._is_stopping
            if is_stopping or not self._is_pausing():
                try:
                    self._work()
                except (sqlite3.Error, OSError, Unusable) as wrong:
                    self._failed(wrong)
                except Exception as wrong:  # the thread must outlive whatever it meets
                    log.exception("responses on the disk: unexpected; the file is made anew")
                    self._failed(sqlite3.DatabaseError(str(wrong)))
            self.is_tried.set()
            if is_stopping and (self._is_pausing() or not self._queue):
                break
        self._let_go()
        self._tell(is_safe=not self._pending)

    def _has_work(self) -> bool:
        waits = self._queue or self._pending or self._waiting or self._gone or self._forgotten
        return bool(waits) or self._is_stopping or self._is_spoilt

    def _is_pausing(self) -> bool:
        return time.monotonic() < self._retry_at

    def _work(self) -> None:
        if self._is_spoilt:
            self._is_spoilt = False
            raise sqlite3.DatabaseError("a reader found it spoilt")
        file = self._ready()
        self._record(file)
        self._forget(file)
        batch, removals, gone = self._take()
        if gone:
            file.remove(gone)
        if batch:
            try:
                declined = file.put(batch, int(self._wall()))
            except Exception:
                self._put_back(batch)
                raise
            self.dropped += declined
            self.writes += len(batch) - declined
            self._full_s = _PAUSE_S
        for kept in removals:
            file.remove_kept(kept)
        self._keep_house(file)
        self._busy_since = None

    def _record(self, file: ResponseFile) -> None:
        with self._turn:
            pending, waiting = list(self._pending), len(self._waiting)
        if pending:
            file.record(pending)
            with self._turn:
                self._pending = [each for each in self._pending if each not in pending]
        self._tell(is_safe=True, most=waiting)
        if pending:
            self.struck += file.act()

    def _forget(self, file: ResponseFile) -> None:
        with self._turn:
            urls, so_far = set(self._forgotten), self.forgets
        if urls:
            file.forget(urls)
            with self._turn:
                self._forgotten -= urls
                self.forgets_done = so_far

    def _take(self) -> tuple[list[Kept], list[Kept], set[int]]:
        batch: list[Kept] = []
        size = 0
        with self._turn:
            gone, self._gone = self._gone, set()
            while self._queue and len(batch) < _BATCH and size < _BATCH_BYTES:
                if self._queue[0][1]:
                    break
                kept, _ = self._queue.popleft()
                self._queued_bytes -= kept.size
                size += kept.size
                batch.append(kept)
            removals: list[Kept] = []
            while not batch and self._queue and self._queue[0][1] and len(removals) < _BATCH:
                kept, _ = self._queue.popleft()
                self._queued_bytes -= kept.size
                removals.append(kept)
        return batch, removals, gone

    def _put_back(self, batch: list[Kept]) -> None:
        """Once there is room they are written after all, but for what was told meanwhile."""
        with self._turn:
            gone = self._forgotten
            left = [kept for kept in batch if kept.url not in gone and "*" not in gone]
            self._queue.extendleft((kept, False) for kept in reversed(left))
            self._queued_bytes += sum(kept.size for kept in left)

    def _ready(self) -> ResponseFile:
        now = time.monotonic()
        is_time = self._file is not None and now >= self._house_at
        if is_time and self._place.current() != self._used:
            # Another process has abandoned it, or the directory is gone.
            self._let_go()
        if self._file is None:
            self._place.prepare()
            self._used = used = self._place.claim()
            self._file = ResponseFile(used, self._bytes_max)
            self._has_acted = False
        file = self._file
        if not self._has_acted:
            self.struck += file.act()
            self._opened(file.last_stamp())
            self._has_acted = True
            self._place.remove_strays(self._wall())
            if self.why and self.failures:
                log.info("responses on the disk: %s is in use again", self._place.directory)
            self.why, self._pause_s = "", _PAUSE_S
        self.path = self._used
        return file

    def _keep_house(self, file: ResponseFile) -> None:
        now = time.monotonic()
        if now < self._house_at:
            return
        self._house_at = now + _TURN_S
        file.sweep(self._wall())
        # What another worker has recorded, and could not finish.
        self.struck += file.act()
        if now >= self._touch_at:
            self._touch_at = now + _TOUCH_S
            with self._turn:
                touched, self._touched = self._touched, set()
            if touched:
                file.touch(touched, int(self._wall()))
        self.entries, self.bytes = file.totals()
        self.evictions += file.evicted
        file.evicted = 0

    def _failed(self, wrong: Exception) -> None:
        is_file = isinstance(wrong, sqlite3.Error)
        # Without a code it is what we have found ourselves.
        is_spoilt = is_file and (is_corrupt(wrong) or not hasattr(wrong, "sqlite_errorcode"))
        self.failures += 1
        if is_busy(wrong):
            # Another process is writing, or was stopped in the midst of it.
            now = time.monotonic()
            self._busy_since = self._busy_since or now
            if not self._pending or now - self._busy_since < _BUSY_MAX_S:
                self._retry_at = now + _BUSY_PAUSE_S
                self._tell(is_safe=False)
                return
        if is_full(wrong) and self._goes_on(wrong):
            return
        used, is_owing = self._used, self._is_owing(wrong)
        self._let_go()
        if is_spoilt and used is not None:
            self.spoilt += 1
            now = time.monotonic()
            is_again, self._spoilt_at = now - self._spoilt_at < _SPOILT_AGAIN_S, now
            log.warning("responses on the disk: %s is spoilt (%s): begun anew", used.name, wrong)
            self._abandon(used)
            if not is_again:
                return
        if is_owing and used is not None:
            self._abandon(used)
        self._pause(f"{self._place.directory}: {reason_of(wrong)}" if is_file else str(wrong))

    def _goes_on(self, wrong: Exception) -> bool:
        """Whether the file can be used further although it, or the disk, is full."""
        file, now = self._file, time.monotonic()
        if file is None:
            return False
        why = f"{self._place.directory}: {reason_of(wrong)}"
        if why != self.why:
            log.warning("responses on the disk: %s; those used least make room", why)
        self.why = why
        is_owing = self._is_owing(wrong)
        if not is_owing or now >= self._owing_until:
            try:
                file.give_room()
            except sqlite3.Error:
                pass
            else:
                if is_owing:
                    # Once: if there is no room for what is owed again, the file goes.
                    self._owing_until = now + _PAUSE_S
                return True
        if is_owing:
            return False
        self._full_until = now + self._full_s
        self._full_s = min(self._full_s * 2, _PAUSE_MAX_S)
        with self._turn:
            self._drop_queue()
        return True

    def _is_owing(self, wrong: Exception) -> bool:
        """Whether something must be struck before the file may be read again."""
        is_unread = self._file is not None and not self._has_acted and is_full(wrong)
        return bool(self._pending or self._forgotten) or is_unread

    def _abandon(self, used: Path) -> None:
        try:
            self._place.abandon(used)
        except OSError as wrong:
            self._pause(f"{self._place.directory}: cannot be written: {wrong}")
            return
        with self._turn:
            # What waits may be older than what was to be recorded, and that is not kept.
            self._pending.clear()
            self._forgotten.clear()
            self.forgets_done = self.forgets
            self._drop_queue()
        self._tell(is_safe=True)

    def _pause(self, why: str) -> None:
        if why != self.why:
            log.warning("responses on the disk are out of use for now: %s", why)
        self.why = why
        self.path = None
        self._retry_at = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)
        with self._turn:
            self._drop_queue()
        self._tell(is_safe=False)

    def _drop_queue(self) -> None:
        self.dropped += len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0

    def _tell(self, *, is_safe: bool, most: int | None = None) -> None:
        with self._turn:
            waiting = self._waiting[:most]
            del self._waiting[:most]
        for settled in waiting:
            settled(is_safe)

    def _let_go(self) -> None:
        file, self._file, self._used, self.path = self._file, None, None, None
        if file is not None:
            try:
                file.close()
            except sqlite3.Error:
                self.failures += 1
