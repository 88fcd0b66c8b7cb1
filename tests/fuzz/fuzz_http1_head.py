"""Fuzz HTTP/1.1 heads: never raises, what passes is clean, and written again it reads the same."""

from __future__ import annotations

from headgate.wire.http1.head import (
    HeadLimits,
    judge_partial,
    parse_request_head,
    parse_response_head,
    parse_trailers,
)
from headgate.wire.message import Refusal, RequestHead, ResponseHead

SEEDS = (
    b"GET /a/b?c=d HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n",
    b"POST http://example.org:8080/ HTTP/1.1\r\nHost: example.org:8080\r\nContent-Length: 12\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-Own\r\nUpgrade: websocket\r\nX-Own: 1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.0 200\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    b"X-Trailer: 1\r\nContent-Length: 3\r\n\r\n",
)
LIMITS = HeadLimits(url_bytes=512, head_bytes=2048, field_count=20)
FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"host", b"upgrade", b"te"}


def _is_clean(headers: tuple[tuple[bytes, bytes], ...]) -> bool:
    for name, value in headers:
        if name != name.lower() or not name or name.strip() != name or name in FRAMING:
            return False
        if any(byte < 0x20 and byte != 9 for byte in name + value) or value.strip(b" \t") != value:
            return False
    return True


def one(data: bytes) -> None:
    judge_partial(data, LIMITS)
    end = data.find(b"\r\n\r\n")
    block = data[: end + 4] if end >= 0 else data + b"\r\n\r\n"
    request = parse_request_head(block, LIMITS, "http")
    if isinstance(request, RequestHead):
        assert _is_clean(request.headers), data
        assert request.path == "*" or request.path.startswith("/"), data
        assert request.length >= -1, data
        framing = b"content-length: %d\r\n" % request.length if request.length > 0 else b""
        if request.length < 0:
            framing = b"transfer-encoding: chunked\r\n"
        query = f"?{request.query}" if request.has_query else ""
        host = f"host: {request.authority}\r\n" if request.authority else ""
        written = (
            f"{request.method} {request.path}{query} HTTP/1.1\r\n{host}".encode("latin-1")
            + framing
            + b"".join(b"%b: %b\r\n" % pair for pair in request.headers)
            + b"\r\n"
        )
        again = parse_request_head(written, LIMITS, "http")
        if host and isinstance(again, RequestHead):
            assert (again.path, again.query, again.length) == (
                request.path,
                request.query,
                request.length,
            ), data
            assert again.headers == request.headers, data
        elif host:
            # Written out in full a head may be longer than the limits allow; nothing else.
            assert isinstance(again, Refusal), data
            assert again.status in {414, 431}, (data, again)
    response = parse_response_head(block, LIMITS)
    if isinstance(response, ResponseHead):
        assert _is_clean(response.headers), data
        assert response.length >= -1, data
        assert not (response.chunked and response.length > 0), data
    trailers = parse_trailers(block, LIMITS)
    if not isinstance(trailers, Refusal):
        assert _is_clean(trailers), data
