"""Fuzz the HTTP/2 codec: whatever comes, it answers with frames, and its books stay right.

The first byte chooses what the bytes are fed to and how they are cut.
"""

from __future__ import annotations

from headgate.wire.h2 import (
    PREFACE,
    ClientConnection,
    H2Limits,
    RequestFields,
    ServerConnection,
    Stream,
    frames,
)
from headgate.wire.h2.hpack_decoder import Decoder, HeaderBomb, HpackFault
from headgate.wire.message import Header, ResponseHead

LIMITS = H2Limits(max_streams=8, stream_window=65_535, connection_window=131_070, list_bytes=4096)


class _Echo(Stream):
    """Answers as soon as it can, through the connection it finds in `server`."""

    server: ServerConnection[_Echo] | None = None

    def on_request(self, fields: RequestFields, *, end: bool) -> None:
        for name, value in fields.headers:
            assert b"\r" not in value and b"\n" not in value and b"\0" not in value
            assert name == name.lower() and name[:1] != b":"
        if self.server is not None:
            self.server.send_response(self, 200, fields.headers, b"", b"", end=end)

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        assert 200 <= head.status <= 599

    def on_data(self, data: bytes, *, end: bool) -> None:
        if self.server is not None:
            self.server.consume(self, len(data))
            self.server.send_data(self, data, end=end)

    def on_trailers(self, fields: tuple[Header, ...]) -> None:
        if self.server is not None:
            self.server.send_trailers(self, fields)


def one(data: bytes) -> None:
    kind, data = data[:1], data[1:]
    what = kind[0] & 3 if kind else 0
    step = kind[0] >> 2 if kind else 0
    if what == 0:
        _decode(data)
    elif what == 1:
        _serve(data, step)
    elif what == 2:
        _serve(PREFACE + frames.settings({}) + data, step)
    else:
        _ask(data, step)


def _decode(data: bytes) -> None:
    decoder = Decoder(list_bytes=4096)
    try:
        for _ in range(2):
            decoder.decode(data)
    except (HpackFault, HeaderBomb):
        return
    assert decoder.table_bytes <= 4096
    assert decoder.table_bytes == sum(len(n) + len(v) + 32 for n, v in decoder.table)


def _serve(data: bytes, step: int) -> None:
    def make() -> _Echo:
        stream = _Echo()
        stream.server = conn
        return stream

    conn: ServerConnection[_Echo] = ServerConnection(LIMITS, make, 0.0)
    for piece in _cut(data, step):
        conn.feed(piece, 0.0)
        _whole(conn.take())
        assert len(conn.streams) <= LIMITS.max_streams
        assert all(not s.is_gone for s in conn.streams.values())
        assert conn.send_window >= 0
    if conn.is_closed:
        assert conn.fault is not None


def _ask(data: bytes, step: int) -> None:
    conn: ClientConnection[_Echo] = ClientConnection(LIMITS, 0.0)
    for _ in range(3):
        block = conn.encoder.encode_request("POST", "http", "example.org", "/", ())
        conn.open(_Echo(), block, end=False)
    _whole(conn.take()[len(PREFACE) :])
    conn.feed(frames.settings({}), 0.0)
    for piece in _cut(data, step):
        conn.feed(piece, 0.0)
        _whole(conn.take())


def _cut(data: bytes, step: int) -> list[bytes]:
    if not step:
        return [data]
    return [data[i : i + step] for i in range(0, len(data), step)]


def _whole(out: bytes) -> None:
    """What we write is whole frames within the peer's limits."""
    pos = 0
    while pos < len(out):
        high, low, _, _, _ = frames.unpack_head(out, pos)
        length = high << 8 | low
        assert length <= 32_768
        pos += 9 + length
    assert pos == len(out)
