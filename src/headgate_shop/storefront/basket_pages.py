"""The cart: put into it, change it, look at it. Every form works without JavaScript.

With it, the same addresses answer JSON when something is added, and the page takes over the new
`<main>` when something is changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from headgate_shop.storefront import baskets, forms
from headgate_shop.storefront.asking import Reply
from headgate_shop.storefront.goods import is_product_id
from headgate_shop.storefront.page_route import READ, PageRoute, read_form, wants_json
from headgate_shop.storefront.shelves import Missing
from headgate_shop.storefront.shop import Shop, Who
from headgate_shop.storefront.together import together
from headgate_shop.storefront.visitors import Visitor, new_cart

__all__ = ["TROUBLES", "routes"]

TROUBLES: Final = {
    "away": "The cart does not answer just now. Nothing was changed; please try again in a moment.",
    "gone": "This is no longer for sale.",
    "short": "There are not that many left.",
    "cart_full": "Your cart is full. Take something out first, or buy what is in it.",
    "refused": "This could not be put into the cart.",
}
"""What an address may say, by its code: a page shows no sentence that a link brought along."""


def routes(shop: Shop) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.api_route("/cart", methods=READ)
    async def cart(request: Request, who: Who) -> Response:
        visitor = await shop.visitor(request, who)
        return await _cart_page(shop, request, visitor)

    @router.post("/cart/add")
    async def add(request: Request, who: Who) -> Response:
        form = await read_form(request)
        number = form.get("product_id", "")
        if not is_product_id(number):
            raise Missing(number)
        visitor = await shop.visitor(request, who)
        fresh = ""
        if not visitor.has_cart:
            fresh = visitor.cart = new_cart()
            visitor.headers = {**visitor.headers, "x-cart-id": fresh}
        wanted = min(max(1, forms.quantity_of(form.get("quantity", "1"))), forms.QUANTITY_MAX)
        reply = await baskets.add(shop.mesh, visitor, number, wanted)
        response = _added(request, number, reply)
        if fresh and reply.is_ok:
            shop.cookies.cart(response, fresh)
        return response

    @router.post("/cart/update")
    async def update(request: Request, who: Who) -> Response:
        form = await read_form(request)
        number = form.get("product_id", "")
        if not is_product_id(number):
            raise Missing(number)
        visitor = await shop.visitor(request, who)
        if not visitor.has_cart:
            return RedirectResponse("/cart", 303)
        quantity = forms.quantity_of(form.get("quantity", ""), default=1)
        if form.get("step") in ("-1", "1"):
            quantity = max(0, min(quantity + int(form["step"]), forms.QUANTITY_MAX))
        if form.get("remove"):
            quantity = 0
        reply = await baskets.change(shop.mesh, visitor, number, quantity)
        if reply.is_ok or reply.status == 404:
            told = {"removed": "1"} if quantity == 0 else {"changed": number}
        else:
            told = {"trouble": trouble_of(reply)}
        return RedirectResponse(f"/cart?{urlencode(told)}", 303)

    return router


async def _cart_page(shop: Shop, request: Request, visitor: Visitor) -> Response:
    (basket, reply), frame = await together(
        baskets.fetch(shop.mesh, visitor), shop.frame(Visitor(None))
    )
    is_away = not reply.is_ok
    query = request.query_params
    added = next((one for one in basket.lines if one.product.id == query.get("added")), None)
    return shop.pages.show(
        request,
        "cart.html",
        {
            "basket": basket,
            "is_away": is_away,
            "added": added,
            "is_removed": query.get("removed") == "1",
            "is_changed": bool(query.get("changed")),
            "trouble": TROUBLES.get(query.get("trouble", ""), ""),
            "most": forms.QUANTITY_MAX,
            "page_label": "/cart",
        },
        visitor=visitor,
        frame=replace(frame, cart_count=None if is_away else basket.count),
        reach="secret",
        status=503 if is_away else 200,
        headers={"retry-after": "5"} if is_away else None,
    )


def _added(request: Request, number: str, reply: Reply) -> Response:
    if reply.is_ok:
        count = baskets.basket_of(reply.data).count
        if wants_json(request):
            found = {"ok": True, "count": count or None}
            return JSONResponse(found, headers={"cache-control": "no-store"})
        return RedirectResponse(f"/cart?{urlencode({'added': number})}", 303)
    code = trouble_of(reply)
    told = TROUBLES[code] if reply.is_away else reply.detail or TROUBLES[code]
    if wants_json(request):
        return JSONResponse(
            {"ok": False, "code": code, "detail": told},
            503 if reply.is_away else 409,
            headers={"cache-control": "no-store"},
        )
    return RedirectResponse(f"/product/{number}?{urlencode({'trouble': code})}", 303)


def trouble_of(reply: Reply) -> str:
    if reply.is_away:
        return "away"
    return reply.code if reply.code in TROUBLES else "refused"
