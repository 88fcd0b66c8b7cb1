"""What the payment company's book says of the orders of the past: it agrees with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_many
from headgate_shop.base.settings import Settings
from headgate_shop.data import SeedSize
from headgate_shop.data.history import PastOrder, history
from headgate_shop.payments.tables import PAYMENTS, REFUNDS

__all__ = ["seed"]

CHUNK: Final = 1000


async def seed(settings: Settings, size: SeedSize) -> dict[str, int]:
    """Does nothing where it has been done. The oldest come last, in short transactions: see the
    seeding of orders.
    """
    database = Database(settings)
    await database.start()
    try:
        past = list(history(size, today=datetime.now(UTC).date()))
        if not past or await _is_there(database, _payment(past[0])["payment_id"]):
            return {"payments": 0, "refunds": 0}
        for start in reversed(range(0, len(past), CHUNK)):
            chunk = past[start : start + CHUNK]
            refunds = [_refund(order) for order in chunk if order.status == "cancelled"]
            async with database.writing() as connection:
                await insert_many(connection, PAYMENTS, [_payment(order) for order in chunk])
                await insert_many(connection, REFUNDS, refunds)
    finally:
        await database.close()
    cancelled = sum(order.status == "cancelled" for order in past)
    return {"payments": len(past), "refunds": cancelled}


async def _is_there(database: Database, payment_id: str) -> bool:
    query = sa.select(PAYMENTS.c.payment_id).where(PAYMENTS.c.payment_id == payment_id)
    async with database.reading() as connection:
        return await connection.scalar(query) is not None


def _payment(order: PastOrder) -> dict[str, Any]:
    """Under the ids that the merchant gives: this company knows nothing of how they come about."""
    is_refused = order.status == "refused"
    return {
        "payment_id": f"{order.order_id}.payment",
        "status": "refused" if is_refused else "captured",
        "reason": "refused" if is_refused else "",
        "amount": order.total,
        "currency": "EUR",
        "refunded": order.total if order.status == "cancelled" else 0,
        "last4": "0002" if is_refused else "4242",
        "at_ms": int(order.placed_at.timestamp() * 1000) + 2_000,
    }


def _refund(order: PastOrder) -> dict[str, Any]:
    return {
        "refund_id": f"{order.order_id}.refund",
        "payment_id": f"{order.order_id}.payment",
        "amount": order.total,
        "at_ms": int(order.placed_at.timestamp() * 1000) + 18_000_000,
    }
