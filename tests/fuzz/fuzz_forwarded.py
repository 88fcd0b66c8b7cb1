"""Fuzz the forwarding fields of a trusted peer: never raises, and what is sent on is readable."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from headgate.wire.forwarded import TrustedNetworks, client, outgoing, parse_forwarded


@dataclass(frozen=True)
class _Options:
    x_forwarded: bool
    forwarded: bool
    via: str | None = "headgate"


_TRUSTED = TrustedNetworks([ip_network("10.0.0.0/8")])
_BOTH = _Options(x_forwarded=True, forwarded=True)
_RFC7239 = _Options(x_forwarded=False, forwarded=True)
_NAMES = (b"x-forwarded-for", b"forwarded", b"x-forwarded-proto", b"x-forwarded-host")


def one(data: bytes) -> None:
    headers = [(_NAMES[i % len(_NAMES)], value) for i, value in enumerate(data.split(b"\n")[:16])]
    for options in (_BOTH, _RFC7239):
        for received in (headers, [(b"forwarded", data), (b"x-forwarded-for", data)]):
            who = client("10.0.0.1", "http", received, _TRUSTED, options)
            assert who.scheme in {"http", "https"}
            sent = dict(outgoing("10.0.0.1", "http", "a", received, _TRUSTED, options))
            elements = parse_forwarded(sent[b"forwarded"].decode("ascii"))
            assert elements, data
            assert elements[-1] == {"for": "10.0.0.1", "proto": "http", "host": "a"}, data
