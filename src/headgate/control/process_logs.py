"""How a process of ours logs: from its first line, by the file as soon as it is known, and to
control, which keeps lines that can be searched.

Theory of operation
-------------------
`begin` is called first of all and logs text to standard error; `take` brings the process to what
the file says. A sink that cannot be had is said and left out: no process ends for its logs.

A worker hands its lines to control through a `Feed`: whoever logs, in any thread, appends to a
bounded list, and once a second the loop sends what there is, at most `EVENT_BYTES` of it. What does
not fit is counted and the count is sent. Lines of the access log come the same way, if any are
wanted, already as bytes: on the hot path nothing is added.

Levels that are set at run time reach a worker as one retained message with all orders, so that a
worker that starts later has them too; each process ends an order by itself when its time is over.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from headgate import __version__
from headgate.observe.logs.formats import Identity
from headgate.observe.logs.installing import Logging, process_logging
from headgate.observe.logs.pump import Line
from headgate.observe.logs.rules import LogRules, SinkRules, StoreRules
from headgate.security.redact import Redactor

if TYPE_CHECKING:
    from headgate.config.logs import LoggingSpec

__all__ = ["LEVELS_TOPIC", "Feed", "begin", "hear_levels", "sink_rows", "spec_of", "take"]

LEVELS_TOPIC: Final = "log_levels"
EVENT_BYTES: Final = 256 * 1024
FEED_BYTES: Final = 1024 * 1024
LINE_BYTES: Final = 64 * 1024
_FAULT: Final = b'"status":5'

log = logging.getLogger("headgate.control")


def begin(role: str) -> Logging:
    """Log to standard error, as text, until the file says otherwise."""
    made = process_logging()
    rules = LogRules(format="text", sinks=(SinkRules(kind="stderr"),), repeats=None)
    # By the default rules, until those of the file are known.
    made.take(Identity(f"headgate-{role}", __version__), rules, redactor=Redactor())
    return made


def take(spec: LoggingSpec, *, keep: bool = True) -> None:
    """Log as the file says. `keep` leaves the redactor, which others set."""
    made = process_logging()
    rules = spec.rules()
    try:
        made.take(made.identity, rules, redactor=None, keep=keep)
    except (ValueError, OSError) as error:
        safe = replace(rules, sinks=(SinkRules(kind="stderr"),))
        made.take(made.identity, safe, redactor=None, keep=keep)
        log.error("a log sink cannot be used, lines go to stderr: %s", error)  # noqa: TRY400


def spec_of(document: Mapping[str, Any]) -> LoggingSpec:
    """The section of a document that was checked before."""
    from headgate.config.logs import LoggingSpec

    said = document.get("logging")
    return LoggingSpec.model_validate(said) if isinstance(said, Mapping) else LoggingSpec()


def hear_levels(message: Mapping[str, Any]) -> None:
    """Take up all orders about levels; those that are not among them are taken back."""
    made = process_logging()
    wall = time.time()  # noqa: TID251  orders travel between processes by wall time
    made.levels.take_back()
    for order in message.get("orders", ()):
        until = order.get("until")
        if until is not None and until <= wall:
            continue
        with contextlib.suppress(ValueError):
            made.order(
                order["logger"], int(order["level"]), None if until is None else until - wall
            )
    made.levels.put_on()


class Feed:
    """Lines of this process on their way to control."""

    def __init__(self, report: Callable[[dict[str, Any]], object]) -> None:
        self._report = report
        self._lines: deque[tuple[float, int, str, int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._rules = StoreRules(is_on=False)

    def take(self, rules: StoreRules) -> None:
        """What control wants to keep."""
        self._rules = rules
        listener = self.add if rules.is_on else None
        process_logging().listen(rules.level, listener)

    def add(self, line: Line) -> None:
        """From any thread that logs."""
        size = len(line.data)
        if size > LINE_BYTES or self._bytes + size > FEED_BYTES:
            self._dropped += 1
            return
        self._bytes += size
        text = line.data.decode("utf-8", "replace")
        self._lines.append((line.wall, line.level, text, size))

    def access(self, line: bytes) -> None:
        """A line of the access log that is wanted."""
        if self._rules.is_on and line.startswith(b"{"):
            wall = time.time()  # noqa: TID251  it carries its own time as well
            level = logging.ERROR if _FAULT in line else logging.INFO
            self.add(Line(wall, level, "access", line.rstrip()))

    def turn(self) -> None:
        """Once a second, on the loop: tell control."""
        lines: list[list[Any]] = []
        left = EVENT_BYTES
        while self._lines and left > 0:
            wall, level, text, size = self._lines.popleft()
            self._bytes -= size
            left -= size + 100
            lines.append([wall, level, text])
        dropped, self._dropped = self._dropped, 0
        if lines or dropped:
            self._report({"event": "logs", "lines": lines, "dropped": dropped})


def sink_rows(process: str) -> list[tuple[str, list[str], float]]:
    """What the sinks of this process did, as (metric, labels, value); those of a kind together."""
    sums: dict[tuple[str, ...], float] = {}
    queued: dict[str, float] = {}
    for name, stats in process_logging().snapshot().items():
        kind = name.partition(":")[0]
        for result, count in (
            ("written", stats.written),
            ("dropped", stats.dropped),
            ("failed", stats.failed),
        ):
            sums[kind, result] = sums.get((kind, result), 0) + count
        queued[kind] = queued.get(kind, 0) + stats.queued_bytes
    return [
        *(("headgate_logs_lines_total", [process, *key], value) for key, value in sums.items()),
        *(("headgate_logs_queued_bytes", [process, kind], value) for kind, value in queued.items()),
    ]
