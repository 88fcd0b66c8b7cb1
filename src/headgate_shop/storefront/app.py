"""The storefront: the shop's pages.

It has no database. What it shows it asks of `products`, `orders`, `users` and `analytics`, and
each page says what becomes of it when one of them does not answer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from headgate.cache import Cache
from headgate.cache.asgi import CacheHeaders
from headgate.cache.gateway_link import GatewayLink
from headgate.mesh import Mesh
from headgate.observe import VitalsEndpoint
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.storefront import (
    account,
    basket_pages,
    browsing,
    checkout,
    ordering,
    pieces,
    signing,
)
from headgate_shop.storefront.page_route import READ, PageRoute
from headgate_shop.storefront.rendering import Pages
from headgate_shop.storefront.shelves import Missing, Shelves
from headgate_shop.storefront.shop import Shop
from headgate_shop.storefront.visitors import Cookies

__all__ = ["PAGES", "app"]

PAGES: Final = (
    "/",
    "/products",
    "/category/{slug}",
    "/search",
    "/product/{id}",
    "/cart",
    "/checkout",
    "/orders",
    "/orders/{id}",
    "/account",
    "/signin",
    "/signup",
)
"""Of which Web Vitals are kept apart."""
_YEAR: Final = "public, max-age=31536000, immutable"
_ROBOTS: Final = "User-agent: *\nDisallow: /cart\nDisallow: /checkout\nDisallow: /account\n"


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Storefront: the shop's pages", mesh=mesh)
    # A token by which it hears what products invalidates; with a Redis it hears that there.
    token = os.environ.get("SHOP_CACHE_TOKEN", "") if settings.admin_url else ""
    links = [GatewayLink(settings.admin_url, token)] if token and not settings.cache else []
    cache = Cache(settings.cache or None, links=links, copying="frozen")
    service.opened(cache)
    calls = service.mesh()
    cookies = Cookies(settings.public_url)
    shop = Shop(
        mesh=calls,
        shelves=Shelves(calls, cache, hears=bool(links or settings.cache)),
        pages=Pages(cookies),
        cookies=cookies,
        public_url=settings.public_url,
    )
    api = service.api
    api.state.shop = shop
    api.add_middleware(CacheHeaders, default=None)
    vitals = VitalsEndpoint(PAGES, client_of=_client_of)
    api.mount("/vitals", vitals)
    for part in (browsing, pieces, basket_pages, checkout, ordering, account, signing):
        api.include_router(part.routes(shop))
    _add_files(api, shop)
    return service.finish()


def _add_files(api: FastAPI, shop: Shop) -> None:
    @api.api_route("/static/{name}", methods=READ, include_in_schema=False)
    async def static(name: str) -> Response:
        found = shop.pages.assets.find(name)
        if found is None:
            return PlainTextResponse("no such file", 404, {"cache-control": "no-store"})
        return Response(
            found.body,
            media_type=found.kind,
            headers={"cache-control": _YEAR, "x-content-type-options": "nosniff"},
        )

    @api.api_route("/favicon.ico", methods=READ, include_in_schema=False)
    async def favicon() -> Response:
        body = (Path(__file__).parent / "static" / "icon.svg").read_bytes()
        return Response(
            body, media_type="image/svg+xml", headers={"cache-control": "public, max-age=86400"}
        )

    @api.api_route("/robots.txt", methods=READ, include_in_schema=False)
    async def robots() -> Response:
        return PlainTextResponse(_ROBOTS, headers={"cache-control": "public, max-age=86400"})

    async def nothing(request: Request) -> Response:
        raise Missing(request.url.path)

    # The last one: what no route takes. Not under the kit's own paths, which are answered before.
    api.router.routes.append(
        PageRoute("/{path:path}", nothing, methods=READ, include_in_schema=False)
    )


def _client_of(scope: Scope) -> str:
    """Whose beacon it is: the gateway says who came to it."""
    for name, value in scope["headers"]:
        if name == b"x-forwarded-for":
            return str(value.decode("latin-1").split(",")[0].strip())[:64]
    client = scope.get("client")
    return str(client[0]) if client else ""
