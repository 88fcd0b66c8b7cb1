"""One call that has a whole process log: `logs.setup("orders")`.

Theory of operation
-------------------
`setup` puts one `Outlet` in place of all handlers of the root logger, brings the loggers of
well-known servers to it, and sets levels. It may be called again, and then changes what is
different: a sink whose rules are the same keeps its queue, its connection and its counts. A sink
that cannot be made raises before anything has changed.

One thread of our own wakes once a second: it says what was repeated and ends levels that were set
for a while. It begins with the first `setup`, and anew in a child after a fork.

At the end of the interpreter sinks are flushed within `FLUSH_S`; lines after that are written in
place by sinks that can (files, standard output) and counted as dropped by others.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from headgate.observe.logs.entry import Redacts
from headgate.observe.logs.formats import Form, Identity, form_of
from headgate.observe.logs.levels import LevelOrder, Levels, loggers_of
from headgate.observe.logs.outlet import Lane, Outlet
from headgate.observe.logs.pump import Line, Pump, SinkStats
from headgate.observe.logs.repeats import Repeats
from headgate.observe.logs.rules import (
    Format,
    LogRules,
    RepeatRules,
    SinkRules,
    level_number,
)
from headgate.observe.logs.sinks.making import carrier_of, format_for

__all__ = ["FLUSH_S", "Logging", "flush", "levels", "reopen", "setup", "shutdown", "snapshot"]

FLUSH_S: Final = 2.0
_TICK_S: Final = 1.0
_SERVERS: Final = (
    "uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn", "gunicorn.error",
    "gunicorn.access", "hypercorn.error", "hypercorn.access", "py.warnings",
)  # fmt: skip


class Logging:
    """The logging of one process."""

    def __init__(self) -> None:
        self.rules = LogRules()
        self.identity = Identity()
        self.levels = Levels()
        self.outlet = Outlet()
        self._pumps: dict[SinkRules, Pump] = {}
        self._gone = [0, 0, 0]  # of sinks that are no more: written, dropped, failed
        self._minder: threading.Thread | None = None
        self._is_on = False

    def take(
        self, identity: Identity, rules: LogRules, *, redactor: Redacts | None, keep: bool = False
    ) -> None:
        """Log by these rules from now on; `keep` leaves the redactor as it is."""
        same_who = identity == self.identity
        pumps: dict[SinkRules, Pump] = {}
        lanes = []
        forms: dict[str, Form] = {}
        for sink in rules.sinks:
            pump = (self._pumps.get(sink) if same_who else None) or pumps.get(sink)
            if pump is None:
                pump = Pump(
                    carrier_of(sink, identity),
                    queue_bytes=sink.queue_bytes,
                    batch_bytes=sink.batch_bytes,
                    linger_s=sink.linger_s,
                    timeout_s=sink.timeout_s,
                )
            pumps[sink] = pump
            name = format_for(sink, rules)
            form = forms.get(name) or form_of(name, identity)
            forms[name] = form
            lanes.append(Lane(form, sink.level, pump))
        # From here on nothing can be refused.
        self.rules, self.identity = rules, identity
        before, self._pumps = self._pumps, pumps
        self.outlet.lanes = tuple(lanes)
        if self.outlet.feed is not None:
            _, level, take = self.outlet.feed
            self.outlet.feed = (form_of("json", identity), level, take)
        if not keep:
            self.outlet.redactor = redactor
        now = self.outlet.repeats
        if rules.repeats is None or now is None or now.rules != rules.repeats:
            self.outlet.say_repeats(time.monotonic(), all_of_them=True)
            self.outlet.repeats = Repeats(rules.repeats) if rules.repeats is not None else None
        self.levels.take(rules.level, rules.levels)
        self.install()
        for sink, pump in before.items():
            if pumps.get(sink) is not pump:
                self._end(pump, 0.5)

    def install(self) -> None:
        root = logging.getLogger()
        for handler in root.handlers[:]:
            if handler is not self.outlet and not _is_of_tests(handler):
                root.removeHandler(handler)
        if self.outlet not in root.handlers:
            root.addHandler(self.outlet)
        for name in _SERVERS:
            logger = logging.getLogger(name)
            logger.handlers[:] = []
            logger.propagate = True
        logging.raiseExceptions = False
        self.levels.put_on()
        self._is_on = True
        self._mind()

    def listen(self, level: int, take: Callable[[Line], None] | None) -> None:
        """Have `take` called with every line as JSON, in the thread that logs."""
        if take is None:
            self.outlet.feed = None
        else:
            self.outlet.feed = (form_of("json", self.identity), level, take)

    def order(self, logger: str, level: int | None, for_s: float | None = None) -> None:
        """Set a level, for a while or for good; None takes an order back."""
        name = loggers_of(logger)
        if level is None:
            self.levels.take_back(name)
        else:
            until = None if for_s is None else time.monotonic() + for_s
            self.levels.order(LevelOrder(name, level, until))
        self.levels.put_on()

    def snapshot(self) -> dict[str, SinkStats]:
        """What each sink did, by its name."""
        return {rules.name: pump.snapshot() for rules, pump in self._pumps.items()}

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        until = time.monotonic() + timeout_s
        pumps = tuple(self._pumps.values())
        done = [pump.flush(max(0.0, until - time.monotonic())) for pump in pumps]
        return all(done)

    def reopen(self) -> None:
        for pump in self._pumps.values():
            pump.reopen()

    def shutdown(self, timeout_s: float = FLUSH_S) -> None:
        """Write what there is; later lines are written in place where that is possible."""
        self._is_on = False
        self.outlet.say_repeats(time.monotonic(), all_of_them=True)
        until = time.monotonic() + timeout_s
        for pump in self._pumps.values():
            # All are told at once, so that a slow one does not take the others' time.
            pump.begin_close(timeout_s)
        for pump in self._pumps.values():
            pump.close(max(0.0, until - time.monotonic()))

    def remove(self) -> None:
        """Leave the root logger without us, for tests and for programs that end logging early."""
        self.shutdown()
        logging.getLogger().removeHandler(self.outlet)
        self._pumps = {}
        self.outlet.lanes = ()
        self.outlet.feed = None
        self.levels.take_back()
        self.levels.take(logging.WARNING, {})
        self.levels.put_on()

    def _end(self, pump: Pump, timeout_s: float) -> None:
        # Not here: a reload must not wait for a sink that is away.
        threading.Thread(
            target=pump.close, args=(timeout_s,), name="log-close", daemon=True
        ).start()

    def _mind(self) -> None:
        if self._minder is None or not self._minder.is_alive():
            self._minder = threading.Thread(target=self._watch, name="log-minder", daemon=True)
            self._minder.start()

    def _watch(self) -> None:
        while self._is_on:
            time.sleep(_TICK_S)
            now = time.monotonic()
            try:
                self.outlet.say_repeats(now)
                if self.levels.expire(now):
                    self.levels.put_on()
            except Exception:  # noqa: BLE001, S110  a race with a change; in a second there is another turn
                pass

    def after_fork(self) -> None:
        if not self._is_on:
            return
        self._minder = None
        if self.identity.pid:
            identity = replace(self.identity, pid=os.getpid())
            self.identity = identity
            forms: dict[str, Form] = {}
            for lane, sink in zip(self.outlet.lanes, self.rules.sinks, strict=False):
                name = format_for(sink, self.rules)
                lane.form = forms.setdefault(name, form_of(name, identity))
        self._mind()


def _is_of_tests(handler: logging.Handler) -> bool:
    return type(handler).__module__.startswith("_pytest.")


_logging = Logging()
os.register_at_fork(after_in_child=_logging.after_fork)


def _at_exit() -> None:
    _logging.shutdown()


def setup(
    service: str,
    *,
    format: Format = "json",  # noqa: A002  what it is called everywhere
    level: str = "info",
    levels: Mapping[str, str] | None = None,
    sinks: Sequence[SinkRules | str] = ("stdout",),
    redact: Redacts | bool | None = True,
    repeats: RepeatRules | None = RepeatRules(),  # noqa: B008  frozen
    version: str = "",
) -> Logging:
    """Have this process log to `sinks`: rules, or a name (`stdout`, `stderr`, or a file's path).

    `redact` is a `headgate.security.redact.Redactor`; True is one with the default rules, and
    False or None leaves lines as they are. Raises ValueError for what cannot be.
    """
    rules = LogRules(
        format=format,
        level=level_number(level),
        levels={loggers_of(name): level_number(text) for name, text in (levels or {}).items()},
        sinks=tuple(_sink(one) for one in sinks),
        repeats=repeats,
    )
    form_of(format, Identity("", "", "", 0))
    redactor: Redacts | None = None
    if redact is True:
        from headgate.security.redact import Redactor

        redactor = Redactor()
    elif redact:
        redactor = redact
    _logging.take(Identity(service, version), rules, redactor=redactor)
    _take_structlog()
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    return _logging


def process_logging() -> Logging:
    """The logging of this process, for those who have rules of their own."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    return _logging


def _sink(one: SinkRules | str) -> SinkRules:
    if isinstance(one, SinkRules):
        return one
    if one in {"stdout", "stderr"}:
        return SinkRules(kind=one)
    return SinkRules(kind="file", path=one)


def _take_structlog() -> None:
    """Where structlog is in use, have its chain end here."""
    import sys

    structlog: Any = sys.modules.get("structlog")
    if structlog is None:
        return
    from headgate.observe.logs.structured import configure

    configure(structlog)


def levels() -> Mapping[str, str]:
    """Levels by logger that hold now; `root` is all others'."""
    return _logging.levels.shown()


def flush(timeout_s: float = FLUSH_S) -> bool:
    """Wait until what was said is written; whether that was done in time."""
    return _logging.flush(timeout_s)


def reopen() -> None:
    """Open files anew, after they were renamed."""
    _logging.reopen()


def snapshot() -> Mapping[str, SinkStats]:
    return _logging.snapshot()


def shutdown(timeout_s: float = FLUSH_S) -> None:
    _logging.shutdown(timeout_s)
