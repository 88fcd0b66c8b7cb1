"""A second opinion: the strictest reading of HTTP/1.1 we can write, sharing no code with the engine.

Used on the bytes that a gateway sent, to an instance or to a client. It knows one way to write
each thing and raises `NotHttp` on any other, also on what the RFCs allow a recipient to accept:
what a gateway *sends* has no excuse. It is slow and simple on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
VALUE = frozenset([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
TARGET = frozenset(range(0x21, 0x7F)) - frozenset(b"#")


class NotHttp(Exception):
    """These bytes are not one strict message after the other."""


class Incomplete(NotHttp):
    """They may become one with more bytes."""


@dataclass
class Message:
    """One request or response, and where it ends in the bytes it was read from."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    end: int = 0
    until_close: bool = False

    @property
    def method(self) -> bytes:
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


def _lines(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The lines up to an empty one, each ended by CRLF; and where they end."""
    lines: list[bytes] = []
    while True:
        end = data.find(b"\n", at)
        if end < 0:
            if b"\r" in data[at:].removesuffix(b"\r"):
                raise NotHttp("bare CR")
            raise Incomplete("no end of line")
        line = data[at : end + 1]
        at = end + 1
        if not line.endswith(b"\r\n"):
            raise NotHttp("bare LF")
        line = line[:-2]
        if b"\r" in line:
            raise NotHttp("bare CR")
        if not line:
            return lines, at
        lines.append(line)


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    found = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not TOKEN.issuperset(name):
            raise NotHttp(f"field name {name!r}")
        if not VALUE.issuperset(value):
            raise NotHttp(f"field value of {name!r}")
        found.append((name, value.strip(b" \t")))
    return found


def _framing(fields: list[tuple[bytes, bytes]]) -> int | None:
    """Length of the body, -1 for chunked, None when nothing is said."""
    lengths = [v for k, v in fields if k.lower() == b"content-length"]
    codings = [v for k, v in fields if k.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise NotHttp("framed twice")
    if codings:
        if codings[0] != b"chunked":
            raise NotHttp(f"coding {codings[0]!r}")
        return -1
    if lengths:
        if not lengths[0].isdigit() or len(lengths[0]) > 18:
            raise NotHttp(f"length {lengths[0]!r}")
        return int(lengths[0])
    return None


def _chunked(data: bytes, at: int) -> tuple[bytes, list[tuple[bytes, bytes]], int]:
    body = b""
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            if len(data) - at > 16:
                raise NotHttp("chunk size")
            raise Incomplete("chunk size")
        digits = data[at:end]
        if not digits or not set(b"0123456789abcdefABCDEF").issuperset(digits) or len(digits) > 15:
            raise NotHttp(f"chunk size {digits!r}")
        size = int(digits, 16)
        at = end + 2
        if size == 0:
            lines, at = _lines(data, at)
            return body, _fields(lines), at
        if len(data) < at + size + 2:
            raise Incomplete("chunk data")
        body += data[at : at + size]
        if data[at + size : at + size + 2] != b"\r\n":
            raise NotHttp("chunk end")
        at += size + 2


def _body(message: Message, data: bytes, at: int, length: int) -> Message:
    if length < 0:
        message.body, message.trailers, at = _chunked(data, at)
    else:
        if len(data) < at + length:
            raise Incomplete("body")
        message.body = data[at : at + length]
        at += length
    message.end = at
    return message


def read_request(data: bytes, at: int = 0) -> Message:
    lines, body_at = _lines(data, at)
    if not lines:
        raise NotHttp("empty line before a request")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or parts[2] != b"HTTP/1.1":
        raise NotHttp(f"request line {lines[0]!r}")
    method, target, _ = parts
    if not method or not TOKEN.issuperset(method) or not method.isupper():
        raise NotHttp(f"method {method!r}")
    if not TARGET.issuperset(target) or not (target.startswith(b"/") or target == b"*"):
        raise NotHttp(f"target {target!r}")
    message = Message(lines[0], _fields(lines[1:]))
    hosts = message.all(b"host")
    if len(hosts) != 1 or set(b" \t,/@?#\\").intersection(hosts[0]):
        raise NotHttp(f"hosts {hosts!r}")
    return _body(message, data, body_at, _framing(message.fields) or 0)


def read_response(
    data: bytes, at: int = 0, method: bytes = b"GET", *, closed: bool = False
) -> Message:
    """Read a response to `method`; `closed` says that no more bytes will come."""
    lines, body_at = _lines(data, at)
    if not lines:
        raise NotHttp("empty line before a response")
    start = lines[0]
    if not (
        start.startswith(b"HTTP/1.1 ") and start[9:12].isdigit() and start[12:13] in (b" ", b"")
    ):
        raise NotHttp(f"status line {start!r}")
    if not VALUE.issuperset(start):
        raise NotHttp("status line")
    message = Message(start, _fields(lines[1:]))
    length = _framing(message.fields)
    status = message.status
    if status < 200 or status == 204:
        if length is not None:
            raise NotHttp(f"framing in a {status}")
        length = 0
    elif method == b"HEAD" or status == 304:
        length = 0
    if length is None:
        message.until_close = True
        if not closed:
            raise Incomplete("body until close")
        message.body = data[body_at:]
        message.end = len(data)
        return message
    return _body(message, data, body_at, length)


def read_requests(data: bytes) -> tuple[list[Message], bytes]:
    """All whole requests in `data`, and what is left, which is a beginning of one or nothing."""
    found = []
    at = 0
    while at < len(data):
        try:
            message = read_request(data, at)
        except Incomplete:
            break
        found.append(message)
        at = message.end
    return found, data[at:]
