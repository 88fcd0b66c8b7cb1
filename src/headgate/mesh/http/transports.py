"""httpx over our own wire: `httpx.AsyncClient(transport=MeshTransport(...))`; httpx.Client too.

Theory of operation
-------------------
httpx keeps what is its own (redirects, cookies, authentication, decoding, its models); a transport
sends one request and gives the response as it came. Failures become httpx's exceptions, by
`translated`, also while a body is being read, so that code which handles `httpx.ConnectError` goes
on doing so.

httpx's time-outs: `connect` and `pool` are ours; `read` bounds silence in both directions, so
`write` is not looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final

import httpx

from headgate.errors import HeadgateError, UpstreamFailed
from headgate.mesh.http.blocking_client import BlockingClient
from headgate.mesh.http.exchange import NOT_IN_TIME, TOOK_NOTHING, Timeouts
from headgate.mesh.http.sender import Direct

if TYPE_CHECKING:
    from headgate.mesh.http.blocking_client import BlockingResponse
    from headgate.mesh.http.response import Response
    from headgate.mesh.http.sender import Sender

__all__ = ["MeshTransport", "SyncMeshTransport", "translated"]

_EXTENSIONS: Final = {"http_version": b"HTTP/1.1"}


class MeshTransport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient`. The sender is closed with the client."""

    def __init__(self, sender: Sender | None = None) -> None:
        self._sender = sender or Direct()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        stream = request.stream
        if isinstance(stream, httpx.ByteStream):
            body: Any = b"".join(stream)
        elif isinstance(stream, httpx.AsyncByteStream):
            body = stream
        else:
            raise RuntimeError("an AsyncClient cannot send a sync body")
        try:
            response = await self._sender.send(
                _origin(request),
                request.method,
                request.url.raw_path,
                request.headers.raw,
                body,
                timeouts=_timeouts(request.extensions),
                stream=True,
            )
        except (HeadgateError, ValueError) as error:
            raise translated(error, request) from error
        raw = response.raw_content
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_AsyncStream(response, request) if raw is None else httpx.ByteStream(raw),
            extensions=_extensions(response.reason),
        )

    async def aclose(self) -> None:
        await self._sender.aclose()


class SyncMeshTransport(httpx.BaseTransport):
    """For `httpx.Client`. The sender is closed with the client."""

    def __init__(self, sender: Sender | None = None) -> None:
        self._client = BlockingClient(sender)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        stream = request.stream
        if isinstance(stream, httpx.ByteStream):
            body: Any = b"".join(stream)
        elif isinstance(stream, httpx.SyncByteStream):
            body = stream
        else:
            raise RuntimeError("a Client cannot send an async body")
        try:
            response = self._client.send(
                _origin(request),
                request.method,
                request.url.raw_path,
                request.headers.raw,
                body,
                timeouts=_timeouts(request.extensions),
                stream=True,
            )
        except (HeadgateError, ValueError) as error:
            raise translated(error, request) from error
        raw = response.raw_content
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_SyncStream(response, request) if raw is None else httpx.ByteStream(raw),
            extensions=_extensions(response.reason),
        )

    def close(self) -> None:
        self._client.close()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, response: Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except HeadgateError as error:
            raise translated(error, self._request) from error

    async def aclose(self) -> None:
        await self._response.aclose()


class _SyncStream(httpx.SyncByteStream):
    def __init__(self, response: BlockingResponse, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_raw()
        except HeadgateError as error:
            raise translated(error, self._request) from error

    def close(self) -> None:
        self._response.close()


def translated(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """The exception of httpx that says the same."""
    kind = _class_of(error)
    return kind(str(error), request=request)


def _class_of(error: Exception) -> type[httpx.TransportError]:
    if not isinstance(error, UpstreamFailed):
        return httpx.LocalProtocolError if isinstance(error, ValueError) else httpx.ReadError
    late = isinstance(error.__cause__, TimeoutError) or error.reason == NOT_IN_TIME
    match error.kind:
        case "connect" | "dns" | "tls":
            return httpx.ConnectTimeout if late else httpx.ConnectError
        case "timeout":
            if error.reason == TOOK_NOTHING:
                return httpx.WriteTimeout
            return httpx.ConnectTimeout if late else httpx.ReadTimeout
        case "queue_full" | "queue_timeout":
            return httpx.PoolTimeout
        case "reset":
            # A peer that closes in good order breaks the protocol; one that resets, the network.
            cause = isinstance(error.__cause__, OSError)
            return httpx.ReadError if cause else httpx.RemoteProtocolError
        case "protocol":
            return httpx.RemoteProtocolError
        case _:
            return httpx.ConnectError


def _origin(request: httpx.Request) -> str:
    url = request.url
    if url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol(
            f"{url.scheme or 'a URL without scheme'}:// cannot be sent; write http:// or https://",
            request=request,
        )
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _timeouts(extensions: Mapping[str, Any]) -> Timeouts | None:
    said = extensions.get("timeout")
    if said is None:
        return None
    key = (said.get("connect"), said.get("read"), said.get("pool"))
    known = _known_timeouts.get(key)
    if known is None:
        known = Timeouts(*(inf if each is None else float(each) for each in key))
        if len(_known_timeouts) >= 256:
            _known_timeouts.clear()
        _known_timeouts[key] = known
    return known


_known_timeouts: dict[tuple[Any, ...], Timeouts] = {}


def _extensions(reason: str) -> dict[str, Any]:
    return {**_EXTENSIONS, "reason_phrase": reason.encode("latin-1", "replace")}
