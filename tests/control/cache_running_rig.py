"""An origin whose answers may be kept, a gateway that keeps them, and what a test asks of both."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.control import running
from tests.control.serving import Serving

PATIENT = "tests.control.cache_running_worker:PatientWorker"
PATIENCE_S = 60.0
"""Three processes start, on a machine that may have much else to do: only what hangs takes longer."""


def wait_until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    return running.wait_until(what, patience_s)


class Origin:
    """A service on a thread of its own. Each answer names its path and the `version` that stood
    when it was asked. `/size/N/...` pads it to N bytes; `says` is its `Cache-Control`.
    """

    def __init__(self) -> None:
        self.version = 1
        self.status = 200
        self.says = "max-age=3600"
        self.more: tuple[str, ...] = ()
        """Lines of the head besides."""
        self.asked: Counter[str] = Counter()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._leave = asyncio.Event()
        self._open: set[asyncio.Task[Any]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._live(),))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def served(self) -> int:
        return self.asked.total()

    def __enter__(self) -> Origin:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(20)
        self._loop.close()

    async def _live(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
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
                path = head.split(b" ", 2)[1].decode()
                self.asked[path] += 1
                body = f"{path} v{self.version} ".encode()
                if path.startswith("/size/"):
                    body = body.ljust(int(path.split("/")[2]), b"x")
                lines = [f"HTTP/1.1 {self.status} It is", f"content-length: {len(body)}"]
                if self.says:
                    lines.append(f"cache-control: {self.says}")
                writer.write("\r\n".join([*lines, *self.more, "", ""]).encode() + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()


@dataclass(frozen=True)
class Got:
    status: int
    version: int
    """0: the origin has not said this."""
    said: str
    """`Cache-Status`."""
    body: bytes

    @property
    def is_hit(self) -> bool:
        return "; hit" in self.said


class Shop(Serving):
    """A gateway with two workers that keeps what the origin says."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        super().__init__(folder)
        self.worker_class = PATIENT
        self.observes = False
        self.origin = origin
        self.keeps: dict[str, Any] = {}

    def write(self, body: str = "one", **more: Any) -> None:
        self.keeps = more.get("cache_store", self.keeps)
        made: dict[str, Any] = {
            "services": {"shop": self.origin.url},
            "routes": [{"name": "shop", "match": {"path": "/"}, "to": "shop"}],
            "cache": True,
            "cache_store": self.keeps,
            "state_dir": str(self.state.path),
        }
        super().write(body, **{**made, **more})

    def start(self, *rest: str, prefix: tuple[str, ...] = (), wait: bool = True) -> None:
        super().start(*rest, prefix=prefix, wait=False)
        if wait:
            self.wait_for("ready: ", patience_s=running.START_PATIENCE_S)
            self.wait_linked()

    def wait_for(self, text: str, after: int = 0, *, patience_s: float = PATIENCE_S) -> str:
        def found() -> str:
            line = next((line for line in self.log[after:] if text in line), "")
            assert line or self.process is None or self.process.poll() is None, self.said
            return line

        line: str = wait_until(found, patience_s)
        return line

    def wait_end(self, timeout_s: float = PATIENCE_S) -> int:
        return super().wait_end(timeout_s)

    def wait_linked(self, count: int = 2) -> None:
        """Until control hears of all workers."""
        wait_until(lambda: len(self.worker_pids()) == count)
        wait_until(lambda: len(self.policies()) == count)

    def wait_gone(self, pid: int) -> None:
        wait_until(lambda: all(row["pid"] != pid for row in self.workers()))

    def wait_kinds(self, *kinds: str) -> None:
        """Until there are these layers and no others."""
        wait_until(lambda: set(self.stores()) == set(kinds))

    def stores(self) -> dict[str, dict[str, Any]]:
        return {row["kind"]: row for row in self.ask("/api/cache/stats")["stores"]}

    def lower(self) -> dict[str, Any]:
        """The layer below memory, of all workers together; empty before any has told."""
        return next((row for kind, row in self.stores().items() if kind != "memory"), {})

    def wait_lower(self, *, away: int = 0) -> None:
        wait_until(lambda: self.lower() and self.lower()["away"] == away)

    def figure(self, name: str, **labels: str) -> float:
        """One number of /metrics; 0 if it is not there."""
        wanted = name + (
            "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
            if labels
            else ""
        )
        for line in self.admin.ask("GET", "/metrics").content.splitlines():
            if line.startswith(f"{wanted} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def written(self) -> float:
        layer = self.lower()["kind"]
        return self.figure("headgate_cache_lower_writes_total", layer=layer, result="written")

    def wait_written(self, count: int) -> None:
        wait_until(lambda: self.written() >= count and not self.lower()["queued"])

    def see(self, path: str, **headers: str) -> Got:
        return see(self.port, path, **headers)


def see(port: int, path: str, method: str = "GET", **headers: str) -> Got:
    named = {"connection": "close", **{k.replace("_", "-"): v for k, v in headers.items()}}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    words = body.split(b" v", 1)
    version = int(words[1].split(b" ")[0]) if len(words) == 2 else 0
    return Got(answer.status, version, answer.getheader("cache-status") or "", body)


@contextlib.contextmanager
def shop(
    folder: Path, origin: Origin, worker_class: str = PATIENT, **config: Any
) -> Iterator[Shop]:
    made = Shop(folder, origin)
    made.worker_class = worker_class
    made.write(**config)
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Asking:
    """Requests on a few threads, for `paths` by turns; what came is kept. They pause for a moment, as
    what they wait for may need the processor.
    """

    def __init__(
        self, port: int, paths: list[str], threads: int = 3, *, pause_s: float = 0.003
    ) -> None:
        self.port = port
        self._pause_s = pause_s
        self.failures: list[str] = []
        self.answers: list[tuple[float, str, Got]] = []
        self._paths = paths
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self._stop.wait(self._pause_s):
            number += 1
            path = self._paths[number % len(self._paths)]
            at = time.monotonic()
            try:
                self.answers.append((at, path, see(self.port, path)))
            except Exception as error:  # whatever it is, the test shows it
                self.failures.append(f"{path}: {error!r}")

    def wait_for_more(self, count: int = 30) -> None:
        now = len(self.answers)
        wait_until(lambda: len(self.answers) >= now + count)
