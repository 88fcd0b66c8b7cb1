"""HTTP servers: a middleware that counts requests, and an app that shows metrics.

Theory of operation. A request is counted when its app has returned, raised or been cancelled,
exactly once, in a `finally`. Its label is the route's template, never the raw path: FastAPI says
which route it took, of Starlette it is rebuilt from the path and its parameters, and where neither
is possible all such requests share one name. What nothing matched is `unmatched`.

The status is that of `http.response.start`; an app that raises before it is a 500, a client that
goes away before it is 499, as in the gateway's own figures.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

from headgate.observe.exposition import CONTENT_TYPE, OPENMETRICS_TYPE, wants_openmetrics
from headgate.observe.meters.histogram import SIZES
from headgate.observe.meters.metric import log
from headgate.observe.meters.registry import REGISTRY, Registry
from headgate.observe.meters.text import families_text

__all__ = ["MetricsEndpoint", "MetricsMiddleware", "metrics_app", "route_of"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

UNMATCHED: Final = "unmatched"
_UNKNOWN: Final = "unknown"
METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")
)
CODES: Final = {code: str(code) for code in range(100, 600)}
GZIP_FROM: Final = 1400


def route_of(scope: Scope, root: str = "") -> str:
    """The template of the route that a request took; `root` is the root path it came with."""
    mounted = str(scope.get("root_path", ""))
    mounted = mounted[len(root) :] if mounted.startswith(root) else ""
    route = scope.get("route")
    if hasattr(route, "routes"):
        # A mount, and nothing below it said more: files, or an app of another kind.
        return f"{_masked(mounted, scope.get('path_params') or {}, must_all=False)}/*"
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    parameters = scope.get("path_params") or {}
    if isinstance(template, str):
        return _masked(mounted, parameters, must_all=False) + template
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return UNMATCHED
    if mounted and not (inspect.isroutine(endpoint) or inspect.isclass(endpoint)):
        # Files, or an app of another kind: what it does with the rest of the path is its own.
        return f"{_masked(mounted, parameters, must_all=False)}/*"
    path = str(scope.get("path", ""))
    path = path[len(root) :] if root and path.startswith(root) else path
    return _masked(path, parameters, must_all=True)


def _masked(path: str, parameters: dict[str, Any], *, must_all: bool) -> str:
    """A path with its parameters' names in place of their values."""
    for name, value in parameters.items():
        # No pattern: it would be compiled anew for each id.
        text = str(value)
        before = f"{path}/".find(f"/{text}/")
        if before < 0 and must_all:
            return _UNKNOWN  # its value was converted: the raw path must not become a label
        if before >= 0:
            path = f"{path[: before + 1]}{{{name}}}{path[before + 1 + len(text) :]}"
    return path


class ServerMeters:
    """What is measured of a server, whichever interface its app has."""

    def __init__(self, registry: Registry, prefix: str) -> None:
        self.requests = registry.counter(
            f"{prefix}_requests",
            "Requests answered.",
            ("method", "route", "code"),
            # A route has some five pairs of method and code.
            max_series=5 * registry.max_series,
        )
        self.durations = registry.timer(
            f"{prefix}_request_duration_seconds",
            "From the first byte to the app to the end of its response.",
            ("method", "route"),
        )
        self.in_flight = registry.gauge(
            f"{prefix}_requests_in_flight", "Requests begun and not yet ended."
        )
        self.received = registry.histogram(
            f"{prefix}_request_body_bytes", "Sizes of request bodies.", ("route",), bounds=SIZES
        )
        self.sent = registry.histogram(
            f"{prefix}_response_body_bytes", "Sizes of response bodies.", ("route",), bounds=SIZES
        )


class MetricsMiddleware:
    """Counts requests by route, with their duration, sizes, and how many are under way.

    app.add_middleware(MetricsMiddleware)                       # Starlette, FastAPI
    app = MetricsMiddleware(app, registry=registry)             # any ASGI app
    """

    def __init__(
        self,
        app: App,
        *,
        registry: Registry = REGISTRY,
        prefix: str = "http_server",
        ignore: Iterable[str] = ("/metrics", "/metrics/"),
        find_route: Callable[[Scope], str] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._find_route = find_route
        self._ignore = frozenset(ignore)
        self._clock = clock
        meters = ServerMeters(registry, prefix)
        self._requests = meters.requests
        self._durations = meters.durations
        self._in_flight = meters.in_flight
        self._received = meters.received
        self._sent = meters.sent
        self._sockets = registry.gauge(f"{prefix}_websockets_open", "WebSockets that are open.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket":
            self._sockets.inc()
            try:
                await self._app(scope, receive, send)
            finally:
                self._sockets.dec()
            return
        if kind != "http" or scope["path"] in self._ignore:
            await self._app(scope, receive, send)
            return
        began = self._clock()
        root = scope.get("root_path", "")
        status = received = sent = 0
        is_gone = False

        async def receive_counted() -> Message:
            nonlocal received, is_gone
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
            elif message["type"] == "http.disconnect":
                is_gone = True
            return message

        async def send_counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        self._in_flight.inc()
        try:
            await self._app(scope, receive_counted, send_counted)
        except asyncio.CancelledError:
            status = status or 499
            raise
        except BaseException:
            status = status or 500
            raise
        finally:
            self._in_flight.dec()
            if not status:
                status = 499 if is_gone else 500
            self._count(scope, root, status, self._clock() - began, received, sent)

    def _count(
        self, scope: Scope, root: str, status: int, took_s: float, received: int, sent: int
    ) -> None:
        try:
            route = self._find_route(scope) if self._find_route else route_of(scope, root)
        except Exception:  # noqa: BLE001 - the request is served, only its name is not known
            log.debug("the route of a request could not be told", exc_info=True)
            route = _UNKNOWN
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.add(1, method, route, CODES.get(status, "other"))
        self._durations.put(took_s, method, route)
        if received:
            self._received.put(received, route)
        self._sent.put(sent, route)


class MetricsEndpoint:
    """An ASGI app that shows a registry to Prometheus; to be mounted where only it can reach.

    app.add_route("/metrics", metrics_app(registry))        # Starlette, FastAPI
    """

    def __init__(self, registry: Registry = REGISTRY, *, token: str | None = None) -> None:
        self._registry = registry
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        if scope["method"] not in ("GET", "HEAD"):
            await answer(send, 405, b"", [(b"allow", b"GET, HEAD")])
            return
        headers = {name: value for name, value in scope["headers"] if name in _READ}
        if self._token is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), b"Bearer " + self._token
        ):
            await answer(send, 401, b"", [(b"www-authenticate", b"Bearer")])
            return
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        is_open = wants_openmetrics(accept.decode("latin-1"))
        is_zipped = b"gzip" in headers.get(b"accept-encoding", b"")
        # In a thread: ten thousand series take some 40 ms, which no request should wait for.
        body, is_zipped = await asyncio.to_thread(self._body, is_open, is_zipped)
        kind = OPENMETRICS_TYPE if is_open else CONTENT_TYPE
        shown = [(b"content-type", kind.encode()), (b"vary", b"Accept, Accept-Encoding")]
        if is_zipped:
            shown.append((b"content-encoding", b"gzip"))
        await answer(send, 200, body, shown, is_head=scope["method"] == "HEAD")

    def _body(self, is_open: bool, is_zipped: bool) -> tuple[bytes, bool]:
        body = families_text(self._registry.collect(), is_open=is_open).encode()
        if is_zipped and len(body) >= GZIP_FROM:
            return gzip.compress(body, 1), True
        return body, False


_READ: Final = frozenset((b"authorization", b"accept-encoding"))


def metrics_app(registry: Registry = REGISTRY, *, token: str | None = None) -> MetricsEndpoint:
    """An ASGI app for `/metrics`; with `token`, only for those who bear it."""
    return MetricsEndpoint(registry, token=token)


async def answer(
    send: Send,
    status: int,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    is_head: bool = False,
) -> None:
    sized = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, sized]})
    await send({"type": "http.response.body", "body": b"" if is_head else body})
