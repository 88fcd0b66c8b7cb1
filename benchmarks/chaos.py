"""Reloads and killed workers under load: `python -m benchmarks.chaos [--seconds 30]`.

Theory of operation
-------------------
Two clients load two workers: wrk, and a watching client of our own that accounts for each request.
Meanwhile a reload with a changed file is asked for every second, and every five seconds a worker
is killed. What may fail is exactly what the killed worker had accepted:

- The worker is stopped (SIGSTOP) first, then its sockets are read from /proc (which inodes it
  holds, which client ports these belong to), then it is killed. A failed request is excused if its
  connection was on that list. Stopping makes the list exact; it costs the victims milliseconds.
- A connection that the kernel had accepted but the worker had not is *not* on the list: the
  listening socket lives on in the supervisor, and the successor has to serve it.
- A port may be used again later, so an excuse only holds for connections older than the kill.

wrk's read errors are checked against the number of its connections on the lists. The program ends
with status 1 if anything failed without an excuse.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.clients.open_loop import is_whole
from benchmarks.clients.wrk import WrkRun, parse_wrk, start_wrk
from benchmarks.peers.headgate import config, start_headgate, worker_pids, write_document
from benchmarks.process import Server
from benchmarks.run import RESULTS, stage
from benchmarks.spec import ProxySpec

_REQUEST = b"GET /watched HTTP/1.1\r\nHost: localhost\r\n\r\n"
_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Killed:
    """What the killed workers took with them: client port -> when."""

    when: dict[int, float] = field(default_factory=dict)
    count: int = 0

    def excuses(self, port: int, opened_at: float) -> bool:
        """Whether this connection ended with a worker."""
        return self.when.get(port, -1.0) >= opened_at


@dataclass(slots=True)
class Connection:
    """One of the watching client's connections; always has a request in flight."""

    sock: socket.socket
    port: int
    opened_at: float
    asked_at: float
    answer: bytes = b""


class Watcher:
    """A closed-loop client that knows the fate of every request."""

    def __init__(self, port: int, connections: int, killed: Killed) -> None:
        self._port = port
        self._killed = killed
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}
        self.requests = 0
        self.generations: set[bytes] = set()
        self.failures: Counter[str] = Counter()
        self.excused: Counter[str] = Counter()
        for _ in range(connections):
            self._connect()

    def run(self, until: float) -> None:
        """Ask until it is time, then let what is in flight end."""
        while time.monotonic() < until:
            self._step(is_ending=False)
        give_up = time.monotonic() + _TIMEOUT_S
        while self._open and time.monotonic() < give_up:
            self._step(is_ending=True)
        for connection in list(self._open.values()):
            self._fail(connection, "no answer")

    @property
    def ports(self) -> set[int]:
        """Local ports in use, to tell our connections from wrk's."""
        return {connection.port for connection in list(self._open.values())}

    def _step(self, *, is_ending: bool) -> None:
        events = self._poll.poll(0.2)
        for fd, _ in events:
            connection = self._open[fd]
            try:
                data = connection.sock.recv(65536)
            except OSError as error:
                self._fail(connection, type(error).__name__)
                self._replace(is_ending)
                continue
            if not data:
                self._fail(connection, "closed before the answer")
                self._replace(is_ending)
                continue
            connection.answer += data
            if is_whole(connection.answer):
                self._on_answer(connection, is_ending=is_ending)
        if not events:
            late = time.monotonic() - _TIMEOUT_S
            for connection in [each for each in self._open.values() if each.asked_at < late]:
                self._fail(connection, "no answer")
                self._replace(is_ending)

    def _on_answer(self, connection: Connection, *, is_ending: bool) -> None:
        self.requests += 1
        head = connection.answer.split(b"\r\n\r\n", 1)[0]
        at = head.find(b"x-generation: ")
        if at >= 0:
            self.generations.add(head[at + 14 : at + 24].split(b"\r", 1)[0])
        status = head[9:12].decode("latin-1")
        if status != "200":
            self.failures[f"status {status}"] += 1
        connection.answer = b""
        # The gateway may ask us to go elsewhere; that is no failure, the answer has come.
        if is_ending or b"connection: close" in head.lower():
            self._forget(connection)
            self._replace(is_ending)
            return
        self._ask(connection)

    def _ask(self, connection: Connection) -> None:
        connection.asked_at = time.monotonic()
        try:
            connection.sock.send(_REQUEST)
        except OSError as error:
            self._fail(connection, type(error).__name__)
            self._replace(is_ending=False)

    def _fail(self, connection: Connection, cause: str) -> None:
        self.requests += 1
        if self._killed.excuses(connection.port, connection.opened_at):
            self.excused[cause] += 1
        else:
            self.failures[cause] += 1
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._open.pop(connection.sock.fileno(), None)
        connection.sock.close()

    def _replace(self, is_ending: bool) -> None:
        if not is_ending:
            self._connect()

    def _connect(self) -> None:
        opened_at = time.monotonic()
        try:
            sock = socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT_S)
        except OSError as error:
            self.requests += 1
            self.failures[f"connect: {type(error).__name__}"] += 1
            time.sleep(0.01)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        connection = Connection(sock, sock.getsockname()[1], opened_at, opened_at)
        self._open[sock.fileno()] = connection
        self._poll.register(sock.fileno(), select.EPOLLIN)
        self._ask(connection)


class Trouble(threading.Thread):
    """Reloads and kills on a timetable."""

    def __init__(
        self, server: Server, file: Path, document: dict[str, object], options: argparse.Namespace
    ) -> None:
        super().__init__(name="trouble", daemon=True)
        self._server = server
        self._file = file
        self._document = document
        self._options = options
        self._ended = threading.Event()
        self.killed = Killed()
        self.reloads = 0
        self.respawn_s: list[float] = []
        self.faults: list[str] = []

    def stop(self) -> None:
        """End after the current act."""
        self._ended.set()
        self.join(10)

    def run(self) -> None:
        """Wait, act, repeat."""
        now = time.monotonic()
        next_reload = now + self._options.reload_every
        next_kill = now + self._options.kill_every
        while not self._ended.wait(max(0.0, min(next_reload, next_kill) - time.monotonic())):
            now = time.monotonic()
            try:
                if now >= next_reload:
                    next_reload += self._options.reload_every
                    self._reload()
                if now >= next_kill:
                    next_kill += self._options.kill_every
                    self._kill()
            except OSError as error:
                self.faults.append(repr(error))

    def _reload(self) -> None:
        """A file that differs every time: another route, another header."""
        self.reloads += 1
        routes = self._document["routes"]
        assert isinstance(routes, list)
        extra = {"match": {"path": f"/reload-{self.reloads}/"}, "to": "up"}
        headers = {"response": {"set": {"x-generation": str(self.reloads)}}}
        changed = {**self._document, "routes": [extra, *routes], "headers": headers}
        write_document(changed, self._file)
        os.kill(self._server.root_pid, signal.SIGHUP)

    def _kill(self) -> None:
        pids = worker_pids(self._server.root_pid)
        if len(pids) < self._options.workers:
            # Only a full crew shows that the rest goes on undisturbed.
            self.faults.append(f"only {len(pids)} workers when it was time for a kill")
            return
        victim = pids[self.killed.count % len(pids)]
        os.kill(victim, signal.SIGSTOP)
        _wait_stopped(victim)
        now = time.monotonic()
        for port in client_ports(victim, self._server.port):
            self.killed.when[port] = now
        self.killed.count += 1
        os.kill(victim, signal.SIGKILL)
        while time.monotonic() < now + 5:
            crew = worker_pids(self._server.root_pid)
            if victim not in crew and len(crew) >= self._options.workers:
                self.respawn_s.append(time.monotonic() - now)
                return
            time.sleep(0.01)
        self.faults.append("no successor within 5 s")


def _wait_stopped(pid: int) -> None:
    for _ in range(200):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            return
        time.sleep(0.001)


def client_ports(pid: int, server_port: int) -> set[int]:
    """Client ports of the connections that a process holds to this listening port."""
    inodes: set[str] = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            link = os.readlink(entry)
        except OSError:
            continue
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    found: set[int] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes and int(fields[1].rpartition(":")[2], 16) == server_port:
            found.add(int(fields[2].rpartition(":")[2], 16))
    return found - {0}


def run(options: argparse.Namespace) -> dict[str, object]:
    """The whole act; returns what the report shows."""
    with stage(options.seconds) as on:
        site = on.site_for("chaos")
        document = config(ProxySpec(), site)
        server = start_headgate(document, site, workers=options.workers, is_pinned=False)
        try:
            server.wait_ready()
            trouble = Trouble(server, site.folder / "headgate.yaml", document, options)
            watcher = Watcher(server.port, options.connections, trouble.killed)
            ours = watcher.ports
            load: subprocess.Popen[str] | None = None
            if options.wrk_connections:
                asked = WrkRun(
                    f"http://127.0.0.1:{server.port}/", options.seconds, options.wrk_connections
                )
                load = start_wrk(asked, on.ground.folder, on.ground.cores.client)
            trouble.start()
            watching = _PortKeeper(watcher, ours)
            watching.start()
            watcher.run(time.monotonic() + options.seconds)
            trouble.stop()
            watching.stop()
            wrk_errors: dict[str, int] = {}
            wrk_requests = 0
            if load is not None:
                out, err = load.communicate(timeout=60)
                got = parse_wrk(out, err)
                wrk_errors = dict(got.error_kinds)
                wrk_requests = got.requests
            is_alive = len(worker_pids(server.root_pid)) == options.workers
            log_tail = (site.folder / "headgate.log").read_text(errors="replace")[-3000:]
        finally:
            server.stop()
    theirs = len([port for port in trouble.killed.when if port not in watching.seen])
    # Times a port was on a list are not counted twice, so this bound is on the strict side.
    wrk_total = sum(wrk_errors.values())
    # A gateway that refused to reload would pass every other check. One swap in three may be
    # overtaken by the next on a busy machine.
    did_reload = len(watcher.generations) >= trouble.reloads * 2 // 3
    is_clean = (
        not watcher.failures
        and wrk_total <= theirs
        and not trouble.faults
        and is_alive
        and did_reload
    )
    failures = {f"in a killed worker: {cause}": count for cause, count in watcher.excused.items()}
    failures |= {f"WITHOUT EXCUSE: {cause}": count for cause, count in watcher.failures.items()}
    if not is_clean:
        print(log_tail, file=sys.stderr)
    return {
        "seconds": options.seconds,
        "workers": options.workers,
        "reload_every": options.reload_every,
        "kill_every": options.kill_every,
        "reloads": trouble.reloads,
        "reloads_seen": len(watcher.generations),
        "kills": trouble.killed.count,
        "respawn_s": trouble.respawn_s,
        "requests": watcher.requests,
        "failures": failures,
        "wrk": {"requests": wrk_requests, "errors": wrk_errors, "lost_connections": theirs},
        "faults": trouble.faults,
        "is_clean": is_clean,
    }


class _PortKeeper(threading.Thread):
    """Remembers every port the watching client ever had, also those that are gone by the end."""

    def __init__(self, watcher: Watcher, seen: set[int]) -> None:
        super().__init__(name="ports", daemon=True)
        self._watcher = watcher
        self._ended = threading.Event()
        self.seen = set(seen)

    def stop(self) -> None:
        self._ended.set()
        self.join(5)

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self.seen |= self._watcher.ports


def main() -> None:
    """Run, print, keep the results, and end with 1 if something was lost without an excuse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reload-every", type=float, default=1)
    parser.add_argument("--kill-every", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32, help="of the watching client")
    parser.add_argument("--wrk-connections", type=int, default=32, help="0: without wrk")
    parser.add_argument("--json", type=Path, default=RESULTS / "chaos.json")
    options = parser.parse_args()
    results = run(options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    sys.exit(0 if results["is_clean"] else 1)


if __name__ == "__main__":
    main()
