"""Whether a process on this machine answers yet: one request, by hand, without a client library."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Final

__all__ = ["answers", "postgres_serves"]

HOST: Final = "127.0.0.1"
ANSWER_S: Final = 5.0


async def answers(port: int, path: str, status: int = 200, *, token: str = "") -> bool:
    """Whether `path` is answered with this status; without a path, whether the port takes
    connections. What has no port is ready when it runs.
    """
    if not port:
        return True
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            if not path:
                return True
            lines = [f"GET {path} HTTP/1.1", f"host: {HOST}:{port}", "connection: close"]
            if token:
                lines.append(f"authorization: Bearer {token}")
            writer.write("\r\n".join((*lines, "", "")).encode())
            return f" {status} ".encode() in await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def postgres_serves(port: int, user: str) -> bool:
    """Whether PostgreSQL lets somebody in; while it starts it takes connections and refuses them.

    The message is StartupMessage of protocol 3.0, and an answer begins with R: authentication.
    """
    told = b"".join(f"{word}\0".encode() for word in ("user", user, "database", "postgres"))
    message = struct.pack("!ii", 9 + len(told), 3 << 16) + told + b"\0"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(message)
            return await reader.read(1) == b"R"
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
