"""Resident memory of one worker: `python -m benchmarks.memory`.

Cases: idle; 10,000 idle keep-alive connections (each has had one answer); 10,000 routes; both at
once; and how far the peak rises while 1 GB passes down at full speed, down to a client that reads
slowly, and up. The peak is the kernel's high-water mark, so a moment's bulge between two samples
is seen too. Only traffic-carrying processes count: for Headgate the worker.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.peers import PEERS
from benchmarks.process import Server
from benchmarks.run import RESULTS, Stage, available, stage
from benchmarks.spec import ProxySpec
from benchmarks.upstream import HUGE_BYTES

_REQUEST = b"GET /service-00042/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
_MEGABYTE = 1024 * 1024


def _settled(server: Server) -> dict[str, int]:
    time.sleep(1.0)
    found = machine.memory(server.pids)
    return {"rss_bytes": found.rss_bytes, "pss_bytes": found.pss_bytes}


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def _ask(sock: socket.socket, request: bytes = _REQUEST) -> bytes:
    """One request; returns the start of the answer once its head is there."""
    sock.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("closed before the answer")
        answer += data
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"unexpected answer: {answer[:200]!r}")
    return answer


def idle(server: Server, connections: int) -> dict[str, int]:
    """After a request, so that what is made on first use is there."""
    with _connect(server.port) as sock:
        _ask(sock)
        return _settled(server)


def many_connections(server: Server, connections: int) -> dict[str, int]:
    """Open, ask once, keep."""
    socks: list[socket.socket] = []
    try:
        for _ in range(connections):
            sock = _connect(server.port)
            socks.append(sock)
            _ask(sock)
        found = _settled(server)
        # A proxy that has closed some of them did not hold what we say it holds.
        for sock in socks:
            sock.setblocking(False)
        found["still_open"] = sum(1 for sock in socks if _is_open(sock))
        return found
    finally:
        for sock in socks:
            sock.close()


def _is_open(sock: socket.socket) -> bool:
    try:
        return sock.recv(65536, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def download(server: Server, connections: int) -> dict[str, int]:
    """1 GB as fast as it comes."""
    return _growth(server, lambda: _download(server.port, HUGE_BYTES, 0))


def slow_download(server: Server, connections: int) -> dict[str, int]:
    """The same file to a client that takes about 20 MB a second, for five seconds."""
    return _growth(server, lambda: _download(server.port, 100 * _MEGABYTE, 0.05))


def _download(port: int, limit: int, pause_s: float) -> int:
    with _connect(port) as sock:
        got = len(_ask(sock, b"GET /files/1g HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        buffer = bytearray(_MEGABYTE)
        while got < limit:
            count = sock.recv_into(buffer)
            if not count:
                break
            got += count
            if pause_s and got % _MEGABYTE < count:
                time.sleep(pause_s)
        return got


def upload(server: Server, connections: int) -> dict[str, int]:
    """1 GB from the client, to an upstream that reads all of it before it answers."""

    def send() -> int:
        with _connect(server.port) as sock:
            head = (
                f"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {HUGE_BYTES}\r\n\r\n"
            )
            sock.sendall(head.encode())
            piece = bytes(_MEGABYTE)
            for _ in range(HUGE_BYTES // _MEGABYTE):
                sock.sendall(piece)
            sock.settimeout(60)
            _ask(sock, b"")
            return HUGE_BYTES

    return _growth(server, send)


def _growth(server: Server, transfer: Callable[[], int]) -> dict[str, int]:
    with _connect(server.port) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
        sock.recv(65536)
    time.sleep(0.5)
    pids = server.pids
    machine.reset_peak(pids)
    before = machine.memory(pids).rss_bytes
    started = time.perf_counter()
    moved = transfer()
    took_s = time.perf_counter() - started
    peak = machine.memory(pids).peak_bytes
    return {
        "moved_bytes": moved,
        "growth_bytes": max(0, peak - before),
        "bytes_per_second": round(moved / took_s),
    }


Case = tuple[str, ProxySpec, Callable[[Server, int], dict[str, int]]]


def _cases(connections: int) -> list[Case]:
    many = ProxySpec(routes=10_000)
    return [
        ("idle", ProxySpec(), idle),
        (f"{connections:,} connections", ProxySpec(), many_connections),
        ("10,000 routes", many, idle),
        (f"{connections:,} connections, 10,000 routes", many, many_connections),
        ("1 GB down", ProxySpec(), download),
        ("slow reader", ProxySpec(), slow_download),
        ("1 GB up", ProxySpec(websocket=True), upload),
    ]


def measure(names: list[str], on: Stage, connections: int) -> dict[str, Any]:
    """All cases of all peers, each on a freshly started server."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        for case, spec, run in _cases(connections):
            try:
                server = on.start(PEERS[name], spec)
                try:
                    got: dict[str, Any] = run(server, connections)
                finally:
                    server.stop()
            except (OSError, RuntimeError) as error:
                got = {"error": str(error)[-500:]}
            found.setdefault(name, {})[case] = got
            print(f"{name:9} {case:40} {_in_words(got)}", flush=True)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"peers": found, "connections": connections, "open_files": limit}


def _in_words(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"failed: {found['error']}"
    return ", ".join(
        f"{key.removesuffix('_bytes')} {value / _MEGABYTE:,.1f} MB"
        if key.endswith("_bytes")
        else f"{key} {value:,}"
        for key, value in found.items()
    )


def main() -> None:
    """Measure, print, and keep the results for the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=RESULTS / "memory.json")
    options = parser.parse_args()
    names = list(available([name for name in options.peers.split(",") if name]))
    with stage(1) as on:
        results = measure(names, on, options.connections)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
