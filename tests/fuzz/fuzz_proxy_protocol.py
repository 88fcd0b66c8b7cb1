"""Fuzz the PROXY header: never raises, asks for more only within bounds, answers alike with a tail."""

from __future__ import annotations

from headgate.wire.proxy_protocol import NeedMore, ProxyHeader, parse_proxy_header


def one(data: bytes) -> None:
    for start in (data, b"PROXY " + data, b"\r\n\r\n\x00\r\nQUIT\n" + data):
        got = parse_proxy_header(start)
        if isinstance(got, ProxyHeader):
            assert got.size <= len(start)
            assert parse_proxy_header(start[: got.size]) == got
            assert parse_proxy_header(start[: got.size] + b"tail") == got
            short = parse_proxy_header(start[: got.size - 1])
            assert isinstance(short, NeedMore)
            assert got.size - 1 < short.size <= got.size
        elif isinstance(got, NeedMore):
            assert len(start) < got.size <= 16 + 4096
