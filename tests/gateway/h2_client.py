"""A blocking HTTP/2 client that does exactly what a test says, and remembers what it is told."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from headgate.wire.h2 import ClientConnection, ErrorCode, H2Limits, Stream
from headgate.wire.message import Header, ResponseHead

LIMITS = H2Limits(stream_window=1 << 20, connection_window=1 << 24)


class Told(Stream):
    def __init__(self) -> None:
        super().__init__()
        self.head: ResponseHead | None = None
        self.informational: list[ResponseHead] = []
        self.body = bytearray()
        self.trailers: tuple[Header, ...] = ()
        self.ended = False
        self.reset: int | None = None
        self.refused = False
        self.takes = True
        """Whether the body's window is given back."""
        self.client: Client | None = None

    def on_informational(self, head: ResponseHead) -> None:
        self.informational.append(head)

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        self.head = head
        self.ended = end

    def on_data(self, data: bytes, *, end: bool) -> None:
        self.body += data
        self.ended = end
        if self.takes and self.client is not None:
            self.client.codec.consume(self, len(data))

    def on_trailers(self, fields: tuple[Header, ...]) -> None:
        self.trailers = fields
        self.ended = True

    def on_reset(self, code: ErrorCode | int, reason: str, *, by_peer: bool) -> None:
        self.reset = int(code)

    def on_refused(self) -> None:
        self.refused = True

    @property
    def status(self) -> int:
        return self.head.status if self.head is not None else 0

    @property
    def length(self) -> int | None:
        return self.head.length if self.head is not None else None

    def get(self, name: bytes) -> bytes | None:
        return self.head.get(name) if self.head is not None else None

    @property
    def is_over(self) -> bool:
        return self.ended or self.reset is not None or self.refused


class Client:
    def __init__(
        self, port: int, *, tls: ssl.SSLContext | None = None, limits: H2Limits = LIMITS
    ) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self.codec: ClientConnection[Told] = ClientConnection(limits, 0.0)
        self.is_open = True
        self.flush()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def flush(self) -> None:
        data = self.codec.take()
        if data:
            try:
                self.sock.sendall(data)
            except OSError:
                self.is_open = False

    def raw(self, data: bytes) -> None:
        self.flush()
        self.sock.sendall(data)

    def ask(
        self,
        method: str = "GET",
        target: str = "/",
        fields: tuple[Header, ...] = (),
        body: bytes = b"",
        *,
        end: bool = True,
        protocol: str | None = None,
        authority: str = "localhost",
    ) -> Told:
        stream = Told()
        stream.client = self
        if method == "HEAD":
            stream.expected = 0
        block = self.codec.encoder.encode_request(
            method, "http", authority, target, fields, protocol
        )
        self.codec.open(stream, block, end=end and not body)
        if body:
            self.codec.send_data(stream, body, end=end)
        self.flush()
        return stream

    def send(self, stream: Told, data: bytes, *, end: bool = False) -> None:
        self.codec.send_data(stream, data, end=end)
        self.flush()

    def get(self, target: str = "/", *fields: Header) -> Told:
        return self.wait(self.ask("GET", target, fields))

    def wait(self, stream: Told, timeout_s: float = 10.0) -> Told:
        self.until(lambda: stream.is_over, timeout_s)
        return stream

    def until(self, is_so: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Read until something is so, or until the connection ends."""
        deadline = time.monotonic() + timeout_s
        while not is_so() and self.is_open:
            if time.monotonic() > deadline:
                raise TimeoutError
            self.read(timeout_s)

    def read(self, timeout_s: float = 5.0) -> None:
        self.sock.settimeout(timeout_s)
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_open = False
            return
        self.codec.feed(data, time.monotonic())
        self.flush()
