"""One span for each request of a WSGI app.

The same as `TracingMiddleware` says of an ASGI app, for Flask and its kin: the name is method and
route where the framework has left it, never the path; the query is not written down. The span ends
when the server closes the response, so that work which is done while it is sent is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from headgate.observe.tracing.asgi import METHODS
from headgate.observe.tracing.baggage import parse_baggage
from headgate.observe.tracing.process import trace
from headgate.observe.tracing.span import Quiet, Span
from headgate.observe.tracing.tracer import BAGGAGE, Tracer
from headgate.observe.wsgi_body import Body, Environ, StartResponse, WsgiApp, status_of

__all__ = ["TracingWsgi"]

_TOLD = ("traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled",
         "x-b3-flags", "x-b3-parentspanid")  # fmt: skip
_KEYS = tuple((f"HTTP_{name.upper().replace('-', '_')}", name.encode()) for name in _TOLD)


class TracingWsgi:
    """`app.wsgi_app = TracingWsgi(app.wsgi_app)`, or `app = TracingWsgi(app)`."""

    def __init__(
        self,
        app: WsgiApp,
        *,
        tracer: Tracer = trace,
        skip: Collection[str] = (),
        trusts: bool = True,
        find_route: Callable[[Environ], str] | None = None,
    ) -> None:
        self._app = app
        self._tracer = tracer
        self._skip = frozenset(skip)
        self._trusts = trusts
        self._find_route = find_route

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        tracer = self._tracer
        path = environ.get("PATH_INFO", "")
        if not tracer.is_on or path in self._skip:
            return self._app(environ, start_response)
        headers = [
            (name, str(environ[key]).encode("latin-1", "replace"))
            for key, name in _KEYS
            if key in environ
        ]
        said = environ.get("HTTP_BAGGAGE")
        # Set anew for each request, and not taken back: the body may be made after this returns.
        BAGGAGE.set(parse_baggage([str(said)]) if said else parse_baggage([]))
        method = str(environ.get("REQUEST_METHOD", ""))
        span = tracer.root(method, tracer.extract(headers), is_trusted=self._trusts)
        span.__enter__()
        if isinstance(span, Span):
            _describe(span, environ, method, path)

        def end(_sent: int, error: BaseException | None) -> None:
            if isinstance(span, Span):
                self._name(span, environ, method)
                if error is not None and "http.response.status_code" not in span.attributes:
                    span.attributes["http.response.status_code"] = 500
            _leave(span, error)

        def started(status: str, fields: list[tuple[str, str]], *more: Any) -> Any:
            if isinstance(span, Span):
                code = status_of(status)
                span.attributes["http.response.status_code"] = code
                if code >= 500:
                    span.error(str(code))
            return start_response(status, fields, *more)

        try:
            return Body(self._app(environ, started), end)
        except BaseException as error:
            end(0, error)
            raise

    def _name(self, span: Span, environ: Environ, method: str) -> None:
        route = self._find_route(environ) if self._find_route is not None else ""
        if route:
            span.attributes["http.route"] = route
            if method in METHODS:
                span.name = f"{method} {route}"


def _describe(span: Span, environ: Environ, method: str, path: str) -> None:
    attributes = span.attributes
    attributes["http.request.method"] = method if method in METHODS else "_OTHER"
    if method not in METHODS:
        attributes["http.request.method_original"] = method[:64]
        span.name = "HTTP"
    attributes["url.path"] = path
    attributes["url.scheme"] = environ.get("wsgi.url_scheme", "http")
    attributes["network.protocol.version"] = str(
        environ.get("SERVER_PROTOCOL", "HTTP/1.1")
    ).removeprefix("HTTP/")
    for key, name in (("SERVER_NAME", "server.address"), ("REMOTE_ADDR", "client.address")):
        if environ.get(key):
            attributes[name] = str(environ[key])


def _leave(span: Span | Quiet, error: BaseException | None) -> None:
    if isinstance(span, Span):
        span.__exit__(type(error) if error is not None else None, error, None)
    else:
        span.__exit__(None, None, None)
