"""What analytics has of one person: their orders. Events are kept as sums, without a name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.analytics import tables
from headgate_shop.base.rows import upsert

__all__ = ["erase", "export"]


async def export(connection: AsyncConnection, user_id: str) -> dict[str, Any]:
    table = tables.orders
    rows = await connection.execute(
        sa.select(table).where(table.c.user_id == user_id).order_by(table.c.at, table.c.order_id)
    )
    return {
        "orders": [
            {
                "order_id": row["order_id"],
                "at": datetime.fromtimestamp(row["at"], UTC).isoformat(),
                "total": row["total"],
                "currency": row["currency"],
                "lines": row["lines"],
                "is_paid": row["is_paid"],
                "is_cancelled": row["is_cancelled"],
            }
            for row in rows.mappings()
        ]
    }


async def erase(connection: AsyncConnection, user_id: str, at: float) -> int:
    """Take the name from everything; the figures stay. Answers of how many orders."""
    await upsert(connection, tables.erased, [{"user_id": user_id, "at": at}], present="keep")
    table = tables.orders
    done = await connection.execute(
        sa.update(table).where(table.c.user_id == user_id).values(user_id=None)
    )
    return int(done.rowcount)
