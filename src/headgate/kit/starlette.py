"""FastAPI and Starlette: the layer around the app's own, and its handlers of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from headgate.kit.asgi import HardenedAsgi
from headgate.kit.openapi import with_problems
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
from headgate.kit.settings import KitInvalid, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp

    Handler = Callable[[HTTPConnection, Any], Awaitable[Response]]

__all__ = ["install"]


def install(app: Starlette, settings: Settings, equipment: Equipment) -> HardenedAsgi:
    if app.middleware_stack is not None:
        raise KitInvalid("this app has served already; harden it before")
    if settings.has("errors"):
        _handle(app)
        _describe(app)
    build = app.build_middleware_stack
    layer = HardenedAsgi(None, settings, equipment)

    def built() -> ASGIApp:
        layer.around(build())
        return layer

    # What is built is the whole stack, with layers that are added after this: ours is outside.
    app.build_middleware_stack = built  # type: ignore[method-assign]
    return layer


def _handle(app: Starlette) -> None:
    handlers = app.exception_handlers
    defaults = _defaults()

    def put(kind: Any, handler: Handler) -> None:
        # One that the app has chosen stays.
        if handlers.get(kind) in (None, *defaults):
            handlers[kind] = handler

    put(HTTPException, _http)
    for kind in DESCRIBED:
        put(kind, _known)
    if 500 not in handlers:
        put(Exception, _unknown)
    validation = _validation_error()
    if validation is not None:
        put(validation, _invalid)


def _describe(app: Any) -> None:
    """Say of FastAPI's own document what is answered now."""
    made = getattr(app, "openapi", None)
    if made is None:
        return

    def openapi() -> dict[str, Any]:
        document: dict[str, Any] = made()
        with_problems(document)
        return document

    app.openapi = openapi


def _defaults() -> tuple[Any, ...]:
    try:
        from fastapi.exception_handlers import (
            http_exception_handler,
            request_validation_exception_handler,
        )
    except ImportError:
        return ()
    return http_exception_handler, request_validation_exception_handler


def _validation_error() -> type[Exception] | None:
    try:
        from fastapi.exceptions import RequestValidationError
    except ImportError:
        return None
    return RequestValidationError


async def _http(request: HTTPConnection, error: HTTPException) -> Response:
    if error.status_code < 400:  # a redirect, or 304: no error
        return Response(None, error.status_code, dict(error.headers or {}))
    return _response(request, from_http(error.status_code, error.detail, error.headers))


async def _invalid(request: HTTPConnection, error: Any) -> Response:
    return _response(request, invalid(error.errors()))


async def _known(request: HTTPConnection, error: Exception) -> Response:
    return _response(request, describe(error) or unexpected())


async def _unknown(request: HTTPConnection, _error: Exception) -> Response:
    return _response(request, unexpected())


def _response(request: HTTPConnection, described: Described) -> Response:
    body = described.body(request_id_of(request.scope))
    return Response(body, described.status, dict(described.headers), MEDIA_TYPE)
