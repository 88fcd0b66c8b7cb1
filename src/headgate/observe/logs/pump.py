"""The thread between those who log and a sink, so that no sink can hold anybody up.

Theory of operation
-------------------
`put` appends a line to a queue that is bounded in bytes, and returns. The thread takes out what
there is, up to a batch, and gives it to a carrier, which knows one kind of sink. A carrier answers
what was written, what never will be, and what may be tried again; it raises OSError where the sink
is away. Then the thread waits, longer each time, and the queue fills: when it is full the newest
line is dropped and counted, since what is queued already tells how the trouble began.

What an editor must not break:
- `put` does not wait for a sink, does not raise, and may be called from any thread, from a signal
  handler (the lock is re-entrant and held for a few instructions) and while the interpreter ends.
- Every line ends in exactly one count: written, dropped or failed.
- After a fork the child has an empty queue and no thread: what is queued is the parent's to write.
  The thread is started by the first line.
- `close` ends within its deadline, whatever the sink does.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple, Protocol

from headgate.observe.waiting import wait_s

__all__ = ["Carrier", "Line", "Pump", "Sent", "SinkStats", "complain"]

_WAIT_FIRST_S: Final = 0.25
_WAIT_MOST_S: Final = 30.0
_OVERHEAD: Final = 120
"""What a queued line takes beside its bytes."""
_COMPLAIN_EVERY_S: Final = 60.0


class Line(NamedTuple):
    wall: float
    level: int
    logger: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch."""

    written: int
    failed: int = 0
    again: Sequence[Line] = ()
    wait_s: float = 0.0
    """The sink asks to be left alone for so long."""
    why: str = ""


class Carrier(Protocol):
    name: str
    is_local: bool
    """Written in the order and at the time they come, and never tried again."""

    def send(self, lines: Sequence[Line], deadline: float) -> Sent:
        """Raises OSError where the sink is away. Ends near `deadline`, of `time.monotonic`."""

    def reopen(self) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class SinkStats:
    written: int = 0
    dropped: int = 0
    """The queue was full, or the end came."""
    failed: int = 0
    """The sink refused them, or was broken."""
    retries: int = 0
    queued_bytes: int = 0
    trouble: str = ""


class _Flush:
    def __init__(self) -> None:
        self.done = threading.Event()


_END: Final = object()
_REOPEN: Final = object()
_pumps: weakref.WeakSet[Pump] = weakref.WeakSet()


class Pump:
    def __init__(
        self,
        carrier: Carrier,
        *,
        queue_bytes: int,
        batch_bytes: int = 512 * 1024,
        linger_s: float = 0.0,
        timeout_s: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        self.carrier = carrier
        self.stats = SinkStats()
        self._max = queue_bytes
        self._batch_bytes = batch_bytes
        self._linger_s = 0.0 if carrier.is_local else linger_s
        self._timeout_s = timeout_s
        self._rng = random.Random() if rng is None else rng
        self._deadline = float("inf")
        self._complained_at = -_COMPLAIN_EVERY_S
        self._fresh()
        _pumps.add(self)

    def _fresh(self) -> None:
        self._lock = threading.RLock()
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._queued = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    # -- those who log ---------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """No line of any use would fit: spare making one."""
        return self._queued + _OVERHEAD + 200 > self._max

    def drop(self) -> None:
        with self._lock:
            self.stats.dropped += 1

    def put(self, line: Line) -> None:
        size = len(line.data) + _OVERHEAD
        with self._lock:
            if self._closing.is_set():
                self._last(line)
                return
            if self._queued + size > self._max:
                self.stats.dropped += 1
                return
            self._queued += size
            self._queue.put(line)
            if self._thread is None:
                self._begin()

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name=f"log-{self.carrier.name}", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            # The interpreter ends and gives out no more threads.
            self._thread = None
            self._closing.set()
            for item in self._taken():
                self._last(item)

    def _last(self, line: Line) -> None:
        """A line after the end: written in place if that can be done at once."""
        if not self.carrier.is_local:
            self.stats.dropped += 1
            return
        try:
            sent = self.carrier.send((line,), time.monotonic() + 0.2)
        except Exception:  # noqa: BLE001  nobody is left to be told
            self.stats.failed += 1
        else:
            self.stats.written += sent.written
            self.stats.failed += sent.failed

    def flush(self, timeout_s: float) -> bool:
        """Wait until what is queued now was tried; whether that was done in time."""
        with self._lock:
            if self._thread is None or self._closing.is_set():
                return True
            token = _Flush()
            self._queue.put(token)
        return token.done.wait(timeout_s)

    def reopen(self) -> None:
        with self._lock:
            if self._thread is not None and not self._closing.is_set():
                self._queue.put(_REOPEN)

    def begin_close(self, timeout_s: float) -> None:
        """Take no more lines, and have what is queued written within this time."""
        with self._lock:
            if not self._closing.is_set():
                self._deadline = time.monotonic() + timeout_s
                self._closing.set()
                self._queue.put(_END)

    def close(self, timeout_s: float) -> bool:
        """The same, and wait for it; whether the thread has ended."""
        self.begin_close(timeout_s)
        thread = self._thread
        if thread is None:
            self._end()
            return True
        if thread is not threading.current_thread():
            # A sink that is slow is given up by its own deadline, a little after ours.
            thread.join(timeout_s + 0.2)
        return not thread.is_alive()

    def snapshot(self) -> SinkStats:
        stats = self.stats
        return SinkStats(
            stats.written,
            stats.dropped,
            stats.failed,
            stats.retries,
            max(0, self._queued),
            stats.trouble,
        )

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        queue = self._queue
        while True:
            item = queue.get()
            if item is _END:
                break
            if item is _REOPEN:
                with contextlib.suppress(Exception):
                    self.carrier.reopen()
                continue
            if isinstance(item, _Flush):
                item.done.set()
                continue
            batch, after = self._gather(item, queue)
            self._deliver(batch)
            if after is _END:
                break
            if after is _REOPEN:
                with contextlib.suppress(Exception):
                    self.carrier.reopen()
            elif isinstance(after, _Flush):
                after.done.set()
        self._end()

    def _end(self) -> None:
        for _ in self._taken():
            self.stats.dropped += 1
        # The carrier stays open where a late line may still be written.
        if not self.carrier.is_local:
            with contextlib.suppress(Exception):
                self.carrier.close()

    def _taken(self) -> list[Line]:
        taken = []
        with contextlib.suppress(Empty):
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, Line):
                    taken.append(item)
                    self._queued -= len(item.data) + _OVERHEAD
                elif isinstance(item, _Flush):
                    item.done.set()
        return taken

    def _gather(self, first: object, queue: SimpleQueue[object]) -> tuple[list[Line], object]:
        batch: list[Line] = []
        item, size = first, 0
        until = time.monotonic() + self._linger_s
        while isinstance(item, Line):
            batch.append(item)
            size += len(item.data)
            if size >= self._batch_bytes or len(batch) >= 5000:
                return batch, None
            try:
                wait_s = 0.0 if self._closing.is_set() else until - time.monotonic()
                item = queue.get(timeout=wait_s) if wait_s > 0 else queue.get_nowait()
            except Empty:
                return batch, None
        return batch, item

    def _deliver(self, batch: list[Line]) -> None:
        left: Sequence[Line] = batch
        failures = 0
        while left:
            now = time.monotonic()
            if now >= self._deadline:
                with self._lock:
                    self.stats.dropped += len(left)
                break
            try:
                sent = self.carrier.send(left, min(now + self._timeout_s, self._deadline))
            except OSError as error:
                sent = self._refused(left, error.strerror or str(error) or type(error).__name__)
            except Exception as error:  # noqa: BLE001  a fault of ours must not end the thread
                sent = Sent(0, len(left), why=f"{type(error).__name__}: {error}")
            with self._lock:
                self.stats.written += sent.written
                self.stats.failed += sent.failed
            self._judge(sent)
            left = sent.again
            if left:
                failures = 0 if sent.written else failures + 1
                self.stats.retries += 1
                own_s = wait_s(failures + 1, _WAIT_FIRST_S, _WAIT_MOST_S, self._rng)
                self._pause(min(max(sent.wait_s, own_s), 2 * _WAIT_MOST_S))
        with self._lock:
            self._queued -= sum(len(line.data) + _OVERHEAD for line in batch)

    def _refused(self, left: Sequence[Line], why: str) -> Sent:
        if self.carrier.is_local:
            return Sent(0, len(left), why=why)
        return Sent(0, again=left, why=why)

    def _pause(self, wait_s: float) -> None:
        if not self._closing.wait(wait_s) or self._deadline == float("inf"):
            return
        # Ending: try again, soon, until the deadline.
        time.sleep(max(0.0, min(0.05, self._deadline - time.monotonic())))

    def _judge(self, sent: Sent) -> None:
        if sent.why:
            now = time.monotonic()
            if sent.why != self.stats.trouble or now - self._complained_at > _COMPLAIN_EVERY_S:
                self._complained_at = now
                fate = "lines wait" if sent.again else "lines are lost"
                complain(f"log sink {self.carrier.name}: {sent.why[:500]}; {fate}")
            self.stats.trouble = sent.why[:500]
        elif self.stats.trouble:
            self.stats.trouble = ""
            complain(f"log sink {self.carrier.name} takes lines again")


def complain(text: str) -> None:
    """Say it on standard error, past all logging, if that can be done at once."""
    import select

    with contextlib.suppress(Exception):
        line = "".join(char if char.isprintable() else "?" for char in f"headgate: {text}")
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if any(event & select.POLLOUT for _, event in poll.poll(0)):
            os.write(2, line.encode("utf-8", "replace")[:1000] + b"\n")


def _after_fork() -> None:
    for pump in list(_pumps):
        pump._fresh()  # noqa: SLF001  of this module


os.register_at_fork(after_in_child=_after_fork)
