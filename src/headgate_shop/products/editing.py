"""Making, editing and removing products, each in one transaction with its message and its purge.

An edit may say which version of the product it was made on (`If-Match`); when somebody else has
edited it since, it is refused and nothing is lost. A product that is removed keeps its row: orders
and the books name it, and its id is not given again.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new
from headgate_shop.products.keeping import Purges, product_tags
from headgate_shop.products.reading import goods_of
from headgate_shop.products.shapes import Goods, NewProduct, ProductChange, ProductDraft
from headgate_shop.products.stock import Stock
from headgate_shop.products.tables import CATEGORIES, PRODUCTS, STOCK
from headgate_shop.products.words import fold, words_of
from headgate_shop.queue import Outbox

__all__ = ["Changed", "Editor", "Missing", "Taken", "ensure_category", "row_of", "versions_of"]

IMAGES_MAX: Final = 8
NEW_STANDING: Final = 300
"""What nobody has bought yet stands below what sells on average, which is 1000."""
_COLUMNS: Final = [PRODUCTS.c[name] for name in Goods.model_fields]
_ETAG: Final = re.compile(r'\s*(?:W/)?"(\d{1,9})[^"]*"\s*')


class Missing(Exception):
    """There is no such product."""


class Taken(Exception):
    """The id has, or had, a product."""


class Changed(Exception):
    """It is not the version that the edit was made on."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the product was edited meanwhile: it is version {version} now")
        self.version = version


@dataclass(frozen=True, slots=True)
class Edit:
    goods: Goods
    purge: int


def versions_of(if_match: str | None) -> frozenset[int] | None:
    """The versions of the row that are named by `If-Match`; None if any will do.

    A weak tag counts as well (RFC 9110 13.1.1 would not have it): what goes by here is the version
    of the row and not the bytes of an answer, which a proxy that compresses marks as weak.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = (_ETAG.fullmatch(part) for part in if_match.split(","))
    return frozenset(int(match[1]) for match in found if match is not None)


def row_of(draft: Mapping[str, Any]) -> dict[str, Any]:
    """The columns for what a draft or a change says; all that the search needs must be in it."""
    row = {
        name: draft[name]
        for name in ("name", "description", "category", "brand", "price", "currency", "featured")
        if name in draft
    }
    if "rating" in draft:
        row["rating_tenths"] = round((draft["rating"] or 0) * 10)
    row["folded"] = fold(draft["name"])[:400]
    told = " ".join(str(draft[name]) for name in ("name", "brand", "category", "description"))
    row["words"] = " ".join(words_of(told))
    return row


async def ensure_category(connection: AsyncConnection, slug: str, name: str = "") -> None:
    """A category is there once a product is in it."""
    shown = name or slug.replace("-", " ").capitalize()
    await insert_new(connection, CATEGORIES, {"slug": slug, "name": shown})


class Editor:
    def __init__(self, database: Database, outbox: Outbox, stock: Stock, purges: Purges) -> None:
        self._database = database
        self._outbox = outbox
        self._stock = stock
        self._purges = purges

    async def create(self, draft: NewProduct, now_ms: int) -> Goods:
        product_id = draft.id or f"p-{secrets.token_hex(6)}"
        async with self._database.writing() as connection:
            await ensure_category(connection, draft.category)
            goods = await self.insert(connection, product_id, draft, now_ms)
            if draft.stock:
                await self._stock.receive(connection, product_id, draft.stock, now_ms)
            edit = await self._tell(connection, goods, now_ms)
        await self._purges.tell(edit.purge)
        return goods

    async def replace(
        self, product_id: str, draft: ProductDraft, versions: frozenset[int] | None, now_ms: int
    ) -> Goods:
        return await self._edit(product_id, draft.model_dump(), versions, now_ms)

    async def change(
        self, product_id: str, change: ProductChange, versions: frozenset[int] | None, now_ms: int
    ) -> Goods:
        said = change.model_dump(exclude_unset=True)
        # Null takes a rating away; nothing else can be without.
        wanted = {
            name: value for name, value in said.items() if value is not None or name == "rating"
        }
        return await self._edit(product_id, wanted, versions, now_ms)

    async def remove(self, product_id: str, versions: frozenset[int] | None, now_ms: int) -> None:
        async with self._database.writing() as connection:
            goods = await find(connection, product_id, versions)
            await connection.execute(
                sa.update(PRODUCTS)
                .where(PRODUCTS.c.id == product_id)
                .values(removed_ms=now_ms, updated_ms=now_ms, version=goods.version + 1)
            )
            word = {"product_id": product_id, "at": now_ms / 1000}
            await self._outbox.add(connection, events.PRODUCT_REMOVED, word)
            purge = await self._purges.note(
                connection, [*product_tags(product_id, goods.category), f"stock:{product_id}"]
            )
        await self._purges.tell(purge)

    async def add_image(
        self, product_id: str, image: str, versions: frozenset[int] | None, now_ms: int
    ) -> Goods:
        """The new one is shown first; the oldest of too many goes."""
        async with self._database.writing() as connection:
            goods = await find(connection, product_id, versions)
            others = [one for one in goods.images if one != image]
            # The drawn one stands in for a photograph and does not stay beside it.
            kept = [one for one in others if not one.startswith("art-")]
            images = [image, *kept][:IMAGES_MAX]
            edit = await self._update(connection, goods, {"images": images}, now_ms)
        await self._purges.tell(edit.purge)
        return edit.goods

    async def set_stock(
        self, product_id: str, *, counted: int | None, added: int | None, now_ms: int
    ) -> dict[str, int]:
        """Raises `Short`, `Missing`."""
        async with self._database.writing() as connection:
            await find(connection, product_id, None)
            if counted is not None:
                await self._stock.count(connection, product_id, counted, now_ms)
            elif added:
                await self._stock.receive(connection, product_id, added, now_ms)
            row = (
                await connection.execute(sa.select(STOCK).where(STOCK.c.product_id == product_id))
            ).one_or_none()
            purge = await self._purges.note(connection, [f"stock:{product_id}"])
        await self._purges.tell(purge)
        if row is None:
            return {"received": 0, "sold": 0, "reserved": 0, "available": 0}
        available = row.received - row.sold - row.reserved
        return {
            "received": row.received,
            "sold": row.sold,
            "reserved": row.reserved,
            "available": available,
        }

    # ---- in a transaction that is under way

    async def insert(
        self, connection: AsyncConnection, product_id: str, draft: ProductDraft, now_ms: int
    ) -> Goods:
        """Raises `Taken`."""
        row = {
            **row_of(draft.model_dump()),
            "id": product_id,
            "standing": NEW_STANDING,
            "images": [],
            "version": 1,
            "created_ms": now_ms,
            "updated_ms": now_ms,
        }
        if not await insert_new(connection, PRODUCTS, row):
            raise Taken
        blank = {"product_id": product_id, "received": 0, "sold": 0, "reserved": 0}
        await connection.execute(sa.insert(STOCK).values(blank))
        return await find(connection, product_id, None)

    async def update(
        self, connection: AsyncConnection, goods: Goods, draft: ProductDraft, now_ms: int
    ) -> Goods:
        """Without a purge: who edits many tells of them together."""
        return await self._write(connection, goods, row_of(draft.model_dump()), now_ms)

    async def announce(self, connection: AsyncConnection, goods: Goods, now_ms: int) -> None:
        word = {
            "product_id": goods.id,
            "name": goods.name,
            "price": goods.price,
            "category": goods.category,
            "at": now_ms / 1000,
        }
        await self._outbox.add(connection, events.PRODUCT_CHANGED, word)

    async def _edit(
        self,
        product_id: str,
        wanted: Mapping[str, Any],
        versions: frozenset[int] | None,
        now_ms: int,
    ) -> Goods:
        async with self._database.writing() as connection:
            goods = await find(connection, product_id, versions)
            there = goods.model_dump()
            whole = {**there, **wanted}
            if wanted.get("category"):
                await ensure_category(connection, whole["category"])
            row = row_of({**whole, "rating": whole.get("rating", goods.rating_tenths / 10)})
            edit = await self._update(connection, goods, row, now_ms)
        await self._purges.tell(edit.purge)
        return edit.goods

    async def _update(
        self, connection: AsyncConnection, goods: Goods, row: Mapping[str, Any], now_ms: int
    ) -> Edit:
        changed = await self._write(connection, goods, row, now_ms)
        return await self._tell(connection, changed, now_ms, goods.category)

    async def _write(
        self, connection: AsyncConnection, goods: Goods, row: Mapping[str, Any], now_ms: int
    ) -> Goods:
        await connection.execute(
            sa.update(PRODUCTS)
            .where(PRODUCTS.c.id == goods.id)
            .values(**row, version=goods.version + 1, updated_ms=now_ms)
        )
        return await find(connection, goods.id, None)

    async def _tell(
        self, connection: AsyncConnection, goods: Goods, now_ms: int, *were_in: str
    ) -> Edit:
        await self.announce(connection, goods, now_ms)
        tags = product_tags(goods.id, goods.category, *were_in)
        return Edit(goods, await self._purges.note(connection, tags))


async def find(
    connection: AsyncConnection, product_id: str, versions: frozenset[int] | None
) -> Goods:
    """The product, locked until the transaction ends. Raises `Missing`, `Changed`."""
    query = (
        sa.select(*_COLUMNS)
        .where(PRODUCTS.c.id == product_id, PRODUCTS.c.removed_ms.is_(None))
        # Not its key: movements of the stock refer to that, and must not have to wait for us while
        # we may have to wait for their stock.
        .with_for_update(key_share=True)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise Missing
    goods = goods_of(row)
    if versions is not None and goods.version not in versions:
        raise Changed(goods.version)
    return goods
