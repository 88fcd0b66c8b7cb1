"""Whether an order is among the sales that a service has summed up.

It is while it is paid and not cancelled, whichever of these was heard of first: messages overtake
each other. The service's table has `order_id`, `is_paid`, `is_cancelled` and what it wants besides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base import events
from headgate_shop.base.rows import insert_new

__all__ = ["CHANGES", "Change", "after", "order_changed"]

Change = Literal["placed", "paid", "cancelled"]
CHANGES: Final[Mapping[str, Change]] = {
    events.ORDER_PLACED: "placed",
    events.ORDER_PAID: "paid",
    events.ORDER_SHIPPED: "paid",
    events.ORDER_CANCELLED: "cancelled",
}
"""What each message says of an order. One that was shipped was paid."""


def after(change: Change, *, is_paid: bool, is_cancelled: bool) -> tuple[bool, bool, int]:
    """What an order is then, and the sign with which it goes into the sums; 0: they stay."""
    was = is_paid and not is_cancelled
    is_paid = is_paid or change == "paid"
    is_cancelled = is_cancelled or change == "cancelled"
    return is_paid, is_cancelled, int(is_paid and not is_cancelled) - int(was)


async def order_changed(
    connection: AsyncConnection,
    table: sa.Table,
    order_id: str,
    change: Change,
    new: Callable[[], Awaitable[Mapping[str, Any]]],
) -> tuple[int, Mapping[str, Any]]:
    """Note the change. Answers the sign with which the order goes into the sums, 0 when they stay
    as they are, and its row. `new` makes the other columns of an order that is not known.
    """
    is_this = table.c.order_id == order_id
    query = sa.select(table).where(is_this).with_for_update()
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        fresh = {
            "order_id": order_id,
            **await new(),
            "is_paid": change == "paid",
            "is_cancelled": change == "cancelled",
        }
        if await insert_new(connection, table, fresh):
            return int(change == "paid"), fresh
        # Another message of the same order has done so at this moment.
        row = (await connection.execute(query)).mappings().one()
    is_paid, is_cancelled, sign = after(
        change, is_paid=row["is_paid"], is_cancelled=row["is_cancelled"]
    )
    await connection.execute(
        sa.update(table).where(is_this).values(is_paid=is_paid, is_cancelled=is_cancelled)
    )
    return sign, dict(row)
