"""Litestar: its handlers of errors, and the layer around the app."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from litestar import Response
from litestar.exceptions import HTTPException, ValidationException

from headgate.kit.asgi import HardenedAsgi
from headgate.kit.problems import (
    DESCRIBED,
    MEDIA_TYPE,
    Described,
    describe,
    from_http,
    invalid,
    unexpected,
)
from headgate.kit.serving import Equipment, request_id_of
from headgate.kit.settings import Settings

if TYPE_CHECKING:
    from litestar import Litestar, Request

__all__ = ["wrap"]

log: Final = logging.getLogger("headgate.kit")

_UNMATCHED: Final = "unmatched"


def wrap(app: Litestar, settings: Settings, equipment: Equipment) -> HardenedAsgi:
    if settings.has("errors"):
        handlers: Any = app.exception_handlers
        # One that the app has chosen stays.
        handlers.setdefault(ValidationException, _invalid)
        handlers.setdefault(HTTPException, _http)
        for kind in DESCRIBED:
            handlers.setdefault(kind, _known)
        if 500 not in handlers:
            handlers.setdefault(Exception, _unknown)
    asgi: Any = app  # its own types of ASGI say the same in other words
    return HardenedAsgi(asgi, settings, equipment, find_route=_route)


def _route(scope: MutableMapping[str, Any]) -> str:
    """What a router has left there, for metrics."""
    template = scope.get("path_template")
    return template if isinstance(template, str) and template else _UNMATCHED


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    detail: Any = error.detail
    if error.extra:
        more = error.extra if isinstance(error.extra, Mapping) else {"errors": error.extra}
        detail = {"detail": error.detail, **more}
    if error.status_code >= 500:
        log.error("a handler answered %s", error.status_code, exc_info=error)
    return _response(request, from_http(error.status_code, detail, error.headers))


def _invalid(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    """Litestar says `key` and `source` of each fault."""
    faults = [
        {
            "loc": [part for part in (one.get("source"), *_parts(one.get("key"))) if part],
            "msg": one.get("message", ""),
        }
        for one in error.extra or ()
        if isinstance(one, Mapping)
    ]
    found = invalid(faults) if faults else from_http(error.status_code, error.detail)
    if error.status_code != found.status:
        found = Described(error.status_code, found.detail, members=found.members)
    return _response(request, found)


def _parts(key: object) -> list[str]:
    return str(key).split(".") if key else []


def _known(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return _response(request, describe(error) or unexpected())


def _unknown(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    # Litestar keeps it to itself once it has been handled.
    log.error("%s %r failed", request.method, request.scope["path"], exc_info=error)
    return _response(request, unexpected())


def _response(request: Request[Any, Any, Any], described: Described) -> Response[bytes]:
    body = described.body(request_id_of(request.scope))
    return Response(
        body,
        status_code=described.status,
        headers=dict(described.headers),
        media_type=MEDIA_TYPE,
    )
