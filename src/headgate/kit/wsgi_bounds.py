"""What a request of a WSGI app may take; the rules are those of `headgate.kit.bounds`.

A body is bounded where it is read: its announced length is judged at once; one without a length
reaches the app as a stream that raises when it is too long.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from headgate.kit.bounds import BODILESS, BUSY, BodyTooLarge, RateGuard, too_large
from headgate.kit.problems import MEDIA_TYPE, Described
from headgate.kit.serving import request_id_of
from headgate.kit.settings import Settings
from headgate.observe.wsgi_body import Body, Environ, StartResponse, WsgiApp

__all__ = ["BoundedInput", "WsgiBounds", "respond"]


class WsgiBounds:
    """At once, how often, how long a body."""

    def __init__(self, app: WsgiApp, settings: Settings) -> None:
        self._app = app
        self._body_limit = settings.body_limit
        self._at_once = settings.at_once
        self._guard = RateGuard(settings.rates) if settings.rates else None
        self._key = settings.rate_key
        self._lock = threading.Lock()
        self.under_way = 0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with self._lock:
            is_full = self._at_once is not None and self.under_way >= self._at_once
            if not is_full:
                self.under_way += 1
        if is_full:
            return respond(BUSY, environ, start_response)
        try:
            refusal = self._refusal(environ)
            if refusal is not None:
                return Body(respond(refusal, environ, start_response), self._end)
            return Body(self._pass(environ, start_response), self._end)
        except BaseException:
            self._end()
            raise

    def _end(self, _sent: int = 0, _error: BaseException | None = None) -> None:
        with self._lock:
            self.under_way -= 1

    def _refusal(self, environ: Environ) -> Described | None:
        if self._guard is not None:
            key = str(environ.get("REMOTE_ADDR", "")) if self._key is None else self._key(environ)
            refusal = self._guard.refusal(key)
            if refusal is not None:
                return refusal
        announced = str(environ.get("CONTENT_LENGTH") or "")
        if (
            self._body_limit is not None
            and environ.get("REQUEST_METHOD") not in BODILESS
            and announced.isascii()
            and announced.isdigit()
            and int(announced[:20]) > self._body_limit
        ):
            return too_large(self._body_limit)
        return None

    def _pass(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        limit_bytes = self._body_limit
        if limit_bytes is None or "wsgi.input" not in environ:
            return self._app(environ, start_response)
        bounded = BoundedInput(environ["wsgi.input"], limit_bytes)
        environ["wsgi.input"] = bounded

        def started(status: str, fields: list[tuple[str, str]], *more: Any) -> Any:
            # Whatever the app has made of it.
            if bounded.is_over:
                return _nowhere
            return start_response(status, fields, *more)

        try:
            body = self._app(environ, started)
        except BodyTooLarge:
            return respond(too_large(limit_bytes), environ, start_response)
        if bounded.is_over:
            close = getattr(body, "close", None)
            if close is not None:
                close()
            return respond(too_large(limit_bytes), environ, start_response)
        return body


def _nowhere(_piece: bytes) -> None:
    """Where the body goes that an app writes after it has read too much."""


class BoundedInput:
    """`wsgi.input`, up to a number of bytes; then `BodyTooLarge`."""

    def __init__(self, stream: Any, limit_bytes: int) -> None:
        self._stream = stream
        self._left = limit_bytes
        self.is_over = False

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            # One more than there may be, so that it shows.
            return self._took(self._stream.read(self._left + 1))
        return self._took(self._stream.read(min(size, self._left + 1)))

    def readline(self, size: int | None = -1) -> bytes:
        most = self._left + 1
        if size is not None and 0 <= size < most:
            most = size
        return self._took(self._stream.readline(most))

    def readlines(self, hint: int = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def _took(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0 or self.is_over:
            self.is_over = True
            raise BodyTooLarge("the body is too long")
        return piece


def respond(
    described: Described,
    environ: Environ,
    start_response: StartResponse,
    exc_info: Any = None,
) -> list[bytes]:
    """Answer with a problem."""
    body = described.body(request_id_of(environ))
    try:
        phrase = HTTPStatus(described.status).phrase
    except ValueError:
        phrase = "Error"
    headers = [
        ("content-type", MEDIA_TYPE),
        ("content-length", str(len(body))),
        *described.headers,
    ]
    more = () if exc_info is None else (sys.exc_info() if any(sys.exc_info()) else exc_info,)
    start_response(f"{described.status} {phrase}", headers, *more)
    return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]
