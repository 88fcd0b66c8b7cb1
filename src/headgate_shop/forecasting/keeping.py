"""Sales by day as orders tell of them, and which forecasts they make due."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base import events
from headgate_shop.base.counting import CHANGES, order_changed
from headgate_shop.base.database import Database
from headgate_shop.base.rows import upsert
from headgate_shop.forecasting import tables
from headgate_shop.queue import Inbox, Message, Queue, Reject

__all__ = ["KEEP_DAYS", "Keeping", "add", "day_of", "prune"]

KEEP_DAYS: Final = 400
QUANTITY_MAX: Final = 1_000_000


def day_of(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


class Keeping:
    def __init__(self, database: Database, inbox: Inbox, *, heard: Callable[[], None]) -> None:
        """`heard()` is called when there is something new to reckon with."""
        self._database = database
        self._inbox = inbox
        self._heard = heard

    def subscribe(self, queue: Queue) -> None:
        at_once = self._database.writers
        orders = (events.ORDER_PAID, events.ORDER_CANCELLED)
        queue.subscribe(orders, self.order, concurrency=at_once)
        products = (events.PRODUCT_CHANGED, events.PRODUCT_REMOVED)
        queue.subscribe(products, self.product, concurrency=at_once)

    async def order(self, message: Message) -> None:
        async with self._database.writing() as connection:
            if not await self._inbox.first(connection, message):
                return
            try:
                await self._order(connection, message)
            except (KeyError, TypeError, ValueError) as error:
                raise Reject(f"{message.topic} lacks something: {error!r}") from error
        self._heard()

    async def _order(self, connection: AsyncConnection, message: Message) -> None:
        data = message.data
        names = {str(line["product_id"]): str(line.get("name") or "") for line in data["lines"]}

        async def new() -> dict[str, Any]:
            return {"at": float(data["at"]), "lines": _quantities(data)}

        sign, row = await order_changed(
            connection, tables.orders, str(data["order_id"]), CHANGES[message.topic], new
        )
        if sign:
            await add(connection, row["at"], row["lines"], sign, names)

    async def product(self, message: Message) -> None:
        product_id = message.data.get("product_id")
        if not isinstance(product_id, str) or not product_id:
            raise Reject(f"{message.topic} names no product")
        is_there = message.topic == events.PRODUCT_CHANGED
        name = str(message.data.get("name") or product_id)
        async with self._database.writing() as connection:
            if not await self._inbox.first(connection, message):
                return
            await upsert(
                connection,
                tables.products,
                [_row(product_id, name) | {"is_there": is_there}],
                present="replace",
                only=["name", "is_there"] if is_there else ["is_there"],
            )
        self._heard()


def _quantities(data: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in data["lines"]:
        quantity = int(line["quantity"])
        if not 0 < quantity <= QUANTITY_MAX:
            raise ValueError(f"quantity {quantity}")
        product_id = str(line["product_id"])
        found[product_id] = found.get(product_id, 0) + quantity
    return found


def _row(product_id: str, name: str, changed: int = 0) -> dict[str, Any]:
    return {
        "product_id": product_id,
        "name": name or product_id,
        "is_there": True,
        "changed": changed,
        "reckoned": 0,
        "reckoned_day": "",
    }


async def add(
    connection: AsyncConnection,
    at: float,
    quantities: Mapping[str, int],
    sign: int,
    names: Mapping[str, str],
) -> None:
    """An order into the sums, or out of them; its products are due."""
    day = day_of(at)
    rows = [
        {"product_id": product_id, "day": day, "quantity": sign * quantity}
        for product_id, quantity in quantities.items()
    ]
    await upsert(connection, tables.days, rows, present="add")
    whole = sign * sum(quantities.values())
    hour = {"hour": int(at % 86400 // 3600), "quantity": whole}
    await upsert(connection, tables.hours, [hour], present="add")
    due = [_row(product_id, names.get(product_id, ""), 1) for product_id in quantities]
    await upsert(connection, tables.products, due, present="add", only=["changed"])


async def prune(connection: AsyncConnection, wall: float) -> None:
    """Forget what no forecast looks at."""
    oldest = wall - KEEP_DAYS * 86400
    await connection.execute(sa.delete(tables.days).where(tables.days.c.day < day_of(oldest)))
    await connection.execute(sa.delete(tables.orders).where(tables.orders.c.at < oldest))
