"""Instances whose every byte a test writes, and what it takes to check them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headgate.config.services import UpstreamTlsSpec, parse_url
from headgate.control.probing import Target
from headgate.errors import UpstreamFailed
from headgate.policy.health import HealthRules

PATIENCE_S = 15.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Script = Callable[["Asked"], Awaitable[None]]


class Asked:
    """One connection to an instance."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""

    async def read_head(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            self.head = await self.reader.readuntil(b"\r\n\r\n")

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Wait until the other side has closed."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: close is RST
        self.writer.transport.abort()


class Scripted:
    """An instance on a port of its own; `script` answers each connection."""

    def __init__(self, script: Script | bytes) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.open = 0
        self.most_open = 0
        self.url = ""
        self.reads_head = True
        self._tasks: set[asyncio.Task[Any] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        asked = Asked(reader, writer)
        self.asked.append(asked)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.reads_head:
                await asked.read_head()
            if isinstance(self.script, bytes):
                await asked.say(self.script)
            else:
                await self.script(asked)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()
            self._tasks.discard(asyncio.current_task())

    async def end(self) -> None:
        for task in tuple(self._tasks):
            if task is not None:
                task.cancel()
        while self._tasks:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def instance(
    script: Script | bytes,
    *,
    tls: ssl.SSLContext | None = None,
    unix: Path | None = None,
    port: int = 0,
) -> AsyncIterator[Scripted]:
    made = Scripted(script)
    if unix is not None:
        server = await asyncio.start_unix_server(made.serve, unix, ssl=tls)
        made.url = f"unix:{unix}"
    else:
        server = await asyncio.start_server(made.serve, "127.0.0.1", port, ssl=tls)
        found = server.sockets[0].getsockname()[1]
        made.url = f"{'https' if tls else 'http'}://127.0.0.1:{found}"
    try:
        yield made
    finally:
        server.close()
        await made.end()
        await server.wait_closed()


class Names:
    """A resolver that knows what a test says."""

    def __init__(self, **known: str) -> None:
        self.known = known

    async def resolve(self, name: str) -> tuple[str, ...]:
        if name[:1].isdigit():
            return (name,)
        if name not in self.known:
            raise UpstreamFailed("dns", f"{name}: no such name")
        return (self.known[name],)


def target(url: str, service: str = "users", **rules: Any) -> Target:
    """A target on `url`; `tls` and `http` are the target's own, all else goes to the rules."""
    tls = rules.pop("tls", UpstreamTlsSpec())
    http = rules.pop("http", "auto")
    return Target(service, url, parse_url(url), HealthRules(**rules), tls, http)


def sockets() -> int:
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.islink(link))


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end, and leave no socket behind."""
    before = sockets()
    found = asyncio.run(main)
    gc.collect()
    # A server of gRPC has threads of its own and lets go of its end when it gets to it.
    deadline = time.monotonic() + 20.0
    while sockets() > before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert sockets() <= before
    return found


async def eventually(what: Callable[[], Any]) -> Any:
    """Wait until `what` is true; its answer."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := what()):
            await asyncio.sleep(0.002)
    return found
