"""The wire of the echo service: one request in, plain or chunked answers out, WebSocket frames.

Theory of operation
-------------------
The echo service stands behind the gateway and must notice what the gateway does wrong, so it reads
strictly and shares no code with it: a parser that shared our mistakes could not show them.

    head    up to 64 KB, CRLF only, field names are tokens, exactly one Host in HTTP/1.1
    body    by Content-Length (digits, once) or by `Transfer-Encoding: chunked`, never both
    answer  Content-Length or chunked, Connection: close when the connection ends after it

Anything else raises `BadRequest`; the connection answers 400 and closes, because after a framing
fault the place of the next request is unknown (RFC 9112 section 2.2).

A body is read piece by piece from `Body`; whoever answers without reading it must `drain()` it
before the next request can be read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qs

HEAD_MAX = 64 * 1024
PIECE = 64 * 1024
FRAME_MAX = 16 * 1024 * 1024

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[\t\x20-\x7e]*)?\r\n")

_WEBSOCKET_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class BadRequest(Exception):
    """The peer broke the protocol; `status` is the answer it deserves."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request head as it came: names lower-cased, order and repetitions kept."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def argument(self, name: str, default: float) -> float:
        """A number from the query; a word that is no number is the caller's fault."""
        values = parse_qs(self.query).get(name)
        if not values:
            return default
        try:
            return float(values[-1])
        except ValueError:
            raise BadRequest(f"{name}={values[-1]} is no number") from None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return ", ".join(values) if values else None

    def lists(self, name: str, token: str) -> bool:
        """Whether a comma-separated header such as Connection names the token."""
        words = (self.get(name) or "").lower().split(",")
        return token in (word.strip() for word in words)


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read one head; None when the peer closed before sending any byte of it."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        if not cut.partial:
            return None
        raise BadRequest("the connection ended inside a head") from None
    except asyncio.LimitOverrunError:
        raise BadRequest("the head is larger than 64 KB", 431) from None
    lines = block[:-4].split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _TARGET.fullmatch(words[1]):
        raise BadRequest("the request line is malformed")
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadRequest("not HTTP/1.x", 505)
    headers: list[tuple[str, str]] = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadRequest("a header field is malformed")
        headers.append((name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")))
    head = Head(words[0].decode(), words[1].decode(), words[2].decode(), tuple(headers))
    if len(head.all("host")) != 1 and head.version == "HTTP/1.1":
        raise BadRequest("exactly one Host is required")
    return head


class Body:
    """The body of one request, given out piece by piece and counted."""

    def __init__(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lengths, codings = head.all("content-length"), head.all("transfer-encoding")
        if lengths and codings:
            raise BadRequest("Content-Length beside Transfer-Encoding")
        if codings and (len(codings) > 1 or codings[0].lower() != "chunked"):
            raise BadRequest("only the chunked transfer coding is known", 501)
        if lengths and (len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0])):
            raise BadRequest("Content-Length is malformed")
        self.is_chunked = bool(codings)
        self._left = int(lengths[0]) if lengths else 0
        self._is_done = not self.is_chunked and self._left == 0
        self._expects = head.lists("expect", "100-continue")
        self._reader, self._writer = reader, writer
        self.trailers: list[tuple[str, str]] = []
        self.count = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        if self._is_done:
            return
        if self._expects:
            self._expects = False
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if self.is_chunked:
                async for piece in self._chunks():
                    yield piece
            else:
                async for piece in self._exactly(self._left):
                    yield piece
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise BadRequest("the connection ended inside a body") from None
        self._is_done = True

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            piece = await self._reader.read(min(size, PIECE))
            if not piece:
                raise BadRequest("the connection ended inside a body")
            size -= len(piece)
            self.count += len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            line = _CHUNK.fullmatch(await self._reader.readuntil(b"\r\n"))
            if not line:
                raise BadRequest("a chunk size is malformed")
            size = int(line[1], 16)
            if size == 0:
                break
            async for piece in self._exactly(size):
                yield piece
            if await self._reader.readexactly(2) != b"\r\n":
                raise BadRequest("a chunk does not end where it said")
        while (line_ := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            name, colon, value = line_[:-2].partition(b":")
            if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
                raise BadRequest("a trailer field is malformed")
            self.trailers.append((name.decode().lower(), value.strip().decode("latin-1")))

    async def drain(self) -> None:
        """Read what nobody asked for, so that the next request can be read.

        A client that waits for `100 Continue` and is answered at once never sends its body
        (RFC 9110 section 10.1.1); the connection is closed then, see `EchoServer`.
        """
        async for _ in self.pieces():
            pass

    @property
    def is_awaited(self) -> bool:
        """The client still waits for 100 Continue, so nothing of the body is under way."""
        return self._expects and not self._is_done


class Answer:
    """Writes one answer; a HEAD request gets the head alone."""

    def __init__(self, head: Head, writer: asyncio.StreamWriter, service: str) -> None:
        self._writer, self._head, self._service = writer, head, service
        self._is_chunked = False
        self.is_last = head.lists("connection", "close") or (
            head.version == "HTTP/1.0" and not head.lists("connection", "keep-alive")
        )

    def start(self, status: int, headers: dict[str, str], length: int | None = None) -> None:
        """Send the head; without a length the body is chunked, or ends with the connection."""
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", f"server: {self._service}"]
        if length is not None:
            if status >= 200 and status != 204:
                lines.append(f"content-length: {length}")
        elif self._head.version == "HTTP/1.1":
            self._is_chunked = True
            lines.append("transfer-encoding: chunked")
        else:
            self.is_last = True
        if self.is_last:
            lines.append("connection: close")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join((*lines, "", "")).encode("latin-1"))

    async def send(self, piece: bytes) -> None:
        if not piece or self._head.method == "HEAD":
            return
        self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece)
        await self._writer.drain()

    async def end(self) -> None:
        if self._is_chunked and self._head.method != "HEAD":
            self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def whole(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        has_body = status not in {204, 304} and status >= 200
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.start(status, {"content-type": kind, **named} if has_body else named, len(body))
        await self.send(body if has_body else b"")
        await self.end()


_REASONS = {
    200: "OK", 201: "Created", 204: "No Content", 301: "Moved Permanently", 302: "Found",
    304: "Not Modified", 400: "Bad Request", 404: "Not Found", 418: "I'm a teapot",
    426: "Upgrade Required", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip


# ---- WebSocket, RFC 6455: no extension is offered, so RSV bits must be zero


async def serve_websocket(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Shake hands and send every data frame back as it came, until one side closes."""
    key = head.get("sec-websocket-key") or ""
    if head.get("sec-websocket-version") != "13" or len(key) != 24:
        raise BadRequest("not a WebSocket handshake of version 13", 426)
    digest = hashlib.sha1(key.encode() + _WEBSOCKET_KEY).digest()  # noqa: S324 - as the RFC wants
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "upgrade: websocket",
        "connection: upgrade",
        f"sec-websocket-accept: {base64.b64encode(digest).decode()}",
    ]
    if offered := head.get("sec-websocket-protocol"):
        lines.append(f"sec-websocket-protocol: {offered.split(',')[0].strip()}")
    writer.write("\r\n".join((*lines, "", "")).encode("latin-1"))
    try:
        while (frame := await _read_frame(reader)) is not None:
            first, payload = frame
            opcode = first & 0x0F
            if first & 0x70 or opcode not in {
                _CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG,
            }:  # fmt: skip
                writer.write(_frame(0x80 | _CLOSE, (1002).to_bytes(2)))
                break
            if opcode == _PING:
                writer.write(_frame(0x80 | _PONG, payload))
            elif opcode != _PONG:
                writer.write(_frame(first, payload))
            await writer.drain()
            if opcode == _CLOSE:
                break
    except asyncio.IncompleteReadError:
        pass  # the peer went without a closing frame; there is nobody to tell
    await writer.drain()


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes] | None:
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2))
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8))
    if not second & 0x80 or size > FRAME_MAX:
        return None  # section 5.1: a frame from a client is masked
    mask = await reader.readexactly(4)
    masked = await reader.readexactly(size)
    # One wide xor instead of a loop over bytes.
    pattern = (mask * (size // 4 + 1))[:size]
    plain = int.from_bytes(masked) ^ int.from_bytes(pattern)
    return first, plain.to_bytes(size)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2) + payload
    return bytes((first, 127)) + size.to_bytes(8) + payload
