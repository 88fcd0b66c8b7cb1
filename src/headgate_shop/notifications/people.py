"""What notifications has of one person: which mails were sent to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.rows import insert_new
from headgate_shop.notifications import tables

__all__ = ["document", "erase", "export", "is_erased", "time_of"]


def document(row: Any) -> dict[str, Any]:
    """One mail as JSON."""
    return {
        "id": row.id,
        "user_id": row.user_id or None,
        "to": row.recipient,
        "template": row.template,
        "subject": row.subject,
        "status": row.status,
        "attempts": row.attempts,
        "error": row.error or None,
        "created_at": time_of(row.created_at),
        "sent_at": None if row.sent_at is None else time_of(row.sent_at),
    }


async def export(connection: AsyncConnection, user_id: str) -> dict[str, Any]:
    table = tables.mails
    rows = await connection.execute(
        sa.select(table).where(table.c.user_id == user_id).order_by(table.c.created_at, table.c.id)
    )
    shown = ("to", "template", "subject", "status", "created_at", "sent_at")
    return {"mails": [{name: document(row)[name] for name in shown} for row in rows]}


async def erase(connection: AsyncConnection, user_id: str, at: float) -> int:
    """Forget them, and what is still on its way to them; answers how many mails."""
    await insert_new(connection, tables.erased, {"user_id": user_id, "at": at})
    done = await connection.execute(
        sa.delete(tables.mails).where(tables.mails.c.user_id == user_id)
    )
    return int(done.rowcount)


async def is_erased(connection: AsyncConnection, user_id: str) -> bool:
    if not user_id:
        return False
    table = tables.erased
    found = await connection.scalar(sa.select(table.c.at).where(table.c.user_id == user_id))
    return found is not None


def time_of(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat()
