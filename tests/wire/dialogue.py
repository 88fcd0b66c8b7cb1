"""The client's side of a raw conversation: send bytes as they are, read answers strictly."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from time import monotonic

from tests.wire.strict_http import Incomplete, Message, NotHttp, read_response

PROBE = b"GET /probe HTTP/1.1\r\nHost: h.example\r\n\r\n"


@dataclass
class Outcome:
    """What came back."""

    answers: list[Message] = field(default_factory=list)
    closed: bool = False
    rest: bytes = b""
    broken: str = ""

    @property
    def statuses(self) -> list[int]:
        """Final statuses; interim ones are in `interim`."""
        return [a.status for a in self.answers if a.status >= 200 or a.status == 101]

    @property
    def interim(self) -> list[int]:
        return [a.status for a in self.answers if a.status < 200 and a.status != 101]


class Dialogue:
    """One connection to a gateway."""

    def __init__(self, port: int, method: bytes = b"GET") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self._at = 0
        self._methods = [method]
        self.outcome = Outcome()

    @property
    def received(self) -> bytes:
        return self._data

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes, method: bytes | None = None) -> None:
        """Send, whatever the other side does; a reset shows when reading."""
        if method is not None:
            self._methods.append(method)
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def send_slowly(self, data: bytes) -> None:
        """One byte a segment; Nagle is off, but the kernel may still join some."""
        for at in range(len(data)):
            self.send(data[at : at + 1])

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def read(self, count: int, timeout_s: float = 3.0) -> Outcome:
        """Read until `count` final answers have come, the connection closes or time is up."""
        return self._read(lambda: len(self.outcome.statuses) >= count, timeout_s)

    def read_to_end(self, timeout_s: float = 3.0) -> Outcome:
        """Read until the other side closes or time is up."""
        return self._read(lambda: False, timeout_s)

    def _read(self, is_enough, timeout_s: float) -> Outcome:
        deadline = monotonic() + timeout_s
        out = self.outcome
        while not out.closed and not out.broken and not is_enough():
            self._socket.settimeout(max(deadline - monotonic(), 0.001))
            try:
                got = self._socket.recv(65536)
            except TimeoutError:
                break
            except OSError:
                got = b""
            self._data += got
            out.closed = not got
            self._parse()
        out.rest = self._data[self._at :]
        return out

    def _parse(self) -> None:
        out = self.outcome
        while self._at < len(self._data):
            answered = len(out.statuses)
            method = self._methods[min(answered, len(self._methods) - 1)]
            try:
                message = read_response(self._data, self._at, method, closed=out.closed)
            except Incomplete:
                return
            except NotHttp as error:
                out.broken = f"{error}: {self._data[self._at :][:500]!r}"
                return
            out.answers.append(message)
            self._at = message.end
            if message.status == 101:
                return
