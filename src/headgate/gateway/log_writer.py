"""The thread that writes log lines, so that a slow or broken disk or pipe cannot hold a request up.

Theory of operation. The event loop puts batches of whole lines into a queue and never waits; the
thread takes them out and writes. The queue is bounded in bytes: when it is full, the newest batch
is dropped and counted, since what is already queued is what the operator will need to see how the
trouble began. Orders to change the sink go through the same queue, so that lines end up in the
file that was current when they were made.

What an editor must not break:
- `put` does not block, does not raise and takes no lock.
- Each counter has one writing thread: the loop's (`_put_bytes`, `stats.dropped`) or this one's
  (`_done_bytes`, `stats.written`, `stats.failed`).
- A write that stops in the middle of a line is followed by a line end, so that one lost line does
  not spoil the next.
- On a pipe that several workers share, a write is atomic only up to PIPE_BUF bytes.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from headgate.observe import LogStats

QUEUE_BYTES: Final = 8 * 1024 * 1024
_STANDARD = {"stdout": 1, "stderr": 2}


@dataclass(slots=True)
class Sink:
    """An open descriptor to write to. `path` is "stdout", "stderr" or a file's."""

    path: str
    fd: int
    is_pipe: bool

    @property
    def is_standard(self) -> bool:
        return self.path in _STANDARD

    def close(self) -> None:
        if not self.is_standard:
            os.close(self.fd)


def open_sink(path: str) -> Sink:
    """Open `path` for appending; raises OSError."""
    if path in _STANDARD:
        fd = _STANDARD[path]
    else:
        # O_NONBLOCK: opening a FIFO that nobody reads must fail, not hang.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(path, flags, 0o640)
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        is_pipe = False  # a closed stdout: writing will say so
    return Sink(path, fd, is_pipe)


class LogWriter:
    """Writes batches of lines to a sink that can be replaced."""

    def __init__(
        self,
        sink: Sink,
        stats: LogStats,
        report: Callable[[str], None],
        *,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        """`report` is told of trouble, once, and of its end; it is called in the thread."""
        self._sink = sink
        self._stats = stats
        self._report = report
        self._max = queue_bytes
        self._queue: SimpleQueue[tuple[bytes, int] | Sink | None] = SimpleQueue()
        self._put_bytes = 0
        self._done_bytes = 0
        self._is_closing = False
        self._deadline = float("inf")
        self._is_torn = False
        self._trouble = ""
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="headgate-log", daemon=True)
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        return self._put_bytes - self._done_bytes

    def put(self, data: bytes, lines: int) -> None:
        """Queue whole lines, or drop them when the queue is full or closed."""
        if self._is_closing or self.queued_bytes + len(data) > self._max:
            self._stats.dropped += lines
            return
        self._put_bytes += len(data)
        self._queue.put((data, lines))

    def switch(self, sink: Sink) -> None:
        """Write to `sink` after what is queued now, and close the one in use."""
        self._queue.put(sink)

    def close(self, timeout_s: float) -> bool:
        """Write what is queued and end; whether that was done in time."""
        if not self._is_closing:
            self._is_closing = True
            self._deadline = time.monotonic() + timeout_s
            self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Sink):
                self._sink.close()
                self._sink, self._is_torn = item, False
                continue
            data, lines = item
            self._write(data, lines)
            self._done_bytes += len(data)
        self._sink.close()

    def _write(self, data: bytes, lines: int) -> None:
        if self._is_torn:
            data = b"\n" + data
        view, at = memoryview(data), 0
        try:
            while at < len(view):
                try:
                    at += os.write(self._sink.fd, view[at : self._end(data, at)])
                except BlockingIOError:
                    self._wait_writable()
        except OSError as error:
            lost = min(lines, data.count(b"\n", at))
            self._stats.written += lines - lost
            self._stats.failed += lost
            self._lost += lost
            if at:
                self._is_torn = data[at - 1] != 0x0A
            self._note_trouble(error)
            return
        self._is_torn = False
        self._stats.written += lines
        if self._trouble:
            self._tell(
                f"access log {self._sink.path} is written again; {self._lost} lines are lost"
            )
            self._trouble, self._lost = "", 0

    def _end(self, data: bytes, at: int) -> int:
        """Where to end one write: for a pipe, after the last whole line that fits PIPE_BUF."""
        if not self._sink.is_pipe or len(data) - at <= select.PIPE_BUF:
            return len(data)
        end = data.rfind(b"\n", at, at + select.PIPE_BUF) + 1
        return end or (data.find(b"\n", at) + 1 or len(data))

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self._sink.fd, select.POLLOUT)
        while not poll.poll(200):
            if time.monotonic() > self._deadline:
                raise TimeoutError(errno.ETIMEDOUT, "the reader does not read")

    def _note_trouble(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self._trouble:
            self._trouble = reason
            self._tell(f"access log {self._sink.path}: {reason}; lines are lost, requests are not")

    def _tell(self, text: str) -> None:
        try:
            self._report(text)
        except Exception:  # noqa: BLE001, S110 - a broken stderr must not end this thread
            pass
