"""Who plays in `benchmarks.overshoot`: gateways, Redis, and connections that stay with a worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.peers.headgate import environment, worker_pids
from benchmarks.process import Server, free_port
from headgate.control.client import AdminClient
from headgate.control.state_dir import StateDir
from headgate.errors import HeadgateError

SETTLE_S: Final = 1.5
"""Until all workers have found their home and each other."""

Arrival = tuple[float, int, bool]
"""When, at which worker, and whether on the heavy connection."""


@dataclass(frozen=True)
class Place:
    """Who shares, and how."""

    title: str
    gateways: int
    workers: int
    is_redis: bool = False

    @property
    def holders(self) -> int:
        return self.gateways * self.workers


def guarded(*command: str) -> list[str]:
    """A command that ends when this process does, also when it is killed."""
    guard = shutil.which("setpriv")
    return [guard, "--pdeathsig", "KILL", *command] if guard is not None else [*command]


class Redis:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise SystemExit("redis-server is missing: apt-get install redis-server")
        options = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        options += ["--dir", str(self.folder), "--port", str(self.port)]
        log = self.folder / "redis.log"
        self.server = Server("redis", guarded(program, *options), log=log, port=self.port, cpu=None)
        self.server.wait_ready()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server.root_pid, signal.SIGKILL)
        self.server.stop()


class Gateway:
    """`headgate run`, and which worker a connection has reached."""

    def __init__(self, folder: Path, document: dict[str, Any]) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        document = {**document, "listeners": [f"127.0.0.1:{self.port}"], "admin": {"bind": "off"}}
        file = folder / "headgate.yaml"
        file.write_text(yaml.safe_dump(document))
        self.workers = document["workers"]
        self.pids: list[int] = []
        """The workers that are ready."""
        self._admin = AdminClient(StateDir(folder / "state"))
        command = [sys.executable, "-m", "headgate", "run", str(file)]
        self.server = Server(
            "headgate",
            guarded(*command, "--state-dir", str(folder / "state")),
            log=folder / "headgate.log",
            port=self.port,
            cpu=None,
            env=environment(),
            traffic_pids=worker_pids,
        )

    def wait_ready(self) -> None:
        self.server.wait_ready()
        deadline = time.monotonic() + 30.0
        while True:
            with contextlib.suppress(HeadgateError):
                rows = self._admin.ask("GET", "/api/workers").content
                self.pids = [row["pid"] for row in rows if row["state"] == "ready"]
                known = self._admin.ask("GET", "/api/traffic").content
                if len(known) == len(self.pids) == self.workers:
                    return
            if time.monotonic() > deadline:
                raise SystemExit("control does not know its workers")
            time.sleep(0.05)


@contextmanager
def gateways(folder: Path, count: int, document: dict[str, Any]) -> Iterator[list[Gateway]]:
    made: list[Gateway] = []
    try:
        made += [Gateway(folder / f"gateway-{number}", document) for number in range(count)]
        for gateway in made:
            gateway.wait_ready()
        yield made
    finally:
        for gateway in made:
            gateway.server.stop()


def owner_of(server_port: int, client_port: int, pids: Sequence[int]) -> int:
    """Which of the processes has accepted the connection."""
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *rest = line.split()
        if local.endswith(f":{server_port:04X}") and remote.endswith(f":{client_port:04X}"):
            inode = rest[6]
    for pid in pids:
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if file.readlink().name == f"socket:[{inode}]":
                        return pid
    return 0


class Connection:
    """One kept connection to one worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int, pids: Sequence[int], pid: int) -> Connection:
        """The kernel chooses the worker, so several are tried."""
        for _ in range(300):
            made = cls(*await asyncio.open_connection("127.0.0.1", port))
            await made.get("/where")
            name = made._writer.get_extra_info("sockname")
            if owner_of(port, name[1], pids) == pid:
                return made
            made.close()
        raise SystemExit(f"no connection reaches worker {pid}")

    async def get(self, path: str) -> int:
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, found, rest = head.partition(b"content-length: ")
        if found:
            await self._reader.readexactly(int(rest.split(b"\r\n")[0]))
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        self._writer.close()
