"""What orders knows of a person: all of it shown, or the person taken out of it.

Orders stay, because the accounts must; whose they were does not. Country and amounts are what taxes
go by.
"""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.orders import cart_store
from headgate_shop.orders.carts import user_cart
from headgate_shop.orders.order_store import Order
from headgate_shop.orders.tables import KEYS, ORDERS, SAGAS

__all__ = ["erase", "export"]


async def export(database: Database, user_id: str) -> dict[str, Any]:
    query = (
        sa.select(ORDERS)
        .where(ORDERS.c.user_id == user_id)
        .order_by(ORDERS.c.created_ms, ORDERS.c.id)
    )
    async with database.reading() as connection:
        orders = [Order(**row) for row in (await connection.execute(query)).mappings()]
        cart = await cart_store.read(connection, user_cart(user_id))
    return {
        "orders": [{**order.shown(), "email": order.email} for order in orders],
        "cart": [
            {"product_id": line.product_id, "name": line.name, "quantity": line.quantity}
            for line in cart
        ],
    }


async def erase(database: Database, user_id: str) -> dict[str, int]:
    """Done twice it does nothing. Each order gets an owner of its own, so that they cannot be told
    to belong together.
    """
    mine = ORDERS.c.user_id == user_id
    async with database.writing() as connection:
        query = sa.select(ORDERS.c.id, ORDERS.c.address).where(mine).order_by(ORDERS.c.id)
        ids = (await connection.execute(query.with_for_update())).all()
        # What is under way goes on, but brings no cart back.
        await connection.execute(
            SAGAS.update()
            .where(SAGAS.c.order_id.in_(sa.select(ORDERS.c.id).where(mine)))
            .values(cart_id="")
        )
        await connection.execute(KEYS.delete().where(KEYS.c.user_id == user_id))
        await cart_store.forget(connection, user_cart(user_id))
        if ids:
            await connection.execute(
                ORDERS.update()
                .where(ORDERS.c.id == sa.bindparam("b_id"))
                .values(
                    user_id=sa.bindparam("b_user_id"),
                    email="",
                    tracking="",
                    address=sa.bindparam("b_address", type_=sa.JSON),
                ),
                [
                    {
                        "b_id": row.id,
                        "b_user_id": f"erased-{secrets.token_hex(12)}",
                        "b_address": {
                            **dict.fromkeys(("name", "street", "city", "postcode"), ""),
                            "country": row.address.get("country", ""),
                        },
                    }
                    for row in ids
                ],
            )
    return {"orders": len(ids)}
