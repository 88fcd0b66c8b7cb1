"""The handler on the root logger: record in, one line to each sink out.

Theory of operation
-------------------
For each record: is it a repeat that is only counted? Is there a sink with room for it? Then an
entry is made once, each format in use makes its line once, and each sink's queue takes it. When all
queues are full nothing is made: a storm costs the loop a microsecond a line.

What an editor must not break:
- Nothing here waits or raises, whatever a record holds.
- A record made while one is made (a `__str__` that logs) is not handled within itself for ever:
  the depth is bounded.
- `redact_logs` hangs a filter on handlers. We take its redactor instead of running it: entries are
  redacted field by field, which a filter cannot do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from headgate.observe.logs.entry import Entry, Maker, Redacts
from headgate.observe.logs.formats import Form
from headgate.observe.logs.pump import Line, Pump
from headgate.observe.logs.repeats import Repeated, Repeats

__all__ = ["Lane", "Outlet"]

_DEEPEST = 3


class Lane:
    """One sink with its format and the level from which on it takes lines."""

    __slots__ = ("form", "level", "pump")

    def __init__(self, form: Form, level: int, pump: Pump) -> None:
        self.form = form
        self.level = level
        self.pump = pump


class Outlet(logging.Handler):
    def __init__(
        self,
        lanes: Sequence[Lane] = (),
        *,
        redactor: Redacts | None = None,
        repeats: Repeats | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.lanes = tuple(lanes)
        self.repeats = repeats
        self.feed: tuple[Form, int, Callable[[Line], None]] | None = None
        """A listener beside the sinks: it is given lines, in the thread that logs."""
        self._maker = Maker(redactor)
        self._clock = clock
        self._depth = threading.local()

    def createLock(self) -> None:  # noqa: N802  of logging
        """None: whoever logs must not wait for another, nor a signal handler for itself."""
        self.lock = None

    @property
    def redactor(self) -> Redacts | None:
        return self._maker.redactor

    @redactor.setter
    def redactor(self, redactor: Redacts | None) -> None:
        self._maker.redactor = redactor

    def addFilter(self, filter: Any) -> None:  # noqa: N802, A002  of logging
        redactor = getattr(filter, "redactor", None)
        if redactor is not None:
            self._maker.redactor = redactor
        super().addFilter(filter)

    def handle(self, record: logging.LogRecord) -> bool:
        for each in self.filters:
            if getattr(each, "redactor", None) is None:
                passes = each(record) if callable(each) else each.filter(record)
                if not passes:
                    return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        repeats = self.repeats
        if repeats is not None and record.levelno >= repeats.rules.level:
            text = record.msg
            if type(text) is not str:
                text = type(text).__name__
            place = (record.name, record.levelno, text[:200])
            if not repeats.admits(place, self._clock()):
                return
        level = record.levelno
        wanting = False
        for lane in self.lanes:
            if level >= lane.level:
                if lane.pump.is_full:
                    lane.pump.drop()
                else:
                    wanting = True
        feed = self.feed
        if not wanting and (feed is None or level < feed[1]):
            return
        depth = getattr(self._depth, "value", 0)
        if depth >= _DEEPEST:
            return
        self._depth.value = depth + 1
        try:
            self._spread(self._maker.of(record), full=False)
        except Exception:  # noqa: BLE001
            self.handleError(record)
        finally:
            self._depth.value = depth

    def _spread(self, entry: Entry, *, full: bool) -> None:
        made: dict[Form, Line] = {}
        level = entry.level
        for lane in self.lanes:
            if level < lane.level or (not full and lane.pump.is_full):
                continue
            line = made.get(lane.form)
            if line is None:
                line = Line(entry.wall, level, entry.logger, lane.form(entry))
                made[lane.form] = line
            lane.pump.put(line)
        if self.feed is not None and level >= self.feed[1]:
            form, _, take = self.feed
            line = made.get(form)
            if line is None:
                line = Line(entry.wall, level, entry.logger, form(entry))
            take(line)

    def say_repeats(self, now: float, *, all_of_them: bool = False) -> None:
        if self.repeats is not None:
            for repeated in self.repeats.due(now, all_of_them=all_of_them):
                self._spread(_told(repeated, self.redactor), full=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  of logging
        """A line that cannot be made is said to be one; it is never a traceback on a terminal."""
        entry = Entry(
            record.created,
            record.levelno,
            str(record.name)[:200],
            "a line that could not be put together",
            "",
            "",
            "",
            {},
        )
        try:
            self._spread(entry, full=True)
        except Exception:  # noqa: BLE001, S110  nothing is left to be tried
            pass


def _told(repeated: Repeated, redactor: Redacts | None) -> Entry:
    logger, level, text = repeated.place
    if redactor is not None:
        text = redactor.text(text)
    return Entry(
        time.time(),  # noqa: TID251  when it is said
        level,
        logger,
        f"{text} ... {repeated.more} times more in {repeated.over_s:.0f} s",
        "",
        "",
        "",
        {"repeated": repeated.more},
    )
