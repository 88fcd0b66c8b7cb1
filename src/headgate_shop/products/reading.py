"""The catalogue as it is read from the database: one product, lists, categories, words.

Only here and in the first migration do SQLite and PostgreSQL search differently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.database import Database
from headgate_shop.products.cursors import Cursors
from headgate_shop.products.question import ORDERS, Place, Question, Ranking
from headgate_shop.products.shapes import Goods
from headgate_shop.products.tables import CATEGORIES, PRODUCTS, STOCK
from headgate_shop.products.words import meant_by, words_of

__all__ = ["AVAILABLE", "FEATURED_FIRST", "Catalogue", "Found", "goods_of"]

FEATURED_FIRST: Final = 100_000_000
"""More than any standing: what is featured comes before what is not."""
BRANDS_MAX: Final = 60
AVAILABLE: Final = STOCK.c.received - STOCK.c.sold - STOCK.c.reserved
_FEATURED: Final = sa.case((PRODUCTS.c.featured, FEATURED_FIRST), else_=0)
_GOODS: Final = [PRODUCTS.c[name] for name in Goods.model_fields]


def goods_of(row: Any) -> Goods:
    return Goods.model_validate(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public name


class Found:
    """A page of a list."""

    __slots__ = ("brands", "items", "meant", "next", "total")

    def __init__(
        self, items: list[Goods], onward: str | None, total: int, brands: list[str], meant: str
    ) -> None:
        self.items = items
        self.next = onward
        self.total = total
        self.brands = brands
        self.meant = meant


class Catalogue:
    def __init__(self, database: Database, cursors: Cursors, featured_by: Ranking) -> None:
        self._database = database
        self._cursors = cursors
        self._featured_by: Ranking = featured_by

    async def product(self, product_id: str) -> Goods | None:
        query = sa.select(*_GOODS).where(
            PRODUCTS.c.id == product_id, PRODUCTS.c.removed_ms.is_(None)
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else goods_of(row)

    async def by_ids(self, ids: Sequence[str]) -> list[tuple[Goods, int]]:
        """Those that are there, in the order of the ids, each with how many are available."""
        query = (
            sa.select(*_GOODS, sa.func.coalesce(AVAILABLE, 0).label("available"))
            .select_from(PRODUCTS.outerjoin(STOCK, STOCK.c.product_id == PRODUCTS.c.id))
            .where(PRODUCTS.c.id.in_(list(ids)), PRODUCTS.c.removed_ms.is_(None))
        )
        async with self._database.reading() as connection:
            rows = {row.id: row for row in await connection.execute(query)}
        there = [rows[one] for one in dict.fromkeys(ids) if one in rows]
        return [(goods_of(row), int(row.available)) for row in there]

    async def available(self, product_id: str) -> int | None:
        """None for a product that is not sold here."""
        query = (
            sa.select(sa.func.coalesce(AVAILABLE, 0))
            .select_from(PRODUCTS.outerjoin(STOCK, STOCK.c.product_id == PRODUCTS.c.id))
            .where(PRODUCTS.c.id == product_id, PRODUCTS.c.removed_ms.is_(None))
        )
        async with self._database.reading() as connection:
            found = (await connection.execute(query)).scalar_one_or_none()
        return None if found is None else int(found)

    async def categories(self) -> list[dict[str, Any]]:
        """With how many products each has, and a picture of its best known one."""
        counted = (
            sa.select(
                PRODUCTS.c.category,
                sa.func.count().label("count"),
                sa.func.max(_FEATURED + PRODUCTS.c.standing).label("best"),
            )
            .where(PRODUCTS.c.removed_ms.is_(None))
            .group_by(PRODUCTS.c.category)
            .subquery()
        )
        faces = sa.select(PRODUCTS.c.category, PRODUCTS.c.images).join(
            counted,
            sa.and_(
                counted.c.category == PRODUCTS.c.category,
                counted.c.best == _FEATURED + PRODUCTS.c.standing,
            ),
        )
        async with self._database.reading() as connection:
            rows = await connection.execute(
                sa.select(CATEGORIES.c.slug, CATEGORIES.c.name, counted.c.count)
                .join(counted, counted.c.category == CATEGORIES.c.slug)
                .order_by(CATEGORIES.c.name, CATEGORIES.c.slug)
            )
            named = [(row.slug, row.name, row.count) for row in rows]
            shown = await connection.execute(
                faces.where(PRODUCTS.c.removed_ms.is_(None)).order_by(PRODUCTS.c.number.desc())
            )
            pictures = {row.category: row.images for row in shown}
        found = []
        for slug, name, count in named:
            images = pictures.get(slug) or []
            image = f"/images/{images[0]}" if images else ""
            found.append({"slug": slug, "name": name, "count": count, "image": image})
        return found

    async def known_words(self) -> dict[str, int]:
        """The words of names, brands and categories, each with how many products have it."""
        query = sa.select(PRODUCTS.c.folded, PRODUCTS.c.brand, PRODUCTS.c.category).where(
            PRODUCTS.c.removed_ms.is_(None)
        )
        counts: Counter[str] = Counter()
        async with self._database.reading() as connection:
            for row in await connection.execute(query):
                counts.update(words_of(f"{row.folded} {row.brand} {row.category}"))
        return dict(counts)

    # ---- lists

    async def page(
        self, question: Question, cursor: str, limit: int, known: dict[str, int] | None = None
    ) -> Found:
        """Raises `CursorInvalid`. `known` are the words to look for slips by."""
        async with self._database.reading() as connection:
            if cursor:
                place = Place.read(cursor, question, self._cursors)
                total = await self._count(connection, question, place.words, place.is_any)
                return await self._go_on(connection, question, place, total, limit)
            words, is_any, total = question.words, False, 0
            if not question.is_search or words:
                total = await self._count(connection, question, words, is_any=False)
            if words and not total and known:
                words, is_any, total = await self._near(connection, question, known)
            ranking = question.ranking(self._featured_by)
            place = Place(ranking, "", 0, words, is_any)
            return await self._go_on(connection, question, place, total, limit)

    async def _near(
        self, connection: AsyncConnection, question: Question, known: dict[str, int]
    ) -> tuple[tuple[str, ...], bool, int]:
        """What may have been meant by words for which there is nothing."""
        meant = tuple(meant_by(question.words, known))
        if meant != question.words:
            total = await self._count(connection, question, meant, is_any=False)
            if total:
                return meant, False, total
        if len(meant) > 1:
            total = await self._count(connection, question, meant, is_any=True)
            return meant, True, total
        return question.words, False, 0

    async def _count(
        self, connection: AsyncConnection, question: Question, words: Sequence[str], is_any: bool
    ) -> int:
        query = self._narrowed(sa.select(sa.func.count()), connection, question, words, is_any)
        return int(await connection.scalar(query) or 0)

    async def _go_on(
        self,
        connection: AsyncConnection,
        question: Question,
        place: Place,
        total: int,
        limit: int,
    ) -> Found:
        if not total:
            return Found([], None, 0, [], "")
        order = ORDERS[place.ranking]
        value = _value(order.column, place.words).label("value")
        query = self._narrowed(
            sa.select(*_GOODS, value), connection, question, place.words, place.is_any
        )
        if place.number:
            beyond = (
                value.element < place.value if order.is_descending else value.element > place.value
            )
            level = sa.and_(value.element == place.value, PRODUCTS.c.number > place.number)
            query = query.where(sa.or_(beyond, level))
        sorted_by = value.element.desc() if order.is_descending else value.element.asc()
        query = query.order_by(sorted_by, PRODUCTS.c.number).limit(limit + 1)
        rows = (await connection.execute(query)).all()
        onward = None
        if len(rows) > limit:
            last = rows[limit - 1]
            after = Place(place.ranking, last.value, last.number, place.words, place.is_any)
            onward = after.cursor(question, self._cursors)
        brands = await self._brands(connection, question, place)
        meant = " ".join(place.words) if place.words != question.words else ""
        return Found([goods_of(row) for row in rows[:limit]], onward, total, brands, meant)

    async def _brands(
        self, connection: AsyncConnection, question: Question, place: Place
    ) -> list[str]:
        query = self._narrowed(
            sa.select(PRODUCTS.c.brand).distinct(),
            connection,
            question,
            place.words,
            place.is_any,
            is_of_brand=False,
        )
        rows = await connection.execute(query.limit(BRANDS_MAX))
        return sorted(row.brand for row in rows)

    def _narrowed(
        self,
        query: sa.Select[Any],
        connection: AsyncConnection,
        question: Question,
        words: Sequence[str],
        is_any: bool,
        *,
        is_of_brand: bool = True,
    ) -> sa.Select[Any]:
        query = query.where(PRODUCTS.c.removed_ms.is_(None))
        if question.category:
            query = query.where(PRODUCTS.c.category == question.category)
        if question.brand and is_of_brand:
            query = query.where(PRODUCTS.c.brand == question.brand)
        if question.min_price is not None:
            query = query.where(PRODUCTS.c.price >= question.min_price)
        if question.max_price is not None:
            query = query.where(PRODUCTS.c.price <= question.max_price)
        if question.featured is not None:
            query = query.where(PRODUCTS.c.featured.is_(question.featured))
        if question.in_stock is not None:
            there = sa.exists().where(STOCK.c.product_id == PRODUCTS.c.id, AVAILABLE > 0)
            query = query.where(there if question.in_stock else ~there)
        if words:
            query = query.where(_matches(connection.dialect.name, words, is_any))
        return query


def _matches(dialect: str, words: Sequence[str], is_any: bool) -> sa.ColumnElement[bool]:
    """Each word, or one of them, is the beginning of one of the product's. `words` are letters and
    digits alone, so there is nothing in them that either language of queries would read.
    """
    if dialect == "sqlite":
        text = (" OR " if is_any else " AND ").join(f'"{word}"*' for word in words)
        index = sa.table("products_words", sa.column("rowid"))
        match = sa.text("products_words MATCH :match").bindparams(match=text)
        return PRODUCTS.c.number.in_(sa.select(index.c.rowid).where(match))
    text = (" | " if is_any else " & ").join(f"'{word}':*" for word in words)
    asked = sa.func.to_tsquery(sa.literal_column("'simple'"), text)
    return sa.literal_column("products.searched").op("@@", is_comparison=True)(asked)


def _value(column: str, words: Sequence[str]) -> sa.ColumnElement[Any]:
    """What a list is sorted by: a whole number or a text, so that a cursor can name it exactly."""
    if column == "place":
        return _FEATURED + PRODUCTS.c.standing
    if column == "rated":
        return PRODUCTS.c.rating_tenths
    if column == "relevance":
        return _relevance(words)
    return PRODUCTS.c[column]


def _relevance(words: Sequence[str]) -> sa.ColumnElement[int]:
    """By where the words stand, the name before all; then by how well it sells.

    Not by how rare a word is in the whole catalogue (bm25): that changes with every product that is
    added, and with it the places in a list that somebody is reading.
    """
    name, brand = PRODUCTS.c.folded, sa.func.lower(PRODUCTS.c.brand)
    score: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)
    for word in words:
        is_in_name = name.like(f"%{word}%")
        score = score + sa.case(
            (name.like(f"{word}%"), 50),
            (name.like(f"% {word}%"), 40),
            (is_in_name, 20),
            (brand.like(f"%{word}%"), 15),
            (PRODUCTS.c.category.like(f"%{word}%"), 10),
            else_=0,
        )
    return score * 1000 + sa.case((PRODUCTS.c.standing > 999, 999), else_=PRODUCTS.c.standing)
