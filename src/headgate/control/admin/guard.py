"""Who may speak to the admin API, and how much at once.

Theory of operation
-------------------
Before any endpoint, in this order:

1. *Token.* `Authorization: Bearer ...`, compared in constant time. Not in the query, where logs
   and histories keep it. The socket in the state directory asks for none: the directory is
   closed to other users, who could otherwise read the token file just as well.
2. *Host.* A page that a browser shows may make its own name resolve to 127.0.0.1 and then read
   our answers (DNS rebinding). It cannot know the token, so this matters for what is open
   without one: there the Host must be an address, `localhost`, or the name we are bound to.
3. *Size and time.* The body is gathered here, up to a bound and a deadline; the head has a bound
   too, before everything else.

Open without a token: health, because load balancers ask for it; the public key by which services
verify who asks; and the description of the API, which is the same for everybody.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Callable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.control.admin.problem import problem

__all__ = ["Guard"]

OPEN_PATHS = frozenset({"/", "/api/health", "/api/identity/keys", "/docs", "/openapi.json"})
MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0


class Guard:
    def __init__(
        self, app: ASGIApp, *, token: Callable[[], str], own_host: str, is_local: bool
    ) -> None:
        self._app = app
        self._token = token
        self._own_host = own_host
        self._is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
            # The server's own bound counts only what it has not parsed yet.
            refusal = problem(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"heads of the admin API have at most {MAX_HEAD_BYTES} bytes",
                headers={"connection": "close"},
            )
            await refusal(scope, receive, send)
            return
        if not self._is_local and not self._has_token(headers):
            if scope["path"] not in OPEN_PATHS:
                refusal = problem(
                    HTTPStatus.UNAUTHORIZED,
                    "send the token in Authorization: Bearer; it is in the file admin-token in "
                    "the state directory, or what admin.token says",
                    headers={"www-authenticate": 'Bearer realm="headgate admin"'},
                )
                await refusal(scope, receive, send)
                return
            if not self._is_host_safe(headers):
                refusal = problem(
                    HTTPStatus.MISDIRECTED_REQUEST,
                    "the Host is neither an address nor the name this listener is bound to; "
                    "use the address, or send the token",
                )
                await refusal(scope, receive, send)
                return
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _gather(receive)
        except TimeoutError:
            await problem(HTTPStatus.REQUEST_TIMEOUT, "the body took too long")(
                scope, receive, send
            )
            return
        if body is None:
            refusal = problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"bodies of the admin API have at most {MAX_BODY_BYTES} bytes",
                headers={"connection": "close"},
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), _with_headers(send))

    def _has_token(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b"authorization"]
        expected = self._token()
        if len(given) != 1 or not expected:
            return False
        scheme, _space, token = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), expected.encode())

    def _is_host_safe(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b"host"]
        if len(given) != 1:
            return False
        host = _without_port(given[0].decode("latin-1").lower())
        if host in {"localhost", self._own_host.lower()}:
            return True
        try:
            ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _gather(receive: Receive) -> bytes | None:
    """The whole body, or None when it is larger than we take."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body  # the client has gone
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send) -> Send:
    """What every answer says to browsers and caches."""

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _value in message["headers"]}
            extra = [(b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY")]
            if b"cache-control" not in names:
                extra.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return with_headers
