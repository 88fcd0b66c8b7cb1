"""A constant-rate HTTP/1.1 client: `python -m benchmarks.clients.open_loop PORT RATE ...`.

Theory of operation
-------------------
A closed-loop client waits for slow answers before it asks again and so hides them ("coordinated
omission"). This one has a schedule: request number n is due at start + n / rate, and its latency
runs from when it was *due*, also when no connection was free and it was sent later. A timerfd
wakes the loop, because epoll's own timeout counts whole milliseconds; there is no spinning, which
would take the core from the upstream that shares it.

Requests go round robin over idle connections. Answers must have a Content-Length.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.clients.wrk import ClientFailed

# Ticks closer than this cost more than the requests; two or three requests then share a tick.
_SHORTEST_TICK_S = 50e-6


@dataclass(frozen=True, slots=True)
class OpenLoopResult:
    """Latency from the due time, in milliseconds."""

    sent: int
    answered: int
    errors: int
    per_second: float
    mean: float
    p50: float
    p95: float
    p99: float
    p999: float
    max: float


def run_open_loop(
    port: int, rate: float, seconds: float, cpu: int, *, connections: int = 64
) -> OpenLoopResult:
    """Run the client in its own process, pinned."""
    process = start_open_loop(port, rate, seconds, cpu, connections=connections)
    out, err = process.communicate(timeout=seconds + 60)
    if process.returncode:
        raise ClientFailed(f"open-loop client failed: {err[-800:]}")
    return OpenLoopResult(**json.loads(out))


def start_open_loop(
    port: int, rate: float, seconds: float, cpu: int, *, connections: int = 64
) -> subprocess.Popen[str]:
    """Start it and let the caller wait."""
    command = [sys.executable, "-m", "benchmarks.clients.open_loop"]
    return subprocess.Popen(
        [*command, str(port), str(rate), str(seconds), str(connections)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )


class _Ticker:
    """timerfd(2), which Python has only from 3.13 on."""

    def __init__(self, interval_s: float) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        nanoseconds = int(interval_s * 1e9)
        spec = struct.pack("qqqq", *divmod(nanoseconds, 10**9), *divmod(nanoseconds, 10**9))
        if libc.timerfd_settime(self.fd, 0, spec, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


class _Loop:
    """The state of one run."""

    def __init__(self, port: int, rate: float, connections: int) -> None:
        self._port = port
        self._rate = rate
        self._request = b"GET /items/42 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._idle: deque[socket.socket] = deque()
        self._due_of: dict[int, float] = {}
        self._partial: dict[int, bytes] = {}
        self.took: list[float] = []
        self.errors = 0
        self.sent = 0
        for _ in range(connections):
            self._add()

    def _add(self) -> None:
        sock = _connect(self._port)
        self._socks[sock.fileno()] = sock
        self._poll.register(sock.fileno(), select.EPOLLIN)
        self._idle.append(sock)

    def _drop(self, fd: int) -> None:
        """The connection ended: an error if a request was under way; another takes its place."""
        sock = self._socks.pop(fd)
        self._poll.unregister(fd)
        self._partial.pop(fd, None)
        if self._due_of.pop(fd, None) is not None:
            self.errors += 1
        else:
            self._idle.remove(sock)
        sock.close()
        self._add()

    def run(self, seconds: float) -> float:
        """Keep to the schedule; returns the time it took."""
        ticker = _Ticker(max(_SHORTEST_TICK_S, 1 / self._rate))
        self._poll.register(ticker.fd, select.EPOLLIN)
        total = int(self._rate * seconds)
        clock = time.perf_counter
        started = clock()
        give_up = started + seconds + 5
        while (self.sent < total or self._due_of) and clock() < give_up:
            for fd, _ in self._poll.poll(1):
                if fd == ticker.fd:
                    os.read(fd, 8)
                else:
                    self._on_readable(fd)
            due = min(total, int((clock() - started) * self._rate) + 1)
            while self.sent < due and self._idle:
                self._send(started + self.sent / self._rate)
        self.errors += len(self._due_of) + (total - self.sent)
        return clock() - started

    def _send(self, due_at: float) -> None:
        sock = self._idle.popleft()
        fd = sock.fileno()
        self.sent += 1
        self._due_of[fd] = due_at
        try:
            sock.send(self._request)
        except OSError:
            self._drop(fd)

    def _on_readable(self, fd: int) -> None:
        sock = self._socks[fd]
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return
        if fd in self._partial:
            data = self._partial.pop(fd) + data
        if not is_whole(data):
            self._partial[fd] = data
            return
        due_at = self._due_of.pop(fd, None)
        if due_at is None:
            self.errors += 1
            return
        if not data.startswith(b"HTTP/1.1 200"):
            self.errors += 1
        self.took.append(time.perf_counter() - due_at)
        self._idle.append(sock)


def is_whole(data: bytes) -> bool:
    """Whether an answer with a Content-Length has come to its end."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = data[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        raise ValueError(f"answer without Content-Length: {head[:300]!r}")
    stop = head.find(b"\r", at)
    length = int(head[at + 15 : stop if stop > 0 else end])
    return len(data) >= end + 4 + length


def quantile(ordered: list[float], share: float) -> float:
    """The value below which this share lies, of a sorted list."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _main() -> None:
    port, rate = int(sys.argv[1]), float(sys.argv[2])
    seconds, connections = float(sys.argv[3]), int(sys.argv[4])
    loop = _Loop(port, rate, connections)
    gc.collect()
    gc.disable()
    duration_s = loop.run(seconds)
    took = sorted(1000 * value for value in loop.took)
    result = OpenLoopResult(
        sent=loop.sent,
        answered=len(took),
        errors=loop.errors,
        per_second=len(took) / duration_s,
        mean=sum(took) / len(took) if took else 0.0,
        p50=quantile(took, 0.5),
        p95=quantile(took, 0.95),
        p99=quantile(took, 0.99),
        p999=quantile(took, 0.999),
        max=took[-1] if took else 0.0,
    )
    sys.stdout.write(json.dumps(asdict(result)))


if __name__ == "__main__":
    _main()
