"""Who may speak to the admin API, and how much at once.

Theory of operation
-------------------
Before any endpoint, in this order:

1. *Head.* Its size.
2. *Who.* Over the socket in the state directory the kernel says which user asks; the gateway's own
   and root are admins, others are refused (the directory is closed to them in any case). Elsewhere
   a token, `Authorization: Bearer ...`, or a client certificate that the file gives a role. Not in
   the query, where logs and histories keep it. Tokens are found by their hash: time tells nothing.
3. *How often.* Wrong tokens by address, then requests by token or address (see `limits`).
4. *Host.* A page that a browser shows may make its own name resolve to 127.0.0.1 and then read
   our answers (DNS rebinding). It cannot know the token, so this matters for what is open
   without one: there the Host must be an address, `localhost`, or the name we are bound to.
5. *From which page.* Changes that a browser sends for another origin are refused (see `csrf`).
6. *Whether the role will do* (see `roles`).
7. *Size and time.* The body is gathered here, up to a bound and a deadline. A client that does not
   take its answer is cut off.

Open without a token: health, because load balancers ask for it; the public keys by which services
verify who asks; joining and renewing an identity, which bring their own; and the description of the
API, which is the same for everybody.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import pwd
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, Final, Protocol

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.control.admin.csrf import (
    cors_headers,
    foreign_origin,
    is_preflight,
    preflight_headers,
)
from headgate.control.admin.limits import UNDER_WAY_MAX, Limits
from headgate.control.admin.problem import problem
from headgate.control.admin.roles import Role, is_of_services, may, needed, takes_reports
from headgate.control.admin.tokens import Caller

__all__ = ["Guard", "Knows"]

OPEN_PATHS = frozenset(
    {
        "/",
        "/api/health",
        "/api/health/live",
        "/api/health/ready",
        "/api/health/startup",
        "/api/identity/keys",
        "/api/mesh/identity/bundle",
        "/api/mesh/identity/join",
        "/api/mesh/identity/renew",
        "/docs",
        "/docs/services",
        "/openapi.json",
    }
)
_PROVED: Final = frozenset({"/api/mesh/identity/join", "/api/mesh/identity/renew"})
"""Open to whoever has what the body must show, which no page in a browser has."""
MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_LARGE_BODY_BYTES = 4 * 1024 * 1024
BODY_TIMEOUT_S = 10.0
LARGE_BODY_TIMEOUT_S = 30.0
SEND_TIMEOUT_S = 60.0
LONGEST_PATH = 4096

NOBODY: Final = Caller("nobody", Role.VIEWER, "nobody")
_LARGE: Final = frozenset({"/api/config", "/api/config/validate", "/api/config/diff"})


class Knows(Protocol):
    """Who tells callers apart: by what they show."""

    def by_token(self, token: str, wall: float) -> Caller | None: ...
    def by_certificate(self, facts: Any, wall: float) -> Caller | None: ...


class _OneToken:
    """An API with a single token."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def by_token(self, token: str, _wall: float) -> Caller | None:
        expected = self._token()
        given = token.encode("utf-8", "surrogatepass")
        if expected and hmac.compare_digest(given, expected.encode()):
            return Caller("admin-token", Role.ADMIN)
        return None

    def by_certificate(self, _facts: Any, _wall: float) -> Caller | None:
        return None


class Guard:
    def __init__(
        self,
        app: ASGIApp,
        *,
        own_host: str,
        is_local: bool,
        token: Callable[[], str] = lambda: "",
        knows: Knows | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._app = app
        self._knows: Knows = knows if knows is not None else _OneToken(token)
        self._limits = limits if limits is not None else Limits()
        self._own_host = own_host
        self._is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        scope.setdefault("state", {})
        method: str = scope["method"]
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        origins = self._limits.spec.origins
        send = _with_headers(send, cors_headers(named, origins), scope)
        refusal = self._refusal(scope, headers, named, origins)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        limits = self._limits
        if limits.under_way >= UNDER_WAY_MAX and not self._is_local:
            limits.count("busy")
            busy = problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{UNDER_WAY_MAX} requests are under way already",
                headers={"retry-after": "1"},
            )
            await busy(scope, receive, send)
            return
        limits.under_way += 1
        is_counted = True

        def is_live() -> None:
            """A live view: it has a bound of its own."""
            nonlocal is_counted
            if is_counted:
                is_counted = False
                limits.under_way -= 1

        scope["state"]["is_live"] = is_live
        try:
            await self._pass(scope, receive, send, method)
        finally:
            is_live()

    async def _pass(self, scope: Scope, receive: Receive, send: Send, method: str) -> None:
        path: str = scope["path"]
        is_large = path in _LARGE or takes_reports(method, path)
        most = MAX_LARGE_BODY_BYTES if is_large else MAX_BODY_BYTES
        try:
            async with asyncio.timeout(LARGE_BODY_TIMEOUT_S if is_large else BODY_TIMEOUT_S):
                body = await _gather(receive, most)
        except TimeoutError:
            late = problem(
                HTTPStatus.REQUEST_TIMEOUT,
                "the body took too long",
                headers={"connection": "close"},
            )
            await late(scope, receive, send)
            return
        if body is None:
            refusal = problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"bodies of the admin API have at most {most} bytes here",
                headers={"connection": "close"},
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    # -- who -----------------------------------------------------------------------------------

    def _refusal(
        self,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        named: dict[str, str],
        origins: Collection[str],
    ) -> ASGIApp | None:
        """Why this request goes no further, as an answer; None if it may."""
        if sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES or (
            len(scope["path"]) + len(scope.get("query_string", b"")) > 2 * LONGEST_PATH
        ):
            # The server's own bound counts only what it has not parsed yet.
            return problem(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"heads of the admin API have at most {MAX_HEAD_BYTES} bytes, "
                f"and targets {2 * LONGEST_PATH}",
                headers={"connection": "close"},
            )
        method, path = scope["method"], scope["path"]
        if not path.isprintable():
            # The router's patterns end in `$`, which lets an end of line pass: such a path would
            # be one endpoint to the router and none to the table of roles.
            return problem(HTTPStatus.BAD_REQUEST, "paths have no control characters")
        if is_preflight(method, named):
            return _preflight(named, origins)
        caller = self._user(scope) if self._is_local else self._shown(scope, headers)
        if not isinstance(caller, Caller):
            return caller
        scope["state"]["caller"] = caller
        if (busy := self._wait(scope, caller)) is not None:
            return busy
        if caller is NOBODY and path not in _PROVED and not self._is_host_safe(headers):
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the Host is neither an address nor the name this listener is bound to; "
                "use the address, or send the token",
            )
        if foreign := foreign_origin(method, scope.get("scheme", "http"), named, origins):
            self._limits.count("origin")
            return problem(
                HTTPStatus.FORBIDDEN,
                f"this change comes from a page of another origin ({foreign}); "
                "admin.origins names those that may",
            )
        if not may(caller.role, method, path) and path not in OPEN_PATHS:
            wanted = needed(method, path)
            self._limits.count("role")
            return problem(
                HTTPStatus.FORBIDDEN,
                f"{caller.name} is {caller.role.value}, and this needs {wanted.value}",
                role=caller.role.value,
                needs=wanted.value,
            )
        return None

    def _user(self, scope: Scope) -> Caller | ASGIApp:
        """Over the socket in the state directory."""
        peer = scope["state"].get("peer")
        if peer is None:
            return Caller("local", Role.ADMIN, "user")
        uid = peer[1]
        if uid not in {0, os.geteuid()}:
            return problem(
                HTTPStatus.FORBIDDEN,
                f"user {uid} is neither root nor the user that the gateway runs as; "
                "use a token over the admin listener",
            )
        return Caller(_user_name(uid), Role.ADMIN, "user")

    def _shown(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> Caller | ASGIApp:
        """By token or certificate; nobody where that is enough."""
        now = time.monotonic()
        wall = time.time()  # noqa: TID251 - tokens and certificates end in wall time
        address = _address(scope)
        given = [value for name, value in headers if name == b"authorization"]
        facts = scope["state"].get("certificate")
        if facts is not None and not given:
            found = self._knows.by_certificate(facts, wall)
            if found is not None:
                return found
        if given:
            wait_s = self._limits.wait_after_failures_s(address, now)
            if wait_s:
                return _too_many("too many wrong tokens from this address", wait_s)
            if len(given) == 1:
                scheme, _space, token = given[0].decode("latin-1").partition(" ")
                if scheme.lower() == "bearer":
                    found = self._knows.by_token(token.strip(), wall)
                    if found is not None:
                        return found
            self._limits.failed(address, now)
        if scope["path"] in OPEN_PATHS:
            return NOBODY
        if wait_s := self._limits.wait_s(address, now):
            return _too_many("too many requests from this address", wait_s)
        return problem(
            HTTPStatus.UNAUTHORIZED,
            "send the token in Authorization: Bearer; it is in the file admin-token in "
            "the state directory, or what admin.token says",
            headers={"www-authenticate": 'Bearer realm="headgate admin"'},
        )

    def _wait(self, scope: Scope, caller: Caller) -> ASGIApp | None:
        if self._is_local:
            return None
        key = _address(scope) if caller is NOBODY else caller.name
        if caller.role is Role.SERVICE and is_of_services(scope["method"], scope["path"]):
            # One token serves all instances of a fleet, and each beats for itself.
            key = f"{key} {scope['path']}"
        wait_s = self._limits.wait_s(key, time.monotonic())
        if not wait_s:
            return None
        what = "from this address" if caller is NOBODY else f"of {caller.name}"
        return _too_many(f"too many requests {what}", wait_s)

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


async def _gather(receive: Receive, most: int) -> bytes | None:
    """The whole body, or None when it is larger than we take."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)  # the client has gone
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send, more: dict[str, str], scope: Scope) -> Send:
    """What every answer says to browsers and caches; a client that takes none is cut off."""
    extra = [
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in more.items()),
    ]
    if "access-control-allow-origin" in more:
        extra.remove((b"cross-origin-resource-policy", b"same-origin"))

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _value in message["headers"]}
            added = [pair for pair in extra if pair[0] not in names or pair[0] == b"vary"]
            if b"cache-control" not in names:
                added.append((b"cache-control", b"no-store"))
            if b"content-security-policy" not in names:
                added.append((b"content-security-policy", b"default-src 'none'"))
            message = {**message, "headers": [*message["headers"], *added]}
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)
        except TimeoutError:
            abort = scope["state"].get("abort")
            if abort is not None:
                abort()
            raise

    return with_headers


def _preflight(named: dict[str, str], origins: Collection[str]) -> ASGIApp:
    fields = preflight_headers(named, origins)
    if not fields:
        return problem(
            HTTPStatus.FORBIDDEN,
            "pages of other origins may not use this API; admin.origins names those that may",
        )
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=fields)


def _too_many(what: str, wait_s: int) -> ASGIApp:
    return problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{what}; try again in {wait_s} s",
        headers={"retry-after": str(wait_s)},
    )


def _address(scope: Scope) -> str:
    client = scope.get("client")
    if not client:
        return "unix"
    try:
        found = ipaddress.ip_address(client[0])
    except ValueError:
        return str(client[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        # Whoever has one address of a network of 64 bits has them all.
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def _user_name(uid: int) -> str:
    try:
        return f"uid:{uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid:{uid}"
