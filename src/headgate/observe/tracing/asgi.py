"""One span for each request of an ASGI app.

Theory of operation
-------------------
The span begins with the headers and ends when the app returns: of a streamed response that is its
last byte. There are no spans for `receive` and `send`; what they tell is attributes. The name is
method and route (`GET /users/{id}`), which only the router of the app knows, so it is given at the
end; a path itself is never a name, since there are as many as there are ids. The query is not
written down: tokens stand there.

A client that leaves before the response is whole is marked (`headgate.disconnected`), and is no
error of the app; neither is what the app then raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final

from headgate.observe.tracing.baggage import parse_baggage
from headgate.observe.tracing.process import trace
from headgate.observe.tracing.span import Quiet, Span
from headgate.observe.tracing.tracer import BAGGAGE, Tracer

__all__ = ["TracingMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)


class TracingMiddleware:
    """`app = TracingMiddleware(app)`, or `app.add_middleware(TracingMiddleware)`.

    Requests for a path in `skip` are not traced, nor is what the app calls for them.
    """

    def __init__(
        self,
        app: App,
        *,
        tracer: Tracer = trace,
        skip: Collection[str] = (),
        trusts: bool = True,
    ) -> None:
        """`trusts=False` is for a service that faces strangers: see `TracingRules.trust`."""
        self._app = app
        self._tracer = tracer
        self._skip = frozenset(skip)
        self._trusts = trusts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        tracer = self._tracer
        if kind not in {"http", "websocket"} or not tracer.is_on or scope["path"] in self._skip:
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        token = None
        said = [value.decode("latin-1") for name, value in headers if name.lower() == b"baggage"]
        if said:
            token = BAGGAGE.set(parse_baggage(said))
        span = tracer.root(
            scope.get("method", "WEBSOCKET"),
            tracer.extract(headers),
            is_trusted=self._trusts,
        )
        try:
            with span:
                if isinstance(span, Span):
                    await self._traced(span, scope, receive, send)
                else:
                    await self._app(scope, receive, send)
        finally:
            if token is not None:
                BAGGAGE.reset(token)

    async def _traced(self, span: Span, scope: Scope, receive: Receive, send: Send) -> None:
        attributes = span.attributes
        method = scope.get("method", "")
        if method:
            attributes["http.request.method"] = method if method in METHODS else "_OTHER"
            if method not in METHODS:
                attributes["http.request.method_original"] = method[:64]
                span.name = "HTTP"
        attributes["url.path"] = scope["path"]
        attributes["url.scheme"] = scope.get("scheme", "http")
        attributes["network.protocol.version"] = scope.get("http_version", "1.1")
        server, client = scope.get("server"), scope.get("client")
        if server:
            attributes["server.address"] = server[0]
            if server[1]:
                attributes["server.port"] = server[1]
        if client:
            attributes["client.address"] = client[0]
        root_path = scope.get("root_path", "")
        watch = _Watch(span, receive, send)
        try:
            await self._app(scope, watch.receive, watch.send)
        except Exception:
            if watch.has_left:
                # It is told to the server, as ever; that nobody listened is no failure.
                span.set({"headgate.disconnected": True})
                watch.named(scope, root_path)
                span.ok()
            elif watch.status is None:
                attributes["http.response.status_code"] = 500
            raise
        finally:
            watch.named(scope, root_path)


class _Watch:
    """What goes in and out, looked at in passing."""

    __slots__ = ("_receive", "_send", "has_left", "is_over", "span", "status")

    def __init__(self, span: Span, receive: Receive, send: Send) -> None:
        self.span = span
        self._receive = receive
        self._send = send
        self.status: int | None = None
        self.is_over = False
        self.has_left = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.is_over:
            self.has_left = True
            self.span.attributes["headgate.disconnected"] = True
        elif message["type"] == "websocket.disconnect":
            self.is_over = True
            self.span.attributes["headgate.websocket.close_code"] = message.get("code", 1005)
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._answered(message["status"])
        elif kind == "http.response.body":
            if not message.get("more_body", False):
                self.is_over = True
        elif kind == "websocket.accept":
            self._answered(101)
        elif kind == "websocket.close" and self.status is None:
            self._answered(403)
        elif kind == "websocket.http.response.start":
            self._answered(message["status"])
        await self._send(message)

    def _answered(self, status: int) -> None:
        self.status = status
        self.span.attributes["http.response.status_code"] = status
        if status >= 500:
            self.span.error(str(status))

    def named(self, scope: Scope, root_path: str) -> None:
        route = route_of(scope, root_path)
        if route:
            self.span.attributes["http.route"] = route
            if self.span.attributes.get("http.request.method_original") is None:
                self.span.name = f"{scope.get('method', 'WEBSOCKET')} {route}"


def route_of(scope: Scope, root_path: str) -> str:
    """The route's template, where a router has left it: Starlette, FastAPI, Litestar."""
    template = scope.get("path_template")
    if not isinstance(template, str):
        route = scope.get("route")
        template = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not isinstance(template, str):
        return ""
    mounted = scope.get("root_path", "")
    if isinstance(mounted, str) and mounted.startswith(root_path):
        template = mounted[len(root_path) :] + template
    return template


def current_or_none(tracer: Tracer) -> Span | None:
    """The span under way, if it is written down."""
    span: Span | Quiet = tracer.current
    return span if isinstance(span, Span) else None
