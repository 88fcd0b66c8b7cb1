"""What a service answered."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self

from headgate.errors import HeadgateError
from headgate.mesh.http.body import Stream
from headgate.mesh.http.decoding import decoder_for
from headgate.mesh.http.headers import Headers

if TYPE_CHECKING:
    from headgate.mesh.http.body import Incoming
    from headgate.wire.message import Header, ResponseHead

_NO_LENGTH: Final = frozenset({204, 304})


class BodyTooLarge(HeadgateError):
    """A response is larger than its reader allows; the service has done nothing wrong."""

    def __init__(self, name: str, bytes_max: float) -> None:
        super().__init__(
            f"{name}: the response is larger than {bytes_max:.0f} bytes; read it as a stream"
        )


class StatusError(HeadgateError):
    """`raise_for_status` was called on a response that says that the request failed."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(f"{response.name}: answered {response.status} {response.reason}".rstrip())


class Response:
    """A response, whole or (with `stream=True`) while its body is still coming."""

    __slots__ = (
        "_bytes_max",
        "_content",
        "_head",
        "_headers",
        "_raw",
        "_stream",
        "name",
        "status",
    )

    def __init__(
        self,
        head: ResponseHead,
        raw: bytes,
        incoming: Incoming | None,
        name: str,
        bytes_max: float = math.inf,
    ) -> None:
        self.status = head.status
        self.name = name
        """Of the instance that answered."""
        self._head = head
        self._raw: bytes | None = raw
        self._content: bytes | None = None
        self._headers: Headers | None = None
        self._bytes_max = bytes_max
        self._stream = None if incoming is None else Stream(incoming)

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers(self.raw_headers)
        return self._headers

    @property
    def raw_headers(self) -> tuple[Header, ...]:
        """Names in lower case. Framing is said as it was, though nobody needs it any more."""
        head = self._head
        if head.chunked:
            return (*head.headers, (b"transfer-encoding", b"chunked"))
        if head.length >= 0 and head.status not in _NO_LENGTH:
            return (*head.headers, (b"content-length", b"%d" % head.length))
        return head.headers

    @property
    def reason(self) -> str:
        if self._head.reason:
            return self._head.reason.decode("latin-1")
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return ""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_error(self) -> bool:
        return self.status >= 400

    def raise_for_status(self) -> Response:
        """Raise StatusError for 4xx and 5xx, else return the response itself."""
        if self.status >= 400:
            raise StatusError(self)
        return self

    @property
    def raw_content(self) -> bytes | None:
        """The body still encoded, if it has come whole; None while it is a stream."""
        return self._raw if self._stream is None else None

    # -- the body ------------------------------------------------------------------------------

    @property
    def content(self) -> bytes:
        """The body, decoded. A stream must have been `read` before."""
        content = self._content
        if content is None:
            if self._stream is not None or self._raw is None:
                raise RuntimeError("the body is a stream: await read() first")
            content = self._content = self._decode_whole(self._raw)
        return content

    @property
    def text(self) -> str:
        return self.content.decode(self._charset(), "replace")

    def json(self) -> Any:
        return json.loads(self.content)

    async def read(self, bytes_max: float | None = None) -> bytes:
        """The whole body, decoded; raise BodyTooLarge beyond `bytes_max`."""
        if bytes_max is not None:
            self._bytes_max = bytes_max
        if self._content is None and (self._stream is not None or self._raw is None):
            bytes_max = self._bytes_max
            pieces: list[bytes] = []
            size = 0
            async for piece in self.aiter_bytes():
                size += len(piece)
                if size > bytes_max:
                    self.abort()
                    raise BodyTooLarge(self.name, bytes_max)
                pieces.append(piece)
            self._content = b"".join(pieces)
        content = self.content
        if len(content) > self._bytes_max:
            raise BodyTooLarge(self.name, self._bytes_max)
        return content

    async def aiter_raw(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, still encoded."""
        stream = self._stream
        if stream is None:
            if self._raw is None:
                raise RuntimeError("the body has been read")
            if self._raw:
                yield self._raw
            return
        incoming = stream.incoming
        self._raw = None
        try:
            while piece := await incoming.next():
                yield piece
        finally:
            self._stream = None
            if not incoming.is_done:
                incoming.abort()

    async def aiter_bytes(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, decoded."""
        decoder = decoder_for(self._head.get(b"content-encoding"), self.name)
        raw = self.aiter_raw()
        try:
            async for piece in raw:
                if decoder is None:
                    yield piece
                else:
                    for part in decoder.feed(piece):
                        yield part
            if decoder is not None:
                decoder.end()
        finally:
            await raw.aclose()

    async def aclose(self) -> None:
        """End it. A connection that has not delivered the whole body is closed."""
        self.abort()

    def abort(self) -> None:
        stream = self._stream
        if stream is not None:
            self._stream = None
            self._raw = None
            stream.incoming.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()

    def _decode_whole(self, raw: bytes) -> bytes:
        decoder = decoder_for(self._head.get(b"content-encoding"), self.name)
        if decoder is None or not raw:
            return raw
        pieces: list[bytes] = []
        size = 0
        for piece in decoder.feed(raw):
            size += len(piece)
            if size > self._bytes_max:
                raise BodyTooLarge(self.name, self._bytes_max)
            pieces.append(piece)
        decoder.end()
        return b"".join(pieces)

    def _charset(self) -> str:
        kind = self._head.get(b"content-type")
        if kind is not None and b"charset=" in (lower := kind.lower()):
            name = (
                lower.partition(b"charset=")[2]
                .partition(b";")[0]
                .strip(b" \t\"'")
                .decode("latin-1")
            )
            try:
                "".encode(name)
            except (LookupError, ValueError):
                return "utf-8"
            return name
        return "utf-8"

    def __repr__(self) -> str:
        return f"<Response {self.status} from {self.name}>"
