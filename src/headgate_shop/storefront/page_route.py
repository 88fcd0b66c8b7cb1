"""A route whose troubles are pages: not found, away, and our own mistakes.

What a script of ours asks for (`accept: application/json`) is left to the app, which answers
problem+json.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteError
from starlette.requests import Request
from starlette.responses import Response

from headgate.kit import Problem
from headgate.observe import logs
from headgate_shop.storefront.shelves import Missing, ProductsAway
from headgate_shop.storefront.shop import shop_of
from headgate_shop.storefront.visitors import Elsewhere

__all__ = ["READ", "PageRoute", "read_form", "wants_json"]

READ: Final = ["GET", "HEAD"]
FORM_MAX: Final = 32_768
FIELDS_MAX: Final = 60
_FORM: Final = "application/x-www-form-urlencoded"

log = logs.get("shop.storefront")


def wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the last of each name. What no form of ours sends is refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise Problem(415, f"send a form ({_FORM}), not {kind or 'nothing'!r}")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_MAX:
            raise Problem(413, f"a form has at most {FORM_MAX} bytes")
    try:
        text = body.decode("utf-8")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError as error:
        raise Problem(400, f"this form cannot be read: {error}") from error


class PageRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except Elsewhere as there:
                return there.response
            except Missing as error:
                if wants_json(request):
                    raise Problem(404, "there is no such product") from error
                return await shop_of(request).fault(request, 404)
            except ProductsAway as error:
                log.warning("no shelf to show", path=request.url.path, why=str(error))
                if wants_json(request):
                    raise Problem(503, "the catalogue is away for a moment") from error
                return await shop_of(request).fault(request, 503, away="products")
            except Problem as problem:
                if wants_json(request):
                    raise
                return await shop_of(request).fault(request, problem.status)
            except RequestValidationError:
                if wants_json(request):
                    raise
                return await shop_of(request).fault(request, 400)
            except (HTTPException, StarletteError) as error:
                if wants_json(request):
                    raise
                return await shop_of(request).fault(request, error.status_code)
            except Exception:
                if wants_json(request):
                    raise
                # Told here: the app around hears of it only as a status.
                log.exception("a page failed", path=request.url.path)
                return await shop_of(request).fault(request, 500)

        return handle
