"""The catalogue that the shop opens with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.data import SeedSize
from headgate_shop.data.catalogue import Item, catalogue, category_names
from headgate_shop.products.art import art_for
from headgate_shop.products.editing import row_of
from headgate_shop.products.tables import CATEGORIES, MOVEMENTS, PRODUCTS, PURGES, STOCK

__all__ = ["seed"]

DAY_MS = 86_400_000


async def seed(settings: Settings, size: SeedSize) -> dict[str, int]:
    """Does nothing where there are products; else all of it, or nothing."""
    database = Database(settings)
    await database.start()
    try:
        return await _seed(database, catalogue(size.products))
    finally:
        await database.close()


async def _seed(database: Database, items: Sequence[Item]) -> dict[str, int]:
    now_ms = int(time.time() * 1000)  # noqa: TID251 - ages become dates
    async with database.writing() as connection:
        if await connection.scalar(sa.select(PRODUCTS.c.id).limit(1)) is not None:
            return {}
        names = category_names()
        used = {item.category for item in items}
        rows = [{"slug": slug, "name": name} for slug, name in names.items() if slug in used]
        await connection.execute(sa.insert(CATEGORIES), rows)
        await connection.execute(sa.insert(PRODUCTS), [_row(item, now_ms) for item in items])
        stock = [
            {"product_id": item.id, "received": item.stock, "sold": 0, "reserved": 0}
            for item in items
        ]
        await connection.execute(sa.insert(STOCK), stock)
        came = [
            {
                "product_id": item.id,
                "kind": "received",
                "quantity": item.stock,
                "reservation_id": None,
                "at_ms": now_ms,
            }
            for item in items
            if item.stock
        ]
        await connection.execute(sa.insert(MOVEMENTS), came)
        # A process that serves already may keep answers from before; it tells this when it looks.
        tags = ["products", *(f"category:{slug}" for slug in sorted(used))]
        await connection.execute(sa.insert(PURGES).values(tags=tags, at_ms=0))
    return {"products": len(items), "categories": len(rows)}


def _row(item: Item, now_ms: int) -> dict[str, Any]:
    made_ms = now_ms - int(item.age_days * DAY_MS)
    draft = {
        "name": item.name,
        "description": item.description,
        "category": item.category,
        "brand": item.brand,
        "price": item.price,
        "currency": item.currency,
        "featured": item.featured,
        "rating": item.rating,
    }
    return {
        **row_of(draft),
        "id": item.id,
        "standing": round(item.popularity * 1000),
        "images": [art_for(item.id, item.name, item.category)],
        "version": 1,
        "created_ms": made_ms,
        "updated_ms": made_ms,
        "removed_ms": None,
    }
