"""What is asked of the catalogue: filters, words, an order, and where to go on. Pure.

Theory of operation
-------------------
A list is sorted by one value and, where that is equal, by the product's number, so each product has
one place in it. A cursor says the place of the last product that was shown: what is added or
removed before it moves nothing that comes after, and nothing is shown twice or left out.

A cursor also says which of several ways of ranking it belongs to, and with which words the search
went on in the end, so that another process (a canary that ranks otherwise) continues the list that
was begun. And it names the question: with another one, it is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from headgate_shop.products.cursors import Cursors

__all__ = ["ORDERS", "CursorInvalid", "Order", "Place", "Question", "Ranking"]

Sort = Literal["featured", "newest", "price", "-price", "name", "rating"]
Ranking = Literal["standing", "rating", "relevance", "newest", "price", "-price", "name"]


class CursorInvalid(Exception):
    """It is not a cursor of this list."""


@dataclass(frozen=True, slots=True)
class Order:
    column: str
    is_descending: bool


ORDERS: Final[dict[Ranking, Order]] = {
    "standing": Order("place", is_descending=True),
    "rating": Order("rated", is_descending=True),
    "relevance": Order("relevance", is_descending=True),
    "newest": Order("created_ms", is_descending=True),
    "price": Order("price", is_descending=False),
    "-price": Order("price", is_descending=True),
    "name": Order("folded", is_descending=False),
}


@dataclass(frozen=True, slots=True)
class Question:
    category: str = ""
    brand: str = ""
    min_price: int | None = None
    max_price: int | None = None
    in_stock: bool | None = None
    featured: bool | None = None
    sort: Sort | Literal[""] = ""
    """By default what is featured comes first; of a search, what fits best."""
    words: tuple[str, ...] = ()
    is_search: bool = False

    def ranking(self, featured_by: Ranking) -> Ranking:
        """`featured_by` is how this release ranks what it recommends."""
        if self.sort == "featured" or (not self.sort and not self.is_search):
            return featured_by
        if not self.sort:
            return "relevance"
        return self.sort

    @property
    def key(self) -> str:
        """Of a cache: the same for the same question."""
        return hashlib.blake2b(repr(self).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """After the product with this number, whose value in this ranking is `value`."""

    ranking: Ranking
    value: int | str
    number: int
    words: tuple[str, ...]
    """Those that the search has found something for."""
    is_any: bool
    """One of the words is enough, because nothing has all of them."""

    def cursor(self, question: Question, cursors: Cursors) -> str:
        words = [] if self.words == question.words else list(self.words)
        return cursors.write(
            [self.ranking, self.value, self.number, words, int(self.is_any), question.key]
        )

    @classmethod
    def read(cls, text: str, question: Question, cursors: Cursors) -> Self:
        place: list[Any] | None = cursors.read(text)
        if place is None or len(place) != 6 or place[0] not in get_args(Ranking):
            raise CursorInvalid("this cursor is not one of ours; begin without it")
        ranking, value, number, words, is_any, key = place
        if key != question.key:
            raise CursorInvalid("this cursor belongs to another list; begin without it")
        return cls(ranking, value, number, tuple(words) or question.words, bool(is_any))
