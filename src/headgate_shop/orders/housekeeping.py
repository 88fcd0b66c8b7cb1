"""What orders forgets: keys of clients after a day, and carts that nobody has come back for."""

from __future__ import annotations

from typing import Final

from headgate_shop.base.database import Database
from headgate_shop.orders import cart_store
from headgate_shop.orders.tables import KEYS

__all__ = ["KEY_LIFE_MS", "clean"]

KEY_LIFE_MS: Final = 86_400_000
GUEST_CART_LIFE_MS: Final = 30 * 86_400_000


async def clean(database: Database, now_ms: int) -> None:
    async with database.writing() as connection:
        await connection.execute(KEYS.delete().where(KEYS.c.created_ms < now_ms - KEY_LIFE_MS))
        await cart_store.forget_guests(connection, now_ms - GUEST_CART_LIFE_MS)
