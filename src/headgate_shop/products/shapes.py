"""What the products API says and takes, in both versions; the OpenAPI documents come from here.

The gateway validates requests by what stands here, so bounds are written out and bodies take no
member that is not named.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = [
    "ID",
    "LOW_AT",
    "PRICE_MAX",
    "SLUG",
    "Brand",
    "CategoryCount",
    "Featured",
    "FeaturedV2",
    "Goods",
    "NewProduct",
    "Page",
    "PageV2",
    "Product",
    "ProductChange",
    "ProductDraft",
    "ProductId",
    "ProductV2",
    "Slug",
    "StockLevel",
    "StockOrder",
    "instant",
    "text_fault",
]

ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
SLUG: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
PRICE_MAX: Final = 100_000_000
STOCK_MAX: Final = 1_000_000
LOW_AT: Final = 5
"""So few are few."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

ProductId = Annotated[str, Field(pattern=ID, max_length=64)]
Slug = Annotated[str, Field(pattern=SLUG, max_length=60)]


def text_fault(text: str) -> str:
    """Why it cannot stand in a catalogue; empty if it can."""
    found = _CONTROL.search(text)
    if found is not None:
        return f"the character U+{ord(found[0]):04X} at {found.start() + 1} cannot be shown"
    return "" if text.strip() else "there is nothing in it"


def _plain(text: str) -> str:
    if fault := text_fault(text):
        raise ValueError(fault)
    return text.strip()


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)]
Brand = Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_plain)]
Text = Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(_plain)]
Cents = Annotated[int, Field(ge=0, le=PRICE_MAX, strict=True)]


class Goods(BaseModel):
    """What the database has of a product; both versions are made of it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: int
    id: str
    name: str
    description: str
    category: str
    brand: str
    price: int
    currency: str
    featured: bool
    rating_tenths: int
    images: list[str]
    version: int
    created_ms: int
    updated_ms: int

    def v1(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "category": self.category,
            "brand": self.brand,
            "price": self.price,
            "currency": self.currency,
            "featured": self.featured,
            "image": image_path(self.images),
            "rating": self.rating_tenths / 10 if self.rating_tenths else None,
            "created_at": instant(self.created_ms),
            "updated_at": instant(self.updated_ms),
        }

    def v2(self) -> dict[str, Any]:
        shown = self.v1()
        shown["price"] = {"amount": self.price, "currency": self.currency}
        del shown["currency"], shown["image"]
        shown["images"] = [f"/images/{name}" for name in self.images]
        shown["links"] = {
            "self": f"/api/v2/products/{self.id}",
            "stock": f"/api/v2/products/{self.id}/stock",
            "category": f"/api/v2/products?category={self.category}",
        }
        return shown


def image_path(images: list[str]) -> str:
    return f"/images/{images[0]}" if images else ""


def instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


class Product(BaseModel):
    id: str
    name: str
    description: str
    category: str
    """The slug of one."""
    brand: str
    price: int
    """In cents."""
    currency: str
    featured: bool
    image: str
    """A path under /images/, or empty."""
    rating: float | None
    """One to five; null while nobody has rated it."""
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    items: list[Product]
    next: str | None
    """The cursor of the next page."""
    total: int
    brands: list[str]
    """That the list may be narrowed to."""
    meant: str | None
    """Of a search: what was looked for in place of what was written."""


class Featured(BaseModel):
    items: list[Product]


class Price(BaseModel):
    amount: int
    """In cents."""
    currency: str


class Links(BaseModel):
    self: str
    stock: str
    category: str


class ProductV2(BaseModel):
    id: str
    name: str
    description: str
    category: str
    brand: str
    price: Price
    featured: bool
    images: list[str]
    rating: float | None
    created_at: datetime
    updated_at: datetime
    links: Links


class PageV2(BaseModel):
    items: list[ProductV2]
    next: str | None
    total: int
    brands: list[str]
    meant: str | None


class FeaturedV2(BaseModel):
    items: list[ProductV2]


class CategoryCount(BaseModel):
    slug: str
    name: str
    count: int
    image: str


class StockLevel(BaseModel):
    product_id: str
    available: int | None
    """Null where it is not known."""
    state: Literal["in_stock", "low", "out", "unknown"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProductDraft(_Body):
    """A whole product, as it is made or replaced."""

    name: Name
    description: Text
    category: Slug
    brand: Brand
    price: Cents
    currency: Literal["EUR"] = "EUR"
    featured: bool = Field(default=False, strict=True)
    rating: Annotated[float, Field(ge=1, le=5)] | None = None


class ProductChange(_Body):
    """What is to be different; what is not named stays."""

    name: Name | None = None
    description: Text | None = None
    category: Slug | None = None
    brand: Brand | None = None
    price: Cents | None = None
    featured: Annotated[bool, Field(strict=True)] | None = None
    rating: Annotated[float, Field(ge=1, le=5)] | None = None


class NewProduct(ProductDraft):
    id: ProductId | None = None
    """One of your own; else it is given one."""
    stock: int = Field(default=0, ge=0, le=STOCK_MAX, strict=True)


class StockOrder(_Body):
    """Either what was counted, or what came (or, below 0, went)."""

    set: Annotated[int, Field(ge=0, le=STOCK_MAX, strict=True)] | None = None
    add: Annotated[int, Field(ge=-STOCK_MAX, le=STOCK_MAX, strict=True)] | None = None
