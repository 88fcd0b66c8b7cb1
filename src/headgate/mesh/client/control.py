"""The control process as services ask it: one answer, or a stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from headgate.cache.gateway_http import Gateway
from headgate.errors import UpstreamFailed
from headgate.mesh.client.failures import ControlAway, ControlRefused
from headgate.mesh.client.sse import Event, EventReader
from headgate.mesh.http import HttpClient, Timeouts
from headgate.wire.connect import Endpoint, Tls

if TYPE_CHECKING:
    from headgate.wire.message import Header

__all__ = ["Answer", "Control"]

SILENCE_S: Final = 25.0
"""A watch says at least every ten seconds that it is alive."""
_TIMEOUTS: Final = Timeouts(connect_s=5.0, silence_s=SILENCE_S, queue_s=5.0)
_BODY_MAX: Final = 64 * 1024 * 1024
_SAID_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: Any

    @property
    def said(self) -> str:
        """Of a refusal, why."""
        content = self.content
        if isinstance(content, dict):
            said = content.get("detail") or content.get("title") or content.get("why")
            if said:
                return str(said)[:_SAID_MAX]
        return ""


class Control:
    """Where control is, and a client of its own: what services call has nothing to do with it."""

    def __init__(self, where: Gateway, http: HttpClient | None = None) -> None:
        self.where = where
        self._http = http or HttpClient(timeouts=_TIMEOUTS)
        path = where.path or None
        self._endpoint = Endpoint("" if path else where.host, where.port, path)
        self._tls = Tls(where.tls, where.host) if where.tls is not None else None

    @property
    def text(self) -> str:
        """For people."""
        return self.where.text

    async def ask(
        self, method: str, path: str, body: object = None, *, timeout_s: float = 5.0
    ) -> Answer:
        """Whatever it answers; ControlAway if it does not."""
        fields = self._fields("application/json")
        payload = b""
        if body is not None:
            payload = json.dumps(body, separators=(",", ":")).encode()
            fields.append((b"content-type", b"application/json"))
        try:
            got = await self._http.send(
                self._endpoint,
                self._tls,
                method,
                f"{self.where.base}{path}".encode("ascii"),
                fields,
                payload,
                monotonic() + timeout_s,
                body_bytes_max=_BODY_MAX,
            )
        except UpstreamFailed as error:
            raise ControlAway(f"{self.text}: {error}") from error
        content: Any = None
        if got.content and "json" in got.headers.get("content-type", ""):
            try:
                content = got.json()
            except (ValueError, RecursionError) as error:
                raise ControlAway(f"{self.text} answers as no admin API does") from error
        return Answer(got.status, content)

    async def events(self, path: str, last_id: str = "") -> AsyncIterator[Sequence[Event]]:
        """The events of a stream as they come, until it ends; ControlAway or ControlRefused. The
        first piece comes, empty, as soon as the stream stands.
        """
        fields = self._fields("text/event-stream")
        if last_id:
            fields.append((b"last-event-id", last_id.encode("ascii", "replace")))
        target = f"{self.where.base}{path}".encode("ascii")
        try:
            got = await self._http.send(
                self._endpoint, self._tls, "GET", target, fields, None, None, stream=True
            )
            try:
                if got.status != 200:
                    said = _said(await got.read(1 << 16))
                    if got.status >= 500:  # it begins, or ends: what is not there yet
                        raise ControlAway(f"{self.text}: {got.status} {said}".rstrip())
                    raise ControlRefused(self.text, got.status, said)
                yield ()
                reader = EventReader()
                async for piece in got.aiter_bytes():
                    found = reader.feed(piece)
                    if found:
                        yield found
            finally:
                got.abort()
        except UpstreamFailed as error:
            raise ControlAway(f"{self.text}: {error}") from error

    async def aclose(self) -> None:
        await self._http.aclose()

    def _fields(self, accept: str) -> list[Header]:
        fields = [(b"accept", accept.encode())]
        if self.where.token:
            fields.append((b"authorization", b"Bearer " + self.where.token.encode("ascii")))
        return fields


def _said(text: bytes) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return Answer(0, content).said
