"""What a visitor chose in a list: read from the address, sent to `products`, written into links.

Pure. An address is written by anybody, so what is not understood is left out of the question and
the list is shown without it; only what was understood stands in the links of the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from headgate_shop.storefront.prices import cents_of, price

__all__ = ["PAGE", "SORTS", "Chip", "Filters", "filters_of"]

PAGE: Final = 24
QUERY_MAX: Final = 120
_CURSOR_MAX: Final = 512
_BRAND_MAX: Final = 80

SORTS: Final[Mapping[str, str]] = {
    "featured": "Featured",
    "newest": "Newest",
    "price": "Price: low to high",
    "-price": "Price: high to low",
    "rating": "Best rated",
    "name": "Name",
}


@dataclass(frozen=True, slots=True)
class Chip:
    """One choice that is in force, and the address without it."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Filters:
    query: str = ""
    category: str = ""
    brand: str = ""
    min_price: int | None = None
    max_price: int | None = None
    in_stock: bool = False
    featured: bool = False
    sort: str = ""
    cursor: str = ""

    def params(self, limit: int = PAGE) -> dict[str, str | int]:
        """The question to `products`."""
        found: dict[str, str | int] = {}
        for name, value in (
            ("category", self.category),
            ("brand", self.brand),
            ("min_price", self.min_price),
            ("max_price", self.max_price),
            ("sort", self.sort),
            ("cursor", self.cursor),
        ):
            if value not in ("", None):
                found[name] = value if isinstance(value, int) else str(value)
        if self.in_stock:
            found["in_stock"] = "true"
        if self.featured:
            found["featured"] = "true"
        found["limit"] = limit
        return found

    def fields(self) -> dict[str, str]:
        """The same as a form has it."""
        found = {
            "q": self.query,
            "category": self.category,
            "brand": self.brand,
            "min": _euros(self.min_price),
            "max": _euros(self.max_price),
            "in_stock": "1" if self.in_stock else "",
            "featured": "1" if self.featured else "",
            "sort": self.sort,
            "cursor": self.cursor,
        }
        return {name: value for name, value in found.items() if value}

    def url(self, path: str) -> str:
        fields = self.fields()
        if path.startswith("/category/"):
            fields.pop("category", None)
        return f"{path}?{urlencode(fields)}" if fields else path

    def onward(self, path: str, cursor: str) -> str:
        return replace(self, cursor=cursor).url(path)

    def chips(self, path: str) -> list[Chip]:
        """What is in force besides the query and the category of the page."""
        first = replace(self, cursor="")
        found: list[Chip] = []
        if self.brand:
            found.append(Chip(self.brand, replace(first, brand="").url(path)))
        if self.min_price is not None:
            text = f"From {price(self.min_price)}"
            found.append(Chip(text, replace(first, min_price=None).url(path)))
        if self.max_price is not None:
            text = f"Up to {price(self.max_price)}"
            found.append(Chip(text, replace(first, max_price=None).url(path)))
        if self.in_stock:
            found.append(Chip("In stock", replace(first, in_stock=False).url(path)))
        if self.featured:
            found.append(Chip("Featured", replace(first, featured=False).url(path)))
        return found


def filters_of(query: Mapping[str, str], *, category: str = "") -> Filters:
    low, high = _cents(query.get("min", "")), _cents(query.get("max", ""))
    if low is not None and high is not None and low > high:
        low, high = high, low
    sort = query.get("sort", "")
    chosen = category or query.get("category", "")
    is_slug = chosen.replace("-", "").isalnum() and chosen.isascii() and len(chosen) <= 80
    return Filters(
        query=" ".join(_plain(query.get("q", "")).split())[:QUERY_MAX].strip(),
        category=chosen if is_slug else "",
        brand=_plain(query.get("brand", "")).strip()[:_BRAND_MAX],
        min_price=low,
        max_price=high,
        in_stock=query.get("in_stock", "") in ("1", "true", "on"),
        featured=query.get("featured", "") in ("1", "true", "on"),
        sort=sort if sort in SORTS else "",
        cursor=_cursor(query.get("cursor", "")),
    )


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _cents(text: str) -> int | None:
    return cents_of(text) if text.strip() else None


def _euros(cents: int | None) -> str:
    if cents is None:
        return ""
    whole, rest = divmod(cents, 100)
    return f"{whole}.{rest:02d}" if rest else str(whole)


def _cursor(text: str) -> str:
    is_fine = len(text) <= _CURSOR_MAX and text.isascii() and text.isprintable()
    return text if is_fine and " " not in text else ""
