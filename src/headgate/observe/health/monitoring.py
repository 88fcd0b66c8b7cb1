"""What a synthetic monitor asks for, as values: the defaults stand here once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["KINDS", "Expected", "Monitor", "MonitorKind", "MonitorTls"]

MonitorKind = Literal["url", "tcp", "dns", "certificate", "redis", "postgres"]
KINDS: Final[tuple[MonitorKind, ...]] = ("url", "tcp", "dns", "certificate", "redis", "postgres")


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer over HTTP must be like."""

    status: tuple[tuple[int, int], ...] = ((200, 299),)
    body: str | None = None
    """Must stand in it."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names with what must stand in their values."""
    json: tuple[tuple[str, Any], ...] = ()
    """Paths such as `status` or `items.0.id`, with what must be there."""


@dataclass(frozen=True, slots=True)
class MonitorTls:
    """As `UpstreamTlsSpec` of the file."""

    verify: bool = True
    ca_file: str | None = None
    server_name: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class Monitor:
    """One thing that is looked at now and then, as everybody else meets it."""

    name: str
    kind: MonitorKind
    target: str = field(repr=False)
    """An address; may hold a password, so it is not shown. See `shown`."""
    shown: str = ""
    every_s: float = 30.0
    timeout_s: float = 5.0
    fall: int = 1
    """So many failures in a row until it is down."""
    warn_above_s: float | None = None
    fail_above_s: float | None = None
    critical: bool = False
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: str | None = field(default=None, repr=False)
    redirects: int = 0
    expect: Expected = Expected()
    tls: MonitorTls = MonitorTls()
    is_tls: bool = False
    """Whether a plain connection is to be TLS."""
    warn_before_s: float = 21 * 86_400.0
    fail_before_s: float = 3 * 86_400.0
    addresses: int = 1
    """The fewest that a name must have."""
