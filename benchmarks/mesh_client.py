"""The mesh client's wire beside httpx and aiohttp: `python -m benchmarks.mesh_client`.

Theory of operation
-------------------
One server process, pinned to one core, answers from memory; one client process, pinned to another,
runs every client in turn, round after round, so that a slow moment of the machine falls on all. A
figure is requests per second of the client's own processor time (all its threads, user and
system), which is what "per core" means and what others on the machine do not add to; requests per
second by the clock stand beside it. Each is the median of the rounds.

All clients send the same request with the same headers over kept connections, as many as there are
callers, and read the whole body.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx
import uvloop

from benchmarks import machine, mesh_client_page
from benchmarks.mesh_client_page import BY_NAME, HEADGATE, IN_HTTPX
from headgate.mesh import Mesh
from headgate.mesh.http import HttpClient, PoolSizes
from headgate.mesh.http.blocking_client import BlockingClient
from headgate.mesh.http.sender import Direct
from headgate.mesh.http.transports import MeshTransport, SyncMeshTransport
from headgate.wire.connect import Endpoint

ROOT: Final = Path(__file__).resolve().parent
RESULTS: Final = ROOT / "results" / "mesh_client.json"
PAGE: Final = ROOT.parent / "docs" / "mesh-client.md"
PLOT: Final = ROOT.parent / "docs" / "images" / "mesh-client.svg"

JSON: Final = b'{"id":42,"name":"a small product","price":1999,"currency":"EUR","stock":7}'
KILOBYTE: Final = b"x" * 1024
HEADERS: Final = {
    "accept": "*/*",
    "accept-encoding": "gzip, deflate",
    "user-agent": "bench/1",
    "x-request-id": "0123456789abcdef",
}
CONCURRENCIES: Final = (1, 10, 100)
FAST: Final = (HEADGATE, BY_NAME, "aiohttp")

Once = Callable[[], Awaitable[bytes]]


# ---------------------------------------------------------------------------------------- server


class Answering(asyncio.Protocol):
    """Answers requests with a small JSON, at the least cost."""

    _LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
    _ANSWER: Final = (
        b"HTTP/1.1 200 OK\r\nserver: bench\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(JSON), JSON)
    )
    _buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        while (end := data.find(b"\r\n\r\n") + 4) > 3:
            found = self._LENGTH.search(data, 0, end)
            end += int(found[1]) if found else 0
            if len(data) < end:
                break
            self._transport.write(self._ANSWER)
            data = data[end:]
        self._buffer = data


def serve(sock: socket.socket) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, sock=sock, backlog=1024)
        await server.serve_forever()

    uvloop.run(main())


# --------------------------------------------------------------------------------------- clients


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    method: str
    body: bytes | None


LOADS: Final = (Load("GET small JSON", "GET", None), Load("POST 1 KB", "POST", KILOBYTE))


class Clients:
    """Every way to make the call, opened once."""

    def __init__(self, port: int, folder: Path) -> None:
        self._url = f"http://127.0.0.1:{port}/items/42"
        self._endpoint = Endpoint("127.0.0.1", port)
        sizes = PoolSizes(connections=200, idle=200, idle_timeout_s=60.0)
        self._ours = HttpClient(sizes)
        file = folder / "headgate.yaml"
        file.write_text(
            "listeners: [127.0.0.1:8080]\n"
            f"services: {{items: {{instances: ['http://127.0.0.1:{port}']}}}}\n"
            "routes: [{match: {path: /}, to: items}]\n"
        )
        self._mesh = Mesh(file)
        self._httpx = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=200, keepalive_expiry=60.0)
        )
        self._over = httpx.AsyncClient(transport=MeshTransport(Direct(HttpClient(sizes))))
        self._aiohttp = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=200), auto_decompress=True
        )

    def ways(self, load: Load) -> dict[str, Once]:
        fields = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())
        ours, endpoint, url = self._ours, self._endpoint, self._url
        method, body = load.method, load.body

        async def headgate() -> bytes:
            response = await ours.send(endpoint, None, method, b"/items/42", fields, body)
            return response.content

        service = self._mesh.service("items")

        async def mesh() -> bytes:
            response = await service.request(method, "/items/42", headers=HEADERS, content=body)
            return response.content

        def over(client: httpx.AsyncClient) -> Once:
            async def once() -> bytes:
                response = await client.request(method, url, headers=HEADERS, content=body)
                return response.content

            return once

        async def aio() -> bytes:
            async with self._aiohttp.request(method, url, headers=HEADERS, data=body) as response:
                return await response.read()

        return {
            HEADGATE: headgate,
            BY_NAME: mesh,
            "aiohttp": aio,
            IN_HTTPX: over(self._over),
            "httpx": over(self._httpx),
        }

    async def aclose(self) -> None:
        await self._ours.aclose()
        await self._mesh.aclose()
        await self._httpx.aclose()
        await self._over.aclose()
        await self._aiohttp.close()


async def run_many(once: Once, callers: int, requests: int) -> None:
    async def caller() -> None:
        for _ in range(max(1, requests // callers)):
            if await once() != JSON:
                raise RuntimeError("a wrong answer")

    await asyncio.gather(*(caller() for _ in range(callers)))


async def measure(once: Once, callers: int, requests: int) -> tuple[float, float]:
    """Requests per second of processor time, and by the clock."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await run_many(once, callers, requests)
    done = max(1, requests // callers) * callers
    return done / (time.process_time() - cpu), done / (time.perf_counter() - wall)


Found = dict[str, dict[str, dict[str, dict[str, float]]]]
"""By load, callers and client."""


async def rounds(
    port: int, folder: Path, repeats: int, share: float, loads: tuple[Load, ...]
) -> Found:
    found: Found = {}
    for load in loads:
        for callers in CONCURRENCIES:
            # Opened anew, as connections left over from more callers cost some of them dear.
            clients = Clients(port, folder)
            try:
                row = await in_turns(clients.ways(load), callers, repeats, share)
            finally:
                await clients.aclose()
            found.setdefault(load.name, {})[str(callers)] = row
    return found


async def in_turns(
    ways: dict[str, Once], callers: int, repeats: int, share: float
) -> dict[str, dict[str, float]]:
    names = list(ways)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for name in names:
        await run_many(ways[name], callers, 300)
    for repeat in range(repeats):
        for at in range(len(names)):
            name = names[(at + repeat) % len(names)]
            requests = int((6000 if name in FAST else 1500) * share)
            took[name].append(await measure(ways[name], callers, requests))
    return {name: summary(each) for name, each in took.items()}


def summary(took: list[tuple[float, float]]) -> dict[str, float]:
    per_core = [each[0] for each in took]
    return {
        "per_core": round(statistics.median(per_core), 1),
        "low": round(min(per_core), 1),
        "high": round(max(per_core), 1),
        "by_clock": round(statistics.median(each[1] for each in took), 1),
    }


def rounds_of_threads(port: int, repeats: int, share: float) -> dict[str, dict[str, Any]]:
    """The same from code that is not async: one thread, and eight."""
    url = f"http://127.0.0.1:{port}/items/42"
    origin = f"http://127.0.0.1:{port}"
    fields = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())
    blocking = BlockingClient()
    plain = httpx.Client()
    over = httpx.Client(transport=SyncMeshTransport())
    ways: dict[str, Callable[[], bytes]] = {
        HEADGATE: lambda: blocking.send(origin, "GET", b"/items/42", fields).content,
        IN_HTTPX: lambda: over.get(url, headers=HEADERS).content,
        "httpx": lambda: plain.get(url, headers=HEADERS).content,
    }
    found: dict[str, dict[str, Any]] = {}
    try:
        for threads in (1, 8):
            took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(repeats):
                for name, once in ways.items():
                    took[name].append(measure_threads(once, threads, int(1500 * share)))
            found[str(threads)] = {name: summary(each) for name, each in took.items()}
    finally:
        for client in (blocking, plain, over):
            client.close()
    return found


def measure_threads(once: Callable[[], bytes], threads: int, requests: int) -> tuple[float, float]:
    each = max(1, requests // threads)

    def caller() -> None:
        for _ in range(each):
            once()

    callers = [threading.Thread(target=caller) for _ in range(threads)]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    done = each * threads
    return done / (time.process_time() - cpu), done / (time.perf_counter() - wall)


# -------------------------------------------------------------------------------------- the run


def compare(folder: Path, repeats: int, share: float) -> dict[str, Any]:
    cores = machine.Cores.pick()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.mesh_client", "--serve", str(sock.fileno())],
            pass_fds=[sock.fileno()],
        )
    try:
        machine.pin(server.pid, cores.client)
        os.sched_setaffinity(0, {cores.proxy})
        wait_ready(port)
        return {
            "uvloop": uvloop.run(rounds(port, folder, repeats, share, LOADS)),
            "asyncio": asyncio.run(rounds(port, folder, repeats, share, LOADS[:1])),
            "threads": rounds_of_threads(port, repeats, share),
            "repeats": repeats,
            "versions": {name: version(name) for name in ("httpx", "aiohttp", "uvloop")},
            "python": platform.python_version(),
        }
    finally:
        server.terminate()
        server.wait(10)


def wait_ready(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not come up")


def main() -> None:
    reading = argparse.ArgumentParser(description=__doc__)
    reading.add_argument("--repeats", type=int, default=9)
    reading.add_argument("--share", type=float, default=1.0, help="of the requests of each round")
    reading.add_argument("--write", action="store_true", help="write the results and the page")
    reading.add_argument("--page", action="store_true", help="write the page from the results")
    reading.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    said = reading.parse_args()
    if said.serve is not None:
        serve(socket.socket(fileno=said.serve))
        return
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if said.page:
        found = json.loads(RESULTS.read_text())
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(Path(folder), said.repeats, said.share)
    for loop in ("uvloop", "asyncio"):
        for load, by_callers in found[loop].items():
            for callers, row in by_callers.items():
                cells = "  ".join(f"{name} {got['per_core']:,.0f}" for name, got in row.items())
                times = "  ".join(
                    f"{x:.2f} x {peer}"
                    for peer, x in mesh_client_page.ratios(row, HEADGATE).items()
                )
                print(f"{loop:8} {load:15} {callers:>4}  {cells}  |  {times}")
    for threads, row in found["threads"].items():
        cells = "  ".join(f"{n} {g['per_core']:,.0f}/{g['by_clock']:,.0f}" for n, g in row.items())
        print(f"threads {threads}: {cells}")
    if said.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if said.write or said.page:
        PAGE.write_text(mesh_client_page.page(found))
        mesh_client_page.draw(found, PLOT)


if __name__ == "__main__":
    main()
