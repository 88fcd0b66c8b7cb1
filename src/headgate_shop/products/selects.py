"""The SELECTs of the catalogue. Each is written once for its shape; what is asked for are values.

Theory of operation
-------------------
A page of a list comes by one statement. `fits` is what the question lets through, with the value
that the list is sorted by; it is found once, and read three times: for the page, for how many there
are in all, and for the brands that the list may be narrowed to (a brand that was chosen narrows the
first two only). Of a product it says no more than which edition it is, see `shelf.py`.

Only here and in the first migration do SQLite and PostgreSQL search differently. Words are letters
and digits alone, so there is nothing in them that either language of queries would read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from headgate_shop.base.short_reads import Prepared
from headgate_shop.products.question import ORDERS, Place, Question, Ranking
from headgate_shop.products.shapes import Goods
from headgate_shop.products.tables import CATEGORIES, PRODUCTS, STOCK

__all__ = [
    "BRANDS_MAX", "COUNTED", "FACES", "IN_STOCK", "ONE", "WORDS", "Shape", "page_of", "several_of",
    "values_of",
]  # fmt: skip

FEATURED_FIRST: Final = 100_000_000
"""More than any standing: what is featured comes before what is not."""
BRANDS_MAX: Final = 60
AVAILABLE: Final = STOCK.c.received - STOCK.c.sold - STOCK.c.reserved
GOODS: Final = [PRODUCTS.c[name] for name in Goods.model_fields]
_EDITION: Final = [
    PRODUCTS.c.number, PRODUCTS.c.id, PRODUCTS.c.version, PRODUCTS.c.updated_ms
]  # fmt: skip
_PLACE: Final = sa.case((PRODUCTS.c.featured, FEATURED_FIRST), else_=0) + PRODUCTS.c.standing
_IS_THERE: Final = PRODUCTS.c.removed_ms.is_(None)
_IS_ASKED_FOR: Final = PRODUCTS.c.id == sa.bindparam("id")

ONE: Final = Prepared(sa.select(*GOODS).where(_IS_ASKED_FOR, _IS_THERE))
IN_STOCK: Final = Prepared(
    sa.select(sa.func.coalesce(AVAILABLE, 0))
    .select_from(PRODUCTS.outerjoin(STOCK, STOCK.c.product_id == PRODUCTS.c.id))
    .where(_IS_ASKED_FOR, _IS_THERE)
)
WORDS: Final = Prepared(
    sa.select(PRODUCTS.c.folded, PRODUCTS.c.brand, PRODUCTS.c.category).where(_IS_THERE)
)

_counted: Final = (
    sa.select(
        PRODUCTS.c.category,
        sa.func.count().label("count"),
        sa.func.max(_PLACE).label("best"),
    )
    .where(_IS_THERE)
    .group_by(PRODUCTS.c.category)
    .subquery()
)
COUNTED: Final = Prepared(
    sa.select(CATEGORIES.c.slug, CATEGORIES.c.name, _counted.c.count)
    .join(_counted, _counted.c.category == CATEGORIES.c.slug)
    .order_by(CATEGORIES.c.name, CATEGORIES.c.slug)
)
FACES: Final = Prepared(
    sa.select(PRODUCTS.c.category, PRODUCTS.c.images)
    .join(_counted, sa.and_(_counted.c.category == PRODUCTS.c.category, _counted.c.best == _PLACE))
    .where(_IS_THERE)
    .order_by(PRODUCTS.c.number.desc())
)
"""The best known product of each category; of equals the first one comes last."""


@lru_cache
def several_of(dialect: str) -> Prepared:
    """Products by their ids, a JSON list of texts, each with how many are available."""
    take_apart = (
        "SELECT value FROM json_each(:ids)"
        if dialect == "sqlite"
        else "SELECT json_array_elements_text(CAST(:ids AS json))"
    )
    return Prepared(
        sa.select(*GOODS, sa.func.coalesce(AVAILABLE, 0))
        .select_from(PRODUCTS.outerjoin(STOCK, STOCK.c.product_id == PRODUCTS.c.id))
        .where(PRODUCTS.c.id.in_(sa.text(take_apart)), _IS_THERE)
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """What makes another statement, and not only other values."""

    dialect: str
    ranking: Ranking
    words: int
    has_category: bool
    has_brand: bool
    has_min_price: bool
    has_max_price: bool
    in_stock: bool | None
    featured: bool | None
    goes_on: bool
    """After the place of a cursor."""

    @classmethod
    def of(cls, dialect: str, question: Question, place: Place) -> Shape:
        return cls(
            dialect,
            place.ranking,
            len(place.words),
            bool(question.category),
            bool(question.brand),
            question.min_price is not None,
            question.max_price is not None,
            question.in_stock,
            question.featured,
            bool(place.number),
        )


@lru_cache(maxsize=1024)
def page_of(shape: Shape) -> Prepared:
    """One page: number, id, version and time of each product, the value that it is sorted by, and
    in each row how many there are in all, and the brands.
    """
    fits = _fits(shape).cte("fits").prefix_with("MATERIALIZED")
    of_brand: list[sa.ColumnElement[bool]] = []
    if shape.has_brand:
        of_brand.append(fits.c.brand == sa.bindparam("brand"))
    order = ORDERS[shape.ranking]
    value, number = fits.c.value, fits.c.number
    chosen = sa.select(number, value).where(*of_brand)
    if shape.goes_on:
        after = sa.bindparam("after", type_=value.type)
        beyond = value < after if order.is_descending else value > after
        level = sa.and_(value == after, number > sa.bindparam("number"))
        chosen = chosen.where(sa.or_(beyond, level))
    chosen = chosen.order_by(value.desc() if order.is_descending else value.asc(), number)
    page = chosen.limit(sa.bindparam("limit", type_=sa.Integer)).subquery("page")
    total = sa.select(sa.func.count()).select_from(fits).where(*of_brand).scalar_subquery()
    brands = sa.select(fits.c.brand).distinct().order_by(fits.c.brand).limit(BRANDS_MAX)
    several = brands.subquery("several")
    gather = sa.func.json_group_array if shape.dialect == "sqlite" else sa.func.json_agg
    gathered = sa.select(gather(several.c.brand, type_=sa.JSON)).scalar_subquery()
    return Prepared(
        sa.select(*_EDITION, page.c.value, total.label("total"), gathered.label("brands"))
        .select_from(page.join(PRODUCTS, PRODUCTS.c.number == page.c.number))
        .order_by(page.c.value.desc() if order.is_descending else page.c.value.asc(), page.c.number)
    )


def values_of(dialect: str, question: Question, place: Place, limit: int) -> dict[str, Any]:
    """For the statement of their shape."""
    values: dict[str, Any] = {"limit": limit}
    if question.category:
        values["category"] = question.category
    if question.brand:
        values["brand"] = question.brand
    if question.min_price is not None:
        values["min_price"] = question.min_price
    if question.max_price is not None:
        values["max_price"] = question.max_price
    if place.number:
        values["after"], values["number"] = place.value, place.number
    if place.words:
        values["match"] = _match(dialect, place.words, place.is_any)
        if place.ranking == "relevance":
            for at, word in enumerate(place.words):
                values[f"first{at}"] = f"{word}%"
                values[f"later{at}"] = f"% {word}%"
                values[f"within{at}"] = f"%{word}%"
    return values


def _fits(shape: Shape) -> sa.Select[Any]:
    value = _value(shape).label("value")
    query = sa.select(PRODUCTS.c.number, PRODUCTS.c.brand, value).where(_IS_THERE)
    if shape.has_category:
        query = query.where(PRODUCTS.c.category == sa.bindparam("category"))
    if shape.has_min_price:
        query = query.where(PRODUCTS.c.price >= sa.bindparam("min_price"))
    if shape.has_max_price:
        query = query.where(PRODUCTS.c.price <= sa.bindparam("max_price"))
    if shape.featured is not None:
        query = query.where(PRODUCTS.c.featured.is_(shape.featured))
    if shape.in_stock is not None:
        there = sa.exists().where(STOCK.c.product_id == PRODUCTS.c.id, AVAILABLE > 0)
        query = query.where(there if shape.in_stock else ~there)
    if shape.words:
        query = query.where(_matches(shape.dialect))
    return query


def _matches(dialect: str) -> sa.ColumnElement[bool]:
    if dialect == "sqlite":
        index = sa.table("products_words", sa.column("rowid"))
        match = sa.text("products_words MATCH :match")
        return PRODUCTS.c.number.in_(sa.select(index.c.rowid).where(match))
    asked = sa.func.to_tsquery(
        sa.literal_column("'simple'"), sa.bindparam("match", type_=sa.String)
    )
    return sa.literal_column("products.searched").op("@@", is_comparison=True)(asked)


def _match(dialect: str, words: Sequence[str], is_any: bool) -> str:
    """Each word, or one of them, is the beginning of one of the product's."""
    if dialect == "sqlite":
        return (" OR " if is_any else " AND ").join(f'"{word}"*' for word in words)
    return (" | " if is_any else " & ").join(f"'{word}':*" for word in words)


def _value(shape: Shape) -> sa.ColumnElement[Any]:
    """What a list is sorted by: a whole number or a text, so that a cursor can name it exactly."""
    column = ORDERS[shape.ranking].column
    if column == "place":
        return _PLACE
    if column == "rated":
        return PRODUCTS.c.rating_tenths
    if column == "relevance":
        return _relevance(shape.words)
    return PRODUCTS.c[column]


def _relevance(words: int) -> sa.ColumnElement[int]:
    """By where the words stand, the name before all; then by how well it sells.

    Not by how rare a word is in the whole catalogue (bm25): that changes with every product that is
    added, and with it the places in a list that somebody is reading.
    """
    name, brand = PRODUCTS.c.folded, sa.func.lower(PRODUCTS.c.brand)
    score: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)
    for at in range(words):
        first, later, within = (
            sa.bindparam(f"{where}{at}", type_=sa.String) for where in ("first", "later", "within")
        )
        score = score + sa.case(
            (name.like(first), 50),
            (name.like(later), 40),
            (name.like(within), 20),
            (brand.like(within), 15),
            (PRODUCTS.c.category.like(within), 10),
            else_=0,
        )
    return score * 1000 + sa.case((PRODUCTS.c.standing > 999, 999), else_=PRODUCTS.c.standing)
