"""A WSGI app with everything around it.

Theory of operation
-------------------
The order of the layers is that of `headgate.kit.asgi`, and so is what each does:

    own paths; id, log, errors, head; tracing; metrics; bounds; deadline; the app

What WSGI cannot do: a thread is not cancelled, so a handler asks `remaining()` or `check()` for its
deadline, and nobody hears of a client that has left. There is no lifespan: logs and traces begin
with the first request, and the server ends its workers by its own rules (`checks.drain()` belongs
into its hooks). WSGI servers run a fixed number of threads, so `at_once` matters where that is
more than what the app can do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final

from headgate.kit.dressing import Dressing
from headgate.kit.ids import made, taken
from headgate.kit.problems import METRICS_HIDDEN, describe, unexpected
from headgate.kit.serving import KEY, REQUEST_ID, Equipment, Serving
from headgate.kit.settings import Settings
from headgate.kit.starting import Start, tracer_of
from headgate.kit.wsgi_bounds import WsgiBounds, respond
from headgate.observe.health import Checks
from headgate.observe.health.asgi import is_from_here
from headgate.observe.health.wsgi import HealthWsgi, scope_of
from headgate.observe.logs import bound
from headgate.observe.meters.wsgi import MetricsWsgi, MetricsWsgiEndpoint
from headgate.observe.tracing.wsgi import TracingWsgi
from headgate.observe.wsgi_body import Body, Environ, StartResponse, WsgiApp
from headgate.resilience import WsgiDeadline
from headgate.resilience.hop import HOP, UNTIL

__all__ = ["HardenedWsgi"]

log: Final = logging.getLogger("headgate.kit")

_IDS: Final = (("HTTP_X_REQUEST_ID", b"x-request-id"), ("HTTP_TRACEPARENT", b"traceparent"))


class HardenedWsgi:
    """Made by `harden`."""

    def __init__(
        self,
        app: WsgiApp,
        settings: Settings,
        equipment: Equipment,
        *,
        find_route: Callable[[Environ], str] | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.equipment = equipment
        self.start = Start(settings, equipment)
        self.checks = settings.checks or Checks(
            settings.service, version=settings.version, registry=self.start.registry
        )
        self._lock = threading.Lock()
        self._layers = self._made(app, settings, find_route)
        registry = self.start.registry
        self._health = HealthWsgi(
            self.checks, path=settings.health_path, token=settings.health_token
        )
        self._metrics = MetricsWsgiEndpoint(registry)
        self._guarded = (
            MetricsWsgiEndpoint(registry, token=settings.metrics_token)
            if settings.metrics_token
            else None
        )
        self._dressing = Dressing(
            settings.secure_headers,
            has_headers=settings.has("headers"),
            has_ids=settings.has("ids"),
        )

    def __repr__(self) -> str:
        return f"<hardened {self.app!r}>"

    def _made(
        self, app: WsgiApp, settings: Settings, find_route: Callable[[Environ], str] | None
    ) -> WsgiApp:
        inner = app
        if settings.has("deadlines"):
            inner = WsgiDeadline(inner, longest=settings.deadline)
        if settings.has("limits"):
            inner = WsgiBounds(inner, settings)
        if settings.has("metrics"):
            inner = MetricsWsgi(inner, registry=self.start.registry, find_route=find_route)
        if settings.has("tracing"):
            inner = TracingWsgi(
                inner, tracer=tracer_of(settings), trusts=settings.trusts, find_route=find_route
            )
        return inner

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        around = environ.get(KEY)
        if isinstance(around, Serving):
            return self._mounted(around, environ, start_response)
        if not self.start.has_begun:
            with self._lock:
                self.start.begin()
        own = self._own(environ, start_response)
        if own is not None:
            return own
        settings = self.settings
        request_id = ""
        if settings.has("ids"):
            request_id = (taken(_told(environ)) if settings.trusts else "") or made()
        environ[KEY] = Serving(request_id, self.equipment)
        fields: AbstractContextManager[object] = nullcontext()
        if settings.has("logs") and request_id:
            fields = bound(request_id=request_id)
        REQUEST_ID.set(request_id)
        fields.__enter__()

        def end(_sent: int, _error: BaseException | None) -> None:
            REQUEST_ID.set("")
            UNTIL.set(None)  # of this request; the thread goes on with others
            HOP.set(None)
            # A server may close a response in another context than the one it was begun in.
            with suppress(ValueError):
                fields.__exit__(None, None, None)

        reply = _Reply(self._dressing, environ, start_response, request_id)
        try:
            body = self._layers(environ, reply.start)
            guarded = self._guard(body, environ, reply) if settings.has("errors") else body
            return Body(guarded, end)
        except Exception as error:
            if not settings.has("errors"):
                end(0, error)
                raise
            return Body(self._failed(error, environ, reply), end)

    def _guard(self, body: Iterable[bytes], environ: Environ, reply: _Reply) -> Iterable[bytes]:
        """Many apps fail only while their body is made."""
        if isinstance(body, list | tuple):
            return body
        return _Guarded(body, lambda error: self._failed(error, environ, reply), reply)

    def _failed(self, error: Exception, environ: Environ, reply: _Reply) -> Iterable[bytes]:
        described = describe(error)
        if described is None:
            log.error(
                "%s %r failed: %s",
                environ.get("REQUEST_METHOD", ""),
                environ.get("PATH_INFO", ""),
                type(error).__name__,
                exc_info=error,
            )
        # With `exc_info` a server takes back what was begun, if it was not sent yet.
        return respond(described or unexpected(), environ, reply.start, (type(error), error, None))

    def _mounted(
        self, around: Serving, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        environ[KEY] = Serving(around.request_id, self.equipment)
        return self.app(environ, start_response)

    def _own(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes] | None:
        path = str(environ.get("PATH_INFO", "")).rstrip("/")
        settings = self.settings
        if settings.has("metrics") and path == settings.metrics_path:
            if is_from_here(scope_of(environ)):
                return self._metrics(environ, start_response)
            if self._guarded is not None:
                return self._guarded(environ, start_response)
            return respond(METRICS_HIDDEN, environ, start_response)
        if settings.has("health") and path.startswith(settings.health_path):
            before, _, last = path.rpartition("/")
            mine = settings.health_path
            if path == mine or (before == mine and last in {"live", "ready", "startup"}):
                return self._health(environ, start_response)
        return None


class _Guarded:
    """A body that is made while it is sent, and may fail in that."""

    def __init__(
        self,
        body: Iterable[bytes],
        failed: Callable[[Exception], Iterable[bytes]],
        reply: _Reply,
    ) -> None:
        self._body = body
        self._failed = failed
        self._reply = reply

    def __iter__(self) -> Iterator[bytes]:
        has_sent = False
        try:
            for piece in self._body:
                has_sent = has_sent or bool(piece)
                yield piece
        except Exception as error:
            if has_sent:
                log.exception("a response failed on its way: %s", type(error).__name__)
                raise
            yield from self._failed(error)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


class _Reply:
    """The head of one response on its way out."""

    __slots__ = ("_dressing", "_is_tls", "_request_id", "_start")

    def __init__(
        self, dressing: Dressing, environ: Environ, start: StartResponse, request_id: str
    ) -> None:
        self._dressing = dressing
        self._is_tls = environ.get("wsgi.url_scheme") == "https"
        self._start = start
        self._request_id = request_id

    def start(self, status: str, fields: list[tuple[str, str]], *more: Any) -> Any:
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        dressed = self._dressing.head(raw, self._request_id, is_tls=self._is_tls, is_last=False)
        told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in dressed]
        return self._start(status, told, *more)


def _told(environ: Environ) -> list[tuple[bytes, bytes]]:
    return [
        (name, str(environ[key]).encode("latin-1", "replace"))
        for key, name in _IDS
        if key in environ
    ]
