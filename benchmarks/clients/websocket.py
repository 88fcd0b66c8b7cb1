"""WebSocket messages there and back: `python -m benchmarks.clients.websocket PORT ...`.

Closed loop: each connection has one message in flight and sends the next when the echo is back.
It runs in a process of its own so that it can be pinned and so that its garbage is its own.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients.wrk import ClientFailed

_PAYLOAD = b"0123456789abcdef" * 4
_FRAME = bytes((0x82, 0x80 | len(_PAYLOAD))) + b"\0\0\0\0" + _PAYLOAD
_ANSWER_BYTES = 2 + len(_PAYLOAD)
_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class WebSocketResult:
    """Messages echoed, and how long one took."""

    messages: int
    duration_s: float
    errors: int
    p50_ms: float
    p99_ms: float


def run_websocket(port: int, seconds: float, cpu: int, *, connections: int = 64) -> WebSocketResult:
    """Run the client in its own process, pinned."""
    command = [sys.executable, "-m", "benchmarks.clients.websocket"]
    done = subprocess.run(
        [*command, str(port), str(seconds), str(connections)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
    )
    if done.returncode:
        raise ClientFailed(f"WebSocket client failed: {done.stderr[-500:]}")
    return WebSocketResult(**json.loads(done.stdout))


def _open(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(_HANDSHAKE)
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = sock.recv(4096)
        if not chunk:
            raise ConnectionError(f"closed during the handshake: {head[:200]!r}")
        head += chunk
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        raise ConnectionError(f"no upgrade: {head[:200]!r}")
    sock.setblocking(False)
    return sock


def _measure(port: int, seconds: float, connections: int) -> WebSocketResult:
    socks = {sock.fileno(): sock for sock in (_open(port) for _ in range(connections))}
    poll = select.epoll()
    sent_at: dict[int, float] = {}
    missing = dict.fromkeys(socks, _ANSWER_BYTES)
    took: list[float] = []
    errors = messages = 0
    gc.disable()
    clock = time.perf_counter
    started = clock()
    for fd, sock in socks.items():
        poll.register(fd, select.EPOLLIN)
        sent_at[fd] = clock()
        sock.send(_FRAME)
    until = started + seconds
    while clock() < until and socks:
        for fd, _ in poll.poll(1):
            sock = socks[fd]
            data = sock.recv(65536)
            if not data:
                errors += 1
                poll.unregister(fd)
                socks.pop(fd).close()
                continue
            missing[fd] -= len(data)
            if missing[fd] > 0:
                continue
            now = clock()
            messages += 1
            took.append(now - sent_at[fd])
            missing[fd] = _ANSWER_BYTES
            sent_at[fd] = now
            sock.send(_FRAME)
    duration_s = clock() - started
    took.sort()
    return WebSocketResult(
        messages=messages,
        duration_s=duration_s,
        errors=errors,
        p50_ms=took[len(took) // 2] * 1000 if took else 0.0,
        p99_ms=took[len(took) * 99 // 100] * 1000 if took else 0.0,
    )


def _main() -> None:
    port, seconds, connections = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    result = _measure(port, seconds, connections)
    sys.stdout.write(json.dumps({name: getattr(result, name) for name in result.__slots__}))


if __name__ == "__main__":
    _main()
