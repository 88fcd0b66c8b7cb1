"""The gateway's word on who asks, verified: the signed token that it sends with each request.

Theory of operation
-------------------
The gateway has found out who asks, has taken the client's credentials away, and says it in a token
that it signs for the service (`auth.identity.token` in its file). Whoever reaches the service
around the gateway has no such token, and one that was made for another service has another
audience. All judging is that of `headgate.security`: the same code that reads tokens of clients
verifies, remembers what it verified (bounded, never beyond a token's end), fetches keys and keeps
the last good ones while a file is gone or a URL is away.

Keys are looked after by tasks of the loop that serves. Where tests run one loop after another, each
has its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from headgate.kit.problems import Problem
from headgate.kit.settings import KitInvalid
from headgate.security.identity import Identity
from headgate.security.method import Finding, Header, Instead, Refused
from headgate.security.method_jwt import JwtMethod
from headgate.security.tokens.rules import ClaimNames, JwtRules, RemoteRules, TokenRules
from headgate.security.tokens.source import Clock, wall_clock

__all__ = ["WhoAsks"]

T = TypeVar("T")

_ALGORITHMS: Final = frozenset({"EdDSA", "Ed25519", "ES256", "RS256"})
"""What the gateway signs with: Ed25519 of its own making, EC P-256 or RSA from a file."""
_CLAIMS: Final = ClaimNames(
    consumer=("consumer",), roles=("roles",), scopes=("scopes",), groups=("groups",), tier="tier"
)
_MAX_CACHED: Final = 4096
_MAX_CACHED_BYTES: Final = 16 * 1024 * 1024
_URLS: Final = ("http://", "https://")


class WhoAsks:
    """Who asks, by the token of the gateway."""

    def __init__(
        self,
        keys: str,
        *,
        audience: str,
        issuer: str = "headgate",
        header: str = "x-headgate-identity",
        clock: Clock = wall_clock,
    ) -> None:
        """`keys` is a file (a key set or PEM) or a URL, such as the gateway's
        `/api/identity/keys`. A file that cannot be used is a KitInvalid.
        """
        is_remote = keys.startswith(_URLS)
        if "://" in keys and not is_remote:
            raise KitInvalid(f"identity_keys={keys!r} is no file and no http or https URL")
        self.header = header.lower()
        self._field = self.header.encode("ascii")
        self._clock = clock
        self._rules = JwtRules(
            name="gateway",
            token=TokenRules(
                algorithms=_ALGORITHMS,
                issuers=frozenset({issuer}),
                audiences=frozenset({audience}),
                types=frozenset({"jwt"}),
            ),
            claims=_CLAIMS,
            keys_file=None if is_remote else keys,
            remote=RemoteRules(url=keys) if is_remote else None,
            header=self.header,
            max_cached=_MAX_CACHED,
            max_cached_bytes=_MAX_CACHED_BYTES,
        )
        self._method = self._made()
        self._parts: _Parts | None = None

    async def find(self, headers: Sequence[Header]) -> Identity | None:
        """Who asks; None where no token is shown. Raises Problem for one that does not hold."""
        for name, value in headers:
            if name == self._field:
                shown = value
                break
        else:
            return None
        self.start()
        found = self._method.verify(_Head(headers), self._clock())
        if isinstance(found, Awaitable):
            found = await found
        return _identity(found, shown)

    def start(self) -> None:
        """Look after the keys, on the loop that runs. May be called again, at no cost."""
        loop = asyncio.get_running_loop()
        if self._parts is not None:
            if self._parts.loop is loop:
                return
            self._method = self._made()  # tasks of a loop that has ended watch nothing
        self._parts = _Parts(loop)
        self._method.start(self._parts)

    async def close(self) -> None:
        """Look after them no longer."""
        parts, self._parts = self._parts, None
        if parts is not None:
            self._method.close()
            self._method = self._made()
            await parts.close()

    def snapshot(self) -> dict[str, Any]:
        return self._method.snapshot(self._clock())

    def _made(self) -> JwtMethod:
        try:
            return JwtMethod(self._rules, clock=self._clock)
        except ValueError as error:
            raise KitInvalid(f"identity_keys={self._rules.keys_file!r}: {error}") from None


def _identity(found: Finding, shown: bytes) -> Identity | None:
    if found is None:
        if not shown.strip():
            return None
        raise _refused("invalid_token", "who asks is told by a token that is not this gateway's")
    if isinstance(found, Refused):
        raise _refused(found.error, found.reason, found.status, found.challenge)
    if isinstance(found, Instead):
        raise _refused("invalid_token", "the token cannot be taken here")
    identity = found.identity
    method = identity.claims.get("method")
    return replace(identity, method=method if isinstance(method, str) else "")


def _refused(code: str, reason: str, status: int = 401, challenge: str = "Bearer") -> Problem:
    headers = {"www-authenticate": challenge} if status == 401 else {}
    if status == 503:
        headers["retry-after"] = "1"
    return Problem(status, reason, code=code, headers=headers)


class _Head:
    """What of a request is looked at: nothing but its headers."""

    method = "GET"
    target = path = "/"
    query = host = authority = client_ip = ""
    is_tls = False
    certificate = None

    __slots__ = ("headers",)

    def __init__(self, headers: Sequence[Header]) -> None:
        self.headers = headers


class _Parts:
    """What a process lends to a method of authentication (`security.method.Parts`): tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: dict[tuple[object, ...], Any] = {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        task = self.loop.create_task(work, name="headgate-identity-keys")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    async def close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)

    # A service has neither other workers nor bans: nothing is told, nothing is heard.
    def publish(self, topic: str, message: Mapping[str, Any], retain: str | None = None) -> None:
        """Nobody is there to hear."""

    def subscribe(self, topic: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        """Nobody is there to tell."""

    def suspect(self, client_ip: str, kind: str, weight: float = 1.0) -> None:
        """The gateway bans; here its own token was wrong."""

    def count(self, policy: str, outcome: str) -> None:
        """Counted with the responses."""

    def note(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Likewise."""
