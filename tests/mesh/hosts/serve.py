"""A service on a host of a test: it registers itself and answers with who it is.

python serve.py NAME PORT CONTROL [SKEW_S]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time


def skew(by_s: float) -> None:
    """Let this process live in another time of day."""
    true = time.time
    time.time = lambda: true() + by_s


async def answer(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = json.dumps({"who": name, "pid": os.getpid()}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(head % len(body) + body)
            await writer.drain()
    writer.close()


async def main(name: str, port: int, control: str) -> None:
    from headgate.mesh import register

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(name, reader, writer)

    server = await asyncio.start_server(serve, "0.0.0.0", port)
    async with server, register("users", port=port, id=name, source=control, ttl="2s", drain="1s"):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) > 4:
        skew(float(sys.argv[4]))
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
