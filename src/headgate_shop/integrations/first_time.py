"""Tells partners of the products that were there before anybody told of them.

Theory of operation
-------------------
News of products comes when they change. What was made before this service was there, or while the
queue was another one, would never reach a partner. So the catalogue is gone through once, page by
page in the order of ids, and each product is put in line as if it had just been told, with the time
of its own last change: newer news that is there already stays. How far it has come is written in
the transaction of the page; a process that is killed goes on there.

There is no hurry, and much to tell: a page is asked for when those before it are nearly gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.errors import HeadgateError
from headgate.mesh import Mesh
from headgate_shop.base import events
from headgate_shop.base.background import Background
from headgate_shop.base.database import Database
from headgate_shop.base.rows import upsert
from headgate_shop.integrations import tables
from headgate_shop.integrations.jobs import jobs_of
from headgate_shop.integrations.keeping import enqueue

__all__ = ["FirstTime"]

EVERY_S: Final = 5.0
AWAY_S: Final = 15.0
PAGE: Final = 10
MARK: Final = "catalogue"
DONE: Final = "\n"
"""No id is this."""

log = logging.getLogger("headgate_shop.integrations")


class FirstTime(Background):
    """Goes on while it is entered, and ends when all have been told."""

    task_name = "integrations first time"

    def __init__(
        self,
        database: Database,
        mesh: Callable[[], Mesh],
        wall: Callable[[], float],
        heard: Callable[[str], None],
    ) -> None:
        self._database = database
        self._mesh = mesh
        self._wall = wall
        self._heard = heard

    async def _run(self) -> None:
        is_well = True
        while not self.is_ending():
            wait_s = EVERY_S
            try:
                if await self.turn():
                    return
                is_well = True
            except Exception as error:  # noqa: BLE001 - products or the database are away
                wait_s = AWAY_S
                if is_well:
                    log.info("partners are told of the catalogue later: %s", error)
                is_well = False
            await self.rest(wait_s)

    async def turn(self) -> bool:
        """One page, if there is room for it; whether all is told."""
        async with self._database.reading() as connection:
            after = await _mark(connection)
            waiting = await _waiting(connection)
        if after == DONE:
            return True
        if waiting >= PAGE:
            return False
        answer = (
            await self._mesh()
            .service("products")
            .get("/internal/catalogue", params={"after": after, "limit": PAGE}, timeout="5s")
        )
        answer.raise_for_status()
        try:
            jobs = [job for row in answer.json()["items"] for job in _jobs(row)]
            last = str(answer.json()["next"] or DONE)
        except (KeyError, TypeError, ValueError) as error:
            raise HeadgateError(f"products answers something else: {error!r}") from error
        async with self._database.writing() as connection:
            await enqueue(connection, jobs, self._wall())
            mark = {"name": MARK, "value": last}
            await upsert(connection, tables.marks, [mark], present="replace")
        for name in {job.connector for job in jobs}:
            self._heard(name)
        return last == DONE


def _jobs(row: Any) -> list[Any]:
    data = {
        "product_id": row["id"],
        "name": row["name"],
        "price": row["price"],
        "category": row["category"],
        "at": float(row["updated_at_s"]),
    }
    return jobs_of(events.PRODUCT_CHANGED, data, 0)


async def _mark(connection: AsyncConnection) -> str:
    table = tables.marks
    return str(await connection.scalar(sa.select(table.c.value).where(table.c.name == MARK)) or "")


async def _waiting(connection: AsyncConnection) -> int:
    """Products in the longest line."""
    table = tables.outgoing
    query = (
        sa.select(sa.func.count())
        .where(table.c.state == "waiting", table.c.kind == "product")
        .group_by(table.c.connector)
    )
    return max((int(count) for count in (await connection.scalars(query)).all()), default=0)
