"""Where a sidecar is: addresses by which it is reached, and files that others write."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

__all__ = ["address_towards", "is_everywhere", "reachable", "stamps"]

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked at, not bound


def is_everywhere(host: str) -> bool:
    """Whether who listens there listens at all addresses."""
    return host in _EVERYWHERE


def reachable(address: tuple[str, int]) -> tuple[str, int]:
    """Where we reach ourselves."""
    return _EVERYWHERE.get(address[0], address[0]), address[1]


def stamps(*paths: Path) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            said = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((said.st_mtime_ns, said.st_ino))
    return found


def address_towards(url: str) -> str:
    """Our address on the way to control. Nothing is sent for it."""
    host = urlsplit(url).hostname
    if host is None:
        return "127.0.0.1"  # a socket of this machine
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, 9, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                found: str = probe.getsockname()[0]
                return found
    except OSError:
        pass
    return "127.0.0.1"
