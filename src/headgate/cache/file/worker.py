"""The thread that uses the file for one event loop: takes batches, polls between them, and reports.

Theory of operation. The loop hands over all that its tasks asked for in one turn as one batch. The
thread does it, and hands back what became of it together with the news heard on the way, in one
call. Between batches it polls; as long as there is nothing to tell, it only notes the time of the
poll (`polled_at`), so that an idle loop is not woken. Once news has been handed over, that time
stands still until the loop has taken it in: `polled_at` never claims more than the loop knows.

Before a process forks, the database is closed, and opened again when it is next used: SQLite's
locks do not survive a fork. The child has no thread; the layer begins anew there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from headgate.cache.file.jobs import Job, News
from headgate.cache.file.store import Store

__all__ = ["Worker"]

log = logging.getLogger("headgate.cache.file")

Deliver: TypeAlias = Callable[[Sequence[Job], "News | None", float], None]
_FORK_WAIT_S: Final = 2.0


class Worker:
    def __init__(
        self, store: Store, loop: asyncio.AbstractEventLoop, deliver: Deliver, poll_s: float
    ) -> None:
        self.store = store
        self.polled_at = 0.0
        self._loop = loop
        self._deliver = deliver
        self._poll_s = poll_s
        self._inbox: queue.SimpleQueue[Sequence[Job] | None] = queue.SimpleQueue()
        self._sent = 0
        self._taken = 0
        self._was_away = False
        self._has_reported = False
        # A daemon: an interpreter that ends does not wait for a disk that does not answer.
        self._thread = threading.Thread(target=self._run, name="headgate-cache-file", daemon=True)
        _stores.add(store)

    def begin(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def hand_over(self, jobs: Sequence[Job]) -> None:
        self._inbox.put(jobs)

    def end(self) -> None:
        """What was handed over is still done."""
        self._inbox.put(None)

    def taken(self, polled_at: float) -> None:
        """The loop has taken in what was delivered last."""
        self._taken += 1
        self.polled_at = max(self.polled_at, polled_at)

    def _run(self) -> None:
        store, monotonic = self.store, self.store.monotonic
        poll_at = monotonic()
        try:
            while True:
                jobs: Sequence[Job] | None = ()
                try:
                    jobs = self._inbox.get(timeout=max(poll_at - monotonic(), 0.0))
                except queue.Empty:
                    if self._loop.is_closed():
                        return
                if jobs is None:
                    self._report((), monotonic())
                    return
                self._step(jobs)
                if monotonic() >= poll_at:
                    poll_at = monotonic() + self._poll_s
        except RuntimeError:
            if not self._loop.is_closed():
                raise
        finally:
            with store.mutex:
                store.close()
            _stores.discard(store)

    def _step(self, jobs: Sequence[Job]) -> None:
        store = self.store
        with store.mutex:
            at = store.monotonic()
            try:
                if jobs:
                    store.batch(jobs)
                else:
                    store.poll()
            except Exception as error:
                # A fault of ours must not end the thread: everyone would wait for their deadline.
                log.exception("a batch on %s failed", store.path)
                for job in jobs:
                    if job.answer is None:
                        job.answer, job.is_failed = error, True
            if not store.is_open:
                at = 0.0
        if bool(store.away) != self._was_away:
            self._was_away = bool(store.away)
            if store.away:
                log.warning("the cache in %s is away: %s", store.path, store.away)
            else:
                log.info("the cache in %s is there", store.path)
        self._report(jobs, at)

    def _report(self, jobs: Sequence[Job], at: float) -> None:
        news = self.store.take_news()
        if jobs or news is not None or not self._has_reported:
            self._has_reported = True
            self._sent += 1
            self._loop.call_soon_threadsafe(self._deliver, jobs, news, at)
        elif self._sent == self._taken:
            self.polled_at = at


_stores: weakref.WeakSet[Store] = weakref.WeakSet()
_held: list[tuple[Store, bool]] = []


def _before_fork() -> None:
    for store in list(_stores):
        taken = store.mutex.acquire(timeout=_FORK_WAIT_S)
        if taken:
            store.close()
        _held.append((store, taken))


def _after_fork() -> None:
    while _held:
        store, taken = _held.pop()
        if taken:
            store.mutex.release()


def _after_fork_in_child() -> None:
    _after_fork()
    _stores.clear()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
)
