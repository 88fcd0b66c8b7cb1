"""Small servers and files that the tests of the mesh client share."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 20.0


@dataclass
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[Seen], Awaitable[Answer]]


@dataclass
class Instance:
    """An instance that answers by a function; what it has seen is kept."""

    handler: Handler
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    port: int = 0
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self, port: int = 0) -> Instance:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def stop(self) -> None:
        if self.server is None:
            return
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        while self.writers:
            await asyncio.sleep(0.005)
        self.server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while True:
                seen = await _read(reader)
                if seen is None:
                    return
                self.seen.append(seen)
                status, headers, body = await self.handler(seen)
                if status == 0:
                    writer.transport.abort()
                    return
                lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                head = "\r\n".join([*lines, "", ""]).encode()
                writer.write(head + (b"" if seen.method == "HEAD" else body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self.writers.discard(writer)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head[:-4].split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    method, target, _ = first.split(" ")
    return Seen(method, target, headers, body)


@contextlib.asynccontextmanager
async def instances(*handlers: Handler) -> AsyncIterator[list[Instance]]:
    found = [Instance(handler) for handler in handlers]
    try:
        for each in found:
            await each.start()
        yield found
    finally:
        for each in found:
            await each.stop()


def says(status: int, body: Any = None, **headers: str) -> Handler:
    """Always the same answer."""
    content = json.dumps(body).encode() if body is not None else b""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    fields.setdefault("content-type", "application/json")

    async def handler(_: Seen) -> Answer:
        return status, fields, content

    return handler


def in_turn(*answers: Answer | int) -> Handler:
    """One answer after another; the last one goes on."""
    left = list(answers)

    async def handler(_: Seen) -> Answer:
        each = left.pop(0) if len(left) > 1 else left[0]
        return (each, {}, b"") if isinstance(each, int) else each

    return handler


def write_file(folder: Path, services: dict[str, Any], **more: Any) -> Path:
    """A gateway's file with these services."""
    path = folder / "headgate.yaml"
    name = next(iter(services))
    content = {
        "listeners": [{"bind": "127.0.0.1:8080"}],
        "services": services,
        "routes": [{"match": {"path": "/"}, "to": name}],
        "state_dir": str(folder / "state"),
        **more,
    }
    path.write_text(json.dumps(content))
    return path


async def until(what: Callable[[], Any]) -> Any:
    """Wait until it is true; its answer."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := what()):
            await asyncio.sleep(0.005)
        return found
