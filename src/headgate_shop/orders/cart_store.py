"""Carts in the database. Whoever changes one holds its row until the end of the transaction."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.rows import insert_new
from headgate_shop.orders.carts import Line
from headgate_shop.orders.tables import CART_LINES, CARTS

__all__ = ["forget", "forget_guests", "hold", "read", "write"]


async def hold(connection: AsyncConnection, cart_id: str, now_ms: int) -> list[Line]:
    """Make the cart if need be, keep others from changing it, and read it."""
    values = {"id": cart_id, "touched_ms": now_ms}
    if not await insert_new(connection, CARTS, values):
        await connection.execute(
            CARTS.update().where(CARTS.c.id == cart_id).values(touched_ms=now_ms)
        )
    return await read(connection, cart_id)


async def read(connection: AsyncConnection, cart_id: str) -> list[Line]:
    rows = await connection.execute(
        sa.select(CART_LINES)
        .where(CART_LINES.c.cart_id == cart_id)
        .order_by(CART_LINES.c.added_ms, CART_LINES.c.product_id)
    )
    return [
        Line(row.product_id, row.quantity, row.name, row.price, row.image, row.added_ms)
        for row in rows
    ]


async def write(connection: AsyncConnection, cart_id: str, lines: Sequence[Line]) -> None:
    """Have the cart hold these lines and no others."""
    await connection.execute(CART_LINES.delete().where(CART_LINES.c.cart_id == cart_id))
    if lines:
        await connection.execute(
            CART_LINES.insert(),
            [
                {
                    "cart_id": cart_id,
                    "product_id": line.product_id,
                    "quantity": line.quantity,
                    "added_ms": line.added_ms,
                    "name": line.name,
                    "price": line.price,
                    "image": line.image,
                }
                for line in lines
            ],
        )


async def forget(connection: AsyncConnection, cart_id: str) -> None:
    await connection.execute(CART_LINES.delete().where(CART_LINES.c.cart_id == cart_id))
    await connection.execute(CARTS.delete().where(CARTS.c.id == cart_id))


async def forget_guests(connection: AsyncConnection, before_ms: int) -> int:
    """Carts of visitors that nobody has touched since then."""
    old = CARTS.c.id.like("guest:%") & (CARTS.c.touched_ms < before_ms)
    ids = sa.select(CARTS.c.id).where(old)
    await connection.execute(CART_LINES.delete().where(CART_LINES.c.cart_id.in_(ids)))
    return (await connection.execute(CARTS.delete().where(old))).rowcount
