"""What the pages' own scripts ask for: suggestions, recently viewed, how many are in the cart."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headgate_shop.storefront import baskets
from headgate_shop.storefront.filters import filters_of
from headgate_shop.storefront.page_route import READ, PageRoute
from headgate_shop.storefront.rendering import HEADERS
from headgate_shop.storefront.shelves import Missing, ProductsAway
from headgate_shop.storefront.shop import Shop, Who

__all__ = ["routes"]

SUGGESTED: Final = 6
RECENT: Final = 4
QUERY_MIN: Final = 2
_SHARED: Final = "public, max-age=30, s-maxage=60"


def routes(shop: Shop) -> APIRouter:
    router = APIRouter(route_class=PageRoute, prefix="/pieces", include_in_schema=False)

    @router.api_route("/suggest", methods=READ)
    async def suggest(request: Request) -> Response:
        """Suggestions while somebody types; none if `products` is away."""
        query = filters_of(request.query_params).query
        found: tuple[Any, ...] = ()
        is_known = True
        if len(query) >= QUERY_MIN:
            try:
                found = await shop.shelves.suggestions(query, SUGGESTED)
            except (ProductsAway, Missing):
                is_known = False
        items = [
            {
                "name": one.name,
                "url": one.url,
                "image": one.image,
                "price": str(one.price) if one.price else "",
            }
            for one in found
        ]
        kept = _SHARED if is_known else "no-store"
        return JSONResponse({"items": items}, headers={**HEADERS, "cache-control": kept})

    @router.api_route("/recent", methods=READ)
    async def recent(request: Request) -> Response:
        """Cards of products that this browser remembers to have seen."""
        wanted = request.query_params.get("ids", "")[:1000].split(",")[: RECENT * 2]
        try:
            found = (await shop.shelves.several(wanted))[:RECENT]
        except (ProductsAway, Missing):
            found = ()
        return Response(
            shop.pages.piece("pieces/recent.html", {"products": found}),
            media_type="text/html",
            headers={**HEADERS, "cache-control": _SHARED if found else "no-store"},
        )

    @router.api_route("/cart", methods=READ)
    async def cart(request: Request, who: Who) -> Response:
        """How many are in the cart: a page from the browser's own memory may be wrong about it."""
        visitor = await shop.visitor(request, who)
        basket, reply = await baskets.fetch(shop.mesh, visitor, baskets.GLANCE_S)
        count = basket.count if reply.is_ok else None
        return JSONResponse({"count": count}, headers={"cache-control": "private, no-store"})

    return router
