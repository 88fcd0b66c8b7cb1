"""A small worker for tests of the processes: it serves what the document's first route says.

It is no stand-in for the gateway's way with HTTP; it shows who answered, and how processes,
sockets and generations behave. What a body makes it do:

    REFUSE    the document is refused
    EXIT      the process ends while it takes the document
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from headgate.observe import WorkerStats


class EchoWorker:
    def __init__(self, index: int, report: Callable[[dict[str, Any]], None]) -> None:
        self.index = index
        self.report = report
        self.body = ""
        self.generation = 0
        self.servers: dict[int, tuple[socket.socket, asyncio.Server]] = {}
        self.busy: set[asyncio.StreamWriter] = set()
        self.idle: set[asyncio.StreamWriter] = set()
        self.is_draining = False
        self.reopened = 0
        self.stats = WorkerStats(f"worker-{index}", f"{os.getpid()}-{time.monotonic_ns()}")
        self.route = self.stats.route("echo", "none")

    async def apply(
        self, document: dict[str, Any], sockets: dict[str, list[socket.socket]], generation: int
    ) -> None:
        body = document["routes"][0]["respond"]["body"]
        if body == f"REFUSE{self.index}" or body == "REFUSE":
            raise ValueError("this worker does not like the document")
        if body == "EXIT":
            os._exit(3)
        wanted = {id(sock): sock for row in sockets.values() for sock in row}
        for key, sock in wanted.items():
            if key not in self.servers:
                # A duplicate, because a server closes its socket and this one stays the caller's.
                server = await asyncio.start_server(self.serve, sock=sock.dup())
                self.servers[key] = (sock, server)
        for key in self.servers.keys() - wanted.keys():
            self.servers.pop(key)[1].close()
        self.body = body
        self.generation = generation
        self.stats.generation = generation
        self.report({"kind": "applied", "generation": generation})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection that has not had its first request is busy: closing it in a drain would
        # lose the request that may be on its way.
        self.busy.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                self.busy.add(writer)
                path = head.split(b" ")[1].decode()
                await self.answer(path, writer, b"connection: close" in head.lower())
                self.busy.discard(writer)
                if b"connection: close" in head.lower() or self.is_draining:
                    break
                self.idle.add(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.idle.discard(writer)
            self.busy.discard(writer)
            writer.close()

    async def answer(self, path: str, writer: asyncio.StreamWriter, close: bool) -> None:
        if path.startswith("/slow/"):
            await asyncio.sleep(float(path.removeprefix("/slow/")))
        elif path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif path == "/freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        text = f"{self.body} {self.generation} {self.index} {os.getpid()} {self.reopened}"
        self.route.record("GET", 200, 0.001, -1.0, 0, len(text))
        connection = "close" if close or self.is_draining else "keep-alive"
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-length: {len(text)}\r\n"
            f"connection: {connection}\r\n\r\n{text}".encode()
        )
        await writer.drain()

    async def drain(self, deadline_s: float) -> None:
        self.is_draining = True
        for _sock, server in self.servers.values():
            server.close()
        # What the kernel had queued before the close still gets its first turn.
        await asyncio.sleep(0)
        for writer in list(self.idle):
            writer.close()
        deadline = time.monotonic() + deadline_s
        while self.busy and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def snapshot(self) -> dict[str, Any]:
        return self.stats.snapshot()

    def reopen_logs(self) -> None:
        self.reopened += 1
