"""What a call by name costs beyond the request itself: balancing, breaker, retries, deadlines.

    python -m benchmarks.mesh_calls

The server runs in a process of its own and answers with a fixed text. Each row is the processor
time of this process for one call, one after another on one connection: the wire alone, and the mesh
client with more and more policies. The last rows leave the wire out altogether.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, process_time
from typing import Any, Final

from headgate.mesh import Mesh
from headgate.mesh.client.response import made_up
from headgate.mesh.http import HttpClient
from headgate.wire.connect import Endpoint

CALLS: Final = 20_000
ROUNDS: Final = 5
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nok"
_FULL: Final = """
  retry: 3
  breaker: true
  outlier: true
  timeout: {total: 5s}
  balance: least_connections
"""


class _Answering(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(_ANSWER * data.count(b"\r\n\r\n"))


def _serve(tell: Connection) -> None:
    async def main() -> None:
        servers = [
            await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
            for _ in range(2)
        ]
        tell.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    asyncio.run(main())


class _NoWire:
    async def send(self, *_: Any, **__: Any) -> Any:
        return made_up(200, (), b"ok", "nobody")


async def _measured(what: Callable[[], Awaitable[object]], calls: int) -> float:
    """The least of some rounds, in microseconds a call."""
    for _ in range(calls // 10):
        await what()
    found = []
    for _ in range(ROUNDS):
        before = process_time()
        for _ in range(calls):
            await what()
        found.append((process_time() - before) / calls * 1e6)
    return min(found)


def _file(folder: Path, name: str, ports: list[int], policies: str) -> Path:
    path = folder / name
    urls = ", ".join(f"http://127.0.0.1:{port}" for port in ports)
    lines = [line.replace("  ", "    ", 1) for line in policies.splitlines()]
    path.write_text(
        "listeners: [{bind: 127.0.0.1:8080}]\n"
        f"services:\n  users:\n    instances: [{urls}]\n" + "\n".join(lines) + "\n"
        "routes: [{match: {path: /}, to: users}]\n"
    )
    return path


async def _wire_alone(port: int, calls: int) -> float:
    async with HttpClient() as http:
        endpoint = Endpoint("127.0.0.1", port)
        headers = [(b"user-agent", b"headgate-mesh")]

        async def wire() -> object:
            return await http.send(
                endpoint, None, "GET", b"/users/42", headers, None, monotonic() + 5.0
            )

        return await _measured(wire, calls)


async def _run(ports: list[int], calls: int) -> dict[str, float]:
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plain = _file(folder, "plain.yaml", ports[:1], "")
        full = _file(folder, "full.yaml", ports, _FULL)
        await _wire_alone(ports[0], calls // 4)  # what runs first is slow, whatever it is
        found["the wire alone"] = await _wire_alone(ports[0], calls)
        for title, file in (("by name, no policies", plain), ("retry, breaker, ...", full)):
            async with Mesh(file, report=False) as mesh:
                users = mesh.service("users")
                found[title] = await _measured(partial(users.get, "/users/42"), calls)
        for title, file in (("no wire, no policies", plain), ("no wire, retry, ...", full)):
            async with Mesh(file, report=False, sender=_NoWire()) as mesh:
                users = mesh.service("users")
                found[title] = await _measured(partial(users.get, "/users/42"), calls)
        made = _NoWire()
        found["of that, the answer"] = await _measured(made.send, calls)
    return found


def main(calls: int = CALLS) -> dict[str, float]:
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,))
    server.start()
    try:
        if not here.poll(30):
            raise RuntimeError("the server does not start")
        ports = here.recv()
        if "--uvloop" in sys.argv:
            import uvloop

            return uvloop.run(_run(ports, calls))
        return asyncio.run(_run(ports, calls))
    finally:
        server.terminate()
        server.join(5)


if __name__ == "__main__":
    for row, us in main().items():
        print(f"{row:28} {us:8.2f} us")
