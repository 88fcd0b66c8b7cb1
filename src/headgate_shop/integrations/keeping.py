"""What is to go out, as messages of other services tell of it: written once for each message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base import events
from headgate_shop.base.counting import CHANGES, order_changed
from headgate_shop.base.database import Database
from headgate_shop.base.rows import upsert
from headgate_shop.integrations import tables
from headgate_shop.integrations.jobs import Job, jobs_of
from headgate_shop.queue import Inbox, Message, Queue, Reject

__all__ = ["Keeping", "erase", "export", "prune"]

ORDERS: Final = (events.ORDER_PAID, events.ORDER_CANCELLED, events.ORDER_SHIPPED)
OTHERS: Final = (events.PRODUCT_CHANGED, events.PRODUCT_REMOVED, events.STOCK_LOW)
KEEP_S: Final = 90 * 86400.0


class Keeping:
    def __init__(
        self,
        database: Database,
        inbox: Inbox,
        wall: Callable[[], float],
        heard: Callable[[str], None],
    ) -> None:
        """`heard(connector)` is called when there is something for it."""
        self._database = database
        self._inbox = inbox
        self._wall = wall
        self._heard = heard

    def subscribe(self, queue: Queue) -> None:
        queue.subscribe((*ORDERS, *OTHERS), self.news, concurrency=self._database.writers)
        queue.subscribe(events.USER_ERASED, self.erased)

    async def news(self, message: Message) -> None:
        async with self._database.writing() as connection:
            if not await self._inbox.first(connection, message):
                return
            try:
                jobs = await self._jobs(connection, message.topic, message.data)
            except (KeyError, TypeError, ValueError) as error:
                raise Reject(f"{message.topic} lacks something: {error!r}") from error
            await enqueue(connection, jobs, self._wall())
        for connector in {job.connector for job in jobs}:
            self._heard(connector)

    async def _jobs(
        self, connection: AsyncConnection, topic: str, data: Mapping[str, Any]
    ) -> list[Job]:
        if topic not in ORDERS:
            return jobs_of(topic, data, 0)

        async def new() -> dict[str, Any]:
            return {"at": float(data["at"])}

        sign, _ = await order_changed(
            connection, tables.orders, str(data["order_id"]), CHANGES[topic], new
        )
        return jobs_of(topic, data, sign)

    async def erased(self, message: Message) -> None:
        user_id = message.data.get("user_id")
        if not isinstance(user_id, str) or not user_id:
            raise Reject("user.erased names nobody")
        async with self._database.writing() as connection:
            if await self._inbox.first(connection, message):
                await erase(connection, user_id)


async def enqueue(connection: AsyncConnection, jobs: Sequence[Job], wall: float) -> None:
    """A job that is there already takes the newer payload and waits again."""
    table = tables.outgoing
    for job in jobs:
        fresh = {
            "connector": job.connector,
            "key": job.key,
            "kind": job.kind,
            "news": job.news - 1,
            "version": 0,
            "payload": None,
            "user_id": job.user_id,
            "state": "sent",
            "attempts": 0,
            "queued_at": wall,
            "sent_at": None,
            "remote_id": None,
            "error": None,
        }
        await upsert(connection, table, [fresh], present="keep")
        await connection.execute(
            sa.update(table)
            .where(
                table.c.connector == job.connector, table.c.key == job.key, table.c.news < job.news
            )
            .values(
                news=job.news,
                version=table.c.version + 1,
                payload=dict(job.payload),
                state="waiting",
                attempts=0,
                queued_at=wall,
                error=None,
            )
        )


async def export(connection: AsyncConnection, user_id: str) -> dict[str, Any]:
    table = tables.outgoing
    rows = await connection.execute(
        sa.select(table).where(table.c.user_id == user_id).order_by(table.c.queued_at)
    )
    return {
        "sent_to_partners": [
            {
                "connector": row["connector"],
                "what": row["key"],
                "state": row["state"],
                "remote_id": row["remote_id"],
                "waiting": row["payload"],
            }
            for row in rows.mappings()
        ]
    }


async def erase(connection: AsyncConnection, user_id: str) -> int:
    """Invoices stay, as the law wants it; what still waits goes without the person's address."""
    table = tables.outgoing
    rows = (await connection.execute(sa.select(table).where(table.c.user_id == user_id))).mappings()
    count = 0
    for row in rows.all():
        payload = row["payload"]
        if isinstance(payload, dict) and "email" in payload:
            payload = {**payload, "email": ""}
        await connection.execute(
            sa.update(table)
            .where(table.c.connector == row["connector"], table.c.key == row["key"])
            .values(user_id=None, payload=payload)
        )
        count += 1
    return count


async def prune(connection: AsyncConnection, wall: float) -> None:
    """Forget what was settled long ago. Products stay: their remote ids are needed."""
    table, oldest = tables.outgoing, wall - KEEP_S
    await connection.execute(
        sa.delete(table).where(
            table.c.state == "sent", table.c.kind != "product", table.c.sent_at < oldest
        )
    )
    await connection.execute(sa.delete(tables.orders).where(tables.orders.c.at < oldest))
    await connection.execute(sa.delete(tables.incoming).where(tables.incoming.c.at < oldest))
