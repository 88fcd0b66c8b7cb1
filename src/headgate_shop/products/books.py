"""The books of the stock: the counts against the ledger, and the ledger against reservations.

Everything is read in one statement for each side within one transaction, so that what is sold in
between shows on neither or on both: in PostgreSQL the transaction is a snapshot, in SQLite every
transaction is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.database import Database
from headgate_shop.products.tables import MOVEMENTS, RESERVATIONS, RESERVED, STOCK

__all__ = ["Account", "books"]


@dataclass(frozen=True, slots=True)
class Account:
    product_id: str
    received: int
    sold: int
    reserved: int
    balanced: bool
    """The counts are the sums of the movements, and what is reserved is what reservations hold."""

    @property
    def available(self) -> int:
        return self.received - self.sold - self.reserved

    def shown(self) -> dict[str, Any]:
        return {
            "product_id": self.product_id,
            "received": self.received,
            "sold": self.sold,
            "reserved": self.reserved,
            "available": self.available,
            "balanced": self.balanced,
        }


async def books(database: Database) -> list[Account]:
    async with database.engine.connect() as connection:
        if not database.is_sqlite:
            await connection.execution_options(isolation_level="REPEATABLE READ")
        async with connection.begin():
            return await _read(connection)


async def _read(connection: AsyncConnection) -> list[Account]:
    kind, quantity = MOVEMENTS.c.kind, MOVEMENTS.c.quantity
    by_ledger = sa.select(
        MOVEMENTS.c.product_id,
        _sum(quantity, kind.in_(["received", "counted"])).label("received"),
        (
            _sum(quantity, kind == "reserved")
            - _sum(quantity, kind.in_(["released", "expired", "sold"]))
        ).label("reserved"),
        (_sum(quantity, kind == "sold") - _sum(quantity, kind == "returned")).label("sold"),
    ).group_by(MOVEMENTS.c.product_id)
    lines = (
        sa.select(
            RESERVED.c.product_id,
            _sum(RESERVED.c.quantity, RESERVATIONS.c.state == "held").label("reserved"),
            _sum(RESERVED.c.quantity, RESERVATIONS.c.state == "sold").label("sold"),
        )
        .join(RESERVATIONS, RESERVATIONS.c.id == RESERVED.c.reservation_id)
        .group_by(RESERVED.c.product_id)
    )
    ledger = {
        row.product_id: (int(row.received), int(row.reserved), int(row.sold))
        for row in await connection.execute(by_ledger)
    }
    held = {
        row.product_id: (int(row.reserved), int(row.sold))
        for row in await connection.execute(lines)
    }
    stock = await connection.execute(sa.select(STOCK).order_by(STOCK.c.product_id))
    found = []
    for row in stock:
        counts = (row.received, row.reserved, row.sold)
        told = ledger.pop(row.product_id, (0, 0, 0))
        promised = held.pop(row.product_id, (0, 0))
        is_there = row.received - row.reserved - row.sold >= 0
        is_true = counts == told and counts[1:] == promised and is_there
        found.append(
            Account(row.product_id, row.received, row.sold, row.reserved, balanced=is_true)
        )
    # What the ledger names and the counts do not know balances nowhere.
    found += [
        Account(one, *_in_order(ledger.get(one, (0, 0, 0))), balanced=False)
        for one in sorted({*ledger, *held})
    ]
    return found


def _in_order(sums: tuple[int, int, int]) -> tuple[int, int, int]:
    received, reserved, sold = sums
    return received, sold, reserved


def _sum(column: sa.ColumnElement[int], condition: sa.ColumnElement[bool]) -> Any:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, column), else_=0)), 0)
