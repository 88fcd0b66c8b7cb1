"""The endpoints of health, for any ASGI server.

Theory of operation
-------------------
    GET /health/live       200, or 503 when only a restart helps
    GET /health/ready      200 while requests are wanted, else 503
    GET /health/startup    503 until it was ready once
    GET /health            every check, for those who may see it

The body is `application/health+json` (draft-inadarei-api-health-check-06): `pass`, `warn` or
`fail`. HEAD answers alike without the body. Who asks for all of it shows the token
(`Authorization: Bearer`), or asks from this machine itself: from a loopback address and without a
header that says a proxy sent it on. Everybody else gets the status alone, for reasons name hosts
and drivers.

An answer never waits for longer than the checks may take, and a fault here is a 503 and no crash.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from headgate.observe.health.checks import Checks, Report
from headgate.observe.health.outcome import Result, Status

__all__ = ["MEDIA_TYPE", "HealthEndpoints", "HealthMiddleware", "document", "is_from_here"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MEDIA_TYPE: Final = "application/health+json"
RETRY_AFTER_S: Final = 5

_WORDS: Final[dict[Status, str]] = {
    "ok": "pass",
    "unknown": "warn",
    "degraded": "warn",
    "failing": "fail",
}
_SENT_ON: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})

log = logging.getLogger("headgate.health")


def document(report: Report, checks: Checks | None = None) -> dict[str, Any]:
    """A report as the draft writes it; without `checks`, its status alone."""
    word = _WORDS[report.status]
    if not report.is_fine:
        word = "fail"
    found: dict[str, Any] = {"status": word}
    if checks is None:
        return found
    if checks.version:
        found["version"] = checks.version.split(".")[0]
        found["releaseId"] = checks.version
    if checks.service:
        found["serviceId"] = checks.service
    if checks.description:
        found["description"] = checks.description
    if report.reasons:
        found["output"] = "; ".join(report.reasons)
        found["notes"] = list(report.reasons)
    if report.checks:
        found["checks"] = {
            f"{one.name}:{_measurement(one)}": [_component(one)] for one in report.checks
        }
    return found


def _measurement(result: Result) -> str:
    return (
        "responseTime"
        if result.value is None
        else "utilization"
        if result.unit == "percent"
        else "value"
    )


def _component(result: Result) -> dict[str, Any]:
    value, unit = result.value, result.unit
    if value is None:
        value, unit = round(result.took_s * 1000, 1), "ms"
    found: dict[str, Any] = {
        "componentId": result.name,
        "componentType": "component",
        "status": "fail" if result.status == "failing" else _WORDS[result.status],
        "critical": result.critical,
        "observedValue": value,
        "observedUnit": unit,
        "took_ms": round(result.took_s * 1000, 1),
    }
    if result.at is not None:
        found["time"] = _time(result.at)
    if result.since is not None:
        found["since"] = _time(result.since)
    if result.why:
        found["output"] = result.why
    return found


def _time(wall: float) -> str:
    return (
        datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def is_from_here(scope: Scope) -> bool:
    """Whether a request came from this machine itself and not through a proxy on it."""
    if any(name.lower() in _SENT_ON for name, _ in scope.get("headers") or ()):
        return False
    client = scope.get("client")
    if not client:
        return False  # a Unix socket: most often it is a proxy that has it
    try:
        address = ipaddress.ip_address(str(client[0]).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def may_see(scope: Scope, token: str) -> bool:
    """Whether everything is shown: to who brings the token, and to this machine itself."""
    if token:
        shown = b""
        for name, value in scope.get("headers") or ():
            if name.lower() == b"authorization":
                shown = value
        kind, _, said = shown.partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(said.strip(), token.encode()):
            return True
    return is_from_here(scope)


async def report_of(checks: Checks, asked: str) -> Report:
    """The answer to one of the questions: live, ready, startup, or empty for all."""
    if asked == "live":
        return checks.liveness()
    if asked == "ready":
        return await checks.readiness()
    if asked == "startup":
        return await checks.startup()
    return await checks.report()


class HealthEndpoints:
    """An ASGI app of four paths. Mount it, or give it the app that has all other paths.

    app.mount("/health", health.HealthEndpoints(checks))        # FastAPI, Starlette
    app = health.HealthEndpoints(checks, app)                   # any ASGI app

    In the second form it also begins the background refresh when the app starts, and drains and
    ends it when the app is shut down.
    """

    def __init__(
        self, checks: Checks, app: App | None = None, *, path: str = "/health", token: str = ""
    ) -> None:
        if not path.startswith("/"):
            raise ValueError(f'the path "{path}" must begin with /')
        self._checks = checks
        self._app = app
        self._path = path.rstrip("/")
        self._token = token

    def __repr__(self) -> str:
        return f"<HealthEndpoints {self._path or '/'}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        asked = self._asked(scope) if scope["type"] == "http" else None
        if asked is not None:
            await self._answer(asked, scope, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _send(send, scope, 404, {"status": "fail", "output": "there is no such path"})
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _asked(self, scope: Scope) -> str | None:
        """live, ready, startup, or empty for all; None: not ours."""
        path, root = str(scope.get("path", "")), str(scope.get("root_path", "")).rstrip("/")
        is_below = bool(root) and (path == root or path.startswith(f"{root}/"))
        inner = path[len(root) :] if is_below else path
        for given in (path, inner):
            if given.rstrip("/") == self._path and (self._path or self._app is None):
                return ""
            before, _, last = given.rpartition("/")
            if before == self._path and last in {"live", "ready", "startup"}:
                return last
        if self._app is None and root:  # mounted under a name of its own
            rest = inner.strip("/")
            if rest in {"", "live", "ready", "startup"}:
                return rest
        return None

    async def _answer(self, asked: str, scope: Scope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            said = {"status": "fail", "output": "ask with GET or HEAD"}
            await _send(send, scope, 405, said, ((b"allow", b"GET, HEAD"),))
            return
        checks = self._checks
        sees_all = may_see(scope, self._token)
        try:
            report = await report_of(checks, asked)
        except Exception:
            log.exception("health cannot be told")
            await _send(send, scope, 503, {"status": "fail"}, _LATER)
            return
        # Being not ready is no reason for everything to be a 503, a failing whole is.
        is_fine = report.is_fine
        body = document(report, checks if sees_all else None)
        await _send(send, scope, 200 if is_fine else 503, body, () if is_fine else _LATER)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    self._checks.start()
                    await send({"type": "lifespan.startup.complete"})
                else:
                    self._checks.drain()
                    await self._checks.close()
                    await send({"type": "lifespan.shutdown.complete"})
                    return

        async def told() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._checks.drain()
            return message

        async def tell(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._checks.start()
            await send(message)

        try:
            await self._app(scope, told, tell)
        finally:
            await self._checks.close()


class HealthMiddleware(HealthEndpoints):
    """The same for `app.add_middleware(health.HealthMiddleware, checks=checks)`."""

    def __init__(self, app: App, checks: Checks, *, path: str = "/health", token: str = "") -> None:
        super().__init__(checks, app, path=path, token=token)


_LATER: Final = ((b"retry-after", str(RETRY_AFTER_S).encode()),)


async def _send(
    send: Send,
    scope: Scope,
    status: int,
    document: dict[str, Any],
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
