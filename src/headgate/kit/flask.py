"""Flask: its handlers of errors, and the layer around `wsgi_app`."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from flask import Response, request
from werkzeug.exceptions import HTTPException

from headgate.kit.bounds import BodyTooLarge
from headgate.kit.problems import (
    DESCRIBED,
    MEDIA_TYPE,
    Described,
    describe,
    from_http,
    unexpected,
)
from headgate.kit.serving import Equipment, request_id_of
from headgate.kit.settings import KitInvalid, Settings
from headgate.kit.wsgi import HardenedWsgi
from headgate.observe.wsgi_body import Environ

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["install"]

log: Final = logging.getLogger("headgate.kit")

_CONVERTER: Final = re.compile(r"<(?:[^:<>]*:)?([^<>]+)>")
_RULE: Final = "headgate.kit.rule"
_OF_THE_BODY: Final = frozenset({"content-type", "content-length"})


def install(app: Flask, settings: Settings, equipment: Equipment) -> None:
    if getattr(app, "_got_first_request", False):
        raise KitInvalid("this app has served already; harden it before")
    if settings.has("errors"):
        for kind in DESCRIBED:
            app.register_error_handler(kind, _known)
        _put(app, HTTPException, _http)
        _put(app, Exception, _unknown)
    app.before_request_funcs.setdefault(None, []).insert(0, _note_route)
    app.wsgi_app = HardenedWsgi(  # type: ignore[method-assign]
        app.wsgi_app, settings, equipment, find_route=_route
    )


def _put(app: Flask, kind: type[Exception], handler: Any) -> None:
    """One that the app has chosen stays."""
    chosen = app.error_handler_spec[None]
    if kind not in chosen.get(None, {}):
        app.register_error_handler(kind, handler)


def _route(environ: Environ) -> str:
    """The template of the route: `/orders/{number}`."""
    rule = environ.get(_RULE)
    return _CONVERTER.sub(r"{\1}", rule) if isinstance(rule, str) else ""


def _note_route() -> None:
    """Before each request: Flask puts away what it knows of it before we are asked."""
    if request.url_rule is not None:
        request.environ[_RULE] = request.url_rule.rule


def _http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < 400:
        return error  # a redirect, or a response that was raised
    told = error.get_response()
    kept = {name: value for name, value in told.headers.items() if name.lower() not in _OF_THE_BODY}
    return _response(from_http(error.code, error.description, kept))


def _known(error: Exception) -> Response:
    return _response(describe(error) or unexpected())


def _unknown(error: Exception) -> Response:
    if isinstance(error, BodyTooLarge):
        raise error  # answered by the layer around
    # Flask keeps it to itself once it has been handled.
    log.error(
        "%s %r failed: %s", request.method, request.path, type(error).__name__, exc_info=error
    )
    return _response(unexpected())


def _response(described: Described) -> Response:
    body = described.body(request_id_of(request.environ))
    return Response(body, described.status, list(described.headers), content_type=MEDIA_TYPE)
