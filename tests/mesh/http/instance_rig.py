"""An instance whose every byte a test decides."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from headgate.wire.connect import Endpoint

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
PATIENCE_S = 20.0


class Talk:
    """One connection, seen by the instance."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def request(self) -> bytes | None:
        """One request as it came, head and body; None when the client has gone."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            if b"\r\ntransfer-encoding: chunked" in lower:
                return head + await self._chunks()
            length = 0
            for line in lower.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            return head + await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def _chunks(self) -> bytes:
        whole = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            whole += (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                return whole

    def send(self, data: bytes) -> None:
        if not self.writer.transport.is_closing():  # the client may have gone
            self.writer.write(data)

    async def flush(self) -> None:
        with contextlib.suppress(OSError):
            await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


@dataclass
class Instance:
    endpoint: Endpoint
    talks: list[Talk] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.endpoint}"


def always(*answers: bytes) -> Script:
    """Answer the requests of each connection in turn, the last one for ever."""

    async def script(talk: Talk) -> None:
        at = 0
        while await talk.request() is not None:
            talk.send(answers[min(at, len(answers) - 1)])
            await talk.flush()
            at += 1

    return script


async def echo(talk: Talk) -> None:
    """Answer with the body that came."""
    while (got := await talk.request()) is not None:
        body = got.partition(b"\r\n\r\n")[2]
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await talk.flush()


@contextlib.asynccontextmanager
async def instance(
    script: Script, *, tls: ssl.SSLContext | None = None, path: str | None = None
) -> AsyncIterator[Instance]:
    tasks: set[asyncio.Task[None]] = set()
    found = Instance(Endpoint())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        tasks.add(task)
        found.open_now += 1
        found.open_most = max(found.open_most, found.open_now)
        talk = Talk(reader, writer, len(found.talks))
        found.talks.append(talk)
        try:
            await script(talk)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            found.open_now -= 1
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            tasks.discard(task)

    if path is not None:
        server = await asyncio.start_unix_server(serve, path, ssl=tls)
        found.endpoint = Endpoint(path=path)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, backlog=1024)
        found.endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=PATIENCE_S)
        with contextlib.suppress(OSError):
            await server.wait_closed()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens in a few turns of the loop."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)
