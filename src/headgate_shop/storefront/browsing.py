"""Home, lists, search and products: what everybody may see, with JavaScript or without."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from headgate_shop.storefront.basket_pages import TROUBLES
from headgate_shop.storefront.filters import SORTS, Filters, filters_of
from headgate_shop.storefront.goods import Category, Product, Shelf, Stock
from headgate_shop.storefront.page_route import READ, PageRoute
from headgate_shop.storefront.shelves import Missing, ProductsAway
from headgate_shop.storefront.shop import Shop, Who
from headgate_shop.storefront.together import together

__all__ = ["routes"]

ROW: Final = 4
FEATURED: Final = 8
NEWEST: Final = 4
RECOMMENDED: Final = 4


def routes(shop: Shop) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False)

    @router.api_route("/", methods=READ)
    async def home(request: Request, who: Who) -> Response:
        visitor = await shop.visitor(request, who)
        frame, featured, newest = await together(
            shop.frame(visitor), _shelf(shop, "featured"), _shelf(shop, "newest")
        )
        if not featured.items and not newest.items and not frame.categories:
            raise ProductsAway("nothing to show at home")
        return shop.pages.show(
            request,
            "home.html",
            {
                "featured": _rows(featured.items[:FEATURED]),
                "newest": newest.items[:NEWEST],
                "is_old": featured.is_old,
                "page_label": "/",
            },
            visitor=visitor,
            frame=frame,
            reach="shared",
            is_partial=not (featured.items and newest.items and frame.categories),
        )

    @router.api_route("/products", methods=READ)
    async def products(request: Request, who: Who) -> Response:
        filters = filters_of(request.query_params)
        return await _list(shop, request, who, filters, "/products")

    @router.api_route("/category/{slug}", methods=READ)
    async def category(request: Request, who: Who, slug: str) -> Response:
        filters = filters_of(request.query_params, category=slug)
        if filters.category != slug:
            raise Missing(slug)
        return await _list(shop, request, who, filters, f"/category/{slug}")

    @router.api_route("/search", methods=READ)
    async def search(request: Request, who: Who) -> Response:
        filters = filters_of(request.query_params)
        if not filters.query:
            return RedirectResponse(filters.url("/products"), 303)
        return await _list(shop, request, who, filters, "/search")

    @router.api_route("/product/{number}", methods=READ)
    async def product(request: Request, who: Who, number: str) -> Response:
        visitor = await shop.visitor(request, who)
        frame, (found, is_old), stock, also = await together(
            shop.frame(visitor),
            shop.shelves.product(number),
            shop.shelves.stock(number),
            shop.shelves.recommended(number, RECOMMENDED),
        )
        category = next((one for one in frame.categories if one.slug == found.category), None)
        return shop.pages.show(
            request,
            "product.html",
            {
                "product": found,
                "category": category,
                # What is said of the product is old: then so is the shelf.
                "stock": Stock("unknown") if is_old else stock,
                "also": also,
                "is_old": is_old,
                "most": _most(stock),
                "trouble": TROUBLES.get(request.query_params.get("trouble", ""), ""),
                "page_label": "/product/{id}",
            },
            visitor=visitor,
            frame=frame,
            reach="shared",
            is_partial=stock.state == "unknown",
        )

    return router


def _rows(products: tuple[Product, ...]) -> tuple[Product, ...]:
    """As many as fill whole rows; of fewer than one row, all."""
    return products[: len(products) // ROW * ROW] or products


async def _shelf(shop: Shop, name: str) -> Shelf:
    try:
        if name == "featured":
            return await shop.shelves.featured()
        return await shop.shelves.newest(NEWEST)
    except (ProductsAway, Missing):
        return Shelf((), "", None)


async def _list(shop: Shop, request: Request, who: Who, filters: Filters, path: str) -> Response:
    visitor = await shop.visitor(request, who)
    try:
        frame, shelf = await together(shop.frame(visitor), shop.shelves.listing(filters))
    except Missing:
        if not filters.cursor:
            raise
        # A cursor of yesterday: from the beginning, rather than nothing.
        first = replace(filters, cursor="").url(path)
        return RedirectResponse(first, 303)
    category = next((one for one in frame.categories if one.slug == filters.category), None)
    if path.startswith("/category/") and category is None and frame.categories:
        raise Missing(path)
    return shop.pages.show(
        request,
        "list.html",
        {
            "filters": filters,
            "fields": filters.fields(),
            "shelf": shelf,
            "category": category,
            "heading": _heading(filters, category),
            "chips": filters.chips(path),
            "sorts": SORTS,
            "here": path,
            "onward": filters.onward(path, shelf.next) if shelf.next else "",
            "first": replace(filters, cursor="").url(path) if filters.cursor else "",
            "bare": Filters(query=filters.query, category=filters.category).url(path),
            "is_old": shelf.is_old,
            "q": filters.query,
            "page_label": "/category/{slug}" if path.startswith("/category/") else path,
        },
        visitor=visitor,
        frame=frame,
        reach="shared",
        is_partial=not frame.categories,
    )


def _heading(filters: Filters, category: Category | None) -> str:
    if filters.query:
        return f"Results for “{filters.query}”"
    if category is not None:
        return category.name
    if filters.category:
        return filters.category.replace("-", " ").capitalize()
    return "Featured" if filters.featured else "All goods"


def _most(stock: Stock) -> int:
    """How many one may ask for at once."""
    if stock.available is None or stock.state == "unknown":
        return 10
    return max(1, min(10, stock.available))
