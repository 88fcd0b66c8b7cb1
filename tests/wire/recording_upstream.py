"""An instance that keeps every byte it gets, and answers with bytes that a test wrote.

It runs on a thread of its own with blocking sockets: a test must be able to send half a
response, to close at an exact byte and to see which connection a request came on, and no server
library lets it. Requests are cut by `strict_http`, so a request that is not strict is never
answered but shows up as `violation`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from tests.wire.strict_http import Incomplete, Message, NotHttp, read_request

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Seen:
    """A request as it came in."""

    connection: int
    message: Message
    raw: bytes


@dataclass(frozen=True)
class Answer:
    """What to send for a request, and whether to close after it."""

    pieces: tuple[bytes, ...] = (OK,)
    close: bool = False
    gap_s: float = 0.02


@dataclass
class _Record:
    seen: list[Seen] = field(default_factory=list)
    rest: dict[int, bytes] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def answer_ok(_: Message) -> Answer:
    return Answer()


class RecordingUpstream:
    """Listens on a free port of 127.0.0.1 from the start until `close`."""

    def __init__(self, respond: Callable[[Message], Answer] = answer_ok) -> None:
        self.respond = respond
        self.early: Answer | None = None
        """Sent when a head has come whole and its body has not, once a connection."""
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self._record = _Record()
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._connections = 0
        self._thread = threading.Thread(target=self._accept, name="upstream", daemon=True)
        self._thread.start()

    # -- for the test --------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget what came so far, and close all connections, so that cases do not mix."""
        with self._changed:
            connections = list(self._open)
            self._record = _Record()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = monotonic() + 5
        with self._changed:
            while self._open and monotonic() < deadline:
                self._changed.wait(0.1)
            self._record = _Record()

    @property
    def seen(self) -> list[Seen]:
        with self._changed:
            return list(self._record.seen)

    @property
    def violations(self) -> list[str]:
        """What is no strict HTTP in the bytes that came."""
        with self._changed:
            return list(self._record.violations)

    @property
    def unfinished(self) -> list[bytes]:
        """The beginnings of requests that did not come whole."""
        with self._changed:
            return [rest for rest in self._record.rest.values() if rest]

    def wait_seen(self, count: int, timeout_s: float = 2.0) -> list[Seen]:
        deadline = monotonic() + timeout_s
        with self._changed:
            while len(self._record.seen) < count and monotonic() < deadline:
                self._changed.wait(0.05)
            return list(self._record.seen)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._listening.close()
        self.reset()

    # -- inside --------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with self._changed:
                self._connections += 1
                number = self._connections
                self._open.add(connection)
            threading.Thread(
                target=self._serve,
                args=(connection, number),
                name=f"upstream-{number}",
                daemon=True,
            ).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        record = self._record
        data = b""
        hasty = True
        try:
            while True:
                got = connection.recv(65536)
                if not got:
                    break
                data += got
                data, go_on = self._take(connection, number, record, data)
                if not go_on:
                    break
                early = self.early
                if early is not None and hasty and b"\r\n\r\n" in data:
                    hasty = False
                    for piece in early.pieces:
                        connection.sendall(piece)
        except OSError:
            pass
        finally:
            with self._changed:
                self._open.discard(connection)
                self._changed.notify_all()
            connection.close()

    def _take(
        self, connection: socket.socket, number: int, record: _Record, data: bytes
    ) -> tuple[bytes, bool]:
        while data:
            try:
                message = read_request(data)
            except Incomplete:
                break
            except NotHttp as error:
                with self._changed:
                    record.violations.append(f"{error}: {data[:2000]!r}")
                    self._changed.notify_all()
                return b"", False
            raw, data = data[: message.end], data[message.end :]
            with self._changed:
                record.seen.append(Seen(number, message, raw))
                self._changed.notify_all()
            answer = self.respond(message)
            for at, piece in enumerate(answer.pieces):
                if at:
                    threading.Event().wait(answer.gap_s)
                connection.sendall(piece)
            if answer.close:
                return b"", False
        with self._changed:
            record.rest[number] = data
        return data, True
