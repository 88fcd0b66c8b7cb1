"""Order history, one order, and an order that is still being paid."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from headgate.kit import Problem
from headgate_shop.storefront.asking import Reply, ask
from headgate_shop.storefront.forms import COUNTRIES
from headgate_shop.storefront.goods import Product
from headgate_shop.storefront.orders_view import Order, is_order_id, order_of, orders_of
from headgate_shop.storefront.page_route import READ, PageRoute, read_form
from headgate_shop.storefront.shelves import Missing, ProductsAway
from headgate_shop.storefront.shop import Shop, Who
from headgate_shop.storefront.together import together
from headgate_shop.storefront.visitors import Visitor

__all__ = ["routes", "to_sign_in"]

ORDERS_S: Final = 4.0
PAGE: Final = 10
_CURSOR_MAX: Final = 512


def to_sign_in(request: Request, visitor: Visitor) -> Response:
    """Off to sign in, and back to here."""
    fields = {"next": request.url.path} | ({"unsure": "1"} if visitor.is_unsure else {})
    target = f"/signin?{urlencode(fields)}"
    return RedirectResponse(target, 303, {"cache-control": "no-store"})


def routes(shop: Shop) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    async def asked(visitor: Visitor, method: str, path: str, **params: str | int) -> Reply:
        return await ask(
            shop.mesh,
            "orders",
            method,
            path,
            params=params or None,
            headers=visitor.headers,
            timeout_s=ORDERS_S,
        )

    @router.api_route("/orders", methods=READ)
    async def orders(request: Request, who: Who) -> Response:
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return to_sign_in(request, visitor)
        cursor = request.query_params.get("cursor", "")[:_CURSOR_MAX]
        params: dict[str, str | int] = {"limit": PAGE}
        if cursor and cursor.isascii() and cursor.isprintable():
            params["cursor"] = cursor
        reply, frame = await together(
            asked(visitor, "GET", "/api/orders", **params), shop.frame(visitor)
        )
        if not reply.is_ok:
            if cursor and not reply.is_away:
                return RedirectResponse("/orders", 303, {"cache-control": "no-store"})
            return await shop.fault(request, 503, visitor=visitor, away="orders")
        onward = reply.member("next")
        return shop.pages.show(
            request,
            "orders.html",
            {
                "orders": orders_of(reply.data),
                "onward": f"/orders?{urlencode({'cursor': onward})}" if onward else "",
                "is_first": "cursor" not in params,
                "page_label": "/orders",
            },
            visitor=visitor,
            frame=frame,
            reach="secret",
        )

    @router.api_route("/orders/{number}", methods=READ)
    async def order(request: Request, who: Who, number: str) -> Response:
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return to_sign_in(request, visitor)
        reply, frame = await together(_one(asked, visitor, number), shop.frame(visitor))
        found = _found(reply, number)
        if found is None:
            return await shop.fault(request, 503, visitor=visitor, away="orders")
        query = request.query_params
        return shop.pages.show(
            request,
            "order.html",
            {
                "order": found,
                "goods": await _goods(shop, found),
                "is_placed": query.get("placed") == "1",
                "countries": COUNTRIES,
                "is_stuck": query.get("stuck") == "1",
                "page_label": "/orders/{id}",
            },
            visitor=visitor,
            frame=frame,
            reach="secret",
        )

    @router.api_route("/orders/{number}/state", methods=READ)
    async def state(request: Request, who: Who, number: str) -> Response:
        """For the script of the page of an order that is being paid."""
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            raise Problem(401, "sign in first", code="sign_in")
        found = _found(await _one(asked, visitor, number), number)
        if found is None:
            raise Problem(503, "orders are away for a moment")
        return JSONResponse(
            {"status": found.status}, headers={"cache-control": "private, no-store"}
        )

    @router.post("/orders/{number}/cancel")
    async def cancel(request: Request, who: Who, number: str) -> Response:
        await read_form(request)
        visitor = await shop.visitor(request, who)
        if not visitor.is_signed_in:
            return to_sign_in(request, visitor)
        if not is_order_id(number):
            raise Missing(number)
        reply = await asked(visitor, "POST", f"/api/orders/{quote(number)}/cancel")
        if reply.status == 404:
            raise Missing(number)
        stuck = "" if reply.is_ok else "?stuck=1"
        return RedirectResponse(f"/orders/{number}{stuck}", 303, {"cache-control": "no-store"})

    return router


async def _one(asked: Any, visitor: Visitor, number: str) -> Reply:
    if not is_order_id(number):
        raise Missing(number)
    reply: Reply = await asked(visitor, "GET", f"/api/orders/{number}")
    return reply


async def _goods(shop: Shop, order: Order) -> dict[str, Product]:
    """What of it is still for sale, for pictures and links; an order is whole without them."""
    numbers = [line.product.id for line in order.lines if line.product is not None]
    try:
        return {one.id: one for one in await shop.shelves.several(numbers)}
    except (ProductsAway, Missing):
        return {line.product.id: line.product for line in order.lines if line.product is not None}


def _found(reply: Reply, number: str) -> Order | None:
    """None where `orders` is away."""
    if reply.status in (403, 404):
        raise Missing(number)
    return order_of(reply.data) if reply.is_ok else None
