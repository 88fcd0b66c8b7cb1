"""Keeps the forecasts up to date: a few hundred products at a time, in a thread, as they come due.

Theory of operation
-------------------
A product is due when its sales have changed since its forecast was made, or when the day is over.
`turn` takes the next CHUNK of them, those with the most news first, reads their days, reckons in a
thread and writes. A change that comes while its forecast is made stays due: what is noted is the
count of changes that was read *before* the sales were.

The week of the whole shop is read once an hour; the chunks of one turn share it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate import observe
from headgate_shop.base.background import Background
from headgate_shop.base.database import Database
from headgate_shop.base.rows import upsert
from headgate_shop.forecasting import tables
from headgate_shop.forecasting.choosing import Forecast, forecast_all
from headgate_shop.forecasting.keeping import day_of, prune
from headgate_shop.forecasting.methods import Floats, Past, shop_weeks

__all__ = ["DAYS", "Reckoning", "share_gone"]

DAYS: Final = 182
"""So far back forecasts look."""
CHUNK: Final = 250
QUIET_S: Final = 0.4
"""Waited after news, so that an order of ten lines is reckoned with once."""
RESTS: Final = 4.0
RESTS_S: Final = 3.0
"""Rests so many times as long as it reckoned, and no longer than this."""
AT_LEAST_EVERY_S: Final = 30.0
WEEKS_S: Final = 3600.0

log = logging.getLogger("headgate_shop.forecasting")


@dataclass(frozen=True, slots=True, eq=False)
class _Shop:
    """What all forecasts of a while share."""

    first: date
    weeks: Floats
    hours: tuple[float, ...]
    read_at: float


def share_gone(hours: tuple[float, ...], wall: float) -> float:
    """Which share of a usual day's sales has its time behind it."""
    whole = sum(hours)
    second = wall % 86400
    if whole <= 0:
        return second / 86400
    hour = int(second // 3600)
    return (sum(hours[:hour]) + hours[hour] * (second % 3600) / 3600) / whole


class Reckoning(Background):
    """Keeps on while it is entered."""

    task_name = "forecasts"

    def __init__(
        self,
        database: Database,
        wall: Callable[[], float],
        registry: observe.Registry = observe.REGISTRY,
    ) -> None:
        self._database = database
        self._wall = wall
        self._shop: _Shop | None = None
        self._pruned = ""
        self._made = registry.counter("shop_forecasts", "Forecasts that were made.")
        self._due = registry.gauge("shop_forecasts_due", "Products that wait for a forecast.")
        self._took = registry.timer("shop_forecasting_seconds", "Making a chunk of forecasts.")

    def heard(self) -> None:
        self.wake()

    async def _run(self) -> None:
        while not self.is_ending():
            began = asyncio.get_running_loop().time()
            try:
                while not self.is_ending() and await self.turn():
                    pass
            except Exception:
                log.warning("forecasts could not be made; they are tried again", exc_info=True)
            took_s = asyncio.get_running_loop().time() - began
            await self.rest(AT_LEAST_EVERY_S)
            # Where orders come without a pause, most of the processor is left to others.
            await self.rest(min(RESTS_S, max(QUIET_S, RESTS * took_s)), is_deaf=True)

    async def turn(self) -> int:
        """Make the forecasts that are due, one chunk of them; answers how many."""
        wall = self._wall()
        today = day_of(wall)
        async with self._database.reading() as connection:
            due = await self._next(connection, today)
            if not due:
                self._due.set(0)
                return 0
            shop = await self._of_shop(connection, wall)
            sales = await _sales(connection, list(due), shop.first, today)
        past, sold_today = _past(sales, list(due), shop, today)
        with self._took.time():
            made = await asyncio.to_thread(
                forecast_all, past, sold_today, share_gone(shop.hours, wall)
            )
        await self._keep(due, made, wall, today)
        self._made.inc(len(made))
        return len(made)

    async def _next(self, connection: AsyncConnection, today: str) -> dict[str, int]:
        """The products that are due, each with its count of changes."""
        table = tables.products
        is_due = sa.or_(table.c.changed != table.c.reckoned, table.c.reckoned_day != today)
        count = await connection.scalar(sa.select(sa.func.count()).select_from(table).where(is_due))
        self._due.set(count or 0)
        rows = await connection.execute(
            sa.select(table.c.product_id, table.c.changed)
            .where(is_due)
            .order_by((table.c.changed - table.c.reckoned).desc(), table.c.product_id)
            .limit(CHUNK)
        )
        return {row[0]: row[1] for row in rows}

    async def _of_shop(self, connection: AsyncConnection, wall: float) -> _Shop:
        first = datetime.fromtimestamp(wall, UTC).date() - timedelta(days=DAYS)
        shop = self._shop
        if shop is not None and shop.first == first and wall - shop.read_at < WEEKS_S:
            return shop
        table = tables.days
        rows = await connection.execute(
            sa.select(table.c.day, sa.func.sum(table.c.quantity))
            .where(table.c.day >= first.isoformat())
            .group_by(table.c.day)
        )
        totals = np.zeros(DAYS)
        for day, quantity in rows:
            place = (date.fromisoformat(day) - first).days
            if 0 <= place < DAYS:
                totals[place] = quantity
        begin = int(np.argmax(totals > 0))
        weeks = np.ones((DAYS + 1, 7))
        weeks[begin:] = shop_weeks(totals[begin:], (first.weekday() + begin) % 7)
        hours = [0.0] * 24
        for hour, quantity in await connection.execute(
            sa.select(tables.hours.c.hour, tables.hours.c.quantity)
        ):
            hours[hour] = max(0.0, float(quantity))
        self._shop = _Shop(first, weeks, tuple(hours), wall)
        return self._shop

    async def _keep(
        self, due: dict[str, int], made: list[Forecast], wall: float, today: str
    ) -> None:
        rows = [
            {
                "product_id": product_id,
                "made_at": wall,
                "first_day": today,
                "method": one.method,
                "error": one.error,
                "naive_error": one.naive_error,
                "tries": one.tries,
                "week": sum(one.expected[:7]),
                "whole": max(one.most[-1], sum(one.expected)),
                "lines": {
                    "expected": one.expected,
                    "low": one.low,
                    "high": one.high,
                    "most": one.most,
                },
            }
            for product_id, one in zip(due, made, strict=True)
        ]
        async with self._database.writing() as connection:
            await upsert(connection, tables.forecasts, rows, present="replace")
            by_count: dict[int, list[str]] = {}
            for product_id, changed in due.items():
                by_count.setdefault(changed, []).append(product_id)
            for changed, ids in by_count.items():
                await connection.execute(
                    sa.update(tables.products)
                    .where(tables.products.c.product_id.in_(ids))
                    .values(reckoned=changed, reckoned_day=today)
                )
            if self._pruned != today:
                await prune(connection, wall)
                self._pruned = today


async def _sales(connection: AsyncConnection, ids: list[str], first: date, today: str) -> list[Any]:
    table = tables.days
    rows = await connection.execute(
        sa.select(table.c.product_id, table.c.day, table.c.quantity).where(
            table.c.product_id.in_(ids),
            table.c.day >= first.isoformat(),
            table.c.day <= today,
        )
    )
    return list(rows)


def _past(sales: list[Any], ids: list[str], shop: _Shop, today: str) -> tuple[Past, Floats]:
    """The table of days before today, and what was sold today."""
    places = {product_id: place for place, product_id in enumerate(ids)}
    table = np.zeros((len(ids), DAYS))
    sold_today = np.zeros(len(ids))
    for product_id, day, quantity in sales:
        sold = max(0, quantity)
        if day == today:
            sold_today[places[product_id]] = sold
        else:
            table[places[product_id], (date.fromisoformat(day) - shop.first).days] = sold
    is_sale = table > 0
    begins = np.where(is_sale.any(axis=1), np.argmax(is_sale, axis=1), DAYS).astype(np.intp)
    return Past(table, begins, shop.weeks, shop.first.weekday()), sold_today
