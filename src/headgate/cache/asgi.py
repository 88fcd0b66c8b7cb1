"""Middleware for services: ETags, conditional requests, and headers that caches understand.

    app = CacheHeaders(app, rules=[CacheRule("public, max-age=60", path="/catalogue/*")])

Theory of operation. The head of a response is held back until its body is known, if that is to be
expected soon: it comes in one piece, or its `Content-Length` is within `etag_max`. Then an ETag is
made of it, and the request's conditions are judged. Any other body passes piece by piece as it
comes: a stream of no stated length, a long file, an event stream, what is sent by path. What the
application raises passes too; a head that was held back is then not sent, so that whoever stands
outside can answer with an error. Nothing is held after the application has returned.

Only GET and HEAD are touched. Where the response has an ETag or a Last-Modified of its own, the
conditions are judged as soon as its head comes, and the body of what becomes a 304 is dropped.
`If-Match`, `If-Unmodified-Since`, `If-Range` and `Range` are left to the application.

It must stand outside of what compresses: an ETag is made of the bytes that are sent.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from headgate.cache.asgi_rules import (
    PERSONAL,
    CacheRule,
    Headers,
    etag_of,
    field,
    is_unmodified,
    merged_vary,
    not_modified,
    spoken,
)
from headgate.cache.asgi_tags import Said, said_now, tag_response, vary_response
from headgate.units import parse_size

__all__ = ["CacheHeaders", "CacheRule", "tag_response", "vary_response"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_HEADER_MAX: Final = 8192
"""Bytes of tags in one response: a server or proxy takes no more in all of its head, often."""
STALE: Final = "no-cache"
_SEPARATORS: Final = {"surrogate-key": " "}


class CacheHeaders:
    def __init__(
        self,
        app: App,
        *,
        rules: Iterable[CacheRule] = (),
        default: str | None = "no-cache",
        etag: Literal["strong", "weak", "off"] = "strong",
        etag_max: int | str = "256KB",
        immutable: bool = True,
        vary: Iterable[str] = (),
        tag_headers: Sequence[str] = ("Cache-Tag",),
        wall: Callable[[], float] = time.time,  # noqa: TID251  # HTTP dates are of the wall clock
    ) -> None:
        """`default`: the `Cache-Control` of what no rule fits (`asgi_rules` says what is kept out
        of it); None leaves such responses as they are. `etag`: "weak" where something outside
        changes the bytes but not their meaning. `etag_max`: bodies up to this get one. `immutable`:
        for names that carry a hash of the content. `vary`: named in every response. `tag_headers`:
        "Cache-Tag", "Surrogate-Key", both or neither.
        """
        if etag not in ("strong", "weak", "off"):
            raise ValueError(f'etag is {etag!r}; write "strong", "weak" or "off"')
        if isinstance(tag_headers, str) or isinstance(vary, str):
            raise ValueError("tag_headers and vary are lists of names")
        self.app = app
        self.rules = tuple(rules)
        for rule in self.rules:
            if not isinstance(rule, CacheRule):
                raise ValueError(f"rules: {rule!r} is not a CacheRule")
        self.default = None if default is None else CacheRule(default).cache_control
        self.etag = etag
        self.etag_max = parse_size(etag_max)
        self.immutable = immutable
        self.vary = tuple(vary)
        self.tag_headers = tuple(
            (name.lower().encode(), _SEPARATORS.get(name.lower(), ",")) for name in tag_headers
        )
        self.wall = wall

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, send)
        token = said_now.set(exchange.said)
        try:
            await self.app(scope, receive, exchange.send)
        finally:
            said_now.reset(token)
            exchange.said.is_sent = True
        await exchange.release()


class _Exchange:
    """One response on its way."""

    __slots__ = (
        "_length",
        "_of",
        "_out",
        "_parts",
        "_scope",
        "_size",
        "_start",
        "_state",
        "said",
    )

    def __init__(self, of: CacheHeaders, scope: MutableMapping[str, Any], send: Send) -> None:
        self.said = Said()
        self._of = of
        self._scope = scope
        self._out = send
        self._start: Message | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._length = -1
        self._state: Literal["before", "holding", "passing", "dropping"] = "before"

    async def send(self, message: Message) -> None:
        state = self._state
        if state == "passing":
            await self._out(message)
            return
        kind = message["type"]
        if state == "dropping":
            return  # the body of what became a 304
        if kind == "http.response.start" and state == "before":
            await self._begin(message)
        elif kind == "http.response.body" and state == "holding":
            await self._hold(message)
        else:
            # What is sent before the head (early hints) passes; what is no body (a path, trailers)
            # needs the head before it.
            await self.release()
            await self._out(message)

    async def _begin(self, message: Message) -> None:
        # Copied: the application may send the same list again, as an exception handler's default.
        headers: Headers = [
            (bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())
        ]
        message = {**message, "headers": headers}
        self._start = message
        self._state = "holding"
        is_final = message["status"] == 200 and not message.get("trailers")
        has_etag = field(headers, b"etag") is not None
        if is_final and self._is_unmodified(headers):
            await self._answer_unmodified(headers)
            return
        if not is_final or has_etag or self._of.etag == "off" or _is_not_kept(headers):
            await self.release()
            return
        length = field(headers, b"content-length")
        self._length = int(length) if length is not None and length.isdigit() else -1
        if self._length > self._of.etag_max:
            await self.release()

    async def _hold(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        self._parts.append(bytes(body))
        self._size += len(body)
        if more and (self._length < 0 or self._size > self._length):
            await self._let_go(more=True)
            return
        if more:
            return
        start = self._start
        if start is None:
            return
        headers: Headers = start["headers"]
        # The answer to HEAD is without its body: then there is nothing to make an ETag of.
        is_whole = self._length in (-1, self._size)
        if self._scope["method"] == "HEAD" and not (self._size or self._length == 0):
            is_whole = False
        if is_whole and self._size <= self._of.etag_max:
            tag = etag_of(self._parts, headers, is_weak=self._of.etag == "weak")
            headers.append((b"etag", tag))
            if self._is_unmodified(headers):
                await self._answer_unmodified(headers)
                return
        await self._let_go(more=False)

    def _is_unmodified(self, headers: Headers) -> bool:
        asked = self._scope["headers"]
        none_match = field(asked, b"if-none-match")
        since = None if none_match is not None else field(asked, b"if-modified-since")
        if none_match is None and since is None:
            return False
        return is_unmodified(none_match, since, headers, self._of.wall())

    async def _answer_unmodified(self, headers: Headers) -> None:
        self._speak()
        start, self._start = self._start, None
        self._parts.clear()
        self._state = "dropping"
        if start is not None:
            await self._out({**start, "status": 304, "headers": not_modified(headers)})
            await self._out({"type": "http.response.body", "body": b"", "more_body": False})

    async def _let_go(self, *, more: bool) -> None:
        parts, self._parts = self._parts, []
        await self.release()
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        await self._out({"type": "http.response.body", "body": body, "more_body": more})

    async def release(self) -> None:
        """Send the head if it is held, with what caches are to know; all else passes from then."""
        start = self._start
        if start is None:
            return
        self._speak()
        self._start = None
        self._state = "passing"
        parts, self._parts = self._parts, []
        await self._out(start)
        if parts:
            # The application ended without the end of its body; that is for the server to judge.
            await self._out(
                {"type": "http.response.body", "body": b"".join(parts), "more_body": True}
            )

    def _speak(self) -> None:
        """Put what caches are to know into the head, once."""
        start, said, of = self._start, self.said, self._of
        if start is None or said.is_sent:
            return
        said.is_sent = True
        headers: Headers = start["headers"]
        present = None
        content_type = b""
        has_control = sets_cookie = False
        for name, value in headers:
            if name == b"vary":
                present = value if present is None else present + b", " + value
            elif name in (b"cache-control", b"expires"):
                has_control = True
            elif name == b"set-cookie":
                sets_cookie = True
            elif name == b"content-type":
                content_type = value
        if of.vary or said.vary:
            vary = merged_vary(present, (*of.vary, *said.vary))
            if vary is not None and vary != present:
                headers[:] = [each for each in headers if each[0] != b"vary"]
                headers.append((b"vary", vary))
        if said.tags or said.is_over:
            has_control = self._tag(headers) or has_control
        if said.is_stale:
            has_control = _not_for_new(headers) or has_control
        if has_control:
            return
        asked = self._scope["headers"]
        control = spoken(
            of.rules,
            self._scope["path"].encode("utf-8", "surrogateescape"),
            start["status"],
            content_type,
            default=of.default,
            immutable=of.immutable,
            is_personal=sets_cookie or field(asked, b"authorization") is not None,
            has_cookie=field(asked, b"cookie") is not None,
        )
        if control is not None:
            headers.append((b"cache-control", control.encode()))

    def _tag(self, headers: Headers) -> bool:
        """Name its tags; whether its Cache-Control was set, as they cannot all be named."""
        said = self.said
        is_over = said.is_over or sum(map(len, said.tags)) + len(said.tags) > _HEADER_MAX
        if is_over:
            headers[:] = [each for each in headers if each[0] not in (b"cache-control", b"expires")]
            headers.append((b"cache-control", PERSONAL.encode()))
            return True
        for name, separator in self._of.tag_headers:
            known = field(headers, name)
            text = separator.join(said.tags).encode()
            if known is not None:
                headers[:] = [each for each in headers if each[0] != name]
                text = known.replace(b", ", separator.encode()) + separator.encode() + text
            headers.append((name, text))
        return False


def _not_for_new(headers: Headers) -> bool:
    """What was made of something stale is to be asked for anew each time: a cache in front would
    keep the old value for its whole time, with the invalidation behind it. Whether it says so.
    """
    control = (field(headers, b"cache-control") or b"").lower()
    if b"no-store" in control or b"private" in control:
        return True
    telling = (b"cache-control", b"expires", b"cdn-cache-control", b"surrogate-control")
    headers[:] = [each for each in headers if each[0] not in telling]
    headers.append((b"cache-control", STALE.encode()))
    return True


def _is_not_kept(headers: Headers) -> bool:
    """No ETag is made: nobody keeps it, or it has no end to wait for."""
    kind = field(headers, b"content-type") or b""
    if kind.lower().startswith(b"text/event-stream"):
        return True
    return b"no-store" in (field(headers, b"cache-control") or b"").lower()
