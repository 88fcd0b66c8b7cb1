"""An ASGI app with everything around it.

Theory of operation
-------------------
The order of the layers, from the outside:

    1. own paths    /metrics and /health: neither traced, counted nor limited
    2. id, log      the request's id; lines of the log have it from here on
       errors       what nobody has answered is a 500, its reason goes to the log
       head         the id and the headers for browsers, on every response, also on refusals
    3. tracing      a span, with the status that the client gets
    4. metrics      likewise, so that refusals are counted too
    5. bounds       too many, too often, too long: refused before any work is done
    6. deadline     cancels what nobody waits for any more
    7. the app      with its own layers, its routes and its handlers of errors

1 and 2 are one layer, because a layer costs more than what most of them do. 3, 4 and 6 are those of
`headgate.observe` and `headgate.resilience`; without them (`off`) there is one layer less.

An error before the response has begun is answered; after it was complete (tasks that a framework
runs after it) it is logged; in between it goes on to the server, which breaks the response off.
An app that cannot do lifespans gets along without; ours is told to the server all the same.

In an app that is mounted in another hardened one, only its dependencies work: everything else is
done outside already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeAlias

from headgate.kit.bounds import Bounds, answer
from headgate.kit.dressing import Dressing
from headgate.kit.ending import Ending
from headgate.kit.ids import made, taken
from headgate.kit.problems import METRICS_HIDDEN, TOO_LATE, Described, describe, unexpected
from headgate.kit.serving import KEY, REQUEST_ID, Equipment, Serving
from headgate.kit.settings import Settings
from headgate.kit.starting import Start, tracer_of
from headgate.observe import REGISTRY, MetricsEndpoint, MetricsMiddleware
from headgate.observe.health import Checks, HealthEndpoints
from headgate.observe.health.asgi import is_from_here
from headgate.observe.logs import bound
from headgate.observe.tracing import TracingMiddleware
from headgate.resilience import DeadlineMiddleware

__all__ = ["HardenedAsgi"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log: Final = logging.getLogger("headgate.kit")

_ENDING: Final = Described(
    503,
    "this instance of the service ends",
    members={"code": "ending"},
    headers=(("retry-after", "1"),),
)
_NOTHING: Final = nullcontext()
_STREAM: Final = b"text/event-stream"


class HardenedAsgi:
    """Made by `harden`."""

    def __init__(
        self,
        app: App | None,
        settings: Settings,
        equipment: Equipment,
        *,
        find_route: Callable[[Scope], str] | None = None,
    ) -> None:
        """Without an app, `around` says later what it is around."""
        self.settings = settings
        self.equipment = equipment
        self.start = Start(settings, equipment)
        self.checks = settings.checks or Checks(
            settings.service, version=settings.version, registry=self.start.registry
        )
        self.ending = Ending(self.checks, settings.leave, settings.finish)
        self._find_route = find_route
        registry = self.start.registry
        self._metrics = MetricsEndpoint(registry)
        self._guarded = (
            MetricsEndpoint(registry, token=settings.metrics_token)
            if settings.metrics_token
            else None
        )
        own = (settings.metrics_path,) if settings.has("metrics") else ()
        self._own = (*own, settings.health_path) if settings.has("health") else own
        self._dressing = Dressing(
            settings.secure_headers,
            has_headers=settings.has("headers"),
            has_ids=settings.has("ids"),
        )
        self._has_ids = settings.has("ids")
        self._has_logs = settings.has("logs")
        self._has_errors = settings.has("errors")
        self._has_ending = settings.has("shutdown")
        self._trusts = settings.trusts
        if app is not None:
            self.around(app)

    def around(self, app: App) -> None:
        """Be around this app from now on."""
        settings = self.settings
        self.app = app
        self._layers = _layers(app, settings, self._find_route)
        self._health = HealthEndpoints(
            self.checks, app, path=settings.health_path, token=settings.health_token
        )

    def __repr__(self) -> str:
        return f"<hardened {self.app!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        around = scope.get(KEY)
        if isinstance(around, Serving):
            await self._mounted(around, scope, receive, send)
            return
        if self._own and kind == "http" and await self._is_answered(scope, receive, send):
            return
        await self._serve(scope, receive, send)

    # -- a request -----------------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = ""
        if self._has_ids:
            request_id = (taken(scope["headers"]) if self._trusts else "") or made()
        scope[KEY] = Serving(request_id, self.equipment)
        is_http = scope["type"] == "http"
        reply = _Reply(self, scope, send, request_id)
        task = asyncio.current_task() if self._has_ending else None
        if task is not None:
            self.ending.enter(task, reply.streams)
        token = REQUEST_ID.set(request_id)
        fields: AbstractContextManager[object] = _NOTHING
        if self._has_logs and request_id:
            fields = bound(request_id=request_id)
        try:
            with fields:
                try:
                    await self._layers(scope, receive, reply.send if is_http else send)
                except Exception as error:
                    if not is_http or not self._has_errors:
                        raise
                    await self._failed(error, scope, reply)
                except asyncio.CancelledError:
                    if not is_http or task is None or not self.ending.take_back(task):
                        raise
                    await self._cut(scope, reply)
        finally:
            REQUEST_ID.reset(token)
            if task is not None:
                self.ending.exit(task)

    async def _failed(self, error: Exception, scope: Scope, reply: _Reply) -> None:
        if reply.is_lost:
            log.info("the client has gone before its response was whole")
            return
        described = describe(error)
        if described is None or reply.has_started:
            log.error(
                "%s %r failed: %s",
                scope["method"],
                scope["path"],
                type(error).__name__,
                exc_info=error,
            )
        if reply.is_complete:
            return
        if reply.has_started:
            raise error  # the server breaks the response off
        await answer(reply.send, described or unexpected(), scope)

    async def _cut(self, scope: Scope, reply: _Reply) -> None:
        """The service ends, and this was still under way."""
        if not reply.has_started:
            await answer(reply.send, _ENDING, scope)
        elif reply.is_stream and not reply.is_complete:
            await reply.send({"type": "http.response.body", "body": b"", "more_body": False})
        elif not reply.is_complete:
            raise ConnectionAbortedError("the service ends; this response is broken off")

    async def _mounted(self, around: Serving, scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEY] = Serving(around.request_id, self.equipment)
        try:
            await self.app(scope, receive, send)
        finally:
            scope[KEY] = around

    # -- paths of our own ------------------------------------------------------------------------

    async def _is_answered(self, scope: Scope, receive: Receive, send: Send) -> bool:
        path = scope["path"]
        root = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]
        if not path.startswith(self._own):
            return False
        settings = self.settings
        if path.rstrip("/") == settings.metrics_path and settings.has("metrics"):
            await self._show_metrics(scope, receive, send)
            return True
        before, _, last = path.rstrip("/").rpartition("/")
        mine = settings.health_path
        if settings.has("health") and (
            path.rstrip("/") == mine or (before == mine and last in {"live", "ready", "startup"})
        ):
            await self._health(scope, receive, send)
            return True
        return False

    async def _show_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_from_here(scope):
            await self._metrics(scope, receive, send)
        elif self._guarded is not None:
            await self._guarded(scope, receive, send)
        else:
            await answer(send, METRICS_HIDDEN, scope)

    # -- the life of the app ---------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        around = _Lifespan(self, receive, send)
        app: App = self._health if self.settings.has("health") else self.app
        try:
            try:
                await app(scope, around.receive, around.send)
            except Exception:
                if around.has_answered or around.has_failed:
                    raise
                log.debug("the app has no lifespan", exc_info=True)
            if not around.has_answered:
                await around.alone()
        finally:
            self.ending.remove()
            await self.start.end_on_loop()

    async def begin(self) -> None:
        await self.start.begin_on_loop()
        if self._has_ending:
            self.ending.install()

    def drain(self) -> None:
        self.checks.drain()


def _layers(app: App, settings: Settings, find_route: Callable[[Scope], str] | None) -> App:
    inner = app
    if settings.has("deadlines"):
        inner = DeadlineMiddleware(inner, until_begun=settings.deadline, answer=_over)
    if settings.has("limits") or settings.has("errors"):
        bounds = settings.has("limits")
        inner = Bounds(
            inner,
            body_limit=settings.body_limit if bounds else None,
            at_once=settings.at_once if bounds else None,
            rates=settings.rates if bounds else (),
            rate_key=settings.rate_key,
            tells_errors=settings.has("errors"),
        )
    if settings.has("metrics"):
        registry = REGISTRY if settings.registry is None else settings.registry
        inner = MetricsMiddleware(inner, registry=registry, find_route=find_route)
    if settings.has("tracing"):
        inner = TracingMiddleware(inner, tracer=tracer_of(settings), trusts=settings.trusts)
    return inner


async def _over(scope: Scope, send: Send) -> None:
    await answer(send, TOO_LATE, scope)


class _Reply:
    """One response on its way out."""

    __slots__ = (
        "_layer", "_request_id", "_scope", "_send", "has_started", "is_complete", "is_lost",
        "is_stream",
    )  # fmt: skip

    def __init__(self, layer: HardenedAsgi, scope: Scope, send: Send, request_id: str) -> None:
        self._layer = layer
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self.has_started = False
        self.is_complete = False
        self.is_stream = False
        self.is_lost = False

    def streams(self) -> bool:
        return self.is_stream

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            message = self._dressed(message)
            self.has_started = True
        elif kind == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True
        try:
            await self._send(message)
        except OSError:
            self.is_lost = True
            raise

    def _dressed(self, message: Message) -> Message:
        layer, scope = self._layer, self._scope
        fields = list(message.get("headers") or ())
        for name, value in fields:
            if name == b"content-type" and value.startswith(_STREAM):
                self.is_stream = True
                break
        is_last = layer.ending.is_leaving and scope.get("http_version") in {"1.0", "1.1"}
        head = layer._dressing.head(  # noqa: SLF001 - the other half of it
            fields, self._request_id, is_tls=scope.get("scheme") == "https", is_last=is_last
        )
        # A copy: some apps send the same message again and again.
        return {**message, "headers": head}


class _Lifespan:
    """The app's lifespan, with ours around it."""

    def __init__(self, layer: HardenedAsgi, receive: Receive, send: Send) -> None:
        self._layer = layer
        self._receive = receive
        self._send = send
        self._has_begun = False
        self.has_answered = False
        self.has_failed = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "lifespan.startup":
            self._has_begun = True
            try:
                await self._layer.begin()
            except BaseException:
                self.has_failed = True
                raise
        elif message["type"] == "lifespan.shutdown":
            self._layer.drain()
        return message

    async def send(self, message: Message) -> None:
        self.has_answered = True
        await self._send(message)

    async def alone(self) -> None:
        """For an app that knows no lifespan."""
        if not self._has_begun:
            await self.receive()
        self._layer.checks.start()
        await self.send({"type": "lifespan.startup.complete"})
        await self.receive()
        await self._layer.checks.close()
        await self.send({"type": "lifespan.shutdown.complete"})
