"""One visit: what somebody does next, given what they have seen.

Theory of operation
-------------------
A visitor is a browser, who asks for pages, or an app, which asks the API. Both look around: the
front page, a category or a search, then products, some of them with their recommendations. A part
put something into their cart; of these a part are shoppers, who have an account, and buy. The pure
part is here: `Plan.next` says what to do; `driver` does it and hands back what it saw.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

__all__ = ["CARDS", "Act", "Plan", "products_in"]

Kind = Literal["page", "api", "put", "checkout", "event"]
WORDS: Final = ("lamp", "chair", "kettle", "bag", "wool", "oak", "steel", "blue", "small", "green")
CARDS: Final = (
    ("4242424242424242", 92),
    ("4000000000000002", 3),
    ("4000000000009995", 3),
    ("4000000000000069", 1),
    ("4000000000000127", 1),
)
"""Numbers of the payment simulator, and how many of a hundred pay with each."""
_LINK: Final = re.compile(r'href="/product/([A-Za-z0-9_-]{1,64})"')
_SHELVES: Final = re.compile(r'href="(/category/[a-z0-9-]{1,64})"')
SEEN: Final = 200


@dataclass(frozen=True, slots=True)
class Act:
    kind: Kind
    path: str
    body: Any = None


@dataclass(slots=True)
class Plan:
    """The rest of a visit."""

    rng: random.Random
    is_browser: bool
    is_shopper: bool
    looks: int
    """So many more products will be looked at."""
    seen: list[str] = field(default_factory=list)
    shelves: list[str] = field(default_factory=list)
    in_cart: int = 0
    _queue: list[Act] = field(default_factory=list)
    _has_begun: bool = False
    _is_over: bool = False

    @classmethod
    def drawn(cls, rng: random.Random, *, shopper: bool) -> Plan:
        looks = 1 + min(int(rng.expovariate(0.4)), 12)
        return cls(rng, is_browser=rng.random() < 0.6, is_shopper=shopper, looks=looks)

    def next(self) -> Act | None:
        """What is done now; None when the visit is over."""
        if self._queue:
            return self._queue.pop(0)
        if not self._has_begun:
            self._has_begun = True
            return self._page("/", "/api/products/featured")
        if not self.seen:
            return None if self._is_over else self._search()
        if self.looks > 0:
            self.looks -= 1
            return self._look()
        if self.is_shopper and self.in_cart and not self._is_over:
            self._is_over = True
            return Act("checkout", "/api/checkout")
        return None

    def saw(self, answer: str) -> None:
        """The text of an answer that was asked for."""
        found = products_in(answer)
        self.seen = list(dict.fromkeys([*found, *self.seen]))[:SEEN]
        self.shelves = (self.shelves + _SHELVES.findall(answer))[:SEEN]

    def _search(self) -> Act:
        self._is_over = True  # nothing was found: once more, and that is it
        return self._shelf()

    def _shelf(self) -> Act:
        word = quote(self.rng.choice(WORDS))
        if self.shelves and self.rng.random() < 0.6:
            return Act("page", self.rng.choice(self.shelves))
        if self.rng.random() < 0.3:
            sort = self.rng.choice(("newest", "price", "rating"))
            return self._page(f"/products?sort={sort}", f"/api/products?sort={sort}&limit=24")
        return self._page(f"/search?q={word}", f"/api/products/search/{word}?limit=24")

    def _look(self) -> Act:
        if self.rng.random() < 0.25:
            return self._shelf()
        # Few products are looked at by many: the front of the list more often than its end.
        product = self.seen[min(int(self.rng.paretovariate(1.1)) - 1, len(self.seen) - 1)]
        if not self.is_browser:
            self._queue.append(Act("api", f"/api/products/{product}/stock"))
            self._queue.append(Act("event", "/api/events", {"product_id": product}))
        if self.rng.random() < 0.5:
            self._queue.append(Act("api", f"/api/products/{product}/recommendations"))
        if self.rng.random() < (0.7 if self.is_shopper else 0.15):
            quantity = 1 if self.rng.random() < 0.8 else 2
            self._queue.append(Act("put", f"/api/cart/items/{product}", {"quantity": quantity}))
            self.in_cart += 1
        return self._page(f"/product/{product}", f"/api/products/{product}")

    def _page(self, page: str, api: str) -> Act:
        return Act("page", page) if self.is_browser else Act("api", api)


def products_in(answer: str) -> list[str]:
    """The products that a page links to, or that a list of the API has, in their order."""
    found = _LINK.findall(answer) or re.findall(r'"id":\s*"([A-Za-z0-9_-]{1,64})"', answer)
    return list(dict.fromkeys(found))[:SEEN]
