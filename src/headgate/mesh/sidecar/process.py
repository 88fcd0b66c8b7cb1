"""Whether the process that a sidecar stands beside is well: it accepts, or it says so itself."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from headgate.errors import UpstreamFailed
from headgate.mesh.http import BodyTooLarge
from headgate.wire.connect import Endpoint
from headgate.wire.instance_url import parse_instance_url

if TYPE_CHECKING:
    from headgate.mesh.http import HttpClient

__all__ = ["Process"]

_PATIENCE_S: Final = 2.0
_BODY_MAX: Final = 1 << 20


class Process:
    def __init__(self, url: str, health: str, http: HttpClient) -> None:
        """`health` is a path; without one, a connection that is accepted is enough."""
        found = parse_instance_url(url)
        self._endpoint = Endpoint(found.host, found.port, found.path)
        self._health = health
        self._http = http

    async def is_well(self) -> bool:
        if self._health:
            return await self._says_so()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                if self._endpoint.path is not None:
                    _, writer = await asyncio.open_unix_connection(self._endpoint.path)
                else:
                    _, writer = await asyncio.open_connection(
                        self._endpoint.host, self._endpoint.port
                    )
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    async def _says_so(self) -> bool:
        try:
            got = await self._http.send(
                self._endpoint,
                None,
                "GET",
                self._health.encode("ascii"),
                (),
                None,
                monotonic() + _PATIENCE_S,
                body_bytes_max=_BODY_MAX,
            )
        except (UpstreamFailed, BodyTooLarge):
            return False
        return 200 <= got.status < 300
