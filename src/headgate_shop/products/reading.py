"""The catalogue as it is read from the database: one product, lists, categories, words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from headgate_shop.base.database import Database
from headgate_shop.base.short_reads import Row
from headgate_shop.products import selects
from headgate_shop.products.cursors import Cursors
from headgate_shop.products.question import Place, Question, Ranking
from headgate_shop.products.shapes import Goods
from headgate_shop.products.words import meant_by, words_of

__all__ = ["Catalogue", "Edition", "Found", "KnownWords", "goods_of"]

_NAMES: Final = tuple(Goods.model_fields)

KnownWords = Callable[[], Awaitable[Mapping[str, int]]]


def goods_of(row: Row) -> Goods:
    """Of a row that begins with the columns of a product, in the order of its members."""
    return Goods.model_validate(dict(zip(_NAMES, row, strict=False)))


class Edition(NamedTuple):
    """A product, and how it is now: with the next edit it is another edition."""

    id: str
    version: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a list."""

    items: Sequence[Edition] = ()
    next: str | None = None
    total: int = 0
    brands: Sequence[str] = ()
    meant: str = ""


_NOTHING: Final = Found()


class Catalogue:
    def __init__(self, database: Database, cursors: Cursors, featured_by: Ranking) -> None:
        self._database = database
        self._dialect = "sqlite" if database.is_sqlite else "postgresql"
        self._cursors = cursors
        self._featured_by: Ranking = featured_by

    async def product(self, product_id: str) -> Goods | None:
        rows = await self._database.rows(selects.ONE, id=product_id)
        return goods_of(rows[0]) if rows else None

    async def by_ids(self, ids: Sequence[str]) -> list[tuple[Goods, int]]:
        """Those that are there, in the order of the ids, each with how many are available."""
        rows = await self._database.rows(
            selects.several_of(self._dialect), ids=json.dumps(list(ids))
        )
        found = {goods.id: (goods, int(row[-1])) for row in rows for goods in (goods_of(row),)}
        return [found[one] for one in dict.fromkeys(ids) if one in found]

    async def available(self, product_id: str) -> int | None:
        """None for a product that is not sold here."""
        rows = await self._database.rows(selects.IN_STOCK, id=product_id)
        return int(rows[0][0]) if rows else None

    async def categories(self) -> list[dict[str, Any]]:
        """With how many products each has, and a picture of its best known one."""
        named = await self._database.rows(selects.COUNTED)
        pictures = {row[0]: row[1] for row in await self._database.rows(selects.FACES)}
        found = []
        for slug, name, count in named:
            images = pictures.get(slug) or []
            image = f"/images/{images[0]}" if images else ""
            found.append({"slug": slug, "name": name, "count": count, "image": image})
        return found

    async def known_words(self) -> dict[str, int]:
        """The words of names, brands and categories, each with how many products have it."""
        counts: Counter[str] = Counter()
        for folded, brand, category in await self._database.rows(selects.WORDS):
            counts.update(words_of(f"{folded} {brand} {category}"))
        return dict(counts)

    # ---- lists

    async def page(
        self, question: Question, cursor: str, limit: int, known: KnownWords | None = None
    ) -> Found:
        """Raises `CursorInvalid`. `known` tells the words to look for slips by."""
        if cursor:
            return await self._go_on(question, Place.read(cursor, question, self._cursors), limit)
        words = question.words
        if question.is_search and not words:
            return _NOTHING
        found = await self._begin(question, words, limit)
        if found.total or not words or known is None:
            return found
        meant = tuple(meant_by(words, await known()))
        if meant != words:
            found = await self._begin(question, meant, limit)
        if not found.total and len(meant) > 1:
            found = await self._begin(question, meant, limit, is_any=True)
        return found

    async def _begin(
        self, question: Question, words: tuple[str, ...], limit: int, *, is_any: bool = False
    ) -> Found:
        place = Place(question.ranking(self._featured_by), "", 0, words, is_any)
        return self._shown(question, place, await self._rows(question, place, limit + 1), limit)

    async def _go_on(self, question: Question, place: Place, limit: int) -> Found:
        rows = await self._rows(question, place, limit + 1)
        if rows:
            return self._shown(question, place, rows, limit)
        # What came after has gone meanwhile; how many there are is told all the same.
        begin = Place(place.ranking, "", 0, place.words, place.is_any)
        first = self._shown(question, begin, await self._rows(question, begin, 1), 1)
        return replace(first, items=(), next=None)

    async def _rows(self, question: Question, place: Place, limit: int) -> Sequence[Row]:
        select = selects.page_of(selects.Shape.of(self._dialect, question, place))
        values = selects.values_of(self._dialect, question, place, limit)
        return await self._database.rows(select, **values)

    def _shown(self, question: Question, place: Place, rows: Sequence[Row], limit: int) -> Found:
        if not rows:
            return _NOTHING
        onward = None
        if len(rows) > limit:
            last = rows[limit - 1]
            after = Place(place.ranking, last[4], last[0], place.words, place.is_any)
            onward = after.cursor(question, self._cursors)
        total, brands = rows[0][5:]
        meant = " ".join(place.words) if place.words != question.words else ""
        items = [Edition(*row[1:4]) for row in rows[:limit]]
        return Found(items, onward, total, sorted(brands), meant)
