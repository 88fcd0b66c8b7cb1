"""The file as one thread uses it: batches in one transaction, news, and what is owed to it.

Theory of operation. All of a batch that reads is one transaction, all that writes another; each
begins by reading the clock and, when it has moved, the barriers above what is known. So what is
read is judged by every barrier that stands in the file at that moment.

The file may be *away* (cannot be opened, or is corrupt and has just been set aside), or only
*unwritable* (locked by another, read-only, disk full): then reads go on. Both are tried again after
a pause that doubles up to `_PAUSE_MAX_S`. What is owed meanwhile (`owed`) is invalidated before
anything else is written.

Everything here is used under `mutex`, which a fork takes too: no database is open while a process
forks, as SQLite's locks do not survive that.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Final

from headgate.cache.barriers import Barriers
from headgate.cache.codecs import Packer
from headgate.cache.file import database, entries, news
from headgate.cache.file.jobs import Job, News, fail
from headgate.cache.file.owed import Owed
from headgate.cache.file.uses import Uses
from headgate.cache.invalidation import Invalidation
from headgate.cache.sqlite_faults import is_busy, is_corrupt, reason_of
from headgate.errors import HeadgateError

__all__ = ["UNOPENED", "Store"]

UNOPENED: Final = "not opened yet"
_PAUSE_MIN_S: Final = 0.1
_PAUSE_MAX_S: Final = 2.0
_SWEEP_EVERY_S: Final = 1.0


class Store:
    def __init__(
        self,
        path: str,
        packer: Packer,
        *,
        bytes_max: int,
        busy_s: float,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.path = path
        self.packer = packer
        self.bytes_max = bytes_max
        self.mutex = threading.Lock()
        self.db: sqlite3.Connection = None  # type: ignore[assignment]  # until it is open
        self.barriers = Barriers("objects", news.BARRIERS_MAX)
        self.monotonic = monotonic
        self.wall = wall
        self.away = UNOPENED
        """Why it cannot be used; empty when it can."""
        self.unwritable = ""
        self.since = monotonic()
        self.evicted = 0
        self.dropped = 0
        self.set_aside = 0
        self.bytes_in = 0
        self._busy_s = busy_s
        self._waits_for_disk = not database.boot_id()
        self._opened: database.Opened | None = None
        self._file = 0
        self._version = -1
        self._retry_at = self._write_at = 0.0
        self._pause_s = self._write_pause_s = _PAUSE_MIN_S
        self._grown = 0
        self._total = 0
        self._sweep_at = 0.0
        self._below = 0
        self.uses = Uses()
        self.owed = Owed()
        self._heard: list[Invalidation] = []
        self._own: list[Invalidation] = []
        self._read_to = 0
        self._is_gap = False
        self._has_opened = False

    # ---- opening and failing

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    def try_open(self) -> bool:
        """Open it if it is time to; whether it is open."""
        if self._opened is not None:
            return True
        now = self.monotonic()
        if now < self._retry_at:
            return False
        seen = database.identity(self.path)
        try:
            opened = database.open_database(
                self.path, self.wall(), self.barriers.stamp, self._busy_s
            )
            self._opened, self.db = opened, opened.connection
            self._version = -1
            if self._file != opened.file:
                self._begin(opened.file)
            self.db.execute("BEGIN")
            self._catch_up()
            self.db.execute("COMMIT")
        except (sqlite3.Error, OSError, database.Unusable) as error:
            self._failed(error, seen)
            return False
        self.away, self._pause_s, self.since = "", _PAUSE_MIN_S, now
        self._has_opened = True
        return True

    def _begin(self, file: int) -> None:
        """It is another file than before: its clock must stand above all that was heard here."""
        if self._file:
            self._is_gap = True
            known = self.barriers.stamp
            self.db.execute("BEGIN IMMEDIATE")
            if news.clock(self.db)[0] <= known:
                self.db.execute(
                    "UPDATE meta SET value = ? WHERE name IN ('stamp', 'floor')", (known + 1,)
                )
            self.db.execute("COMMIT")
        self._file, self._read_to = file, 0

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            # What a broken database says when it is closed is known already.
            with contextlib.suppress(sqlite3.Error):
                opened.connection.close()

    def _failed(self, error: BaseException, seen: tuple[int, int] | None = None) -> None:
        """It cannot be used: closed, and opened again later; a corrupt one is moved away."""
        why = reason_of(error)
        known = self._opened.identity if self._opened else seen
        self.close()
        now = self.monotonic()
        self._retry_at = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)
        if is_corrupt(error) and known is not None:
            try:
                place = database.set_aside(self.path, known, self.wall())
            except (OSError, database.Unusable) as fault:
                why = f"{why}, and cannot be set aside: {reason_of(fault)}"
            else:
                self._retry_at = now
                self.set_aside += place is not None
                why = f"{why}, and was set aside as {place}" if place else why
        if not self.away:
            self.since = now
        self.away = why

    def _failed_to_write(self, error: sqlite3.Error) -> str:
        """Reads may go on. Why."""
        now = self.monotonic()
        if not self.unwritable:
            self.since = now
        self.unwritable = reason_of(error)
        self._write_at = now + self._write_pause_s
        self._write_pause_s = min(self._write_pause_s * 2, _PAUSE_MAX_S)
        return self.unwritable

    def may_write(self, now: float) -> bool:
        return not self.unwritable or now >= self._write_at

    # ---- transactions

    def _catch_up(self) -> None:
        stamp, floor = news.clock(self.db)
        known = self.barriers
        if stamp > self._read_to:
            for each in news.news_since(self.db, self._read_to):
                known.raise_for(each)
                self._heard.append(each)
                if each.everything and not each.soft:
                    self._below = max(self._below, each.stamp)
            known.heard(stamp)
            self._read_to = stamp
        if floor > known.floor:
            known.raise_floor(floor)
            self._below = max(self._below, floor)

    def batch(self, jobs: Sequence[Job]) -> None:
        """Do all of these; each has its answer afterwards, or has failed."""
        reads = [job for job in jobs if not job.is_write]
        writes = [job for job in jobs if job.is_write]
        if reads:
            self._transaction("BEGIN", reads)
        if writes or self.owed:
            self._write(writes)

    def _write(self, jobs: Sequence[Job]) -> None:
        if not self.may_write(self.monotonic()):
            fail(jobs, f"{self.path}: {self.unwritable}")
            return
        paid = self.owed.all()
        marks = [Job(Store.publish_of(each), True, is_lasting=True) for each in paid]
        marks += jobs
        if not self._transaction("BEGIN IMMEDIATE", marks):
            return
        self.unwritable, self._write_pause_s = "", _PAUSE_MIN_S
        self.owed.paid(paid)
        # Ours: raised here, so that they are not heard again.
        for job in marks:
            said = job.answer
            if type(said) is Invalidation:
                self.barriers.raise_for(said)
                self._own.append(said)
                self._read_to = said.stamp
                if said.everything and not said.soft:
                    self._below = max(self._below, said.stamp)

    def _transaction(self, begin: str, jobs: Sequence[Job]) -> bool:
        """Whether it was committed. A job may fail alone, before it has written anything."""
        if self._opened is None and not self.try_open():
            fail(jobs, f"{self.path}: {self.away}")
            return False
        is_lasting = self._waits_for_disk and any(job.is_lasting for job in jobs)
        self._grown = 0
        try:
            if is_lasting:
                self.db.execute("PRAGMA synchronous=FULL")
            self.db.execute(begin)
            self._catch_up()
            if begin != "BEGIN":
                ((self._total,),) = self.db.execute("SELECT value FROM meta WHERE name = 'bytes'")
            for job in jobs:
                try:
                    job.answer = job.run(self)
                except HeadgateError as error:
                    job.answer, job.is_failed = error, True
            if begin != "BEGIN":
                self._account()
            self.db.execute("COMMIT")
            if is_lasting:
                self.db.execute("PRAGMA synchronous=NORMAL")
        except (sqlite3.Error, OSError) as error:
            why = self._broke(error, is_write=begin != "BEGIN")
            fail(jobs, f"{self.path}: {why}")
            return False
        except BaseException:
            # A fault of ours: nothing of it is kept, and the next batch begins clean.
            with contextlib.suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise
        return True

    def _broke(self, error: Exception, is_write: bool) -> str:
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        try:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            self.db.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error as fault:
            self._failed(fault)
            return self.away
        if isinstance(error, sqlite3.Error) and is_write and code in _ONLY_WRITES:
            return self._failed_to_write(error)
        if is_busy(error):
            return reason_of(error)
        self._failed(error)
        return self.away

    def _account(self) -> None:
        """Keep the sum, and within the bound."""
        if not self._grown:
            return
        total = self._total + self._grown
        if total > self.bytes_max and self._grown > 0:
            # A little more than needed, so that it is not done at every write.
            rows, freed = entries.evict(self.db, total, self.bytes_max - self.bytes_max // 50)
            self.evicted += rows
            total -= freed
        self.db.execute("UPDATE meta SET value = ? WHERE name = 'bytes'", (max(total, 0),))

    def grow(self, by: int) -> None:
        self._grown += by

    def has_room(self, size: int) -> bool:
        """A batch may go beyond the bound by a quarter before what is too much is removed."""
        return self._total + self._grown + size <= self.bytes_max + self.bytes_max // 4

    def publish(self, invalidation: Invalidation) -> Invalidation:
        """Within a transaction that writes."""
        said = news.publish(self.db, invalidation, self.wall())
        if invalidation.keys and not invalidation.soft:
            self.grow(-entries.remove_keys(self.db, map(news.to_blob, invalidation.keys)))
        return said

    @staticmethod
    def publish_of(invalidation: Invalidation) -> Callable[[Store], Invalidation]:
        return lambda store: store.publish(invalidation)

    # ---- between batches

    def poll(self) -> None:
        """Hear what others have said. Cheap when nobody has written."""
        if self._opened is None:
            self.try_open()
            return
        try:
            if database.identity(self.path) != self._opened.identity:
                # Deleted, or another was put in its place.
                self.close()
                self._retry_at = 0.0
                self.try_open()
                return
            ((version,),) = self.db.execute("PRAGMA data_version")
            if version != self._version:
                self.db.execute("BEGIN")
                self._catch_up()
                self.db.execute("COMMIT")
                self._version = version
        except sqlite3.Error as error:
            self._broke(error, is_write=False)
            return
        now = self.monotonic()
        if self.owed and self.may_write(now):
            self._write(())
        elif now >= self._sweep_at:
            self._tidy(now)

    def _tidy(self, now: float) -> None:
        self._sweep_at = now + _SWEEP_EVERY_S
        if not self.may_write(now):
            return
        wall = self.wall()
        try:
            rows = entries.sweep(self.db, wall, self._below)
        except sqlite3.Error as error:
            self._broke(error, is_write=False)
            return
        if len(rows) < 200:
            self._below = 0
        else:
            self._sweep_at = now  # there is more: with the next poll
        rows += self.uses.dead
        used = self.uses.due(now)
        if not rows and not used:
            return

        def tidy(store: Store) -> None:
            store.grow(-entries.remove(store.db, rows))
            entries.mark_used(store.db, used, wall)
            news.sweep_leases(store.db, now)

        self._write((Job(tidy, True),))
        self.uses.written(used, now, wall)

    def take_news(self) -> News | None:
        heard, self._heard = self._heard, []
        own, self._own = self._own, []
        is_gap, self._is_gap = self._is_gap, False
        if not (heard or own or is_gap or self._has_opened):
            return None
        self._has_opened = False
        return News(heard, own, self.barriers.stamp, self.barriers.floor, is_gap)


_ONLY_WRITES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
    }
)
