"""Fuzz the chunked coding: the same payload, end and verdict however the bytes are cut."""

from __future__ import annotations

from headgate.wire.http1.body import ChunkedReader
from headgate.wire.http1.head import HeadLimits

SEEDS = (
    b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
    b"a;name=value\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n",
    b"1 ; x\r\na\r\n2\r\nbc\r\n000\r\n\r\n",
    b"ffffffffffffff\r\n",
)
LIMITS = HeadLimits(url_bytes=512, head_bytes=1024, field_count=20)


def _read(data: bytes, step: int) -> tuple[bytes, bool, bool, object, bytes]:
    reader, payload, at = ChunkedReader(LIMITS), b"", 0
    rest = b""
    while at < len(data) and not reader.is_done and reader.refusal is None:
        piece, rest = reader.feed(data[at : at + step])
        at += step
        payload += piece
    return payload, reader.is_done, reader.refusal is not None, reader.trailers, rest + data[at:]


def one(data: bytes) -> None:
    whole = _read(data, max(1, len(data)))
    for step in (1, 3):
        cut = _read(data, step)
        if whole[2] or cut[2]:
            # A broken body is broken in any cut; how much of it came before may differ.
            assert whole[2] == cut[2], data
            assert whole[0].startswith(cut[0]) or cut[0].startswith(whole[0]), data
        elif whole[1]:
            assert cut == whole, data
        else:
            assert cut[:4] == whole[:4], data
