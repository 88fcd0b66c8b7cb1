"""Who carries one request to one instance: the mesh's own wire, or a fake."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from headgate.mesh.http import Response, Timeouts
    from headgate.wire.connect import Endpoint, Tls
    from headgate.wire.message import Header

__all__ = ["Line", "Sender"]


class Sender(Protocol):
    """`headgate.mesh.http.HttpClient`, or what stands for it in a test."""

    async def send(
        self,
        endpoint: Endpoint,
        tls: Tls | None,
        method: str,
        target: bytes,
        headers: Sequence[Header],
        body: bytes | AsyncIterable[bytes] | None,
        deadline: float | None,
        *,
        stream: bool = False,
        timeouts: Timeouts | None = None,
    ) -> Response:
        """The response; raises UpstreamFailed. `deadline` is by `time.monotonic`."""


@dataclass(frozen=True, slots=True)
class Line:
    """What it takes to reach an instance."""

    url: str
    endpoint: Endpoint
    tls: Tls | None
    fields: tuple[Header, ...] = ()
    """What every request there carries: who calls, and the `host` if it is not the URL's own."""
