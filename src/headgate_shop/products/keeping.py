"""What is kept of answers, and how an edit has everybody forget it.

Theory of operation
-------------------
There is one space of tags: `products` is on every list, `category:<slug>` on the lists of one
category, `product:<id>` on a product, `stock:<id>` on what is said of its stock. This process keeps
finished answers by them, the canary does, and the gateway keeps responses by their `Cache-Tag`.
`Cache.invalidate` tells all of them: over the Redis that they share, or by the gateway's admin API,
to which each is linked.

An edit writes what is to be forgotten into `purges`, in its own transaction, and tells it after the
commit: who forgot earlier could load what was before. A row goes when everybody has been told; one
that stays, because the gateway was away or this process was killed in between, is told again by
whichever process looks next. Telling twice costs a few answers that have to be made anew.

What changes with every sale (`stock:<id>`) is told soon and once, without a row: such answers live
for two seconds anyway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.cache import Cache, CacheError
from headgate.cache.gateway_link import GatewayLink
from headgate_shop.base.background import Background
from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.products.tables import PURGES

__all__ = ["Purges", "open_cache", "product_tags"]

LOOK_S: Final = 5.0
GRACE_MS: Final = 5000
SOON_S: Final = 0.1
NAMES_MAX: Final = 400

log = logging.getLogger("headgate_shop.products")


def open_cache(settings: Settings) -> Cache:
    """In memory, and heard by the others over Redis or the gateway."""
    if settings.cache:
        return Cache(settings.cache, namespace="products", ttl="5min")
    links = []
    if settings.admin_url:
        token = settings.purge_token or settings.admin_token
        links.append(GatewayLink(settings.admin_url, token, name=settings.service))
    return Cache(namespace="products", ttl="5min", links=links)


def product_tags(product_id: str, *categories: str) -> list[str]:
    """What an edit of the product makes untrue; `categories` are those it was and is in."""
    return ["products", f"product:{product_id}", *(f"category:{slug}" for slug in categories)]


class Purges(Background):
    """Works at any time; tells what was left over while it is entered."""

    task_name = "purges"

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache
        self._soon: set[str] = set()

    async def note(self, connection: AsyncConnection, tags: Iterable[str]) -> int:
        """In the transaction of the edit; answers what `tell` is to be given after its commit."""
        values = {"tags": sorted(set(tags)), "at_ms": _now_ms()}
        query = sa.insert(PURGES).values(values).returning(PURGES.c.number)
        return int((await connection.execute(query)).scalar_one())

    async def tell(self, *numbers: int) -> None:
        """Have everybody forget it. Nothing is raised: what cannot be told now is told later."""
        query = sa.select(PURGES).where(PURGES.c.number.in_(numbers))
        try:
            await self._tell(query)
        except (CacheError, OSError, sa.exc.SQLAlchemyError) as error:
            log.warning("what an edit changes is told later: %s", error)

    def soon(self, tags: Iterable[str]) -> None:
        self._soon.update(tags)
        self.wake()

    async def _tell(self, query: sa.Select[Any]) -> None:
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(NAMES_MAX))).all()
        if not rows:
            return
        tags = sorted({tag for row in rows for tag in row.tags})
        is_told = True
        for start in range(0, len(tags), NAMES_MAX):
            done = await self._cache.invalidate(tags=tags[start : start + NAMES_MAX])
            is_told = is_told and not done.is_queued
        if not is_told:
            return
        numbers = [row.number for row in rows]
        async with self._database.writing() as connection:
            await connection.execute(sa.delete(PURGES).where(PURGES.c.number.in_(numbers)))

    async def waiting(self) -> int:
        async with self._database.reading() as connection:
            return int(await connection.scalar(sa.select(sa.func.count(PURGES.c.number))) or 0)

    async def _run(self) -> None:
        await asyncio.gather(self._tell_left_over(), self._tell_soon())

    async def _tell_left_over(self) -> None:
        while not self.is_ending():
            try:
                await self._tell(
                    sa.select(PURGES)
                    .where(PURGES.c.at_ms < _now_ms() - GRACE_MS)
                    .order_by(PURGES.c.number)
                )
            except Exception as error:  # noqa: BLE001 - the database may be away for a while
                log.warning("what was changed is told later: %s", error)
            await self.rest(LOOK_S, is_deaf=True)

    async def _tell_soon(self) -> None:
        while not self.is_ending():
            await self.rest()
            await self.rest(SOON_S, is_deaf=True)  # a busy shop tells in one what happens meanwhile
            tags = sorted(self._soon)[:NAMES_MAX]
            self._soon.difference_update(tags)
            if self._soon:
                self.wake()
            if not tags:
                continue
            try:
                await self._cache.invalidate(tags=tags)
            except Exception as error:  # noqa: BLE001 - they are over in two seconds anyway
                log.info("not told of stock: %s", error)


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - read by other processes
