"""A scripted peer: frames in, frames out, and what the streams were told in between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import hpack

from headgate.wire.h2 import (
    PREFACE,
    ClientConnection,
    ErrorCode,
    GuardLimits,
    H2Limits,
    RequestFields,
    ServerConnection,
    Stream,
    frames,
)
from headgate.wire.message import Header, ResponseHead

KINDS = {
    frames.DATA: "DATA",
    frames.HEADERS: "HEADERS",
    frames.PRIORITY: "PRIORITY",
    frames.RST_STREAM: "RST_STREAM",
    frames.SETTINGS: "SETTINGS",
    frames.PUSH_PROMISE: "PUSH_PROMISE",
    frames.PING: "PING",
    frames.GOAWAY: "GOAWAY",
    frames.WINDOW_UPDATE: "WINDOW_UPDATE",
    frames.CONTINUATION: "CONTINUATION",
}

GET: tuple[Header, ...] = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"example.org"),
)
POST: tuple[Header, ...] = ((b":method", b"POST"), *GET[1:])

Frame = tuple[str, int, int, bytes]


def read_frames(data: bytes) -> list[Frame]:
    """(kind, flags, stream, payload) of whole frames; fails on a rest."""
    found: list[Frame] = []
    pos = 0
    while pos < len(data):
        high, low, kind, flags, stream_id = frames.unpack_head(data, pos)
        end = pos + 9 + (high << 8 | low)
        assert end <= len(data), "a frame is cut short"
        found.append((KINDS[kind], flags, stream_id, data[pos + 9 : end]))
        pos = end
    return found


class Recorder(Stream):
    """Remembers what it was told, and does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Any, ...]] = []
        self.body = b""

    def on_request(self, fields: RequestFields, *, end: bool) -> None:
        self.told.append(("request", fields, end))

    def on_oversize(self, fields: RequestFields | None, *, end: bool) -> None:
        self.told.append(("oversize", end))

    def on_informational(self, head: ResponseHead) -> None:
        self.told.append(("informational", head.status))

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        self.told.append(("response", head, end))

    def on_data(self, data: bytes, *, end: bool) -> None:
        self.body += data
        self.told.append(("data", data, end))

    def on_trailers(self, fields: tuple[Header, ...]) -> None:
        self.told.append(("trailers", fields))

    def on_reset(self, code: ErrorCode | int, reason: str, *, by_peer: bool) -> None:
        self.told.append(("reset", int(code), by_peer))

    def on_refused(self) -> None:
        self.told.append(("refused",))

    def on_writable(self) -> None:
        self.told.append(("writable",))

    @property
    def names(self) -> list[str]:
        return [event[0] for event in self.told]


class Peer:
    """Speaks to a server of ours."""

    def __init__(
        self, limits: H2Limits | None = None, settings: dict[int, int] | None = None, **guards: Any
    ) -> None:
        if guards:
            limits = H2Limits(guards=GuardLimits(**guards))
        self.now = 100.0
        self.made: list[Recorder] = []
        self.conn = ServerConnection(limits or H2Limits(), self._make, self.now)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.conn.feed(PREFACE + frames.settings(settings or {}), self.now)
        self.greeting = read_frames(self.conn.take())

    def _make(self) -> Recorder:
        stream = Recorder()
        self.made.append(stream)
        return stream

    def send(self, *parts: bytes) -> list[Frame]:
        """Feed, and read what is answered."""
        self.conn.feed(b"".join(parts), self.now)
        return self.sent()

    def sent(self) -> list[Frame]:
        return read_frames(self.conn.take())

    def block(self, fields: Iterable[Header] = GET) -> bytes:
        block: bytes = self.encoder.encode(list(fields))
        return block

    def headers(
        self, stream_id: int, fields: Iterable[Header] = GET, *, end: bool = True, flags: int = 0
    ) -> bytes:
        flags |= frames.END_HEADERS | (frames.END_STREAM if end else 0)
        return frames.frame(frames.HEADERS, flags, stream_id, self.block(fields))

    def data(self, stream_id: int, payload: bytes, *, end: bool = False, flags: int = 0) -> bytes:
        return frames.frame(
            frames.DATA, flags | (frames.END_STREAM if end else 0), stream_id, payload
        )

    def answer(self, stream_id: int, body: bytes = b"ok", *, end: bool = True) -> list[Frame]:
        stream = self.conn.streams[stream_id]
        self.conn.send_response(stream, 200, (), b"", body, end=end)
        return self.sent()

    def fault(self) -> str | None:
        return self.conn.fault.code.name if self.conn.fault is not None else None


def connect() -> tuple[ClientConnection[Recorder], ServerConnection[Recorder], list[Recorder]]:
    """Our client and our server, introduced to each other."""
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder())
        return made[-1]

    client: ClientConnection[Recorder] = ClientConnection(H2Limits(), 0.0)
    server = ServerConnection(H2Limits(), make, 0.0)
    exchange(client, server)
    return client, server, made


def exchange(client: ClientConnection[Recorder], server: ServerConnection[Recorder]) -> None:
    """Carry bytes both ways until both are silent."""
    while True:
        to_server, to_client = client.take(), server.take()
        if not to_server and not to_client:
            return
        server.feed(to_server, 0.0)
        client.feed(to_client, 0.0)


def code_of(frame: Frame) -> str:
    """The error code of a RST_STREAM or GOAWAY."""
    payload = frame[3]
    at = 0 if frame[0] == "RST_STREAM" else 4
    return ErrorCode(int.from_bytes(payload[at : at + 4], "big")).name
