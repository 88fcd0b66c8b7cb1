"""A request as methods see it, as a plain value: for explanations and for tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShownRequest:
    """See `security.method.Shown`."""

    method: str = "GET"
    path: str = "/"
    query: str = ""
    authority: str = "localhost"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    client_ip: str = "127.0.0.1"
    is_tls: bool = False
    certificate: bytes | None = None

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def host(self) -> str:
        host, _, port = self.authority.rpartition(":")
        return host if port.isdigit() and host else self.authority
