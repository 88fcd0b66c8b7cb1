"""Gateways by `headgate run` and services as processes, which share one space of tags."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.control.cache_running_rig import Got, see
from tests.control.running import ENV, ROOT, Gateway, wait_until
from tests.ports import free_port

NAMES = ("one", "two")
STARTING_S = 60.0
"""Several interpreters at once, on a machine that has other work."""


class Service:
    def __init__(self, name: str, folder: Path, url: str, socket: str = "none") -> None:
        self.name = name
        self.folder = folder
        self.port = free_port()
        words = [name, str(self.port), str(folder), url, socket]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.control.tag_space_service", *words],
            env=ENV,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )

    def wait_ready(self) -> None:
        wait_until(self.is_ready, STARTING_S)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"service {self.name} has ended"
        with contextlib.suppress(OSError):
            return see(self.port, "/peek/nothing").status == 200
        return False

    def get(self, path: str) -> Got:
        return see(self.port, path)

    def holds(self, tag: str) -> str | None:
        """In the memory of the process, or below it."""
        said: str | None = json.loads(self.get(f"/peek/{tag}").body)
        return said

    def invalidate(self, tag: str, *, soft: bool = False) -> bool:
        """Whether all who could be told have been."""
        got = see(self.port, f"/invalidate/{tag}{'?soft' if soft else ''}", "POST")
        assert got.status == 200
        return not json.loads(got.body)["queued"]

    def hold_loads(self) -> None:
        (self.folder / f"held-{self.name}").unlink(missing_ok=True)
        (self.folder / f"hold-{self.name}").touch()

    def wait_held(self, count: int = 1) -> None:
        held = self.folder / f"held-{self.name}"
        wait_until(lambda: held.exists() and len(held.read_text()) >= count)

    def let_go(self) -> None:
        (self.folder / f"hold-{self.name}").unlink()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        self.process.kill()
        self.process.wait()


class Edge(Gateway):
    """A gateway with two workers before the services: `/one/x` is `/x` of the first."""

    def configure(self, services: dict[str, int], state: str, *, disk: bool) -> None:
        store = {"memory": "16MB"}
        if disk:
            store["disk"] = {"path": str(self.folder / "disk"), "size": "64MB"}  # type: ignore[assignment]  # or a mapping
        self.write(
            services={name: f"http://127.0.0.1:{port}" for name, port in services.items()},
            routes=[
                {"name": name, "match": {"path": f"/{name}/"}, "to": name, "strip": True}
                for name in services
            ],
            cache=True,
            cache_store=store,
            access_log={"format": "off"},
            state=state,
        )

    def start(self, *rest: str, prefix: tuple[str, ...] = (), wait: bool = True) -> None:
        self.state.path = self.folder / ".headgate"
        self._launch([*prefix, sys.executable, "-m", "headgate", "run", *rest], wait=False)
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        assert self.process is not None
        process = self.process
        wait_until(lambda: "ready: " in self.said or process.poll() is not None, STARTING_S)
        assert process.poll() is None, self.said
        wait_until(lambda: len(self.worker_pids()) == 2, STARTING_S)
        wait_until(lambda: self.layer().get("is_away", False) is False)

    def get(self, path: str) -> Got:  # type: ignore[override]  # what was kept of it
        return see(self.port, path)

    def fill(self, path: str) -> int:
        """Until each worker has it; the version."""
        url = f"http://127.0.0.1:{self.port}{path}"

        def is_in_both() -> bool:
            self.get(path)
            held = self.admin.ask("GET", f"/api/cache/inspect?url={url}").content["responses"]
            return any(row["workers"] == [0, 1] for row in held)

        wait_until(is_in_both)
        return self.get(path).version

    def wait_on_disk(self, count: int) -> None:
        def is_there() -> bool:
            rows = self.admin.ask("GET", "/api/cache/stats").content["stores"]
            return any(row["kind"] == "disk" and row["entries"] >= count for row in rows)

        wait_until(is_there)

    def versions(self, path: str, asks: int = 12) -> set[int]:
        """What it answers, by either worker: a connection each, and the kernel chooses."""
        return {self.get(path).version for _ in range(asks)}

    def entries(self, action: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.admin.ask("GET", f"/api/audit?action={action}").content[
            "entries"
        ]
        return found

    def layer(self) -> dict[str, Any]:
        return self.admin.ask("GET", "/api/cache/stats").content["layer"] or {}


class Space:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, Service] = {}
        self.edges: list[Edge] = []
        self.write(1)

    @property
    def one(self) -> Service:
        return self.services["one"]

    @property
    def two(self) -> Service:
        return self.services["two"]

    def write(self, version: int) -> None:
        """Change what services load."""
        draft = self.folder / "db.draft"
        draft.write_text(str(version))
        draft.replace(self.folder / "db")

    def add_edge(self, ports: dict[str, int], state: str, *, disk: bool) -> Edge:
        folder = self.folder / f"edge{len(self.edges)}"
        folder.mkdir()
        edge = Edge(folder)
        self.edges.append(edge)
        edge.configure(ports, state, disk=disk)
        edge.start(wait=False)
        return edge

    def wait_ready(self) -> None:
        for service in self.services.values():
            service.wait_ready()
        for edge in self.edges:
            edge.wait_ready()

    def stop(self) -> None:
        for service in self.services.values():
            service.stop()
        for edge in self.edges:
            edge.stop()


@contextlib.contextmanager
def on_redis(folder: Path, url: str, second_url: str, edges: int = 2) -> Iterator[Space]:
    """Two services and gateways on one Redis; the first gateway has a disk, the second service a
    way to Redis of its own.
    """
    space = Space(folder)
    try:
        for name, where in zip(NAMES, (url, second_url), strict=True):
            space.services[name] = Service(name, folder, where)
        ports = {name: service.port for name, service in space.services.items()}
        for number in range(edges):
            space.add_edge(ports, url, disk=number == 0)
        space.wait_ready()
        yield space
    finally:
        space.stop()


@contextlib.contextmanager
def by_links(folder: Path) -> Iterator[Space]:
    """Two services linked to a gateway with a disk, and no Redis."""
    space = Space(folder)
    try:
        ports = {name: free_port() for name in NAMES}
        edge = space.add_edge(ports, "memory", disk=True)
        for name in NAMES:
            space.services[name] = Service(name, folder, "none", str(edge.state.socket_path))
        ports = {name: service.port for name, service in space.services.items()}
        space.wait_ready()
        edge.configure(ports, "memory", disk=True)
        assert edge.command("reload").returncode == 0
        wait_until(
            lambda: edge.admin.ask("GET", "/api/cache/stats").content["listeners"] == len(NAMES)
        )
        yield space
    finally:
        space.stop()
