"""Both ends of a gateway in the hands of one test: it plays the client and the instance.

Everything blocks, with a deadline, on the test's own thread, so a test reads as a dialogue:
the client says this, the instance sees that, answers so, the client gets that.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.gateway_process import RunningGateway

PATIENCE_S = 8.0

NO_WAIT: dict[str, Any] = {"attempts": 3, "wait": "1ms", "jitter": "none", "budget": "off"}
"""Retries that follow each other at once."""

DEAD = "http://127.0.0.1:1"
"""An instance where nobody listens."""


def wait_until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Poll until `what` is true; its answer."""
    deadline = monotonic() + patience_s
    while True:
        found = what()
        if found:
            return found
        assert monotonic() < deadline, f"not within {patience_s} s"
        sleep(0.005)


class Closed(AssertionError):
    """The other side closed the connection before what was awaited had come."""


class Peer:
    """One end of a connection, and what has been received on it and not been looked at."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        sock.settimeout(PATIENCE_S)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def try_send(self, data: bytes) -> bool:
        """Send to a peer that may already have closed."""
        try:
            self.sock.sendall(data)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Close the sending side only."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close so that the other side gets RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def leave(self, how: str) -> None:
        """Go away, by "fin" or "rst"."""
        if how == "rst":
            self.reset()
        else:
            self.close()

    def more(self) -> bool:
        """Receive once; False when the other side has closed."""
        try:
            got = self.sock.recv(262144)
        except TimeoutError:
            raise AssertionError(f"nothing came; so far {self.data[-500:]!r}") from None
        except OSError:
            return False
        self.data += got
        return bool(got)

    def until(self, mark: bytes) -> bytes:
        """Take everything up to and with `mark`."""
        while mark not in self.data:
            if not self.more():
                raise Closed(f"closed before {mark!r}; so far {self.data[-500:]!r}")
        at = self.data.index(mark) + len(mark)
        taken, self.data = self.data[:at], self.data[at:]
        return taken

    def exactly(self, count: int) -> bytes:
        while len(self.data) < count:
            if not self.more():
                raise Closed(f"closed at {len(self.data)} of {count}: {self.data[-500:]!r}")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def head(self) -> Head:
        return Head(self.until(b"\r\n\r\n"))

    def to_end(self) -> bytes:
        """Take everything until the other side closes."""
        while self.more():
            pass
        taken, self.data = self.data, b""
        return taken

    def answer(self) -> tuple[Head, bytes]:
        """Take one final response with its body: of a length, chunked, or until close."""
        head = self.head()
        while head.status < 200 and head.status != 101:
            head = self.head()
        if head.status in (101, 204, 304):
            return head, b""
        length = head.get("content-length")
        if length is not None:
            return head, self.exactly(int(length))
        if head.get("transfer-encoding") == "chunked":
            return head, self.chunked()
        return head, self.to_end()

    def chunked(self) -> bytes:
        body = b""
        while True:
            size = int(self.until(b"\r\n"), 16)
            if size == 0:
                self.trailer = self.until(b"\r\n")
                while not self.trailer.endswith(b"\r\n\r\n") and self.trailer != b"\r\n":
                    self.trailer += self.until(b"\r\n")
                return body
            body += self.exactly(size)
            assert self.exactly(2) == b"\r\n"

    def is_closed(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether the other side closes without sending anything more."""
        self.sock.settimeout(patience_s)
        try:
            got = self.sock.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            return True
        self.data += got
        return not got

    def is_quiet(self, for_s: float = 0.15) -> bool:
        """Whether nothing at all comes for a while."""
        return not self.data and not select.select([self.sock], [], [], for_s)[0]


class Head:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.line, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        self.fields = [(k.lower(), v) for k, _, v in (line.partition(": ") for line in lines)]

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return ", ".join(values) if values else None

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __repr__(self) -> str:
        return f"<Head {self.raw!r}>"


class Instance:
    """A service's instance that does nothing by itself: a test accepts and answers by hand."""

    def __init__(self, *, backlog: int = 64, unix: Path | None = None) -> None:
        if unix is not None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(str(unix))
            self.sock.listen(backlog)
            self.port = 0
            self.url = f"unix:{unix}"
        else:
            self.sock = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            self.port = self.sock.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
        self.accepted: list[Peer] = []

    def accept(self, tls: ssl.SSLContext | None = None, *, wait_s: float = PATIENCE_S) -> Peer:
        self.sock.settimeout(wait_s)
        try:
            sock, _ = self.sock.accept()
        except TimeoutError:
            raise AssertionError("no connection came to the instance") from None
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE_S)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True)
        peer = Peer(sock)
        self.accepted.append(peer)
        return peer

    def is_left_alone(self, for_s: float = 0.15) -> bool:
        """Whether no further connection comes."""
        return not select.select([self.sock], [], [], for_s)[0]

    def close(self) -> None:
        self.sock.close()
        for peer in self.accepted:
            peer.close()


class Gateway(RunningGateway):
    """A worker with TCP and Unix listeners, and a look into what it holds."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._dialled: list[Peer] = []
        super().__init__(document)

    def close(self) -> None:
        for peer in self._dialled:
            peer.close()
        super().close()

    def apply(self, document: dict[str, Any]) -> None:
        for listener in document["listeners"]:
            bind = listener["bind"]
            if bind.startswith("unix:") and bind not in self._sockets:
                sock = socket.socket(socket.AF_UNIX)
                sock.bind(bind.removeprefix("unix:"))
                sock.listen(64)
                self._sockets[bind] = [sock]
        super().apply(document)

    def client(self, bind: str | None = None, *, tls: ssl.SSLContext | None = None,
               server_name: str | None = None) -> Peer:  # fmt: skip
        sock = socket.create_connection(("127.0.0.1", self.port(bind)), timeout=PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=server_name)
        peer = Peer(sock)
        self._dialled.append(peer)
        return peer

    def ask(self, request: bytes, bind: str | None = None) -> tuple[Head, bytes]:
        """One request on a connection of its own."""
        with self.client(bind) as client:
            client.send(request)
            return client.answer()

    def on_loop(self, what: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return what()

        work: Coroutine[Any, Any, Any] = run()
        return self.call(work)

    @property
    def in_flight(self) -> int:
        count: int = self.worker._stats.in_flight
        return count

    def pools(self) -> list[Any]:
        return self.on_loop(lambda: [line.snapshot() for line in self.worker._lines.values()])

    @property
    def pool(self) -> Any:
        return self.pools()[0]

    @property
    def clients(self) -> int:
        count: int = self.on_loop(
            lambda: sum(len(one.connections) for one in self.worker._listeners.values())
        )
        return count

    def is_settled(self) -> bool:
        """Nothing is in flight, and no pool lends or owes anything."""
        return self.in_flight == 0 and all(
            said.waiting == 0 and said.connecting == 0 and said.open == said.idle
            for said in self.pools()
        )

    def assert_settles(self) -> None:
        wait_until(self.is_settled)

    def count(self, family: str, **labels: str) -> int:
        """The value of a counter in the worker's snapshot, summed over the rows that match."""
        from headgate.observe.metrics import METRICS

        names = METRICS[family].labels
        rows = self.on_loop(self.worker.snapshot)["rows"].get(family, [])
        return sum(
            value
            for values, value in rows
            if all(dict(zip(names, values, strict=False)).get(k) == v for k, v in labels.items())
        )


def document(*instances: Instance | str, service: dict[str, Any] | None = None,
             route: dict[str, Any] | None = None, listener: dict[str, Any] | None = None,
             **more: Any) -> dict[str, Any]:  # fmt: skip
    """One listener, one service, and a route that sends everything to it."""
    urls = [one if isinstance(one, str) else one.url for one in instances]
    return {
        "listeners": [{"bind": "127.0.0.1:0", **(listener or {})}],
        "services": {"upstream": {"instances": urls, **(service or {})}},
        "routes": [{"name": "all", "to": "upstream", **(route or {})}],
        "access_log": {"format": "off"},
        "admin": {"bind": "off"},
        **more,
    }


def get(path: str = "/", *lines: str, host: str = "h.example") -> bytes:
    return request("GET", path, *lines, host=host)


def request(method: str, path: str, *lines: str, host: str = "h.example",
            body: bytes = b"") -> bytes:  # fmt: skip
    fields = [f"Host: {host}", *lines]
    if body:
        fields.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode("latin-1") + body


def response(body: bytes = b"ok", *lines: str, status: str = "200 OK") -> bytes:
    fields = [f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1") + body


def with_service(said: dict[str, Any], name: str, *instances: Instance | str, **more: Any):
    """The document with a further service."""
    urls = [one if isinstance(one, str) else one.url for one in instances]
    said["services"][name] = {"instances": urls, **more}
    return said


def first_of(pair: list[Instance]) -> tuple[Peer, Instance]:
    """The connection of the instance that is asked first, and the other instance."""
    ready, _, _ = select.select([one.sock for one in pair], [], [], PATIENCE_S)
    first = next(one for one in pair if one.sock in ready)
    return first.accept(), next(one for one in pair if one is not first)
