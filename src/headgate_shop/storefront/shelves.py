"""What is for sale, as the storefront knows it: from `products`, and kept for when that is away.

Theory of operation
-------------------
Each question to `products` is an entry of a cache, with the tags of its answer (`Cache-Tag`). Where
this process hears of invalidations (a Redis that all share, or a link to the gateway) an entry is
fresh for a minute, because a product that is edited takes it away. Where it does not, an entry is
fresh for no longer than it takes several visitors at once to ask for the same: every page asks.

Either way it stands in for a day when `products` does not answer, and the page says that it is old.
The tags go on to the page, so that the gateway forgets it with the product.

Stock and recommendations are never kept here: what is old of the one is wrong, and of the other not
worth it. Without them a page is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from headgate.cache import Cache
from headgate.cache.asgi import tag_response
from headgate.errors import HeadgateError
from headgate.mesh import Mesh
from headgate_shop.storefront.asking import ask
from headgate_shop.storefront.filters import Filters
from headgate_shop.storefront.goods import (
    Category,
    Product,
    Shelf,
    Stock,
    category_of,
    is_product_id,
    product_of,
    products_of,
    shelf_of,
    stock_of,
)

__all__ = ["Missing", "ProductsAway", "Shelves"]

FRESH_S: Final = 60.0
TOGETHER_S: Final = 0.001
MISSING_S: Final = 5.0
KEPT_S: Final = 86_400.0
OLD_S: Final = 120.0
LISTS_S: Final = 2.5
STOCK_S: Final = 0.8
RECOMMENDED_S: Final = 0.6
_IDS_MAX: Final = 24
_TAGS_MAX: Final = 100


class ProductsAway(Exception):
    """`products` does not answer, and nothing of the kind is kept."""


class Missing(Exception):
    """`products` knows of no such thing."""


@dataclass(frozen=True, slots=True)
class _Known:
    data: Any
    is_old: bool


class Shelves:
    def __init__(self, mesh: Mesh, cache: Cache, *, hears: bool) -> None:
        """`hears`: the cache is told of what `products` invalidates."""
        self._mesh = mesh
        self._cache = cache
        self._fresh_s = FRESH_S if hears else TOGETHER_S

    async def listing(self, filters: Filters) -> Shelf:
        params = filters.params()
        path = "/api/products"
        if filters.query:
            path = _searched(filters.query)
        known = await self._known(path, params)
        return shelf_of(known.data, is_old=known.is_old)

    async def suggestions(self, query: str, most: int) -> tuple[Product, ...]:
        known = await self._known(_searched(query), {"limit": most})
        return shelf_of(known.data).items[:most]

    async def featured(self) -> Shelf:
        known = await self._known("/api/products/featured", {})
        data = known.data
        if isinstance(data, Mapping):
            return shelf_of(data, is_old=known.is_old)
        return Shelf(products_of(data), "", None, is_old=known.is_old)

    async def newest(self, most: int) -> Shelf:
        known = await self._known("/api/products", {"sort": "newest", "limit": most})
        return shelf_of(known.data, is_old=known.is_old)

    async def categories(self) -> tuple[Category, ...]:
        known = await self._known("/api/products/categories", {})
        data = known.data
        rows = data.get("items") if isinstance(data, Mapping) else data
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            return ()
        return tuple(one for one in map(category_of, rows) if one is not None)

    async def product(self, number: str) -> tuple[Product, bool]:
        """The product, and whether what is said of it is old."""
        if not is_product_id(number):
            raise Missing(number)
        known = await self._known(f"/api/products/{number}", {})
        product = product_of(known.data)
        if product is None:
            raise ProductsAway(f"what products says of {number} cannot be read")
        return product, known.is_old

    async def several(self, numbers: Iterable[str]) -> tuple[Product, ...]:
        """Those of these that are for sale, in this order."""
        wanted = list(dict.fromkeys(one for one in numbers if is_product_id(one)))[:_IDS_MAX]
        if not wanted:
            return ()
        tags = [f"product:{one}" for one in wanted]
        known = await self._known("/internal/products", {"ids": ",".join(wanted)}, tags)
        data = known.data
        found = products_of(data.get("items") if isinstance(data, Mapping) else data)
        by_id = {one.id: one for one in found}
        return tuple(by_id[one] for one in wanted if one in by_id)

    async def stock(self, number: str) -> Stock:
        reply = await ask(
            self._mesh, "products", "GET", f"/api/products/{number}/stock", timeout_s=STOCK_S
        )
        return stock_of(reply.data) if reply.is_ok else Stock("unknown")

    async def recommended(self, number: str, most: int) -> tuple[Product, ...]:
        """What else they bought; nothing, if that cannot be said in time."""
        try:
            async with asyncio.timeout(RECOMMENDED_S * 2):
                reply = await ask(
                    self._mesh,
                    "analytics",
                    "GET",
                    f"/api/products/{number}/recommendations",
                    timeout_s=RECOMMENDED_S,
                )
                if not reply.is_ok:
                    return ()
                return (await self.several(_recommended(reply.data, number)))[:most]
        except (TimeoutError, ProductsAway, Missing):
            return ()

    async def _known(
        self, path: str, params: Mapping[str, str | int], tags: Sequence[str] = ()
    ) -> _Known:
        """`tags` are for answers that do not say themselves what they were made of."""

        async def load(entry: Any) -> dict[str, Any]:
            reply = await ask(self._mesh, "products", "GET", path, params=params, timeout_s=LISTS_S)
            if reply.is_away or not (reply.is_ok or reply.status in (400, 404, 410, 422)):
                raise ProductsAway(f"products answered {reply.status} for {path}")
            entry.tags = _fitting((*tags, *reply.tags))
            if not reply.is_ok:
                entry.ttl = min(self._fresh_s, MISSING_S)
            return {
                "data": reply.data if reply.is_ok else None,
                "is_there": reply.is_ok,
                "tags": list(entry.tags),
                "at": time.time(),  # noqa: TID251 - other processes read it from the shared cache
            }

        name = f"{path}?{urlencode(sorted(params.items()))}"
        key = hashlib.sha256(name.encode()).hexdigest()[:40]
        try:
            value = await self._cache.get_or_set(
                f"shelf:{key}",
                load,
                ttl=self._fresh_s,
                jitter=0.0,
                early=0.0 if self._fresh_s < 1.0 else 1.0,
                stale_if_error=KEPT_S,
                hard_timeout=LISTS_S + 1.0,
            )
        except HeadgateError as error:
            raise ProductsAway(str(error)) from error
        if not value["is_there"]:
            raise Missing(path)
        if value["tags"]:
            tag_response(*value["tags"])
        age_s = time.time() - value["at"]  # noqa: TID251 - as above
        return _Known(value["data"], is_old=age_s > OLD_S)


def _searched(query: str) -> str:
    """A slash in a path ends a part of it, quoted or not; to a search it is no more than a gap."""
    words = " ".join(query.replace("/", " ").split()) or "-"
    return f"/api/products/search/{quote(words, safe='')}"


def _fitting(said: Iterable[str]) -> list[str]:
    """The tags of an answer, as many as an entry may have: of more, those of single products go."""
    tags = [tag for tag in dict.fromkeys(said) if tag.isascii() and " " not in tag]
    if len(tags) <= _TAGS_MAX:
        return tags
    return [tag for tag in tags if not tag.startswith("product:")][:_TAGS_MAX]


def _recommended(data: Any, number: str) -> list[str]:
    rows = data.get("items") if isinstance(data, Mapping) else None
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        return []
    found = []
    for row in rows[:_IDS_MAX]:
        given = row
        if isinstance(row, Mapping):
            given = row.get("product_id", row.get("id"))
        if isinstance(given, str) and given != number:
            found.append(given)
    return found
