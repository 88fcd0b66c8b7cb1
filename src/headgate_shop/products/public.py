"""What everybody may read: the catalogue in both versions, and what is in stock.

Answers are made once and kept as bytes. What is said to caches: browsers ask each time (an ETag
makes that cheap), shared caches keep for five minutes what an edit takes back by its tags.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.convertors import Convertor, register_url_convertor

from headgate.cache import Cache
from headgate.cache import Settings as Held
from headgate.cache.asgi import tag_response
from headgate.kit import Problem
from headgate_shop.base.settings import Settings
from headgate_shop.products.cursors import CURSOR_MAX
from headgate_shop.products.question import CursorInvalid, Question
from headgate_shop.products.reading import Catalogue, Found
from headgate_shop.products.shapes import (
    ID,
    LOW_AT,
    PRICE_MAX,
    SLUG,
    CategoryCount,
    Featured,
    FeaturedV2,
    Goods,
    Page,
    PageV2,
    Product,
    ProductV2,
    StockLevel,
)
from headgate_shop.products.shelf import Shelf, json_text
from headgate_shop.products.words import WORDS_MAX, words_of

__all__ = ["etag_of", "json_of", "routes", "unknown"]

LIMIT_MAX: Final = 100
FEATURED_MAX: Final = 48
QUERY_MAX: Final = 200
BROWSERS: Final = "public, max-age=0, must-revalidate"
KEPT: Final = "public, max-age=300, stale-while-revalidate=60, stale-if-error=86400"
STOCK_KEPT: Final = "public, max-age=2, stale-if-error=30"
# An edit throws away what is kept here, so what is stale is only old, and better than nothing when
# the database is away, or slow.
LASTING: Final[Held] = {
    "ttl": "5min",
    "stale_while_revalidate": "1min",
    "stale_if_error": "1h",
    "soft_timeout": "300ms",
    "tags": lambda made: made[1][:2],
}
BRIEF: Final[Held] = {"ttl": "2s", "stale_if_error": "30s", "tags": LASTING["tags"]}
DEPRECATED: Final = "@1767225600"  # 2026-01-01, RFC 9745
SUNSET: Final = "Fri, 31 Dec 2027 23:59:59 GMT"  # RFC 8594

ProductId = Annotated[str, Path(pattern=ID, max_length=64)]
Version = Literal["v1", "v2"]


class _Anything(Convertor[str]):
    """What somebody searches for: slashes and lines too, which are no part of a path otherwise."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


class Listing(BaseModel):
    """The parameters that all lists have."""

    category: str = Field(default="", max_length=60, pattern=rf"{SLUG}|^$")
    brand: str = Field(default="", max_length=80)
    min_price: int | None = Field(default=None, ge=0, le=PRICE_MAX)
    """In cents."""
    max_price: int | None = Field(default=None, ge=0, le=PRICE_MAX)
    in_stock: bool | None = None
    featured: bool | None = None
    sort: Literal["featured", "newest", "price", "-price", "name", "rating"] | None = None
    limit: int = Field(default=24, ge=1, le=LIMIT_MAX)
    cursor: str = Field(default="", max_length=CURSOR_MAX)

    def question(self, query: str | None = None) -> Question:
        low, high = self.min_price, self.max_price
        if low is not None and high is not None and low > high:
            raise Problem(422, f"min_price {low} is above max_price {high}", code="prices")
        if "\0" in self.brand:
            raise Problem(422, "brand: there is a NUL in it", code="brand")
        return Question(
            category=self.category,
            brand=self.brand,
            min_price=low,
            max_price=high,
            in_stock=self.in_stock,
            featured=self.featured,
            sort=self.sort or "",
            words=() if query is None else tuple(words_of(query, WORDS_MAX)),
            is_search=query is not None,
        )


async def searched(request: Request) -> Listing:
    """The same, read at once: FastAPI takes a model of parameters apart for each request, which
    takes as long as the search does. For documents there is `DESCRIBED`.
    """
    try:
        return Listing.model_validate(dict(request.query_params))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError(
            [{**fault, "loc": ("query", *fault["loc"])} for fault in faults]
        ) from error


Asked = Annotated[Listing, Query()]
Searched = Annotated[Listing, Depends(searched)]
DESCRIBED: Final = {
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in Listing.model_json_schema()["properties"].items()
    ]
}
Made = tuple[bytes, tuple[str, ...], str]
"""What is answered, its tags, its ETag. Nobody can change it, so the cache makes no copies."""


def unknown(product_id: str) -> Problem:
    return Problem(404, f"there is no product {product_id}", code="product_unknown")


def etag_of(goods: Goods, version: Version, release: str) -> str:
    """Begins with the version of the row, which is what an edit with If-Match goes by; the rest
    tells apart what is said of it.
    """
    return f'"{goods.version}.{version}.{release}"'


class Reads:
    """The reads of one version, from the cache or by the catalogue."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, cache: Cache, version: Version
    ) -> None:
        self._release = settings.version
        self._catalogue = catalogue
        self._cache = cache
        self._version = version
        self._shelf = Shelf(catalogue, self.shown)
        self._keys = f"{version}:{settings.version}"
        self._headers = {
            "cache-control": BROWSERS,
            "cdn-cache-control": KEPT,
            "x-shop-version": settings.version,
        }
        self._brief = {**self._headers, "cdn-cache-control": STOCK_KEPT}

    async def answer(
        self, key: str, make: Callable[[], Awaitable[Made]], held: Held = LASTING
    ) -> Response:
        """`key` names the answer among those of this version and release."""
        body, tags, etag = await self._cache.get_or_set(f"{self._keys}:{key}", make, **held)
        tag_response(*tags)
        headers = self._headers if held is LASTING else self._brief
        if etag:
            headers = {**headers, "etag": etag}
        return Response(body, media_type="application/json", headers=headers)

    def shown(self, goods: Goods) -> dict[str, Any]:
        return goods.v1() if self._version == "v1" else goods.v2()

    async def listed(self, listing: Listing, query: str | None = None) -> Response:
        question = listing.question(query)

        async def make() -> Made:
            try:
                found = await self._catalogue.page(
                    question, listing.cursor, listing.limit, self._known_words
                )
            except CursorInvalid as error:
                raise Problem(400, f"cursor: {error}", code="cursor") from error
            tags = ["products"]
            if question.category:
                tags.append(f"category:{question.category}")
            return await self._page(found, tags, {
                "next": found.next,
                "total": found.total,
                "brands": found.brands,
                "meant": found.meant or None,
            })  # fmt: skip

        key = f"list:{question.key}:{listing.limit}:{listing.cursor}"
        # What is in stock changes without an edit.
        held = LASTING if question.in_stock is None else BRIEF
        return await self.answer(key, make, held)

    async def _page(
        self, found: Found, tags: list[str], more: Mapping[str, Any] | None = None
    ) -> Made:
        texts = await self._shelf.texts(found.items)
        rest = f",{json_text(more)[1:]}" if more else "}"
        tags += [f"product:{one.id}" for one in found.items]
        return f'{{"items":[{",".join(texts)}]{rest}'.encode(), tuple(tags), ""

    async def _known_words(self) -> dict[str, int]:
        found: dict[str, int] = await self._cache.get_or_set(
            "words", self._catalogue.known_words, ttl="10min", tags=["products"]
        )
        return found

    async def product(self, product_id: str) -> Response:
        async def make() -> Made:
            goods = await self._catalogue.product(product_id)
            if goods is None:
                raise unknown(product_id)
            etag = etag_of(goods, self._version, self._release)
            tags = (f"product:{product_id}", f"category:{goods.category}")
            return json_text(self.shown(goods)).encode(), tags, etag

        return await self.answer(f"product:{product_id}", make)

    async def featured(self, limit: int) -> Response:
        async def make() -> Made:
            found = await self._catalogue.page(Question(featured=True), "", limit)
            return await self._page(found, ["products"])

        return await self.answer(f"featured:{limit}", make)

    async def categories(self) -> Response:
        async def make() -> Made:
            return json_text(await self._catalogue.categories()).encode(), ("products",), ""

        return await self.answer("categories", make)

    async def stock(self, product_id: str) -> Response:
        async def make() -> Made:
            available = await self._catalogue.available(product_id)
            if available is None:
                raise unknown(product_id)
            state = "out" if available <= 0 else "low" if available < LOW_AT else "in_stock"
            document = {"product_id": product_id, "available": available, "state": state}
            tags = (f"stock:{product_id}", f"product:{product_id}")
            return json_text(document).encode(), tags, ""

        return await self.answer(f"stock:{product_id}", make, BRIEF)


def routes(settings: Settings, catalogue: Catalogue, cache: Cache, version: Version) -> APIRouter:
    reads = Reads(settings, catalogue, cache, version)
    prefix = "/api/products" if version == "v1" else "/api/v2/products"
    page: type[Page | PageV2] = Page if version == "v1" else PageV2
    product: type[Product | ProductV2] = Product if version == "v1" else ProductV2
    router = APIRouter(
        prefix=prefix,
        tags=[f"products {version}"],
        deprecated=True if version == "v1" else None,
        generate_unique_id_function=lambda route: f"{route.name}_{version}",
    )

    @router.get("", response_model=page)
    async def list_products(request: Request, listing: Asked) -> Response:
        return _told(request, await reads.listed(listing), version)

    @router.get("/search/{query:anything}", response_model=page, openapi_extra=DESCRIBED)
    async def search_products(
        request: Request,
        query: Annotated[str, Path(max_length=QUERY_MAX)],
        listing: Searched,
    ) -> Response:
        return _told(request, await reads.listed(listing, query), version)

    @router.get("/featured", response_model=Featured if version == "v1" else FeaturedV2)
    async def featured_products(
        request: Request, limit: Annotated[int, Query(ge=1, le=FEATURED_MAX)] = 12
    ) -> Response:
        return _told(request, await reads.featured(limit), version)

    @router.get("/categories", response_model=list[CategoryCount])
    async def list_categories(request: Request) -> Response:
        return _told(request, await reads.categories(), version)

    @router.get("/{product_id}", response_model=product, responses=_missing())
    async def get_product(request: Request, product_id: ProductId) -> Response:
        return _told(request, await reads.product(product_id), version)

    @router.get("/{product_id}/stock", response_model=StockLevel, responses=_missing())
    async def get_stock(request: Request, product_id: ProductId) -> Response:
        return _told(request, await reads.stock(product_id), version)

    return router


def _told(request: Request, response: Response, version: Version) -> Response:
    """Of the old version: that it ends, and what takes its place."""
    if version == "v1":
        path = str(request.scope["path"])
        there = quote(path.replace("/api/products", "/api/v2/products", 1))
        response.headers["deprecation"] = DEPRECATED
        response.headers["sunset"] = SUNSET
        response.headers["link"] = f'<{there}>; rel="successor-version"'
    return response


def _missing() -> dict[int | str, dict[str, Any]]:
    return {404: {"description": "There is no such product"}}


def json_of(document: Any, status: int = 200) -> JSONResponse:
    """For those who ask by the mesh: no cache is to keep it."""
    return JSONResponse(document, status, headers={"cache-control": "no-store"})
