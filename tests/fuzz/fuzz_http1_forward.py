"""Fuzz the way through: whatever request is taken leaves as exactly one strict request.

The reader on the far side shares no code with the engine. What follows the first request must
not have become part of it.
"""

from __future__ import annotations

from headgate.gateway.upstream_h1 import render_request
from headgate.wire.http1.body import ChunkedReader, chunk, last_chunk
from headgate.wire.http1.head import HeadLimits, parse_request_head
from headgate.wire.message import Forward, RequestHead
from tests.wire.corpus.requests import CASES
from tests.wire.strict_http import read_request

LIMITS = HeadLimits(url_bytes=512, head_bytes=2048, field_count=30)
SEEDS = tuple(case.raw for case in CASES if len(case.raw) < 500)
NEXT = b"GET /next HTTP/1.1\r\nhost: h\r\n\r\n"


def one(data: bytes) -> None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return
    head = parse_request_head(data[: end + 4], LIMITS, "http")
    if not isinstance(head, RequestHead) or head.length > 4096:
        return
    rest = data[end + 4 :]
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    if head.length < 0:
        reader = ChunkedReader(LIMITS)
        payload, _ = reader.feed(rest)
        if not reader.is_done:
            return
        trailers = reader.trailers
        body = (chunk(payload) if payload else b"") + last_chunk(trailers)
    else:
        payload = body = rest[: head.length].ljust(head.length, b"x")
    forward = Forward(
        head.method,
        head.target,
        head.authority or "instance",
        head.headers,
        length=head.length,
        upgrade=head.upgrade,
        expects_continue=head.expects_continue,
    )
    sent = render_request(forward) + b"\r\n" + body
    message = read_request(sent + NEXT)
    assert message.end == len(sent), data
    assert message.body == payload, data
    assert message.target == head.target.encode(), data
    assert tuple(message.trailers) == trailers, data
    assert read_request(sent + NEXT, message.end).target == b"/next", data
