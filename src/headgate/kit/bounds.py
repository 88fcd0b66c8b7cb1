"""What a request may take: how many at once, how often, how long a body. And errors that say what
they mean, answered for apps that have no handlers of errors.

Theory of operation
-------------------
It stands inside of tracing and metrics, so that what is refused is counted, and outside of the
deadline, so that a refusal costs as little as it can. In this order:

1. one more than `at_once` under way: 503 and come back in a second
2. over the rate of its client: 429 with `RateLimit` and `Retry-After`
3. a length that is too long already as it is announced: 413, before the app is called

A body without a length (chunked, or HTTP/2) is counted while the app reads it. When it is over the
limit the app gets `BodyTooLarge`, and whatever it makes of that, the client gets 413: what the app
then begins to send is not passed on. If the response had begun before, it is broken off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from headgate.errors import HeadgateError
from headgate.kit.problems import MEDIA_TYPE, Described, describe
from headgate.kit.serving import request_id_of
from headgate.policy.limiter.headers import LimitHeaders
from headgate.resilience import limit
from headgate.resilience.settings import RateText
from headgate.units import format_size

__all__ = ["BODILESS", "BUSY", "BodyTooLarge", "Bounds", "RateGuard", "answer", "too_large"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

BUSY: Final = Described(
    503,
    "too many requests are under way",
    members={"code": "busy"},
    headers=(("retry-after", "1"),),
)
BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_LONGEST_NUMBER: Final = 20


class BodyTooLarge(HeadgateError):
    """The app read more of a body than it may be long."""


def too_large(limit_bytes: int) -> Described:
    return Described(
        413,
        f"the body is longer than {format_size(limit_bytes)}",
        members={"code": "body_too_large", "limit_bytes": limit_bytes},
    )


class RateGuard:
    """So many requests of one client in so much time."""

    def __init__(self, rates: tuple[RateText, ...]) -> None:
        self._limit = limit(*rates, name="requests")
        self._told = LimitHeaders("requests", self._limit.rules[0])

    def refusal(self, key: str) -> Described | None:
        verdict = self._limit.try_hit(key)
        if verdict.allowed:
            return None
        return Described(
            429,
            "too many requests",
            members={"code": "rate_limited"},
            headers=tuple(self._told.fields(verdict)),
        )


class Bounds:
    def __init__(
        self,
        app: App,
        *,
        body_limit: int | None = None,
        at_once: int | None = None,
        rates: tuple[RateText, ...] = (),
        rate_key: Callable[[Scope], str] | None = None,
        tells_errors: bool = True,
    ) -> None:
        self._app = app
        self._body_limit = body_limit
        self._at_once = at_once
        self._guard = RateGuard(rates) if rates else None
        self._key = rate_key or _address
        self._tells_errors = tells_errors
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await answer(send, refusal, scope)
            return
        self.under_way += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self.under_way -= 1

    def _refusal(self, scope: Scope) -> Described | None:
        if self._at_once is not None and self.under_way >= self._at_once:
            return BUSY
        if self._guard is not None:
            refusal = self._guard.refusal(self._key(scope))
            if refusal is not None:
                return refusal
        if self._body_limit is not None and scope["method"] not in BODILESS:
            announced = _length(scope)
            if announced is not None and announced > self._body_limit:
                return too_large(self._body_limit)
        return None

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A length that was announced is kept to by the server; a GET most often has no body at all,
        # and is counted like the others if it says so by reading one.
        limit_bytes = self._body_limit
        if limit_bytes is None and not self._tells_errors:
            await self._app(scope, receive, send)
            return
        watch = _Watch(receive, send, limit_bytes)
        needs_count = limit_bytes is not None
        try:
            await self._app(scope, watch.receive if needs_count else receive, watch.send)
        except Exception as error:
            if watch.has_started:
                raise
            if watch.is_over and limit_bytes is not None:
                await answer(send, too_large(limit_bytes), scope)
                return
            described = describe(error) if self._tells_errors else None
            if described is None:
                raise
            await answer(send, described, scope)
            return
        if watch.is_over and limit_bytes is not None and not watch.has_started:
            await answer(send, too_large(limit_bytes), scope)


class _Watch:
    """One request: how much of its body was read, and whether its response has begun."""

    __slots__ = ("_limit", "_receive", "_send", "has_started", "is_over", "taken")

    def __init__(self, receive: Receive, send: Send, limit_bytes: int | None) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit_bytes
        self.taken = 0
        self.is_over = False
        self.has_started = False

    async def receive(self) -> Message:
        if self.is_over:
            raise BodyTooLarge("the body is too long")
        message = await self._receive()
        if message["type"] == "http.request" and self._limit is not None:
            self.taken += len(message.get("body", b""))
            if self.taken > self._limit:
                self.is_over = True
                raise BodyTooLarge("the body is too long")
        return message

    async def send(self, message: Message) -> None:
        if not self.has_started:
            if self.is_over:
                return
            if message["type"] == "http.response.start":
                self.has_started = True
        await self._send(message)


def _length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            if value.isdigit() and len(value) <= _LONGEST_NUMBER:
                return int(value)
            return None  # the server answers for what it has let through
    return None


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def answer(send: Send, described: Described, scope: Scope) -> None:
    """Answer with a problem."""
    body = described.body(request_id_of(scope))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in described.headers),
    ]
    await send({"type": "http.response.start", "status": described.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
