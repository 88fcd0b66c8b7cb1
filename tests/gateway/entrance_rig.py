"""What tests of the entrance share: methods that wait, fail or answer as a test says, and tokens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from headgate.gateway import compile as compiling
from headgate.gateway.filters import Filter, Request
from headgate.security.identity import Identity
from headgate.security.method import Finding, Instead, Method, Refused, Strips, Verified, header
from tests.gateway.rig import document

SECRET = "a secret that is long enough for it"
JWT: dict[str, Any] = {"secret": SECRET, "audience": "*", "algorithms": "HS256"}


def token(**claims: Any) -> str:
    return jwt.encode({"exp": time.time() + 600, **claims}, SECRET, algorithm="HS256")


def bearer(**claims: Any) -> str:
    return f"authorization: Bearer {token(**claims)}"


def foreign(**claims: Any) -> str:
    """A token whose key must be fetched before anything can be said of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = jwt.encode(
        {"exp": time.time() + 600, **claims}, key, algorithm="ES256", headers={"kid": "new"}
    )
    return f"authorization: Bearer {made}"


class Slow(Method):
    """Knows who asks from `x-user`, and says so when the test lets it."""

    strips = Strips(headers=frozenset({b"x-user"}))
    challenge = "Slow"

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = threading.Semaphore(0)
        self.waiting = 0
        self.is_open = False
        self.fails: BaseException | None = None
        self._waits: list[asyncio.Future[None]] = []

    def verify(self, shown: Any, wall: float) -> Any:
        user = header(shown, b"x-user")
        return None if user is None else self._later(user.decode(), wall)

    async def _later(self, user: str, wall: float) -> Finding:
        if not self.is_open:
            loop = asyncio.get_running_loop()
            wait = loop.create_future()
            self._waits.append(wait)
            self.waiting += 1
            self.asked.release()
            try:
                await wait
            finally:
                self.waiting -= 1
        if self.fails is not None:
            raise self.fails
        if user == "nobody":
            return Refused("unknown", "nobody is not known")
        return Verified(Identity(user, method=self.name), wall + 60)

    def wait_asked(self) -> None:
        assert self.asked.acquire(timeout=8)

    def let_go(self) -> None:
        """On the loop."""
        waits, self._waits = self._waits, []
        for wait in waits:
            if not wait.done():
                wait.set_result(None)


class Form(Method):
    """Answers a POST to a path of its own with how much was sent."""

    own_paths = ("/form",)
    challenge = "Form"

    def __init__(self, name: str, most: int = 1000) -> None:
        self.name = name
        self.bodies: Mapping[str, int] = {"/form": most}
        self.answered: list[bytes] = []

    def verify(self, shown: Any, wall: float) -> Finding:
        return Instead(405) if shown.path == "/form" else None

    async def answer(self, shown: Any, body: bytes, wall: float) -> Instead:
        await asyncio.sleep(0)
        self.answered.append(body)
        return Instead(200, (("content-type", "text/plain"),), str(len(body)).encode())


def use_methods(monkeypatch: Any, make: Callable[[str], Method | None]) -> dict[str, Any]:
    """Put methods of the test's own in the place of those that the file would make, by name."""
    made: dict[str, Any] = {}
    real = compiling.build_methods  # type: ignore[attr-defined]  # as it is looked up there

    def build(config: Any) -> dict[str, Method]:
        found: dict[str, Method] = dict(real(config))
        for name in found:
            own = made.get(name) or make(name)
            if own is not None:
                made[name] = found[name] = own
        return found

    monkeypatch.setattr(compiling, "build_methods", build)
    return made


class Looks(Filter):
    """Tells the service what a plugin can see of the query."""

    def on_request(self, request: Request) -> None:
        request.headers.set("x-query", request.query or "none")


def guarded(upstream: str, route: dict[str, Any] | None = None, *, jwt: dict[str, Any] | None = None,
            identity: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    made = document(upstream, route={"auth": "jwt", **(route or {})}, **more)
    auth: dict[str, Any] = {"jwt": {**JWT, **(jwt or {})}}
    if identity is not None:
        auth["identity"] = identity
    return {**made, "auth": auth}


def status(gateway, raw: bytes) -> int:
    return gateway.ask(raw)[0].status
