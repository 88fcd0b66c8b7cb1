"""Carts in the database. Whoever changes one holds its row until the end of the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new, insert_of
from headgate_shop.base.short_reads import Prepared
from headgate_shop.orders.carts import QUANTITY_MAX, Known, Line
from headgate_shop.orders.tables import CART_LINES, CARTS

__all__ = ["add", "forget", "forget_guests", "hold", "look", "read", "write"]

_LINES: Final = Prepared(
    sa.select(*(CART_LINES.c[one.name] for one in fields(Line)))
    .where(CART_LINES.c.cart_id == sa.bindparam("cart_id"))
    .order_by(CART_LINES.c.added_ms, CART_LINES.c.product_id)
)


async def hold(connection: AsyncConnection, cart_id: str, now_ms: int) -> list[Line]:
    """Make the cart if need be, keep others from changing it, and read it."""
    values = {"id": cart_id, "touched_ms": now_ms}
    if not await insert_new(connection, CARTS, values):
        await connection.execute(
            CARTS.update().where(CARTS.c.id == cart_id).values(touched_ms=now_ms)
        )
    return await read(connection, cart_id)


async def look(database: Database, cart_id: str) -> list[Line]:
    """What is in the cart now, for whoever only shows it."""
    return [Line(*row) for row in await database.rows(_LINES, cart_id=cart_id)]


async def read(connection: AsyncConnection, cart_id: str) -> list[Line]:
    return [Line(*row) for row in await connection.execute(_LINES.select, {"cart_id": cart_id})]


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


async def add(
    connection: AsyncConnection,
    cart_id: str,
    product_id: str,
    quantity: int,
    known: Known | None,
    now_ms: int,
) -> None:
    """So many more of a product, up to what a line holds, by one statement."""
    said: dict[str, Any] = {}
    if known is not None:
        said = {"name": known.name, "price": known.price, "image": known.image}
    fresh = {"name": "", "price": None, "image": "", **said}
    insert = insert_of(connection, CART_LINES).values(
        cart_id=cart_id, product_id=product_id, quantity=quantity, added_ms=now_ms, **fresh
    )
    total = CART_LINES.c.quantity + insert.excluded.quantity
    statement = insert.on_conflict_do_update(
        index_elements=["cart_id", "product_id"],
        set_={"quantity": sa.case((total > QUANTITY_MAX, QUANTITY_MAX), else_=total), **said},
    )
    await connection.execute(statement)


async def forget(connection: AsyncConnection, cart_id: str) -> None:
    await connection.execute(CART_LINES.delete().where(CART_LINES.c.cart_id == cart_id))
    await connection.execute(CARTS.delete().where(CARTS.c.id == cart_id))


async def forget_guests(connection: AsyncConnection, before_ms: int) -> int:
    """Carts of visitors that nobody has touched since then."""
    old = CARTS.c.id.like("guest:%") & (CARTS.c.touched_ms < before_ms)
    ids = sa.select(CARTS.c.id).where(old)
    await connection.execute(CART_LINES.delete().where(CART_LINES.c.cart_id.in_(ids)))
    return (await connection.execute(CARTS.delete().where(old))).rowcount
