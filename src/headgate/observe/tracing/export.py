"""Spans on their way to a collector, by OTLP over HTTP, in a thread of their own.

Theory of operation
-------------------
Spans wait in a bounded queue; the thread carries away a batch when there is a whole one, or after
`every_s`. A delivery that fails in a way that may pass (no connection, 429, 502, 503, 504) is
repeated with growing waits, or after what `Retry-After` says, until `give_up_s`; one that the
receiver does not want (400, 401, 413 ...) is not, because it would not want it the next time. A
batch that is too large (413) is halved as long as that helps. While a batch waits others gather
behind it; when the queue is full the oldest go: of an outage the end is what one looks for.

What was dropped, and why, is counted by `ExportStats`; the log is told once when it begins and once
when it is over. Headers may hold a key, so they are in no message, nor is what an error that
nobody foresaw says of itself. Such an error costs the batch that it met; the thread goes on.

`close` flushes within a deadline; a process that just ends has a thread that does not hold it.
"""

from __future__ import annotations

import gzip
import http.client
import logging
import os
import random
import ssl
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from headgate.observe import waiting
from headgate.observe.tracing.otlp import encode, partial_success
from headgate.observe.tracing.record import SpanRecord, Value
from headgate.observe.tracing.rules import ExportRules
from headgate.policy.retry import parse_retry_after

__all__ = ["ExportStats", "Exporter", "endpoint_of", "wait_s"]

log = logging.getLogger("headgate.tracing")

_MAY_PASS: Final = frozenset({429, 502, 503, 504})
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_LONGEST_ASKED_S: Final = 120.0
_MOST_ANSWER: Final = 64 * 1024


@dataclass(slots=True)
class ExportStats:
    sent: int = 0
    """Spans that the receiver has taken."""
    dropped_full: int = 0
    """Spans that found the queue full, or stood in it when it was."""
    dropped_refused: int = 0
    """Spans that the receiver did not want."""
    dropped_late: int = 0
    """Spans that could not be delivered in time, or before the end."""
    dropped_faulty: int = 0
    """Spans of a delivery that broke down here, by a fault of ours or of what a span holds."""
    retries: int = 0


def endpoint_of(url: str) -> str:
    """Where spans are posted: the path of the standard, unless there is one."""
    parts = urlsplit(url)
    return url if parts.path not in {"", "/"} else f"{parts.scheme}://{parts.netloc}/v1/traces"


def wait_s(tries: int, asked_s: float | None, rng: random.Random) -> float:
    """How long to wait after so many tries in vain: what the receiver asked for, or ever longer."""
    if asked_s is not None:
        return min(max(asked_s, 0.0), _LONGEST_ASKED_S)
    return waiting.wait_s(tries, _FIRST_WAIT_S, _LONGEST_WAIT_S, rng)


def _told_safely(error: Exception) -> str:
    """Which error, and where: its text may quote a header."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class _NotNow(Exception):
    def __init__(self, why: str, asked_s: float | None = None) -> None:
        self.why = why
        self.asked_s = asked_s


class Exporter:
    def __init__(
        self,
        rules: ExportRules,
        *,
        resource: Mapping[str, Value] | None = None,
        take: Callable[[int], Sequence[SpanRecord]] | None = None,
        rng: random.Random | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`take` is asked for spans before each delivery, as of the ring of a tracer; others come
        by `put`. The thread begins with the first of them, or with `start`.
        """
        self._rules = rules
        self._url = urlsplit(endpoint_of(rules.url))
        if self._url.scheme not in {"http", "https"} or not self._url.hostname:
            raise ValueError(f"{rules.url!r} is no address of a collector")
        self._resource = dict(resource or {})
        self._take = take
        self._rng = rng or random.Random()  # only spreads waits
        self._ssl = ssl_context
        self._queue: deque[SpanRecord] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._ends_at: float | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._is_down = False
        self._has_more = False  # the last asked for was a whole batch: there is no reason to wait
        self.stats = ExportStats()

    def __repr__(self) -> str:
        return f"Exporter({self._url.netloc!r})"

    @property
    def is_down(self) -> bool:
        """Whether the last delivery failed."""
        return self._is_down

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        """Begin; again in a child process, where the thread did not come along."""
        if self._pid not in {0, os.getpid()}:
            # Another thread of the parent may have held the lock when it forked, for ever here;
            # what waits is the parent's to deliver, and so is the connection.
            self._wake = threading.Condition()
            self._queue = deque()
            self._connection = None
            self._thread = None
            self.stats = ExportStats()
        with self._wake:
            if self._thread is None and self._ends_at is None:
                self._pid = os.getpid()
                self._thread = threading.Thread(
                    target=self._run, name="headgate-spans", daemon=True
                )
                self._thread.start()

    def put(self, spans: Iterable[SpanRecord]) -> None:
        """Have them delivered. Never waits."""
        self.start()
        with self._wake:
            self._put(spans)
            if len(self._queue) >= self._rules.batch:
                self._wake.notify()

    def _put(self, spans: Iterable[SpanRecord]) -> None:
        self._queue.extend(spans)
        over = len(self._queue) - self._rules.queue
        for _ in range(max(0, over)):
            self._queue.popleft()
        self.stats.dropped_full += max(0, over)

    def close(self, timeout_s: float = 5.0) -> None:
        """Deliver what waits, for so long at most; then end."""
        thread = self._thread
        with self._wake:
            self._ends_at = time.monotonic() + timeout_s
            self._wake.notify_all()
        if thread is not None and self._pid == os.getpid():
            thread.join(timeout_s + 1.0)
        with self._wake:
            self.stats.dropped_late += len(self._queue)
            self._queue.clear()

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                batch = self._next()
                if batch is None:
                    return
                if batch:
                    self._deliver(batch)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _next(self) -> list[SpanRecord] | None:
        """The next batch; [] if there is nothing yet, None at the end."""
        with self._wake:
            is_idle = len(self._queue) < self._rules.batch and not self._has_more
            if self._ends_at is None and is_idle:
                self._wake.wait(self._rules.every_s)
            is_end = self._ends_at is not None
        taken = self._taken()
        self._has_more = len(taken) >= self._rules.batch
        with self._wake:
            self._put(taken)
            count = min(len(self._queue), self._rules.batch)
            batch = [self._queue.popleft() for _ in range(count)]
        return None if is_end and not batch else batch

    def _taken(self) -> Sequence[SpanRecord]:
        if self._take is None:
            return ()
        try:
            return self._take(self._rules.batch)
        except Exception as error:  # noqa: BLE001  it must not end the thread
            self._told_down(_told_safely(error))
            return ()

    def _deliver(self, batch: list[SpanRecord]) -> None:
        try:
            self._carry(batch)
        except Exception as error:  # noqa: BLE001  a fault of ours must not end the thread
            self._drop_connection()  # nobody knows how far it came
            self.stats.dropped_faulty += len(batch)
            self._told_down(_told_safely(error))

    def _carry(self, batch: list[SpanRecord]) -> None:
        body = gzip.compress(encode(batch, self._resource), 1)
        begun = time.monotonic()
        tries = 0
        while True:
            try:
                refused, why = self._post(body)
            except _Refused as error:
                self._refused(batch, error.status)
                return
            except _NotNow as error:
                tries += 1
                self._told_down(error.why)
                if not self._wait(begun, wait_s(tries, error.asked_s, self._rng)):
                    self.stats.dropped_late += len(batch)
                    return
                self.stats.retries += 1
            else:
                self._told_up()
                refused = min(refused, len(batch))
                self.stats.sent += len(batch) - refused
                if refused:
                    self.stats.dropped_refused += refused
                    log.warning("%d spans were refused by the collector: %.200s", refused, why)
                return

    def _refused(self, batch: list[SpanRecord], status: int) -> None:
        if status == http.client.REQUEST_ENTITY_TOO_LARGE and len(batch) > 1:
            half = len(batch) // 2
            self._deliver(batch[:half])
            self._deliver(batch[half:])
            return
        self.stats.dropped_refused += len(batch)
        self._told_down(f"it answers {status}, and is not asked again for these")

    def _wait(self, begun: float, wait: float) -> bool:
        """Whether to try again."""
        with self._wake:
            now = time.monotonic()
            ends = begun + self._rules.give_up_s
            if self._ends_at is not None:
                ends = min(ends, self._ends_at)
            if now + wait > ends:
                if self._ends_at is not None or now >= ends:
                    return False
                wait = ends - now
            # A `close` meanwhile wakes us, and leaves one last try.
            self._wake.wait(wait)
        return True

    def _post(self, body: bytes) -> tuple[int, str]:
        headers = {
            "content-type": "application/x-protobuf",
            "content-encoding": "gzip",
            "user-agent": "headgate",
            **dict(self._rules.headers),
        }
        path = self._url.path + (f"?{self._url.query}" if self._url.query else "")
        attempt = 0
        while True:
            attempt += 1
            is_fresh = self._connection is None
            connection = self._connection or self._connect()
            self._connection = connection
            if self._ends_at is not None:
                left = max(0.1, self._ends_at - time.monotonic())
                connection.timeout = min(left, self._rules.timeout_s)
                if connection.sock is not None:
                    connection.sock.settimeout(connection.timeout)
            try:
                connection.request("POST", path, body, headers)
                got = connection.getresponse()
                answer = got.read(_MOST_ANSWER)
            except (OSError, http.client.HTTPException) as error:
                self._drop_connection()
                # One that was kept open may have been closed at the other end meanwhile.
                if attempt == 1 and not is_fresh and not isinstance(error, TimeoutError):
                    continue
                raise _NotNow(f"{type(error).__name__}: {error}") from error
            if got.will_close or not got.isclosed():
                self._drop_connection()
            break
        if 200 <= got.status < 300:
            kind = got.getheader("content-type", "")
            return partial_success(answer) if "protobuf" in kind else (0, "")
        if got.status in _MAY_PASS:
            wall = time.time()  # noqa: TID251  # a Retry-After may be a date
            asked = parse_retry_after(got.getheader("retry-after", ""), wall)
            raise _NotNow(f"it answers {got.status}", asked)
        raise _Refused(got.status)

    def _connect(self) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        if self._url.scheme == "https":
            context = self._ssl or ssl.create_default_context()
            return http.client.HTTPSConnection(
                host, self._url.port, timeout=self._rules.timeout_s, context=context
            )
        return http.client.HTTPConnection(host, self._url.port, timeout=self._rules.timeout_s)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _told_down(self, why: str) -> None:
        if not self._is_down:
            self._is_down = True
            log.warning("spans cannot be delivered to %s: %s", self._url.netloc, why)

    def _told_up(self) -> None:
        if self._is_down:
            self._is_down = False
            log.info("spans are delivered to %s again", self._url.netloc)
