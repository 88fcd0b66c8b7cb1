"""Which messages a service has had: their effect, and that they were had, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new, insert_new_of
from headgate_shop.queue.message import Message, wall_time

__all__ = ["Inbox", "inbox_table"]

KEEP_S: Final = 30 * 86_400.0
"""Longer than a message can be on its way."""
FORGET_EVERY: Final = 500
FORGET_ROWS: Final = 1_000


def inbox_table(metadata: sa.MetaData) -> sa.Table:
    """The table, for `tables.py`. In a migration: `inbox_table(sa.MetaData()).create(bind)`, where
    `bind` is `op.get_bind()`.
    """
    return sa.Table(
        "inbox",
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.Float, nullable=False, index=True),
    )


class Inbox:
    """A service that is several groups needs the part of it that asks in `scope`."""

    def __init__(self, database: Database, *, scope: str = "") -> None:
        self._scope = f"{scope}/" if scope else ""
        self._table = inbox_table(sa.MetaData())
        self._since = 0

    async def first(self, connection: AsyncConnection, message: Message) -> bool:
        """True once for each message, if the transaction is kept. Ask before anything is written;
        whoever is asked at the same moment waits for this transaction to end.
        """
        return bool(await self.first_of(connection, [message]))

    async def first_of(
        self, connection: AsyncConnection, messages: Sequence[Message]
    ) -> list[Message]:
        """Those of several messages of which `first` would say true."""
        now = wall_time()
        by_id = {f"{self._scope}{message.id}": message for message in messages}
        rows = [{"id": one, "at": now} for one in by_id]
        if len(rows) == 1:
            is_first = await insert_new(connection, self._table, rows[0])
            new = set(by_id) if is_first else set()
        else:
            new = await insert_new_of(connection, self._table, rows, "id")
        await self._forget(connection, now, len(messages))
        return [message for one, message in by_id.items() if one in new]

    async def _forget(self, connection: AsyncConnection, now: float, count: int) -> None:
        self._since += count
        if self._since >= FORGET_EVERY:
            self._since = 0
            old = (
                sa.select(self._table.c.id)
                .where(self._table.c.at < now - KEEP_S)
                .order_by(self._table.c.at)
                .limit(FORGET_ROWS)
            )
            await connection.execute(sa.delete(self._table).where(self._table.c.id.in_(old)))
