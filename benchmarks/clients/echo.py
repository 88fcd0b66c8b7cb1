"""The WebSocket echo upstream, and a sink for uploads: `python -m benchmarks.clients.echo PORT`.

It must cost less than a proxy's tunnel, so it knows only what the benchmark's client sends: binary
frames under 126 bytes, masked with the key 0 (which RFC 6455 allows and which makes unmasking the
identity). Any proxy must pass these like any other frames.

A POST is read to the end of its Content-Length and then answered: nginx with `return 200` answers
before it has read the body, which is not what a memory benchmark should depend on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sys
from typing import cast

import uvloop

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_STORED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nstored\n"
_KEY = re.compile(rb"sec-websocket-key:\s*(\S+)", re.IGNORECASE)


class Echo(asyncio.Protocol):
    """One connection: the handshake, then each frame back without its mask."""

    def __init__(self) -> None:
        self._buffer = b""
        self._is_open = False
        self._upload_left = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        # uvloop's transports have the methods of asyncio.Transport, not the base class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer all whole frames of this read in one write."""
        transport = self._transport
        if transport is None:
            return
        if self._upload_left:
            self._upload_left -= len(data)
            if self._upload_left <= 0:
                self._upload_left = 0
                transport.write(_STORED)
            return
        data = self._buffer + data
        if not self._is_open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if head.startswith(b"POST "):
                self._buffer = b""
                announced = _LENGTH.search(head)
                self._upload_left = int(announced.group(1)) if announced else 0
                if self._upload_left == 0:
                    transport.write(_STORED)
                elif data:
                    self.data_received(data)
                return
            self._is_open = True
            transport.write(_accept(head))
        at, out = 0, []
        while len(data) - at >= 6:
            length = data[at + 1] & 0x7F
            if len(data) - at < 6 + length:
                break
            # FIN and opcode as they came, the length without the mask bit, the payload.
            out.append(bytes((data[at], length)) + data[at + 6 : at + 6 + length])
            at += 6 + length
        self._buffer = data[at:]
        if out:
            transport.write(b"".join(out))


def _accept(head: bytes) -> bytes:
    key = _KEY.search(head)
    digest = hashlib.sha1((key.group(1) if key else b"") + _GUID).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
