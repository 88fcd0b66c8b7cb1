"""Responses on the disk: one set for all workers of a machine, there after a restart.

Reads go to a few threads of their own, writes to one (`disk_writer`); the loop hands over and goes
on. A read that takes longer than `deadline_s` is a miss, as is everything while the disk is out of
use. What is found is judged by the barriers of this worker once more, on the loop: the writer may
not have come to the latest invalidation yet.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

from headgate.cache.barriers import Standing
from headgate.cache.sqlite_faults import is_corrupt
from headgate.gateway.caching.disk_file import ResponseFile, SpoiltRow
from headgate.gateway.caching.disk_place import Place
from headgate.gateway.caching.disk_writer import DiskWriter
from headgate.gateway.caching.lower import LowerSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headgate.cache.barriers import Barriers
    from headgate.cache.invalidation import Invalidation
    from headgate.gateway.caching.variants import Kept
    from headgate.wire.message import Header

    Found = asyncio.Future[Kept | None]

__all__ = ["DiskStore"]

_FORGOTTEN_MAX: Final = 10_000
READS_MAX: Final = 256
"""Reads that wait; beyond it the next is a miss at once."""
_READERS: Final = 2
_DEADLINE_S: Final = 0.25
_OPEN_S: Final = 5.0
_SETTLE_S: Final = 2.0
_CLOSE_S: Final = 5.0

V = TypeVar("V")

log: Final = logging.getLogger("headgate.cache")


class _Read:
    __slots__ = ("fields", "found", "key", "loop")

    def __init__(self, key: str, fields: tuple[Header, ...], found: Found) -> None:
        self.key = key
        self.fields = fields
        self.found = found
        self.loop = found.get_loop()


class DiskStore:
    kind = "disk"

    def __init__(
        self,
        directory: str | Path,
        bytes_max: int,
        *,
        deadline_s: float = _DEADLINE_S,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - HTTP dates
    ) -> None:
        self._place = Place(directory)
        self._bytes_max = bytes_max
        self._deadline_s = deadline_s
        self._wall = wall
        self._writer = DiskWriter(self._place, bytes_max, wall, self._opened)
        self._reads: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._waiting = 0
        self._readers: list[threading.Thread] = []
        self._barriers: Barriers | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forgotten_before = 0
        self._forgotten: dict[str, int] = {}
        """By URL, in which call it was forgotten; the last ones."""
        self._hits = self._misses = self._dropped = self._late = 0

    async def start(self, barriers: Barriers) -> None:
        """Open the file, or go on trying in the background."""
        self._barriers = barriers
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        for number in range(_READERS):
            name = f"responses-disk-{number}"
            thread = threading.Thread(target=self._read_on, name=name, daemon=True)
            thread.start()
            self._readers.append(thread)
        await asyncio.to_thread(self._writer.is_tried.wait, _OPEN_S)

    async def close(self) -> None:
        for _ in self._readers:
            self._reads.put(None)
        await asyncio.to_thread(self._writer.stop, _CLOSE_S)
        self._loop = None

    async def discard(self) -> None:
        """After it was closed: throw away what is there, as nobody tells it of purges any more."""
        await asyncio.to_thread(self._discard)

    def _discard(self) -> None:
        path = self._place.current()
        if path is None:
            return
        try:
            self._place.abandon(path)
        except OSError as wrong:
            what = "responses in %s cannot be thrown away (%s); do it before you use it again"
            log.error(what, self._place.directory, wrong)  # noqa: TRY400
            return
        log.info("responses on the disk: %s is emptied, as it is out of use", path.parent)

    async def find(self, key: str, fields: tuple[Header, ...], url: str = "") -> Kept | None:
        if self._writer.path is None or self._waiting >= READS_MAX:
            self._dropped += self._waiting >= READS_MAX
            self._misses += 1
            return None
        loop = asyncio.get_running_loop()
        since = self._writer.forgets_done
        found: Found = loop.create_future()
        self._waiting += 1
        self._reads.put(_Read(key, fields, found))
        timer = loop.call_later(self._deadline_s, self._give_up, found)
        try:
            kept = await found
        finally:
            timer.cancel()
        if kept is not None:
            kept = None if self._is_changed(kept.url, since) else self._judged(kept)
        if kept is None:
            self._misses += 1
        else:
            self._hits += 1
        return kept

    def _is_changed(self, url: str, since: int) -> bool:
        """Whether it was forgotten when that was not on the disk yet: what was read may be older.
        `since`: how far the disk was.
        """
        return self._forgotten.get(url, 0) > since or since < self._forgotten_before

    def _give_up(self, found: Found) -> None:
        if not found.done():
            self._late += 1
            found.set_result(None)

    def _judged(self, kept: Kept) -> Kept | None:
        barriers = self._barriers
        if barriers is None:
            return None
        standing = barriers.judge(kept.url, kept.stored.tags, kept.stamp)
        if standing is Standing.DEAD:
            return None
        kept.is_soft_struck |= standing is Standing.STALE
        return kept

    def put(self, kept: Kept) -> None:
        self._writer.put(kept)

    def remove(self, kept: Kept) -> None:
        self._writer.put(kept, is_removal=True)

    def invalidate(self, invalidation: Invalidation) -> None:
        self._writer.record(invalidation)

    def forget(self, urls: tuple[str, ...], *, is_news: bool = False) -> None:
        # Also as news: this worker may have one of them in its queue.
        self._writer.forget(urls)
        for url in urls:
            self._forgotten.pop(url, None)
            self._forgotten[url] = self._writer.forgets
        while len(self._forgotten) > _FORGOTTEN_MAX:
            self._forgotten_before = self._forgotten.pop(next(iter(self._forgotten)))

    async def settle(self) -> bool:
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[bool] = loop.create_future()

        def tell(is_safe: bool) -> None:
            if not settled.done():
                settled.set_result(is_safe)

        self._writer.settle(lambda is_safe: _hand_over(loop, tell, is_safe))
        timer = loop.call_later(_SETTLE_S, tell, False)
        try:
            return await settled
        finally:
            timer.cancel()

    def snapshot(self) -> LowerSnapshot:
        writer = self._writer
        return LowerSnapshot(
            kind="disk",
            place=str(self._place.directory),
            is_away=writer.path is None,
            why=writer.why,
            entries=writer.entries,
            bytes=writer.bytes,
            bytes_max=self._bytes_max,
            hits=self._hits,
            misses=self._misses,
            writes=writer.writes,
            evictions=writer.evictions,
            struck=writer.struck,
            queued=writer.queued,
            dropped=writer.dropped + self._dropped,
            spoilt=writer.spoilt,
            failures=writer.failures + self._late,
        )

    # Called by the threads

    def _opened(self, last_stamp: int) -> None:
        loop, barriers = self._loop, self._barriers
        if loop is not None and barriers is not None:
            # What is begun from now on is newer than everything there.
            _hand_over(loop, barriers.heard, last_stamp)

    def _read_on(self) -> None:
        """A reading thread."""
        file: ResponseFile | None = None
        used: Path | None = None
        while (read := self._reads.get()) is not None:
            kept: Kept | None = None
            path = self._writer.path
            if not read.found.done() and path is not None:
                try:
                    if file is None or path != used:
                        if file is not None:
                            file.close()
                        file, used = None, path
                        file = ResponseFile(path, is_reader=True)
                    kept = self._read(file, read)
                except (sqlite3.Error, OSError) as wrong:
                    self._read_failed(wrong)
                    used = None
                except Exception:  # a request waits, and the next ones need the thread
                    log.exception("responses on the disk: unexpected while reading")
            _hand_over(read.loop, self._done, (read.found, kept))
        if file is not None:
            file.close()

    def _read(self, file: ResponseFile, read: _Read) -> Kept | None:
        try:
            found = file.find(read.key, read.fields, self._wall())
        except SpoiltRow as wrong:
            self._writer.spoilt_row(wrong.number)
            return None
        if found is None:
            return None
        number, kept = found
        self._writer.touch(number)
        return kept

    def _read_failed(self, wrong: Exception) -> None:
        self._writer.failures += 1
        if is_corrupt(wrong):
            self._writer.spoilt_file()

    def _done(self, read: tuple[Found, Kept | None]) -> None:
        found, kept = read
        self._waiting -= 1
        if not found.done():
            found.set_result(kept)


def _hand_over(loop: asyncio.AbstractEventLoop, call: Callable[[V], object], value: V) -> None:
    try:
        loop.call_soon_threadsafe(call, value)
    except RuntimeError:
        # The loop has ended; nobody waits any more.
        return
