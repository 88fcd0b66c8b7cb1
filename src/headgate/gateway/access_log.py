"""One line a request: made as it ends, gathered, and written by a thread.

Theory of operation. `add` makes the line at once, while what it tells of is still in the
processor's caches, and puts it into a list; the list is handed to the writer thread when it is long
enough, or when the timer comes. One AccessLog lives as long as its worker: a reload that changes
the format or the file calls `configure`, so that requests begun before it, too, end in a line.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from headgate.config.model import AccessLogSpec
from headgate.errors import ConfigInvalid, Fault
from headgate.gateway.log_fields import FIELDS
from headgate.gateway.log_format import (
    Formatter,
    UnknownField,
    combined_format,
    json_format,
)
from headgate.gateway.log_writer import QUEUE_BYTES, LogWriter, Sink, open_sink
from headgate.observe import LogStats

if TYPE_CHECKING:
    from headgate.gateway.exchange import Exchange
    from headgate.gateway.prepared import Prepared

_HAND_OVER_BYTES: Final = 256 * 1024  # each handing over makes two threads trade the interpreter
_EVERY_S: Final = 0.25

Watching = Callable[["Prepared", "Exchange", float, float, bytes], None]
"""Told of a request that is over: when it began, by the wall clock, how long it took, its trace."""


class AccessLog:
    """The access log of one worker."""

    def __init__(
        self,
        spec: AccessLogSpec,
        stats: LogStats,
        *,
        worker: int = 0,
        report: Callable[[str], None] | None = None,
        queue_bytes: int = QUEUE_BYTES,
        scrub: Callable[[str], str] | None = None,
    ) -> None:
        """Raises ConfigInvalid when a field is unknown or the file cannot be opened."""
        self._worker = worker
        self._stats = stats
        self._report = report or logging.getLogger("headgate.access_log").warning
        self._queue_bytes = queue_bytes
        self._hand_over_bytes = min(_HAND_OVER_BYTES, queue_bytes // 4)
        self._text: list[bytes] = []
        self._text_bytes = 0
        self._format: Formatter | None = None
        self._watching: Watching | None = None
        self._path: str | None = None
        self._writer: LogWriter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_on = False
        self._tap: Callable[[bytes], None] | None = None
        self._taps_all = False
        self.configure(spec, scrub)

    def configure(self, spec: AccessLogSpec, scrub: Callable[[str], str] | None = None) -> None:
        """Take up a new spec; what was added before is written as it was. Raises ConfigInvalid."""
        line_format = _compile(spec, self._worker, scrub)
        is_on = line_format is not None
        sink = _open(spec.path) if is_on and spec.path != self._path else None
        self.flush()
        if sink is not None:
            self._use(sink)
        self._format = line_format
        self.is_on = is_on or self._watching is not None

    def add(
        self,
        asked: Prepared,
        ex: Exchange,
        duration_s: float,
        trace_id: bytes,
        is_kept: bool | None,
    ) -> None:
        """Note a request that has ended (see `Formatter`). Callers ask `is_on` first."""
        wall = time.time() - duration_s  # noqa: TID251 - the log tells wall time
        if self._watching is not None:
            self._watching(asked, ex, wall, duration_s, trace_id)
        line_format = self._format
        if line_format is None:
            return  # only watched, or switched off while the request was under way
        line = line_format(asked, ex, wall, duration_s, trace_id, is_kept)
        self._text.append(line)
        self._text_bytes += len(line)
        tap = self._tap
        if tap is not None and (ex.status >= 500 or ex.error is not None or self._taps_all):
            tap(line)
        if self._text_bytes >= self._hand_over_bytes:
            self.flush()

    def watch(self, watching: Watching | None) -> None:
        """Tell of every request, also while no line is written; None ends that."""
        self._watching = watching
        self.is_on = self._format is not None or watching is not None

    def tap(self, tap: Callable[[bytes], None] | None, *, is_all: bool = False) -> None:
        """Hand lines to `tap` as well, before the writer has them: those of requests that failed,
        or all. It must not wait. None ends that.
        """
        self._tap, self._taps_all = tap, is_all

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Flush four times a second."""
        self._loop = loop
        self._timer = loop.call_later(_EVERY_S, self._on_timer)

    def flush(self) -> None:
        """Hand what there is to the writer."""
        if self._text and self._writer is not None:
            self._writer.put(b"".join(self._text), len(self._text))
            self._text = []
            self._text_bytes = 0

    def reopen(self) -> None:
        """Open the file anew, after it was renamed; the old one stays in use if that fails."""
        if self._path is None or self._writer is None or self._path in {"stdout", "stderr"}:
            return
        self.flush()
        try:
            sink = open_sink(self._path)
        except OSError as error:
            self._report(
                f"access log {self._path} cannot be opened anew: {error.strerror};"
                " writing to the old file"
            )
            return
        self._writer.switch(sink)

    def close(self, timeout_s: float) -> bool:
        """Write what there is and end; whether that was done in time. Blocks up to `timeout_s`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()
        return self._writer is None or self._writer.close(timeout_s)

    def _use(self, sink: Sink) -> None:
        self._path = sink.path
        if self._writer is None:
            self._writer = LogWriter(sink, self._stats, self._report, queue_bytes=self._queue_bytes)
        else:
            self._writer.switch(sink)

    def _on_timer(self) -> None:
        self.flush()
        if self._loop is not None and not self._loop.is_closed():
            self._timer = self._loop.call_later(_EVERY_S, self._on_timer)


def _compile(
    spec: AccessLogSpec, worker: int, scrub: Callable[[str], str] | None
) -> Formatter | None:
    if spec.format == "off":
        return None
    if spec.format == "combined":
        return combined_format(spec.redact, scrub)
    try:
        return json_format(spec.fields, spec.redact, worker, scrub)
    except UnknownField as error:
        where = f"access_log.fields[{(spec.fields or ()).index(error.name)}]"
        near = difflib.get_close_matches(error.name, FIELDS, 1)
        hint = f'did you mean "{near[0]}"?' if near else "see docs/reference/access-log.md"
        raise ConfigInvalid(
            (Fault("", 0, 0, where, f'no log field named "{error.name}"', hint),)
        ) from error


def _open(path: str) -> Sink:
    try:
        return open_sink(path)
    except OSError as error:
        message = f"cannot open {path}: {error.strerror}"
        raise ConfigInvalid((Fault("", 0, 0, "access_log.path", message),)) from error
