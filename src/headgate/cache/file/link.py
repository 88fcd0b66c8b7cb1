"""Between an event loop and the thread that has the file: batches there, answers and news back.

Theory of operation. Calls of one turn of the loop become one batch for the thread (`worker`), and
one timer guards all of them. What was invalidated anywhere on the machine is in the barriers here
before a listener hears of it, within `poll_s`; `is_coherent` says no as soon as the last poll that
the loop knows the outcome of is older than `coherent_s`. Together they stay under 100 ms.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from headgate.cache.barriers import Barriers
from headgate.cache.codecs import Packer
from headgate.cache.file.jobs import Job, News
from headgate.cache.file.news import BARRIERS_MAX
from headgate.cache.file.store import UNOPENED, Store
from headgate.cache.file.worker import Worker
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import LayerAway

__all__ = ["LATENCIES", "Link"]

_WAITING_MAX: Final = 10_000
"""Calls that wait for the thread, beyond which the layer is away."""
_NEWS_STEP: Final = 500
log = logging.getLogger("headgate.cache.file")

LATENCIES: Final = 256


class Link:
    def __init__(
        self,
        path: str,
        packer: Packer,
        *,
        bytes_max: int,
        deadline_s: float,
        busy_s: float,
        poll_s: float,
        coherent_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251  # entries travel between processes
    ) -> None:
        self.barriers = Barriers("objects", BARRIERS_MAX)
        self._packer = packer
        self._deadline_s = deadline_s
        self._poll_s = poll_s
        self._coherent_s = coherent_s
        self._monotonic = monotonic
        self._wall = wall
        self._make: Callable[[], Store] = lambda: Store(
            path, packer, bytes_max=bytes_max, busy_s=busy_s, monotonic=monotonic, wall=wall
        )
        self._store = self._make()
        self._worker: Worker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._turn: list[Job] = []
        self._waiting = 0
        self._is_stalled = False
        self._opened: asyncio.Event | None = None
        self._backlog: list[Invalidation] = []
        self._hear: dict[object, Callable[[Invalidation], None]] = {}
        self._gaps: dict[object, Callable[[], None]] = {}
        self._commands = self._batches = self._failures = 0
        self._bytes_in = self._bytes_out = 0
        self._latencies = [0.0] * LATENCIES

    # ---- life

    async def start(self) -> None:
        if self._worker is not None and self._pid == os.getpid():
            return
        self._begin()
        if self._opened is not None:
            try:
                async with asyncio.timeout(self._deadline_s):
                    await self._opened.wait()
            except TimeoutError:
                pass  # it may come later

    def _begin(self) -> None:
        """Also in a child, which has no thread and must not use its parent's database."""
        if self._pid not in (0, os.getpid()):
            self._store, self._turn, self._waiting = self._make(), [], 0
        self._pid = os.getpid()
        self._is_stalled = False
        self._opened = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(self._store, self._loop, self._deliver, self._poll_s)
        self._worker.begin()

    async def close(self) -> None:
        """What was asked for is done first, if the file answers in time."""
        self._flush()
        worker, self._worker = self._worker, None
        if worker is None or self._pid != os.getpid():
            return
        worker.end()
        give_up = self._monotonic() + self._deadline_s
        while worker.is_alive and self._monotonic() < give_up:  # noqa: ASYNC110  # a thread's end
            await asyncio.sleep(0.002)

    @property
    def is_away(self) -> bool:
        return bool(self._store.away) or self._is_stalled or self._worker is None

    def is_coherent(self, now: float) -> bool:
        worker = self._worker
        return (
            worker is not None and not self._backlog and now - worker.polled_at < self._coherent_s
        )

    # ---- to the thread and back

    def _ask(self, job: Job) -> asyncio.Future[Any]:
        worker = self._worker
        if worker is None:
            raise LayerAway(f"{self._store.path}: not started; start() it first")
        if self._pid != os.getpid():
            self._begin()
        loop, store = self._loop, self._store
        if loop is None or loop.is_closed():
            raise LayerAway(f"{store.path}: its event loop has ended; start() it in this one")
        why = ""
        if self._is_stalled:
            why = f"no answer within {self._deadline_s:g} s"
        elif store.away and store.away != UNOPENED:
            why = store.away
        elif job.is_write and not store.may_write(self._monotonic()):
            why = store.unwritable
        elif self._waiting >= _WAITING_MAX:
            why = f"{_WAITING_MAX} calls wait for it already"
        if why:
            self._failures += 1
            raise LayerAway(f"{store.path}: {why}")
        job.future = loop.create_future()
        self._waiting += 1
        self._turn.append(job)
        if len(self._turn) == 1:
            loop.call_soon(self._flush)
        future: asyncio.Future[Any] = job.future
        return future

    def _flush(self) -> None:
        jobs, self._turn = self._turn, []
        if not jobs or self._loop is None:
            return
        if self._worker is None:
            self._expire(jobs)
            return
        timer = self._loop.call_later(self._deadline_s, self._expire, jobs)
        jobs[0].timer = timer
        jobs[0].asked_at = self._monotonic()
        self._worker.hand_over(jobs)

    def _expire(self, jobs: Sequence[Job]) -> None:
        self._is_stalled = True
        for job in jobs:
            if not job.future.done():
                self._failures += 1
                job.future.set_exception(
                    LayerAway(f"{self._store.path}: no answer within {self._deadline_s:g} s")
                )

    def _deliver(self, jobs: Sequence[Job], said: News | None, at: float) -> None:
        """On the loop. News first: no answer is seen before the barriers it was judged by."""
        worker = self._worker
        self._is_stalled = False
        if said is not None:
            self._take(said)
        if jobs:
            if jobs[0].timer is not None:
                jobs[0].timer.cancel()
            self._latencies[self._batches % LATENCIES] = self._monotonic() - jobs[0].asked_at
            self._batches += 1
            self._commands += len(jobs)
            self._waiting -= len(jobs)
        for job in jobs:
            if job.future.done():
                if job.undo is not None and not job.is_failed:
                    job.undo(job.answer)
            elif job.is_failed:
                self._failures += 1
                job.future.set_exception(job.answer)
            else:
                job.future.set_result(job.answer)
        if worker is not None:
            worker.taken(at)
        if self._opened is not None:
            self._opened.set()

    def _take(self, said: News) -> None:
        if said.is_gap:
            self.barriers.raise_floor(said.floor)
            for gap in list(self._gaps.values()):
                try:
                    gap()
                except Exception:
                    log.exception("a listener of gaps failed")
        for each in said.own:
            self.barriers.raise_for(each)
        if len(said.heard) > _NEWS_STEP or self._backlog:
            # All that stands in a file that was just opened: not in one turn of the loop.
            is_first = not self._backlog
            self._backlog += said.heard
            if is_first:
                self._take_some()
        else:
            self._hear_all(said.heard)
        if not self._backlog:
            self.barriers.heard(said.stamp)
        if said.floor > self.barriers.floor:
            self.barriers.raise_floor(said.floor)

    def _take_some(self) -> None:
        some = self._backlog[:_NEWS_STEP]
        self._hear_all(some)
        del self._backlog[:_NEWS_STEP]
        if self._backlog and self._loop is not None:
            self._loop.call_soon(self._take_some)

    def _hear_all(self, heard: Sequence[Invalidation]) -> None:
        for each in heard:
            self.barriers.raise_for(each)
            for hear in list(self._hear.values()):
                try:
                    hear(each)
                except Exception:
                    log.exception("a listener of invalidations failed")
