"""WSGI servers: the same figures as `MetricsMiddleware` has of ASGI apps, and `/metrics`.

Theory of operation. A request is counted once, when the server closes its response. What raises
before it has answered is a 500. The route is what `find_route` says of the environ (Flask leaves it
there); a raw path never becomes a label, so without that all requests share one name.
"""

from __future__ import annotations

import gzip
import hmac
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from headgate.observe.exposition import CONTENT_TYPE, OPENMETRICS_TYPE, wants_openmetrics
from headgate.observe.meters.asgi import CODES, GZIP_FROM, METHODS, UNMATCHED, ServerMeters
from headgate.observe.meters.metric import log
from headgate.observe.meters.registry import REGISTRY, Registry
from headgate.observe.meters.text import families_text
from headgate.observe.wsgi_body import (
    Body,
    Environ,
    StartResponse,
    WsgiApp,
    header_of,
    status_of,
)

__all__ = ["MetricsWsgi", "MetricsWsgiEndpoint"]

_UNKNOWN: Final = "unknown"


class MetricsWsgi:
    """`app.wsgi_app = MetricsWsgi(app.wsgi_app)`, or `app = MetricsWsgi(app)`."""

    def __init__(
        self,
        app: WsgiApp,
        *,
        registry: Registry = REGISTRY,
        prefix: str = "http_server",
        ignore: Iterable[str] = ("/metrics", "/metrics/"),
        find_route: Callable[[Environ], str] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._find_route = find_route
        self._ignore = frozenset(ignore)
        self._clock = clock
        self._meters = ServerMeters(registry, prefix)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "") in self._ignore:
            return self._app(environ, start_response)
        began = self._clock()
        meters = self._meters
        code = 0

        def started(status: str, fields: list[tuple[str, str]], *more: Any) -> Any:
            nonlocal code
            code = status_of(status)
            return start_response(status, fields, *more)

        def end(sent: int, error: BaseException | None) -> None:
            meters.in_flight.dec()
            took_s = self._clock() - began
            method = environ.get("REQUEST_METHOD", "")
            method = method if method in METHODS else "other"
            route = self._route(environ)
            meters.requests.add(1, method, route, CODES.get(code or 500, "other"))
            meters.durations.put(took_s, method, route)
            received = str(environ.get("CONTENT_LENGTH") or "")
            if received.isascii() and received.isdigit() and int(received):
                meters.received.put(int(received), route)
            meters.sent.put(sent, route)

        meters.in_flight.inc()
        try:
            return Body(self._app(environ, started), end)
        except BaseException as error:
            end(0, error)
            raise

    def _route(self, environ: Environ) -> str:
        if self._find_route is None:
            return UNMATCHED
        try:
            return self._find_route(environ) or UNMATCHED
        except Exception:  # noqa: BLE001 - the request is served, only its name is not known
            log.debug("the route of a request could not be told", exc_info=True)
            return _UNKNOWN


class MetricsWsgiEndpoint:
    """A WSGI app that shows a registry to Prometheus; with `token`, only to those who bear it."""

    def __init__(self, registry: Registry = REGISTRY, *, token: str | None = None) -> None:
        self._registry = registry
        self._token = token

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
            return [b""]
        shown = header_of(environ, "authorization").encode("latin-1", "replace")
        if self._token is not None and not hmac.compare_digest(
            shown, b"Bearer " + self._token.encode()
        ):
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
            return [b""]
        is_open = wants_openmetrics(header_of(environ, "accept"))
        body = families_text(self._registry.collect(), is_open=is_open).encode()
        headers = [
            ("Content-Type", OPENMETRICS_TYPE if is_open else CONTENT_TYPE),
            ("Vary", "Accept, Accept-Encoding"),
        ]
        if "gzip" in header_of(environ, "accept-encoding") and len(body) >= GZIP_FROM:
            body = gzip.compress(body, 1)
            headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(body))))
        start_response("200 OK", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
