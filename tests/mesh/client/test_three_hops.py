"""A caller and three services in a row, each of which tries three times: what reaches the last."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from headgate.mesh import Mesh, Service
from headgate.resilience import DeadlineMiddleware, TimedOut
from tests.mesh.client.mesh_rig import write_file
from tests.ports import free_port

pytestmark = pytest.mark.integration

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
RETRY = {"attempts": 3, "wait": "1ms", "budget": {"share": "20%", "floor": "0/s"}}
NAMES = ("first", "second", "last")


class App:
    """A service that asks the next one, or one that fails."""

    def __init__(self, name: str, asks: str | None, file: Path, seen: dict[str, list[Any]]) -> None:
        self.name = name
        self.asks = asks
        self.file = file
        self.seen = seen
        self.mesh: Mesh | None = None
        self.status = 503
        self.hangs = False

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen[self.name].append(headers)
        status = self.status
        if self.asks is not None and self.mesh is not None:
            status = (await self.mesh.service(self.asks).get("/")).status_code
        elif self.hangs:
            await asyncio.sleep(30)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Any, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if self.asks is not None:
                    self.mesh = Mesh(self.file, name=self.name, report=False)
                await send({"type": "lifespan.startup.complete"})
            else:
                if self.mesh is not None:
                    await self.mesh.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


class Row:
    def __init__(self, folder: Path, retry: Any, **more: Any) -> None:
        self.ports = {name: free_port() for name in NAMES}
        services = {
            name: {"instances": f"http://127.0.0.1:{port}", "retry": retry, **more}
            for name, port in self.ports.items()
        }
        self.file = write_file(folder, services)
        self.seen: dict[str, list[dict[str, str]]] = {name: [] for name in NAMES}
        following = dict(zip(NAMES, (*NAMES[1:], None), strict=True))
        self.apps = {name: App(name, following[name], self.file, self.seen) for name in NAMES}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        servers = []
        threads = []
        for name, app in self.apps.items():
            config = uvicorn.Config(
                DeadlineMiddleware(app),
                host="127.0.0.1",
                port=self.ports[name],
                log_level="critical",
                lifespan="on",
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            servers.append(server)
            threads.append(threading.Thread(target=server.run, name=name))
        try:
            for thread in threads:
                thread.start()
            yield
        finally:
            for server in servers:
                server.should_exit = True
            for thread in threads:
                thread.join()

    async def wait_open(self) -> None:
        async with asyncio.timeout(20):
            for port in self.ports.values():
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                    except OSError:
                        await asyncio.sleep(0.01)
                        continue
                    writer.close()
                    break


def run(row: Row, work: Callable[[Service], Awaitable[None]]) -> None:
    async def whole() -> None:
        await row.wait_open()
        async with Mesh(row.file, name="shop", report=False) as mesh:
            await work(mesh.service("first"))

    with row.running():
        asyncio.run(whole())


@pytest.mark.parametrize("caller", ["retries", "does-not"])
def test_one_layer_retries_within_its_budget(tmp_path, caller):
    row = Row(tmp_path, RETRY)
    requests = 100

    async def work(first: Service) -> None:
        idempotent = None if caller == "retries" else False
        for _ in range(requests):
            got = await first.get("/", idempotent=idempotent)
            assert got.status_code == 503

    run(row, work)
    assert requests < len(row.seen["last"]) <= requests * 1.2
    # Where nobody above retries, the first service does, and no other.
    told = {headers["x-headgate-attempt"].partition("/")[2] for headers in row.seen["last"]}
    assert told == {"2"}
    assert len(row.seen["second"]) == len(row.seen["last"])
    assert (len(row.seen["first"]) == requests) == (caller == "does-not")


def test_with_breakers_the_last_is_spared(tmp_path):
    breaker = {"window": "20 calls", "minimum_calls": 10, "reset_after": "60s"}
    row = Row(tmp_path, 3, breaker=breaker)
    requests = 60

    async def work(first: Service) -> None:
        for _ in range(requests):
            with contextlib.suppress(Exception):
                await first.get("/")

    run(row, work)
    assert len(row.seen["last"]) <= requests * 1.2
    assert len(row.seen["last"]) <= 20


def test_the_deadline_shrinks_from_hop_to_hop(tmp_path):
    row = Row(tmp_path, RETRY)
    row.apps["last"].status = 200

    async def work(first: Service) -> None:
        assert (await first.get("/", timeout=15.0)).status_code == 200

    run(row, work)
    left = [int(row.seen[name][0]["x-headgate-deadline"]) for name in NAMES]
    assert 15_000 >= left[0] >= left[1] >= left[2] > 0
    assert [len(row.seen[name]) for name in NAMES] == [1, 1, 1]


def test_nobody_works_for_a_caller_whose_time_is_over(tmp_path):
    row = Row(tmp_path, RETRY)
    row.apps["last"].hangs = True

    async def work(first: Service) -> None:
        # Whoever notices first says so: the caller itself, or one below.
        with contextlib.suppress(TimedOut):
            assert (await first.get("/", timeout=0.2)).status_code == 504

    run(row, work)
    # Their servers have ended within their second of grace: nothing hangs behind the caller's back.
    assert all(len(seen) <= 1 for seen in row.seen.values())
