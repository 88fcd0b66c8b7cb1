"""What analytics does with what the other services tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from headgate.cache import Cache
from headgate_shop.analytics import keeping, tables
from headgate_shop.analytics.events import told_by_services
from headgate_shop.analytics.figures import Figures
from headgate_shop.analytics.people import erase
from headgate_shop.analytics.reckoning import Seen, Sums
from headgate_shop.base import events
from headgate_shop.base.counting import CHANGES
from headgate_shop.base.database import Database
from headgate_shop.queue import Inbox, Message, Queue, Reject, Together

__all__ = ["Listening", "prune"]

GATHER_S: Final = 1.0
AT_ONCE: Final = 32
TAGS_MAX: Final = 400

log = logging.getLogger("headgate_shop.analytics")


class Listening:
    def __init__(self, database: Database, inbox: Inbox, cache: Cache, figures: Figures) -> None:
        self._database = database
        self._inbox = inbox
        self._cache = cache
        self._figures = figures
        self.together = Together("orders together", GATHER_S, self.orders)

    def subscribe(self, queue: Queue) -> None:
        at_once = self._database.writers
        queue.subscribe(tuple(CHANGES), self.together.add, concurrency=AT_ONCE)
        queue.subscribe(events.SHOPPING, self.shopping, concurrency=1)
        products = (events.PRODUCT_CHANGED, events.PRODUCT_REMOVED)
        queue.subscribe(products, self.product, concurrency=at_once)
        users = (events.USER_REGISTERED, events.USER_ERASED)
        queue.subscribe(users, self.user, concurrency=at_once)

    async def orders(self, messages: Sequence[Message]) -> None:
        sums = Sums()
        async with self._database.writing() as connection:
            new = await self._inbox.first_of(connection, messages)
            if not new:
                return
            try:
                found = await keeping.orders_heard(
                    connection, [(CHANGES[one.topic], one.data) for one in new]
                )
            except (KeyError, TypeError, ValueError) as error:
                raise Reject(f"{new[0].topic} lacks something: {error!r}") from error
            for sign, sold in found:
                if sign:
                    sums.take(sold, sign)
            if any(sign for sign, _ in found):
                await keeping.write(connection, sums)
        for sign, sold in found:
            self._figures.sold(sold, sign)
        # Old suggestions are better than none while new ones are made.
        tags = [f"recommendations:{one}" for one in sums.baskets if one]
        if tags:
            await self._cache.invalidate(tags=tags[:TAGS_MAX], soft=True)

    async def shopping(self, message: Message) -> None:
        try:
            seen = told_by_services(message.data, message.at)
        except ValueError as error:
            raise Reject(f"{message.topic} cannot be read: {error}") from error
        await self.write(seen, message)

    async def write(self, seen: Sequence[Seen], message: Message | None = None) -> None:
        """Events into the sums; with a message, once for each."""
        sums = Sums()
        async with self._database.writing() as connection:
            if message is not None and not await self._inbox.first(connection, message):
                return
            counted = await keeping.see(connection, seen, sums)
            await keeping.write(connection, sums)
        self._figures.seen(counted)

    async def product(self, message: Message) -> None:
        async with self._database.writing() as connection:
            if not await self._inbox.first(connection, message):
                return
            is_there = message.topic == events.PRODUCT_CHANGED
            try:
                await keeping.learn(connection, message.data, is_there=is_there)
            except (KeyError, TypeError) as error:
                raise Reject(f"{message.topic} lacks something: {error!r}") from error
        product_id = str(message.data["product_id"])
        await self._cache.invalidate(tags=[f"recommendations:{product_id}"])

    async def user(self, message: Message) -> None:
        data: Mapping[str, Any] = message.data
        user_id, at = data.get("user_id"), data.get("at", message.at)
        if not isinstance(user_id, str) or not isinstance(at, int | float):
            raise Reject(f"{message.topic} names nobody")
        async with self._database.writing() as connection:
            if not await self._inbox.first(connection, message):
                return
            if message.topic == events.USER_ERASED:
                await erase(connection, user_id, float(at))
                return
            sums = Sums()
            sums.see(Seen("registered", float(at), ""), is_first=True)
            await keeping.write(connection, sums)
        self._figures.registered()


async def prune(database: Database, before: str) -> int:
    """Forget who was counted on days before this one."""
    async with database.writing() as connection:
        done = await connection.execute(
            sa.delete(tables.sessions).where(tables.sessions.c.day < before)
        )
        return int(done.rowcount)
