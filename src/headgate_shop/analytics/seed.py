"""Months of figures to begin with, out of the same past orders that the other services have.

Views and carts of the past are made to fit the orders: so many visitors for each who bought.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, date, datetime
from typing import Any, Final

import sqlalchemy as sa

from headgate_shop.analytics import keeping, tables
from headgate_shop.analytics.companions import KEPT
from headgate_shop.analytics.reckoning import Line, Sold, Sums
from headgate_shop.base.database import Database
from headgate_shop.base.rows import upsert
from headgate_shop.base.settings import Settings
from headgate_shop.data import SeedSize
from headgate_shop.data.catalogue import catalogue
from headgate_shop.data.history import history

__all__ = ["seed"]

VISITS: Final = 26.0
"""Visitors for each order; of them so many look at a product, fill a cart, and go to pay."""
VIEWING: Final = 0.72
CARTS: Final = 2.9
CHECKOUTS: Final = 1.35
VIEWS_EACH: Final = 3.4


async def seed(settings: Settings, size: SeedSize) -> dict[str, int]:
    """Fill an empty database, or leave one alone that has orders."""
    database = Database(settings)
    try:
        await database.start()
        async with database.reading() as connection:
            if await connection.scalar(sa.select(tables.orders.c.order_id).limit(1)) is not None:
                return {"orders": 0, "products": 0}
        today = datetime.now(UTC).date()
        sums, orders, products = await asyncio.to_thread(_made, size, today)
        async with database.writing() as connection:
            await upsert(connection, tables.products, products, present="keep")
            await upsert(connection, tables.orders, orders, present="keep")
            await keeping.write(connection, sums, make_room=False)
    finally:
        await database.close()
    return {"orders": len(orders), "products": len(products)}


def _made(size: SeedSize, today: date) -> tuple[Sums, list[dict[str, Any]], list[dict[str, Any]]]:
    sums = Sums()
    orders: list[dict[str, Any]] = []
    for past in history(size, today=today):
        if past.status == "refused":
            continue
        lines = tuple(
            Line(line.product_id, line.quantity, line.price, line.category) for line in past.lines
        )
        sold = Sold(past.placed_at.timestamp(), past.total, lines)
        if past.is_sale:
            sums.take(sold)
        orders.append(
            {
                "order_id": past.order_id,
                "user_id": past.customer_id,
                "at": sold.at,
                "total": sold.total,
                "currency": "EUR",
                "lines": [keeping.plain(line) for line in lines],
                "is_paid": True,
                "is_cancelled": past.status == "cancelled",
            }
        )
    _visits(sums)
    _strongest(sums)
    products = [
        {"product_id": item.id, "name": item.name, "category": item.category, "is_there": True}
        for item in catalogue(size.products)
    ]
    return sums, orders, products


def _visits(sums: Sums) -> None:
    rng = random.Random("visits")
    for (day, hour), (orders, _, _) in list(sums.hours.items()):
        visits = round(orders * VISITS * rng.uniform(0.8, 1.25))
        views = round(visits * VIEWING * rng.uniform(0.93, 1.05))
        carts = max(orders, round(orders * CARTS * rng.uniform(0.85, 1.15)))
        checkouts = max(orders, round(orders * CHECKOUTS * rng.uniform(0.9, 1.15)))
        for step, sessions, events in (
            ("visit", visits, visits),
            ("view", views, round(views * VIEWS_EACH)),
            ("cart", carts, round(carts * 1.4)),
            ("checkout", checkouts, checkouts),
        ):
            sums.funnel[day, hour, step] = [events, sessions]
    for change in sums.products.values():
        orders = change[0]
        change[3] = round(orders * 34 * rng.uniform(0.7, 1.4))
        change[4] = max(orders, round(orders * CARTS * rng.uniform(0.8, 1.2)))


def _strongest(sums: Sums) -> None:
    """Of each product's pairs those that are remembered."""
    by_product: dict[str, list[tuple[int, str]]] = {}
    for (one, other), times in sums.pairs.items():
        by_product.setdefault(one, []).append((-times, other))
    sums.pairs = {
        (one, other): -times
        for one, others in by_product.items()
        for times, other in sorted(others)[:KEPT]
    }
