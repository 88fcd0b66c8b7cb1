"""The answer that a kept response gives to one request: 200, 304, 206 or 416.

Theory of operation. A condition is looked at first, then a range (RFC 9110 13.2.2), and only on a
kept 200: anything else is given as it is. `If-None-Match` decides alone where it is there. A kept
response without `Last-Modified` is taken to have changed when it was made (RFC 9111 4.3.2).
`If-Range` needs a strong validator; without a match the whole is sent. The body is never touched
here: an answer says which bytes of it go out and what stands before each part.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from headgate.cache.http.etags import lists, strong_match
from headgate.cache.http.ranges import slices_of
from headgate.wire.http_dates import parse_date
from headgate.wire.message import find

if TYPE_CHECKING:
    from headgate.cache.http.asked import Asked
    from headgate.cache.http.stored import Stored
    from headgate.wire.message import Header

__all__ = ["Answer", "Part", "answer", "is_unchanged"]

_REPRESENTATION: Final = frozenset(
    {
        b"content-digest",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"digest",
        b"repr-digest",
    }
)
"""Not in a 304 (RFC 9110 15.4.5), nor in a 416, which is about no content."""

_OF_416: Final = _REPRESENTATION | {
    b"cache-control",
    b"cdn-cache-control",
    b"content-location",
    b"etag",
    b"expires",
    b"last-modified",
    b"surrogate-control",
}
"""An error about a range must not be kept downstream as if it were the resource."""


class Part:
    __slots__ = ("before", "end", "start")

    def __init__(self, before: bytes, start: int, end: int) -> None:
        self.before = before
        """Frame of a part of several; else empty."""
        self.start = start
        self.end = end
        """Of the body, excluded."""


class Answer:
    __slots__ = ("after", "headers", "is_whole", "length", "parts", "reason", "status")

    def __init__(
        self,
        status: int,
        reason: bytes,
        headers: tuple[Header, ...],
        length: int,
        parts: tuple[Part, ...] = (),
        *,
        after: bytes = b"",
        is_whole: bool = False,
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        """Without `Age`, `Cache-Status` and framing."""
        self.length = length
        """Bytes of content; to HEAD what GET would have."""
        self.parts = parts
        """What to send, in order; empty to HEAD, for 304 and 416."""
        self.after = after
        """What closes several parts."""
        self.is_whole = is_whole
        """The kept response as it is: `headers` is its own tuple, the content all of the body."""

    @property
    def slices(self) -> tuple[tuple[int, int], ...]:
        return tuple((part.start, part.end) for part in self.parts)

    def content(self, body: bytes) -> bytes:
        """All of it in one, where that is wanted."""
        sent = [
            piece for part in self.parts for piece in (part.before, body[part.start : part.end])
        ]
        return b"".join((*sent, self.after))


def answer(stored: Stored, asked: Asked, body_length: int) -> Answer:
    if stored.status == 200 and (asked.is_conditional or asked.range is not None):
        if asked.is_conditional and is_unchanged(stored, asked):
            headers = tuple(pair for pair in stored.headers if pair[0] not in _REPRESENTATION)
            return Answer(304, b"Not Modified", headers, 0)
        if asked.range is not None and _is_range_meant(stored, asked):
            partial = _partial(stored, asked, body_length)
            if partial is not None:
                return partial
    parts = () if asked.is_head or not body_length else (Part(b"", 0, body_length),)
    return Answer(stored.status, stored.reason, stored.headers, body_length, parts, is_whole=True)


def is_unchanged(stored: Stored, asked: Asked) -> bool:
    """The client's own copy is what is kept (RFC 9111 4.3.2)."""
    if asked.if_none_match is not None:
        return lists(asked.if_none_match, stored.etag)
    if asked.if_modified_since is None:
        return False
    since = parse_date(asked.if_modified_since, stored.received_at)
    if since is None:
        return False
    changed = stored.last_modified
    if changed is None:
        if find(stored.headers, b"last-modified") is not None:
            return False
        changed = _date(stored)
    return changed <= since


def _date(stored: Stored) -> float:
    value = find(stored.headers, b"date")
    date = None if value is None else parse_date(value, stored.received_at)
    return stored.received_at if date is None else date


def _is_range_meant(stored: Stored, asked: Asked) -> bool:
    accepts = find(stored.headers, b"accept-ranges")
    if accepts is not None and accepts.strip().lower() == b"none":
        return False
    condition = asked.if_range
    if condition is None:
        return True
    condition = condition.strip(b" \t")
    if condition[:1] == b'"' or condition[:2] == b"W/":
        return strong_match(condition, stored.etag)
    changed = stored.last_modified
    date = parse_date(condition, stored.received_at)
    # RFC 9110 8.8.2.2: a date is strong if the response was made at least a second later.
    return date is not None and date == changed and _date(stored) - date >= 1.0


def _partial(stored: Stored, asked: Asked, body_length: int) -> Answer | None:
    slices = slices_of(asked.range or (), body_length)
    if slices is None:
        return None
    if not slices:
        headers = tuple(pair for pair in stored.headers if pair[0] not in _OF_416)
        unsatisfied = (b"content-range", b"bytes */%d" % body_length)
        return Answer(416, b"Range Not Satisfiable", (*headers, unsatisfied), 0)
    if len(slices) == 1:
        start, end = slices[0]
        headers = tuple(pair for pair in stored.headers if pair[0] != b"content-range")
        which = (b"content-range", b"bytes %d-%d/%d" % (start, end - 1, body_length))
        part = Part(b"", start, end)
        return Answer(206, b"Partial Content", (*headers, which), end - start, (part,))
    kind = find(stored.headers, b"content-type")
    typed = b"" if kind is None else b"Content-Type: " + kind + b"\r\n"
    boundary = _boundary(stored, slices)
    parts: list[Part] = []
    length = 0
    for start, end in slices:
        before = b"%s--%s\r\n%sContent-Range: bytes %d-%d/%d\r\n\r\n" % (
            b"\r\n" if parts else b"",
            boundary,
            typed,
            start,
            end - 1,
            body_length,
        )
        parts.append(Part(before, start, end))
        length += len(before) + end - start
    after = b"\r\n--%s--\r\n" % boundary
    headers = tuple(
        pair for pair in stored.headers if pair[0] not in (b"content-type", b"content-range")
    )
    several = (b"content-type", b"multipart/byteranges; boundary=" + boundary)
    return Answer(
        206, b"Partial Content", (*headers, several), length + len(after), tuple(parts), after=after
    )


def _boundary(stored: Stored, slices: tuple[tuple[int, int], ...]) -> bytes:
    """Nobody who writes a body can know the microsecond at which it will come here."""
    said = f"{stored.received_at!r} {slices!r} {stored.etag!r}".encode()
    return blake2b(said, digest_size=15).hexdigest().encode()
