"""The department of history: takes all figures every second, and answers questions about them.

Theory of operation
-------------------
The loop only takes a copy of the merged figures and puts it into a bounded queue; a thread of the
store's own flattens, packs and writes. A disk that is slow makes the queue full; then moments are
left out and counted, and nothing else waits. What services show or send by themselves is held until
the next moments, for as long as it is fresh, so a series of theirs has a sample in each.

A store that cannot be made (no numpy, say) is a worry; control goes on without.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from headgate.config import Config
from headgate.config.history import HistorySpec
from headgate.control.observing.observing import Surroundings
from headgate.control.observing.scraping import Scraper
from headgate.control.observing.shares import shared_by_kind
from headgate.errors import HeadgateError
from headgate.observe import Merged, Rows
from headgate.observe.history import Family, Keep, Marker, Markers

if TYPE_CHECKING:
    from headgate.observe.history.store import Store
    from headgate.observe.query import Expr, Sample, Series

__all__ = ["History", "HistoryOff"]

_WAITING: Final = 30
_CLOSE_S: Final = 10.0
_BRIEF_S: Final = 3.0
_FOREIGN_SERIES: Final = 20_000
_SENT_HOLDS_S: Final = 300.0

log = logging.getLogger("headgate.control")


class HistoryOff(HeadgateError):
    """There is no history to ask."""


@dataclass(frozen=True, slots=True)
class _Moment:
    wall: float
    mono: float
    merged: Merged
    foreign: Sequence[Family]


def _first(families: Sequence[Family], most: int) -> list[Family]:
    """So many series of them: the same each time, where the source tells them alike."""
    kept: list[Family] = []
    for family in families:
        samples = dict(islice(family.samples.items(), most))
        most -= len(samples)
        if samples:
            kept.append(replace(family, samples=samples))
    return kept


class History:
    """Kept in control."""

    name = "history"

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._folder = surroundings.state_dir / self.name
        self._markers: Markers | None = None
        self._marking: threading.Thread | None = None
        self._marked = threading.Event()
        self._is_closing = False
        self._early: list[Marker] = []
        self._keep: Keep | None = None
        self._store: Store | None = None
        self._thread: threading.Thread | None = None
        self._ending: threading.Thread | None = None
        self._queue: queue.Queue[_Moment | None] = queue.Queue(_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._missed = 0
        self._left_out = 0
        self._failure = ""
        self._foreign: dict[str, tuple[float, Sequence[Family], int]] = {}
        self._scraper = Scraper(self.give)

    # -- a department's life ---------------------------------------------------------------------

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._turn(), name="history")

    def take(self, config: Config) -> None:
        spec = config.history
        keep = spec.rules() if isinstance(spec, HistorySpec) else None
        scrapes = spec.scrapes() if isinstance(spec, HistorySpec) else ()
        self._scraper.take(config, scrapes)
        if keep == self._keep:
            return
        before = self._end_thread()
        self._keep = keep
        if keep is None:
            return
        from headgate.observe.history.store import Store

        if self._markers is None:
            with contextlib.suppress(OSError):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._markers = Markers(self._folder / "markers.jsonl")
            for one in self._early:
                self._markers.note(one.at, one.kind, one.text, one.attributes)
            self._early.clear()
            self._marked.set()
            self._marking = threading.Thread(
                target=self._write_marks, args=(self._markers,), name="markers", daemon=True
            )
            self._marking.start()
        self._queue = queue.Queue(_WAITING)
        self._store = Store(self._folder, keep)
        self._thread = threading.Thread(
            target=self._work, args=(self._store, self._queue, before), name="history", daemon=True
        )
        self._thread.start()

    async def close(self) -> None:
        await self._scraper.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._stop_thread)

    def _stop_thread(self) -> None:
        self._is_closing = True
        self._marked.set()
        thread = self._end_thread()
        if thread is not None:
            thread.join(_CLOSE_S)
        if self._marking is not None:
            self._marking.join(_CLOSE_S)

    def _write_marks(self, markers: Markers) -> None:
        """Markers come on the loop, which no file may hold up."""
        is_last = False
        while not is_last:
            self._marked.wait()
            self._marked.clear()
            is_last = self._is_closing
            try:
                markers.write()
            except Exception:
                log.exception("a marker is not written")

    def _end_thread(self) -> threading.Thread | None:
        """Have the thread end; the one that ends. Waits for nothing: a disk may be slow."""
        thread, self._thread, self._store = self._thread, None, None
        if thread is None:
            return self._ending
        while True:
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self._missed += 1
            else:
                self._ending = thread
                return thread

    def worries(self) -> Iterable[str]:
        if self._failure:
            yield f"history: {self._failure}"
        store = self._store
        if store is None:
            return
        if store.figures.trouble:
            yield f"history: {store.figures.trouble}"
        yield from (f"history: {said}" for said in store.spoilt()[:3])
        if self._queue.full():
            yield "history: the disk is too slow; moments are left out"

    def rows_into(self, rows: Rows) -> None:
        store = self._store
        if store is None:
            return
        figures = store.figures
        rows["headgate_history_series"].append(([], figures.series))
        rows["headgate_history_samples_total"].append(([], figures.samples))
        for what, count in (
            ("series", figures.dropped_series),
            ("moment", self._missed + figures.skipped_moments),
            ("block", figures.lost_blocks),
            ("foreign", self._left_out + self._scraper.left_out),
        ):
            rows["headgate_history_dropped_total"].append(([what], count))
        rows["headgate_history_bytes"].append(([], figures.bytes_on_disk))
        for tier, blocks in figures.blocks.items():
            rows["headgate_history_blocks"].append(([tier], blocks))
        rows["headgate_history_unwritten_blocks"].append(([], figures.unwritten_blocks))
        rows["headgate_history_scrapes_total"].append((["ok"], self._scraper.succeeded))
        rows["headgate_history_scrapes_total"].append((["failed"], self._scraper.failed))

    # -- samples ---------------------------------------------------------------------------------

    async def _turn(self) -> None:
        due = time.monotonic()
        while True:
            keep = self._keep
            every_s = keep.every_s if keep is not None else 1.0
            due = max(due + every_s, time.monotonic() - every_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._store is None:
                continue
            try:
                self._sample()
            except Exception as error:
                if not self._failure:
                    log.exception("a moment of the history is lost")
                self._failure = f"a moment is lost: {error!r}"
                self._missed += 1

    def _sample(self) -> None:
        now = time.monotonic()
        self._foreign = {source: held for source, held in self._foreign.items() if held[0] > now}
        foreign = [family for _, families, _ in self._foreign.values() for family in families]
        wall = time.time()  # noqa: TID251  what samples are known by
        try:
            self._queue.put_nowait(_Moment(wall, now, self._surroundings.merged(), foreign))
        except queue.Full:
            self._missed += 1

    def _work(
        self,
        store: Store,
        moments: queue.Queue[_Moment | None],
        before: threading.Thread | None,
    ) -> None:
        from headgate.observe.history.families import families_of

        if before is not None:
            before.join()  # the folder is still another store's
            del before
        while True:
            moment = moments.get()
            if moment is None:
                break
            try:
                families = [*families_of(moment.merged), *moment.foreign]
                store.append(moment.wall, moment.mono, families, moment.merged.lives)
                self._failure = ""
            except Exception as error:
                if not self._failure:
                    log.exception("a moment of the history is lost")
                self._failure = f"a moment is lost: {error}"
                self._missed += 1
        try:
            store.close()
        except Exception:
            log.exception("the history did not end in order")

    def give(self, source: str, families: Sequence[Family], *, holds_s: float = 0.0) -> int:
        """Figures of others, in place of what the same source gave before. Where all are too many
        each source has its share, and what is beyond is left out; how many of these series is the
        answer. The first word of a source says what kind it is.
        """
        now = time.monotonic()
        held = {name: one for name, one in self._foreign.items() if one[0] > now}
        wanted = sum(len(family.samples) for family in families)
        held[source] = (now + (holds_s or _SENT_HOLDS_S), families, wanted)
        sizes = {name: size for name, (_, _, size) in held.items()}
        shares = shared_by_kind(sizes, _FOREIGN_SERIES)
        self._foreign = {}
        for name, (until, has, size) in held.items():
            share = shares[name]
            self._left_out += size - share
            if share:
                self._foreign[name] = (until, _first(has, share) if share < size else has, share)
        return wanted - shares[source]

    # -- questions -------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """Raises HistoryOff."""
        if self._store is None:
            raise HistoryOff("there is no history; say `history: true` in the file")
        return self._store

    def ask(self, expr: Expr, at: float) -> list[Sample]:
        """The answer at one moment; for a thread, it may take a while. Raises QueryFault."""
        from headgate.observe.history.asking import ask

        return ask(expr, self.store, at)

    def ask_briefly(self, expr: Expr, at: float) -> list[Sample]:
        """Likewise, for rules: many are asked, and none may hold a thread for long."""
        from headgate.observe.history.asking import ask

        return ask(expr, self.store, at, seconds=_BRIEF_S)

    def ask_range(self, expr: Expr, start: float, end: float, step: float) -> list[Series]:
        """Likewise over time."""
        from headgate.observe.history.asking import ask_range

        return ask_range(expr, self.store, start, end, step)

    def mark(
        self,
        at: float,
        kind: str,
        text: str,
        attributes: Mapping[str, Any] | None = None,
        *,
        waits: bool = False,
    ) -> Marker:
        """Something has happened, to be shown beside the figures. `waits`: for the file, too."""
        if self._markers is not None:
            made = self._markers.note(at, kind, text, attributes or {})
            if waits:
                self._markers.write()
            else:
                self._marked.set()
            return made
        made = Marker(at, kind, text, {n: str(v) for n, v in (attributes or {}).items()})
        self._early = [*self._early[-99:], made]
        return made

    def markers(self, start: float, end: float, kind: str = "") -> list[Marker]:
        if self._markers is None:
            return []
        return self._markers.between(start, end, kind)
