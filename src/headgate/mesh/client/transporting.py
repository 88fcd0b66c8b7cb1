"""httpx over the mesh: `httpx.AsyncClient(transport=mesh.transport())`, `http://users/users/42`.

Theory of operation. The host of the URL is the name of the service; which instance is asked, over
what, and how often is the mesh's. `http` and `https` mean the same here. What the mesh raises is
said in the words of the wire, which the transport turns into httpx's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from headgate.errors import UpstreamFailed
from headgate.mesh.client.attempt import Call, Once
from headgate.mesh.client.failures import NoSuchService
from headgate.mesh.http import Timeouts
from headgate.resilience.errors import Refused, TimedOut

if TYPE_CHECKING:
    from headgate.mesh.client.mesh import Mesh
    from headgate.mesh.client.response import Response
    from headgate.mesh.http import Response as WireResponse
    from headgate.mesh.http.exchange import Body
    from headgate.wire.message import Header

__all__ = ["MeshSender"]

_OURS: Final = frozenset({b"host", b"connection"})
"""What names the service, and what is said between two ends of a connection."""


class MeshSender:
    """What `headgate.mesh.http.transports` sends by."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._is_open = True
        mesh.hold()

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
    ) -> WireResponse:
        mesh = self._mesh
        name = unquote(origin.partition("://")[2]).partition(":")[0]
        fields = [(key, value) for raw, value in headers if (key := raw.lower()) not in _OURS]
        call = Call(
            method,
            target,
            fields,
            body if isinstance(body, bytes) else b"" if body is None else Once(body),
            timeout_s=None if deadline is None else max(0.0, deadline - monotonic()),
        )
        call.is_stream = stream
        try:
            caller = mesh.caller(name)
            if timeouts is not None:
                call.timeouts = _shorter(timeouts, caller.timeouts)
            response = await mesh.call(caller, call)
        except (Refused, NoSuchService) as error:
            raise UpstreamFailed("no_instance", str(error)) from error
        except TimedOut as error:
            raise UpstreamFailed("timeout", str(error)) from error
        raw = response.raw
        if raw.raw_content is not None:
            response.ended()
            return raw
        return cast("WireResponse", _Streamed(response))

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._mesh.let_go()


def _shorter(theirs: Timeouts, ours: Timeouts) -> Timeouts:
    """Of httpx's own time-outs and the service's, those that come first."""
    return Timeouts(
        min(theirs.connect_s, ours.connect_s),
        min(theirs.silence_s, ours.silence_s),
        min(theirs.queue_s, ours.queue_s),
    )


class _Streamed:
    """A response on its way, whose end the mesh wants to hear of."""

    __slots__ = ("_response",)

    def __init__(self, response: Response) -> None:
        self._response = response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response.raw, name)

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.raw.aiter_raw():
                yield piece
        finally:
            self._response.ended()

    async def aclose(self) -> None:
        await self._response.aclose()
