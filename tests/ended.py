"""Requests that are over, as the access log is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from headgate.wire.message import RequestHead

_SAID: dict[str, Any] = {
    "wall": 1_772_366_400.1239, "duration_s": 0.0123456, "upstream_s": 0.0112, "connect_s": -1.0,
    "status": 200, "bytes_in": 0, "bytes_out": 512, "retries": 0, "response_headers": (),
    "client_ip": "192.0.2.7", "route": "users", "service": "users", "instance": "127.0.0.1:3001",
    "request_id": b"5f0c", "trace_id": b"", "error": "", "user": "", "tls_version": "",
    "own_id": b"0123456789abcdef0123456789abcdef", "is_kept": None,
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    name: str


class Asked:
    """What is asked of a `Prepared`."""

    def __init__(self, told_head: RequestHead | None, route: str) -> None:
        self.told_head = told_head
        self.route = Named(route)
        self.lines: Any = None


class Ended(NamedTuple):
    """What a formatter is given."""

    asked: Any
    ex: Any
    wall: float
    duration_s: float
    trace_id: bytes
    is_kept: bool | None

    def add_to(self, log: Any) -> None:
        log.add(self.asked, self.ex, self.duration_s, self.trace_id, self.is_kept)


def ended(head: RequestHead | None, **changes: Any) -> Ended:
    said = SimpleNamespace(**_SAID | changes)
    ex = SimpleNamespace(
        **vars(said) | {
            "attempts": said.retries + 1,
            "service": Named(said.service),
            "identity": SimpleNamespace(subject=said.user),
            "down": SimpleNamespace(tls_version=said.tls_version),
        }
    )  # fmt: skip
    asked = Asked(head, said.route)
    return Ended(asked, ex, said.wall, said.duration_s, said.trace_id, said.is_kept)
