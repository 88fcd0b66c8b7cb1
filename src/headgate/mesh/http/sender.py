"""Who sends a request that names its service by URL: the mesh, or a plain client.

httpx hands over a URL and headers; what becomes of `http://users/...` (which instance, how many
attempts) is the sender's. `Direct` is the least of them: absolute URLs, and a function for names.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from headgate.errors import UpstreamFailed
from headgate.mesh.http.client import HttpClient
from headgate.wire.connect import Endpoint, Tls
from headgate.wire.instance_url import parse_instance_url

if TYPE_CHECKING:
    from headgate.mesh.http.exchange import Body, Timeouts
    from headgate.mesh.http.response import Response
    from headgate.wire.message import Header

Resolve = Callable[[str], str | None]
"""A service's name to the URL of an instance; None when there is no such service."""

_ORIGINS_MAX: Final = 1024


class Sender(Protocol):
    """Sends requests to services."""

    async def send(
        self,
        origin: str,
        method: str,
        target: bytes,
        headers: Sequence[Header],
        body: Body,
        *,
        deadline: float | None = None,
        timeouts: Timeouts | None = None,
        stream: bool = False,
    ) -> Response:
        """`origin` is a URL without path, `http://users` or `https://10.0.0.7:8443`.

        Headers come as the caller wrote them, also `Host`. Raise as `HttpClient.send` does.
        """
        ...

    async def aclose(self) -> None: ...


class Direct:
    """Sends to the instance that the URL names, once."""

    def __init__(
        self,
        client: HttpClient | None = None,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` is for https; by default certificates are verified by the system's authorities."""
        self._client = client or HttpClient()
        self._resolve = resolve
        self._context = tls
        self._known: dict[str, tuple[Endpoint, Tls | None]] = {}

    async def send(
        self,
        origin: str,
        method: str,
        target: bytes,
        headers: Sequence[Header],
        body: Body,
        *,
        deadline: float | None = None,
        timeouts: Timeouts | None = None,
        stream: bool = False,
    ) -> Response:
        url = self._instance(origin)
        place = self._known.get(url)
        if place is None:
            place = self._place(url)
        return await self._client.send(
            place[0],
            place[1],
            method,
            target,
            headers,
            body,
            deadline,
            timeouts=timeouts,
            stream=stream,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    def _instance(self, origin: str) -> str:
        """The URL of the instance that is meant."""
        if self._resolve is None:
            return origin
        name = origin.partition("://")[2]
        found = self._resolve(name)
        if found is not None:
            return found
        if "." in name or ":" in name:
            return origin
        raise UpstreamFailed("no_instance", f"{name}: no service of this name is known")

    def _place(self, url: str) -> tuple[Endpoint, Tls | None]:
        found = parse_instance_url(url)
        if found.path is not None:
            endpoint = Endpoint(path=found.path)
        else:
            endpoint = Endpoint(found.host, found.port)
        tls = Tls(self._tls_context(), found.host) if found.scheme == "https" else None
        if len(self._known) >= _ORIGINS_MAX:
            self._known.clear()
        self._known[url] = endpoint, tls
        return endpoint, tls

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context
