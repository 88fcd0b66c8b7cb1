"""Fuzz the request-target and the host: never raises, and what it accepts parses to itself."""

from __future__ import annotations

from headgate.wire.host import parse_authority
from headgate.wire.target import Target, parse_target


def one(data: bytes) -> None:
    for method in ("GET", "OPTIONS"):
        target = parse_target(method, data)
        if isinstance(target, Target) and target.path != "*":
            again = parse_target(method, str(target).encode("ascii"))
            assert str(again) == str(target), data
    authority = parse_authority(data)
    if authority is not None:
        assert parse_authority(authority.text.encode("ascii")) == authority, data
