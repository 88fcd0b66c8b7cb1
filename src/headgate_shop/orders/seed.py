"""Months of orders from the past, as `data.history` tells them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_many
from headgate_shop.base.settings import Settings
from headgate_shop.data import SeedSize
from headgate_shop.data.history import PastOrder, history
from headgate_shop.data.people import Customer, customers
from headgate_shop.orders import order_store
from headgate_shop.orders.carts import CURRENCY
from headgate_shop.orders.order_store import iso
from headgate_shop.orders.tables import ORDERS

__all__ = ["seed"]

CHUNK: Final = 500
PAID_AFTER_S: Final = 4
SHIPPED_AFTER: Final = timedelta(days=2)
CANCELLED_AFTER: Final = timedelta(hours=5)
_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


async def seed(settings: Settings, size: SeedSize) -> dict[str, int]:
    """Does nothing where it has been done. The service may start meanwhile: transactions are short.

    The oldest orders come last, so that their being there says that all are; a seeding that was
    killed is taken up, and what it has written is left as it is.
    """
    database = Database(settings)
    await database.start()
    try:
        past = rows(size, datetime.now(UTC).date())
        first = list(itertools.islice(past, CHUNK))
        if not first or await _is_there(database, first[0]["id"]):
            return {"orders": 0}
        count = len(first)
        while chunk := list(itertools.islice(past, CHUNK)):
            await _write(database, chunk)
            count += len(chunk)
        await _write(database, first)
    finally:
        await database.close()
    return {"orders": count}


async def _is_there(database: Database, order_id: str) -> bool:
    async with database.reading() as connection:
        return await order_store.find(connection, order_id) is not None


async def _write(database: Database, chunk: list[dict[str, Any]]) -> None:
    async with database.writing() as connection:
        await insert_many(connection, ORDERS, chunk)


def rows(size: SeedSize, today: date) -> Iterator[dict[str, Any]]:
    people = {person.id: person for person in customers(size.customers)}
    for place, order in enumerate(history(size, today=today)):
        yield row_of(order, people.get(order.customer_id), place)


def row_of(order: PastOrder, person: Customer | None, place: int) -> dict[str, Any]:
    placed_ms = int(order.placed_at.timestamp() * 1000)
    return {
        "id": order.order_id,
        "number": f"{order.placed_at:%y%m%d}-{_five(place)}",
        "user_id": order.customer_id,
        "email": person.email if person is not None else "",
        "status": order.status,
        "reason": {"cancelled": "cancelled", "refused": "payment_refused"}.get(order.status, ""),
        "refusal": {"reason": "refused"} if order.status == "refused" else {},
        "lines": [
            {
                "product_id": line.product_id,
                "name": line.name,
                "price": line.price,
                "quantity": line.quantity,
                "category": line.category,
                "image": "",
            }
            for line in order.lines
        ],
        "total": order.total,
        "currency": CURRENCY,
        "address": asdict(person.address) if person is not None else {},
        "tracking": f"HG{place:08d}DE" if order.status == "shipped" else "",
        "created_ms": placed_ms,
        "history": list(_past(order, placed_ms)),
    }


def _past(order: PastOrder, placed_ms: int) -> Iterator[dict[str, str]]:
    yield {"status": "pending", "at": iso(placed_ms)}
    decided_ms = placed_ms + PAID_AFTER_S * 1000
    if order.status == "refused":
        yield {"status": "refused", "at": iso(decided_ms)}
        return
    yield {"status": "paid", "at": iso(decided_ms)}
    later = {"shipped": SHIPPED_AFTER, "cancelled": CANCELLED_AFTER}.get(order.status)
    if later is not None:
        yield {
            "status": order.status,
            "at": iso(decided_ms + int(later.total_seconds() * 1000)),
        }


def _five(number: int) -> str:
    """In the letters of order numbers; each order of the past has another."""
    return "".join(_DIGITS[(number >> shift) & 31] for shift in (20, 15, 10, 5, 0))
