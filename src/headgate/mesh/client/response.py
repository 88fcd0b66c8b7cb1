"""What a service answered, as callers read it: names as in httpx, so that code can move over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Self

from headgate.mesh.http.headers import Headers
from headgate.mesh.http.response import StatusError
from headgate.wire.message import ResponseHead

if TYPE_CHECKING:
    from types import TracebackType

    from headgate.mesh.http.response import Response as WireResponse
    from headgate.wire.message import Header

__all__ = ["Response", "made_up"]


class Response:
    """An answer. Of a stream, the body comes by `aread`, `aiter_bytes` and their kin."""

    __slots__ = ("_on_end", "raw", "attempts", "elapsed_s", "instance", "service", "status_code")

    def __init__(
        self,
        raw: WireResponse,
        service: str,
        instance: str,
        attempts: int,
        elapsed_s: float,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.raw = raw
        """As the wire has it."""
        self.status_code = raw.status
        self.service = service
        self.instance = instance
        """The URL of who answered; "" where nobody was asked."""
        self.attempts = attempts
        """How many were made until this one was good enough."""
        self.elapsed_s = elapsed_s
        """Until it was here; of a stream, its head."""
        self._on_end = on_end

    @property
    def headers(self) -> Headers:
        return self.raw.headers

    @property
    def name(self) -> str:
        """Who answered, for messages."""
        return f"{self.service} ({self.instance})" if self.instance else self.service

    @property
    def status(self) -> int:
        return self.status_code

    @property
    def reason(self) -> str:
        return self.raw.reason

    reason_phrase = reason

    @property
    def content(self) -> bytes:
        return self.raw.content

    @property
    def text(self) -> str:
        return self.raw.text

    def json(self) -> Any:
        return self.raw.json()

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    @property
    def is_client_error(self) -> bool:
        return 400 <= self.status_code < 500

    @property
    def is_server_error(self) -> bool:
        return self.status_code >= 500

    @property
    def is_error(self) -> bool:
        return self.status_code >= 400

    def raise_for_status(self) -> Self:
        """StatusError for 4xx and 5xx, else the response itself."""
        if self.status_code >= 400:
            raise StatusError(self)  # type: ignore[arg-type]  # it reads name, status and reason
        return self

    # -- streams -------------------------------------------------------------------------------

    async def aread(self) -> bytes:
        """The whole body."""
        try:
            return await self.raw.read()
        finally:
            self.ended()

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.raw.aiter_bytes():
                yield piece
        finally:
            self.ended()

    async def aiter_text(self) -> AsyncIterator[str]:
        from codecs import getincrementaldecoder

        decoder = getincrementaldecoder("utf-8")("replace")
        async for piece in self.aiter_bytes():
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    async def aiter_lines(self) -> AsyncIterator[str]:
        """Line by line, without the ends of lines."""
        left = ""
        async for text in self.aiter_text():
            left += text
            if "\n" in text:
                *lines, left = left.split("\n")
                for line in lines:
                    yield line.removesuffix("\r")
        if left:
            yield left

    async def aclose(self) -> None:
        self.raw.abort()
        self.ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def ended(self) -> None:
        """Nothing more of it is wanted: its place is free."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def __repr__(self) -> str:
        return f"<Response {self.status_code} from {self.name}>"


def made_up(status: int, headers: tuple[Header, ...], body: bytes, name: str) -> WireResponse:
    """An answer that came over no wire."""
    from headgate.mesh.http.response import Response as WireResponse

    head = ResponseHead(status, headers, reason=b"", length=len(body))
    return WireResponse(head, body, None, name)
