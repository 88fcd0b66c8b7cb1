"""A gateway with its real workers, instances with moods, and clients that stay with one worker."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from headgate.control.launch import DEFAULT_WORKER
from tests.control.running import Gateway, wait_until

TRIES = 5
SOON_S = 1.0
WHERE = {"name": "where", "match": {"path": "/where"}, "respond": {"body": "here"}, "limit": False}
"""A route without policies, by which a client finds out which worker it has."""


class Instance:
    """A service on a thread of its own, which answers with its name. `status` is that of its
    answers, `health` what it says of itself on `/ready`; `served` and `checked` count.
    """

    def __init__(self, name: str = "ok") -> None:
        self.name = name
        self.status = 200
        self.health = 200
        self.served = 0
        self.checked = 0
        self.held = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._leave = asyncio.Event()
        self._open: set[asyncio.Task[Any]] = set()
        self._started = threading.Event()
        self._go = asyncio.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._live(),))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Instance:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(20)
        self._loop.close()

    def hold(self) -> None:
        """Answer nothing from now on."""
        self._loop.call_soon_threadsafe(self._go.clear)

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self._go.set)

    async def _live(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._leave.wait()
        server.close()
        while self._open:
            for task in tuple(self._open):
                task.cancel()
            await asyncio.sleep(0.001)
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /ready"):
                    self.checked += 1
                    status = self.health
                else:
                    self.served += 1
                    self.held += 1
                    await self._go.wait()
                    self.held -= 1
                    status = self.status
                head_lines = f"HTTP/1.1 {status} It is\r\ncontent-length: {len(self.name)}\r\n\r\n"
                writer.write((head_lines + self.name).encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()


class Visitor:
    """A client on one kept connection, and so with one worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)

    def get(self, path: str = "/", **headers: str) -> tuple[int, str]:
        """Status and body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", path, headers=named)
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()

    def status(self, path: str = "/", **headers: str) -> int:
        return self.get(path, **headers)[0]

    def begin(self, path: str) -> None:
        """Ask and do not wait for the answer; this visitor can ask no more."""
        self._connection.request("GET", path)

    def owner(self, pids: list[int]) -> int:
        """The worker at the other end; it has answered before."""
        sock = self._connection.sock
        assert sock is not None
        return owner_of(sock.getpeername()[1], sock.getsockname()[1], pids)

    def close(self) -> None:
        self._connection.close()


def owner_of(server_port: int, client_port: int, pids: list[int]) -> int:
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


class Serving(Gateway):
    """`headgate run` on a file, with two workers unless said."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.worker_class = DEFAULT_WORKER
        self._visitors = ExitStack()

    def write(self, body: str = "one", **more: Any) -> None:
        routes = [WHERE, *more.pop("routes", [{"name": "all", "to": "users"}])]
        super().write(body, **{"access_log": {"format": "off"}, "routes": routes, **more})

    def start(self, *rest: str, prefix: tuple[str, ...] = (), wait: bool = True) -> None:
        super().start(*rest, prefix=prefix, wait=wait)
        if wait:
            self.wait_linked()

    def stop(self) -> None:
        self._visitors.close()
        super().stop()

    def reload(self, **config: Any) -> None:
        self.write(**config)
        self.post("/api/reload")

    # -- asking --------------------------------------------------------------------------------

    def ask(self, path: str) -> Any:
        return self.admin.ask("GET", path).content

    def post(self, path: str, **order: Any) -> Any:
        return self.admin.ask("POST", path, order or None, timeout_s=60).content

    def policies(self) -> dict[str, dict[str, Any]]:
        """What each worker knows; none that has not said it yet."""
        found: dict[str, dict[str, Any]] = self.ask("/api/traffic")
        return found

    def wait_linked(self, count: int = 2) -> None:
        """Until control hears of all workers, and all share the home."""
        self.wait_workers(count)
        wait_until(lambda: len(self.policies()) == count)

    def kill_worker(self, pid: int) -> int:
        """End a worker hard; the pid of the one that has taken its place."""
        before = self.worker_pids()
        os.kill(pid, 9)
        self.wait_gone(pid)
        self.wait_linked(len(before))
        (fresh,) = set(self.worker_pids()) - set(before)
        return fresh

    # -- visiting ------------------------------------------------------------------------------

    def visitors(self) -> dict[int, Visitor]:
        """One client for each worker, by its pid."""
        return {pid: self.visitor_of(pid) for pid in self.worker_pids()}

    def visitor_of(self, pid: int) -> Visitor:
        """A client with this worker. The kernel chooses, so others are sent away."""
        for _ in range(200):
            visitor = Visitor(self)
            visitor.status("/where")
            if visitor.owner([pid]) == pid:
                self._visitors.callback(visitor.close)
                return visitor
            visitor.close()
        raise AssertionError(f"no connection reaches worker {pid}")


@contextmanager
def serving(folder: Path, **config: Any) -> Iterator[Serving]:
    gateway = Serving(folder)
    gateway.write(**config)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


def soon(do: Callable[[], object], seen: Callable[[], Any], undo: Callable[[], object]) -> None:
    """What `do` does is seen within a second. On a machine that is busy one try may be late, so
    that it is late only when all of them are.
    """
    took = []
    for _ in range(TRIES):
        began = time.monotonic()
        do()
        wait_until(seen)
        took.append(time.monotonic() - began)
        if took[-1] < SOON_S:
            return
        undo()
        wait_until(lambda: not seen())
    raise AssertionError(f"seen after {json.dumps([round(s, 2) for s in took])} s")
