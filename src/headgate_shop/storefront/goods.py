"""What the storefront shows of a product, read from what `products` answered. Pure.

An answer is not believed to be complete: what a page cannot do without (an id and a name) makes the
product unreadable, everything else has a way to be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from headgate_shop.storefront.prices import Price, price

__all__ = [
    "Category",
    "Product",
    "Shelf",
    "Stock",
    "StockState",
    "category_of",
    "is_product_id",
    "product_of",
    "products_of",
    "shelf_of",
    "stock_of",
]

StockState: TypeAlias = Literal["in_stock", "low", "out", "unknown"]
_STATES: Final[tuple[StockState, ...]] = ("in_stock", "low", "out", "unknown")
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,80}")
_SLUG: Final = re.compile(r"[a-z0-9-]{1,80}")


@dataclass(frozen=True, slots=True)
class Product:
    id: str
    name: str
    description: str
    category: str
    brand: str
    price: Price | None
    """None while it is not known."""
    image: str
    """A path of this site, or nothing."""
    rating: float | None
    """From 0 to 5, in halves."""
    rating_text: str
    reviews: int | None
    is_featured: bool

    @property
    def url(self) -> str:
        return f"/product/{self.id}"


@dataclass(frozen=True, slots=True)
class Category:
    slug: str
    name: str
    count: int | None
    image: str

    @property
    def url(self) -> str:
        return f"/category/{self.slug}"


@dataclass(frozen=True, slots=True)
class Stock:
    state: StockState
    available: int | None = None


@dataclass(frozen=True, slots=True)
class Shelf:
    """One page of a list."""

    items: tuple[Product, ...]
    next: str
    total: int | None
    brands: tuple[str, ...] = ()
    is_old: bool = False
    """From before `products` went away."""
    meant: str = ""
    """What may have been meant by words for which there is nothing."""


def is_product_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and text not in (".", "..")


def product_of(data: Any) -> Product | None:
    if not isinstance(data, Mapping):
        return None
    number, name = data.get("id"), data.get("name")
    if not isinstance(number, str) or not is_product_id(number):
        return None
    if not isinstance(name, str) or not name.strip():
        return None
    rating = _rating(data.get("rating"))
    return Product(
        id=number,
        name=name.strip(),
        description=_text(data.get("description")),
        category=_slug(data.get("category")),
        brand=_text(data.get("brand")),
        price=_price(data.get("price"), data.get("currency")),
        image=_image(data.get("image")),
        rating=None if rating is None else round(rating * 2) / 2,
        rating_text="" if rating is None else f"{rating:.1f}",
        reviews=_count(data.get("reviews", data.get("rating_count"))),
        is_featured=data.get("featured") is True,
    )


def products_of(data: Any) -> tuple[Product, ...]:
    """Those of a list that can be shown."""
    if not isinstance(data, Sequence) or isinstance(data, str):
        return ()
    return tuple(one for one in map(product_of, data) if one is not None)


def shelf_of(data: Any, *, is_old: bool = False) -> Shelf:
    if not isinstance(data, Mapping):
        return Shelf((), "", None, is_old=is_old)
    brands = data.get("brands")
    names = brands if isinstance(brands, Sequence) and not isinstance(brands, str) else ()
    onward = data.get("next")
    return Shelf(
        items=products_of(data.get("items")),
        next=onward if isinstance(onward, str) else "",
        total=_count(data.get("total")),
        brands=tuple(one for one in names if isinstance(one, str) and one),
        is_old=is_old,
        meant=_text(data.get("meant"))[:120],
    )


def category_of(data: Any) -> Category | None:
    if not isinstance(data, Mapping):
        return None
    slug = _slug(data.get("slug"))
    if not slug:
        return None
    name = _text(data.get("name")) or slug.replace("-", " ").capitalize()
    return Category(slug, name, _count(data.get("count")), _image(data.get("image")))


def stock_of(data: Any) -> Stock:
    if not isinstance(data, Mapping):
        return Stock("unknown")
    said = data.get("state")
    for state in _STATES:
        if said == state:
            return Stock(state, _count(data.get("available")) if state != "unknown" else None)
    return Stock("unknown")


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _slug(value: Any) -> str:
    return value if isinstance(value, str) and _SLUG.fullmatch(value) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _price(value: Any, currency: Any) -> Price | None:
    cents = _count(value)
    if cents is None:
        return None
    return price(cents, currency if isinstance(currency, str) and len(currency) == 3 else "EUR")


def _rating(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("average", value.get("value"))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 5:
        return None
    return float(value)


def _image(value: Any) -> str:
    """A path of this site: an image from elsewhere would tell others of the page."""
    if not isinstance(value, str) or not value.startswith("/") or value.startswith("//"):
        return ""
    return "" if any(c in value for c in "\\\"' \t\r\n") else value
