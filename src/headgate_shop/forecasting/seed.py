"""Months of sales to begin with. The forecasts themselves are made once the service runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.base.rows import upsert
from headgate_shop.base.settings import Settings
from headgate_shop.data import SeedSize
from headgate_shop.data.catalogue import catalogue
from headgate_shop.data.history import history
from headgate_shop.forecasting import tables
from headgate_shop.forecasting.keeping import day_of

__all__ = ["seed"]

Rows = list[dict[str, Any]]


async def seed(settings: Settings, size: SeedSize) -> dict[str, int]:
    """Fill an empty database, or leave one alone that has sales."""
    database = Database(settings)
    try:
        await database.start()
        async with database.reading() as connection:
            if await connection.scalar(sa.select(tables.orders.c.order_id).limit(1)) is not None:
                return {"orders": 0, "days": 0}
        today = datetime.now(UTC).date()
        products, orders, days, hours = await asyncio.to_thread(_made, size, today)
        async with database.writing() as connection:
            await upsert(connection, tables.products, products, present="keep")
            await upsert(connection, tables.orders, orders, present="keep")
            await upsert(connection, tables.days, days, present="add")
            await upsert(connection, tables.hours, hours, present="add")
    finally:
        await database.close()
    return {"orders": len(orders), "days": len(days)}


def _made(size: SeedSize, today: date) -> tuple[Rows, Rows, Rows, Rows]:
    days: Counter[tuple[str, str]] = Counter()
    hours: Counter[int] = Counter()
    orders: Rows = []
    for past in history(size, today=today):
        if past.status == "refused":
            continue
        at = past.placed_at.timestamp()
        quantities: Counter[str] = Counter()
        for line in past.lines:
            quantities[line.product_id] += line.quantity
        if past.is_sale:
            hours[past.placed_at.hour] += quantities.total()
            for product_id, quantity in quantities.items():
                days[product_id, day_of(at)] += quantity
        orders.append(
            {
                "order_id": past.order_id,
                "at": at,
                "lines": dict(quantities),
                "is_paid": True,
                "is_cancelled": past.status == "cancelled",
            }
        )
    products = [
        {
            "product_id": item.id,
            "name": item.name,
            "is_there": True,
            "changed": 0,
            "reckoned": 0,
            "reckoned_day": "",
        }
        for item in catalogue(size.products)
    ]
    return (
        products,
        orders,
        [
            {"product_id": product_id, "day": day, "quantity": quantity}
            for (product_id, day), quantity in days.items()
        ],
        [{"hour": hour, "quantity": quantity} for hour, quantity in hours.items()],
    )
