"""A thousand slow clients beside a normal one: `python -m benchmarks.slow_clients`.

A third each: heads a byte at a time, bodies a byte at a time, and a 1 MB answer that is asked for
and never read. Each that the gateway cuts off is replaced, so that there are always a thousand.
A normal client at a constant rate measures latency before, beside and after them.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.clients.open_loop import run_open_loop
from benchmarks.clients.wrk import ClientFailed
from benchmarks.peers import PEERS
from benchmarks.run import RESULTS, stage
from benchmarks.spec import ProxySpec

Kind = Literal["slow head", "slow body", "never reads"]
_KINDS: tuple[Kind, ...] = ("slow head", "slow body", "never reads")
_OPENING: dict[Kind, bytes] = {
    "slow head": b"GET /slow HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "slow body": b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    "never reads": b"GET /files/1m HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@dataclass(slots=True)
class SlowClient:
    """One of them."""

    kind: Kind
    sock: socket.socket
    opened_at: float


class Crowd(threading.Thread):
    """Keeps the slow clients going: a byte a second each."""

    def __init__(self, port: int, clients: int) -> None:
        super().__init__(name="crowd", daemon=True)
        self._port = port
        self._ended = threading.Event()
        self.ended: Counter[str] = Counter()
        self.lasted_s: dict[Kind, list[float]] = {kind: [] for kind in _KINDS}
        self._clients = [self._open(_KINDS[n % len(_KINDS)]) for n in range(clients)]

    def stop(self) -> None:
        """Close all of them."""
        self._ended.set()
        self.join(10)
        for client in self._clients:
            self.ended[f"{client.kind}: still there"] += 1
            client.sock.close()

    def run(self) -> None:
        """A byte a second, spread over the second."""
        while not self._ended.is_set():
            started = time.monotonic()
            for number, client in enumerate(self._clients):
                if number % 100 == 0 and self._ended.wait(0.05):
                    return
                how = self._nudge(client)
                if how is not None:
                    self.ended[f"{client.kind}: {how}"] += 1
                    self.lasted_s[client.kind].append(time.monotonic() - client.opened_at)
                    client.sock.close()
                    self._clients[number] = self._open(client.kind)
            self._ended.wait(max(0.0, 1.0 - (time.monotonic() - started)))

    def _open(self, kind: Kind) -> SlowClient:
        sock = socket.socket()
        if kind == "never reads":
            # A small window, so that the answer cannot hide in the kernel's buffers.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", self._port))
        sock.sendall(_OPENING[kind])
        sock.setblocking(False)
        return SlowClient(kind, sock, time.monotonic())

    def _nudge(self, client: SlowClient) -> str | None:
        """Send a byte; returns how the connection ended, if it has."""
        try:
            if client.kind != "never reads":
                answer = client.sock.recv(4096)
                if not answer:
                    return "closed"
                return f"answered {answer[9:12].decode('latin-1')}"
            # Sending would be a second request; asking for the error state is enough.
            error = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return "reset" if error else None
        except BlockingIOError:
            try:
                client.sock.send(b"x")
            except OSError:
                return "reset"
            return None
        except OSError:
            return "reset"


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Before, while they arrive, beside, after."""
    with stage(options.seconds) as on:
        cpu = on.ground.cores.client
        server = on.start(PEERS[options.peer], ProxySpec())
        try:
            phases: dict[str, Any] = {}

            def measure(phase: str, seconds: float) -> None:
                got = run_open_loop(server.port, options.rate, seconds, cpu)
                if got.answered == 0:
                    # Quantiles of nothing would read as a latency of zero.
                    raise ClientFailed(f"{phase}: nothing was answered")
                phases[phase] = {
                    key: getattr(got, key) for key in ("p50", "p95", "p99", "max", "errors")
                }
                print(f"{phase:17} {phases[phase]}", flush=True)

            measure("warm-up", 1)
            del phases["warm-up"]
            measure("before", min(5.0, options.seconds))
            crowd = Crowd(server.port, options.clients)
            crowd.start()
            try:
                # A thousand connections in one second are a crowd before they are slow.
                measure("while they arrive", 3)
                measure("beside", options.seconds)
            finally:
                crowd.stop()
            measure("after", min(5.0, options.seconds))
        finally:
            server.stop()
    lasted = {kind: max(values) for kind, values in crowd.lasted_s.items() if values}
    return {
        "peer": options.peer,
        "clients": options.clients,
        "rate": options.rate,
        "phases": phases,
        "ended": dict(sorted(crowd.ended.items())),
        "longest_s": lasted,
    }


def main() -> None:
    """Run, print, keep the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_clients", description=__doc__)
    parser.add_argument("--peer", choices=list(PEERS), default="headgate")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = run(options)
    # Another proxy's figures are for comparison on the terminal; the report shows Headgate's.
    name = (
        "slow_clients.json" if options.peer == "headgate" else f"slow_clients-{options.peer}.json"
    )
    file: Path = options.json or RESULTS / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
