"""Fuzz the first message of TLS, as strangers send it: protocols are read from it or there are none."""

from __future__ import annotations

from headgate.wire.acme_alpn import ACME_TLS, is_acme_hello, offered_protocols


def _led(content: bytes, length_bytes: int) -> bytes:
    return len(content).to_bytes(length_bytes, "big") + content


def _hello(*names: bytes) -> bytes:
    offered = _led(b"".join(_led(name, 1) for name in names), 2)
    extensions = b"\x00\x2b" + _led(b"\x02\x03\x04", 2) + b"\x00\x10" + _led(offered, 2)
    body = b"\x03\x03" + bytes(32) + _led(b"", 1) + _led(b"\x13\x01", 2) + _led(b"\0", 1)
    return b"\x01" + _led(body + _led(extensions, 2), 3)


SEEDS = (_hello(b"h2", b"http/1.1"), _hello(ACME_TLS.encode()), _hello(), _hello(b"", b"x" * 255))


def one(data: bytes) -> None:
    names = offered_protocols(data)
    assert sum(map(len, names)) <= len(data)
    assert all(name in data for name in names)
    assert is_acme_hello(data) is (names == (b"acme-tls/1",))
    assert offered_protocols(data + b"tail") == names or not names
