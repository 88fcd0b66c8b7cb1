"""Starting a server, waiting until it answers, and stopping it by its pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import machine


class StartFailed(RuntimeError):
    """A server did not come up; the message carries the end of its log."""


class Server:
    """One running server. `pids` are the processes that carry traffic: pinned and measured.

    Without a `cpu` it may use all of them.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        port: int,
        cpu: int | None,
        env: Mapping[str, str] | None = None,
        traffic_pids: Callable[[int], list[int]] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self._log = log
        self._cpu = cpu
        self._traffic_pids = traffic_pids
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                list(command),
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                # Its own group, so that a Ctrl-C here does not race with our orderly stop.
                start_new_session=True,
                preexec_fn=_affinity(cpu, pin_now=traffic_pids is None),
            )
        self.root_pid = self._process.pid

    @property
    def pids(self) -> list[int]:
        """The processes that carry traffic."""
        if self._traffic_pids is None:
            return [self.root_pid, *machine.descendants(self.root_pid)]
        return self._traffic_pids(self.root_pid)

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Return once the port accepts; raise StartFailed if the process ends or time is up."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StartFailed(
                    f"{self.name} ended with {self._process.returncode}\n{self._tail()}"
                )
            if not self._answers():
                time.sleep(0.05)
                continue
            if self._traffic_pids is not None:
                self.pin_workers()
            return
        self.stop()
        raise StartFailed(f"{self.name} did not listen within {timeout_s:g}s\n{self._tail()}")

    def _answers(self) -> bool:
        """Someone accepts; where children do, someone reads what is sent as well.

        A supervisor that holds the listening sockets lets the kernel accept long before a worker
        is there. What comes back does not matter: on a TLS port it is an alert.
        """
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                if self._traffic_pids is not None:
                    probe.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    probe.recv(1)
                return True
        except ConnectionResetError:
            return self._traffic_pids is not None
        except OSError:
            return False

    def pin_workers(self) -> None:
        """Pin the processes that carry traffic to the proxy's core."""
        if self._cpu is None:
            return
        for pid in self.pids:
            machine.pin(pid, self._cpu)

    def stop(self, timeout_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL for whatever of the tree is left."""
        tree = [self.root_pid, *machine.descendants(self.root_pid)]
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                pass
        for pid in reversed(tree):
            if machine.command_line(pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self._process.wait(timeout_s)

    def _tail(self) -> str:
        try:
            return self._log.read_text(errors="replace")[-2000:]
        except OSError:
            return ""


def _affinity(cpu: int | None, *, pin_now: bool) -> Callable[[], None] | None:
    """What the new process does before it execs: threads it starts later inherit its mask.

    A server whose traffic is carried by children only is left where we are, and the children are
    pinned once they are there.
    """
    if cpu is None:
        everywhere = range(os.cpu_count() or 1)
        return lambda: os.sched_setaffinity(0, everywhere)
    return (lambda: os.sched_setaffinity(0, {cpu})) if pin_now else None


def free_port() -> int:
    """A port nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
