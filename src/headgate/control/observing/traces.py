"""The traces of this gateway and of the services behind: kept, searched, sent on.

Theory of operation
-------------------
    workers (events)  ┐                      ┌ store (SQLite, by one thread)
    POST /v1/traces   ┴ queue -> thread -> room ┴ exporter (a thread of its own)

What comes in is checked where it comes in and put into a bounded queue; a full one means that the
disk does not keep up, and what finds no place is dropped and counted: traffic does not wait for its
traces. The thread owns the store; opening it (which checks the file) happens there, too, so that a
large or spoilt file does not hold up control. An error of the disk is a worry until a batch could
be written again. Searches have ways in of their own, in other threads, with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from headgate import __version__
from headgate.config import Config
from headgate.config.tracing import TracingExportSpec, TracingSpec, TracingStoreSpec
from headgate.control.observing.observing import Surroundings
from headgate.observe import Rows
from headgate.observe.odd_files import set_aside
from headgate.observe.tracing.export import Exporter
from headgate.observe.tracing.process import resource_of
from headgate.observe.tracing.record import SpanRecord
from headgate.observe.tracing.room import WaitingRoom
from headgate.observe.tracing.rules import ExportRules, StoreRules, TracingRules
from headgate.observe.tracing.store import TraceStore, reading

__all__ = ["NotKept", "TooSlow", "Traces"]

log = logging.getLogger("headgate.control")

FILE: Final = "traces.sqlite"
QUEUE: Final = 64
QUEUE_SPANS: Final = 30_000
"""A span takes one or two KB here, and a batch may have thousands."""
EVERY_S: Final = 1.0
EXPIRE_EVERY_S: Final = 60.0
PROBE_EVERY_S: Final = 5.0
SEARCH_S: Final = 5.0
SEARCHES: Final = 2
SEARCHES_WAITING: Final = 16
"""Searches take a thread for seconds, and control has few threads."""
EXPORTED: Final = ("sent", "refused", "late", "full", "faulty")
T = TypeVar("T")


class NotKept(Exception):
    """There is no store to search."""


class TooSlow(Exception):
    """A search was cut off."""


@dataclass(frozen=True, slots=True)
class _Setting:
    rules: TracingRules
    store: StoreRules | None
    export: ExportRules | None


_CLOSE: Final = object()


class Traces:
    name = "traces"

    def __init__(self, surroundings: Surroundings, *, queue_batches: int = QUEUE) -> None:
        self.path: Path = surroundings.state_dir / self.name / FILE
        self._queue: queue.Queue[Any] = queue.Queue(queue_batches)
        self._guard = threading.Lock()
        self._waiting = 0
        """Spans in the queue."""
        self._thread: threading.Thread | None = None
        self._setting = self._set_to = _Setting(TracingRules(), None, None)
        self._store: TraceStore | None = None
        self._exporter: Exporter | None = None
        self._room = WaitingRoom(self._setting.rules)
        self._store_worry = ""
        self._aside: Path | None = None
        self._opened = threading.Event()
        self._searches = asyncio.Semaphore(SEARCHES)
        self._searching = 0
        self._due = 0.0
        self._probe_due = 0.0
        self.stored = 0
        self.dropped = 0
        self.refused = 0
        self._exported = [0, 0, 0, 0, 0]
        self._size = 0
        self._traces = 0

    # -- the department -----------------------------------------------------------------------

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="headgate-traces", daemon=True)
        self._thread.start()

    def take(self, config: Config) -> None:
        spec = config.tracing
        if not isinstance(spec, TracingSpec):
            setting = _Setting(TracingRules(), None, None)
        else:
            setting = _Setting(
                spec.rules(),
                spec.store.rules() if isinstance(spec.store, TracingStoreSpec) else None,
                spec.export.rules() if isinstance(spec.export, TracingExportSpec) else None,
            )
        if setting != self._setting:
            self._setting = setting
            self._opened.clear()
            with contextlib.suppress(queue.Full):  # then it is awake anyway
                self._queue.put_nowait(())
        elif setting.store is None:
            self._opened.set()

    async def close(self) -> None:
        thread = self._thread
        if thread is None:
            return
        self._thread = None
        await asyncio.to_thread(self._close, thread)

    def _close(self, thread: threading.Thread) -> None:
        try:
            self._queue.put(_CLOSE, timeout=5.0)
        except queue.Full:
            log.warning("the traces that wait are not written: the disk does not keep up")
            return
        thread.join(10.0)

    def worries(self) -> Iterable[str]:
        aside = self._aside
        if aside is not None and aside.exists():
            yield (
                f"the store of traces was spoilt; it was put aside as {aside.name}: remove it when"
                " you have looked at it"
            )
        if self._store_worry:
            yield self._store_worry
        exporter = self._exporter
        if exporter is not None and exporter.is_down:
            yield "traces cannot be delivered to `tracing.export`; see the log"

    def rows_into(self, rows: Rows) -> None:
        spans = rows["headgate_traces_spans_total"]
        spans.append((["stored"], self.stored))
        spans.append((["dropped"], self.dropped + self._room.overflowed))
        spans.append((["refused"], self.refused))
        spans.append((["unwanted"], self._room.expired))
        exported = rows["headgate_traces_exported_total"]
        counts = self._export_counts()
        for outcome, count in zip(EXPORTED, counts, strict=True):
            exported.append(([outcome], count))
        rows["headgate_traces_store_bytes"].append(([], self._size))
        rows["headgate_traces_stored"].append(([], self._traces))

    def _export_counts(self) -> list[int]:
        exporter = self._exporter
        if exporter is None:
            return self._exported
        stats = exporter.stats
        now = (
            stats.sent,
            stats.dropped_refused,
            stats.dropped_late,
            stats.dropped_full,
            stats.dropped_faulty,
        )
        return [before + more for before, more in zip(self._exported, now, strict=True)]

    # -- what comes in ------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self._setting.store is not None or self._setting.export is not None

    def heard(self, _worker: int, event: dict[str, Any]) -> None:
        """`{"event": "spans", "spans": [...]}` of a worker. Whole traces that it had no room for it
        counts itself, before they have spans.
        """
        rows = event.get("spans")
        spans: list[SpanRecord] = []
        for row in rows if isinstance(rows, list) else ():
            try:
                spans.append(SpanRecord.of_json(row))
            except ValueError:
                self.refused += 1
        self.put(spans)

    def put(self, spans: Sequence[SpanRecord]) -> bool:
        """Keep these; False if there was no place and they are dropped. Never waits."""
        if not spans or not self.is_on:
            return True
        with self._guard:
            has_room = self._waiting == 0 or self._waiting + len(spans) <= QUEUE_SPANS
            if has_room:
                try:
                    self._queue.put_nowait(list(spans))
                except queue.Full:
                    has_room = False
                else:
                    self._waiting += len(spans)
        if not has_room:
            self.dropped += len(spans)
        return has_room

    # -- searching ----------------------------------------------------------------------------

    async def ask(self, search: Callable[[sqlite3.Connection], T]) -> T:
        """What a search of the store finds."""
        if self._setting.store is None:
            raise NotKept
        if self._searching >= SEARCHES_WAITING:
            raise TooSlow
        self._searching += 1
        try:
            async with self._searches:
                return await asyncio.to_thread(self._ask, search)
        finally:
            self._searching -= 1

    def _ask(self, search: Callable[[sqlite3.Connection], T]) -> T:
        if not self._opened.wait(SEARCH_S):
            raise TooSlow
        try:
            with reading(self.path, SEARCH_S) as db:
                return search(db)
        except sqlite3.OperationalError as error:
            if "interrupt" in str(error) or "locked" in str(error):
                raise TooSlow from error
            raise NotKept from error
        except sqlite3.DatabaseError as error:
            raise NotKept from error

    async def settled(self) -> None:
        """All that was put before is written, or dropped."""
        done = threading.Event()
        await asyncio.to_thread(self._queue.put, done)
        await asyncio.to_thread(done.wait, 30.0)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                order = self._queue.get(timeout=EVERY_S)
            except queue.Empty:
                order = None
            if isinstance(order, list):
                with self._guard:
                    self._waiting -= len(order)
            try:
                if self._set_to is not self._setting:
                    self._set(self._setting)
                if order is _CLOSE:
                    self._end()
                    return
                if isinstance(order, threading.Event):
                    order.set()
                else:
                    self._turn(order or ())
            except Exception:
                log.exception("a batch of traces is lost")

    def _turn(self, spans: Sequence[SpanRecord]) -> None:
        now = time.monotonic()
        kept = self._room.take(spans, now)
        if kept:
            if self._exporter is not None:
                self._exporter.put(kept)
            self._write(kept)
        if self._store_worry and now >= self._probe_due:
            self._probe_due = now + PROBE_EVERY_S
            self._probe()
        if now >= self._due and self._store is not None:
            self._due = now + EXPIRE_EVERY_S
            try:
                self._store.expire()
                self._look()
            except sqlite3.DatabaseError as error:
                self._failed(error, 0)

    def _write(self, spans: Sequence[SpanRecord]) -> None:
        if self._store is None:
            if self._setting.store is not None:
                self._open(self._setting.store)  # it could not be opened before
            if self._store is None:
                self.dropped += len(spans)
                return
        try:
            self._store.put(spans)
        except sqlite3.DatabaseError as error:
            self._failed(error, len(spans))
            return
        self._store_worry = ""
        self.refused += self._store.refused
        self.stored += len(spans) - self._store.refused
        self._store.refused = 0
        self._look()

    def _probe(self) -> None:
        """After a fault, when no spans come: whether it is over."""
        if self._store is None:
            if self._setting.store is not None:
                self._open(self._setting.store)
            return
        try:
            self._store.probe()
        except sqlite3.DatabaseError as error:
            self._failed(error, 0)
        else:
            self._store_worry = ""

    def _look(self) -> None:
        if self._store is not None:
            self._size = self._store.size()
            self._traces = self._store.traces

    def _failed(self, error: sqlite3.DatabaseError, spans: int) -> None:
        self.dropped += spans
        self._probe_due = time.monotonic() + PROBE_EVERY_S
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        if not self._store_worry:
            log.warning("traces cannot be written to %s: %s", self.path, error)
        self._store_worry = f"traces cannot be written to {self.path}: {error}"
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} and self._store is not None:
            rules = self._store.rules
            self._store.close()
            self._store = None
            aside = set_aside(self.path, time.time())  # noqa: TID251  # for its name
            self._spoilt(aside)
            self._open(rules)

    def _set(self, setting: _Setting) -> None:
        self._set_to = setting
        self._room = self._new_room(setting.rules)
        if self._exporter is not None:
            self._exported = self._export_counts()
            old, self._exporter = self._exporter, None
            old.close(2.0)
        if setting.export is not None:
            about = resource_of("headgate", __version__)
            about.pop("process.pid", None)
            self._exporter = Exporter(setting.export, resource=about)
        if self._store is not None:
            self._store.close()
            self._store = None
        self._store_worry = ""
        if setting.store is not None:
            self._open(setting.store)
        self._opened.set()

    def _new_room(self, rules: TracingRules) -> WaitingRoom:
        room = WaitingRoom(rules)
        room.expired = self._room.expired
        room.overflowed = self._room.overflowed + self._room.count
        return room

    def _open(self, rules: StoreRules) -> None:
        try:
            self._store = TraceStore(self.path, rules)
        except (sqlite3.DatabaseError, OSError) as error:
            if not self._store_worry:
                log.warning("traces are not kept: %s: %s", self.path, error)
            self._store_worry = f"traces are not kept: {self.path}: {error}"
            return
        self._store_worry = ""
        if self._store.spoilt is not None:
            self._spoilt(self._store.spoilt)
        self._due = 0.0

    def _spoilt(self, aside: Path) -> None:
        log.error("the store of traces was spoilt; it is now %s, and a new one is begun", aside)
        self._aside = aside

    def _end(self) -> None:
        if self._exporter is not None:
            self._exporter.close(3.0)
        if self._store is not None:
            self._store.close()
            self._store = None
