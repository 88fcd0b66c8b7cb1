"""Messages that are published if, and only if, the transaction they belong to is kept.

Theory of operation
-------------------
`add` writes a row into the service's own database. The relay publishes rows in their order and then
deletes them. It is woken when a connection that has added something goes back to its pool, which is
after the commit; besides it looks by itself, so that what a killed process has left goes out.

A row is published under its id, and may be published twice (two processes, or one that was killed
before it deleted the row): the queue takes an id once. Rows go out one after the other: while the
queue is away, or full for one group, those behind it wait too, and so none is overtaken.
"""

from __future__ import annotations

import logging
import random
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.background import Background
from headgate_shop.base.database import Database
from headgate_shop.queue.backoff import Backoff
from headgate_shop.queue.message import Outgoing, QueueAway, QueueFull
from headgate_shop.queue.queue import Queue

__all__ = ["Outbox", "outbox_table"]

POLL_S: Final = 5.0
BATCH: Final = 100
AWAY: Final = Backoff(0.1, 5.0)
MARK: Final = "shop_outbox"

log = logging.getLogger("headgate_shop.queue")


def outbox_table(metadata: sa.MetaData) -> sa.Table:
    """The table, for `tables.py`. In a migration: `outbox_table(sa.MetaData()).create(bind)`, where
    `bind` is `op.get_bind()`.
    """
    return sa.Table(
        "outbox",
        metadata,
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )


class Outbox(Background):
    """Relays while it is entered; `add` works at any time."""

    task_name = "outbox relay"

    def __init__(
        self,
        database: Database,
        queue: Queue,
        *,
        poll_s: float = POLL_S,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._queue = queue
        self._poll_s = poll_s
        self._rng = rng or random.Random()
        self._table = outbox_table(sa.MetaData())
        self._failures = 0
        sa.event.listen(database.engine.sync_engine.pool, "checkin", self._returned)

    async def add(
        self,
        connection: AsyncConnection,
        topic: str,
        data: dict[str, Any],
        *,
        id: str | None = None,  # noqa: A002 - as `publish` calls it
        delay_s: float = 0.0,
        priority: int = 0,
    ) -> str:
        """Publish when the transaction of `connection` is kept; answers the message's id.

        Raises MessageInvalid for what can never be published.
        """
        one = self._queue.outgoing(topic, data, id=id, delay_s=delay_s, priority=priority)
        await connection.execute(
            sa.insert(self._table).values(
                id=one.id,
                topic=one.topic,
                body=one.body,
                at=one.at,
                due=one.due,
                priority=one.priority,
            )
        )
        sync = connection.sync_connection
        if sync is not None:
            sync.info[MARK] = True
        return one.id

    async def waiting(self) -> int:
        """How many are not yet published."""
        async with self._database.reading() as connection:
            found = await connection.scalar(sa.select(sa.func.count()).select_from(self._table))
        return int(found or 0)

    def _returned(self, _connection: object, record: Any) -> None:
        if record.info.pop(MARK, False):
            self.wake()

    async def _run(self) -> None:
        while not self.is_ending():
            rest_s = self._poll_s
            try:
                while await self._relay_some() and not self.is_ending():
                    self._well()
                self._well()
            except (QueueAway, QueueFull) as error:
                rest_s = self._trouble(error)
            except Exception as error:  # noqa: BLE001 - logged; the rows are still there
                rest_s = self._trouble(error, exc_info=True)
            # While there is trouble, a wake-up is no reason to knock again.
            await self.rest(rest_s, is_deaf=bool(self._failures))

    async def _relay_some(self) -> bool:
        """Publish the rows that are next; whether there may be more."""
        table = self._table
        async with self._database.reading() as connection:
            rows = (
                await connection.execute(sa.select(table).order_by(table.c.number).limit(BATCH))
            ).all()
        if not rows:
            return False
        heard = [row for row in rows if self._queue.is_heard(row.topic)]
        for row in rows:
            if not self._queue.is_heard(row.topic):  # from before a release that has no such topic
                log.error("%s %s: nobody hears it any more; dropped", row.topic, row.id)
        messages = [
            Outgoing(row.id, row.topic, row.body, row.at, row.due, row.priority) for row in heard
        ]
        put = await self._queue.put(messages)
        # What nobody hears goes with the rest of its batch.
        gone = rows if not put.full else heard[: put.accepted]
        if gone:
            numbers = [row.number for row in gone]
            async with self._database.writing() as connection:
                await connection.execute(sa.delete(table).where(table.c.number.in_(numbers)))
        if put.full:
            raise QueueFull(put.full, self._queue.limit)
        return len(rows) == BATCH

    def _trouble(self, error: Exception, *, exc_info: bool = False) -> float:
        self._failures += 1
        if self._failures == 1:
            log.warning("the outbox waits: %s", error, exc_info=exc_info)
        return AWAY.delay_s(self._failures, self._rng)

    def _well(self) -> None:
        if self._failures:
            log.info("the outbox goes on")
            self._failures = 0
