"""The figures as they are asked for: totals, series, funnel, what sold best, what goes along."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.analytics import tables
from headgate_shop.analytics.companions import KEPT, ranked
from headgate_shop.analytics.reckoning import ALL, STEPS
from headgate_shop.analytics.span import Span

__all__ = ["Totals", "categories", "change", "funnel", "series", "together", "top", "totals"]

By = Literal["revenue", "units", "orders", "views", "carts"]
POPULAR_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Totals:
    orders: int
    units: int
    revenue: int
    visitors: int
    """Sessions that did anything, each once a day."""
    carts: int
    registered: int

    @property
    def average_order(self) -> int:
        return round(self.revenue / self.orders) if self.orders else 0

    @property
    def conversion(self) -> float:
        """Orders for each visitor."""
        return round(self.orders / self.visitors, 4) if self.visitors else 0.0

    def document(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "average_order": self.average_order,
            "conversion": self.conversion,
        }


def change(now: float, before: float) -> float | None:
    """By what share it has changed; None where there was nothing to compare with."""
    return round(now / before - 1, 4) if before else None


async def totals(connection: AsyncConnection, span: Span) -> Totals:
    sales, steps = tables.sales_hours, tables.funnel_hours
    row = (
        await connection.execute(
            sa.select(
                sa.func.sum(sales.c.orders),
                sa.func.sum(sales.c.units),
                sa.func.sum(sales.c.revenue),
            ).where(span.of_hours(sales.c.day, sales.c.hour))
        )
    ).one()
    found = await connection.execute(
        sa.select(steps.c.step, sa.func.sum(steps.c.events), sa.func.sum(steps.c.sessions))
        .where(span.of_hours(steps.c.day, steps.c.hour))
        .group_by(steps.c.step)
    )
    by_step = {one[0]: (int(one[1]), int(one[2])) for one in found}
    return Totals(
        orders=int(row[0] or 0),
        units=int(row[1] or 0),
        revenue=int(row[2] or 0),
        visitors=by_step.get("visit", (0, 0))[1],
        carts=by_step.get("cart", (0, 0))[1],
        registered=by_step.get("registered", (0, 0))[0],
    )


async def series(
    connection: AsyncConnection, span: Span, by: Literal["day", "hour"]
) -> list[dict[str, Any]]:
    """Sales one after the other, with zeros where nothing was sold."""
    table = tables.sales_hours
    keys = (table.c.day,) if by == "day" else (table.c.day, table.c.hour)
    rows = await connection.execute(
        sa.select(
            *keys,
            sa.func.sum(table.c.orders),
            sa.func.sum(table.c.units),
            sa.func.sum(table.c.revenue),
        )
        .where(span.of_hours(table.c.day, table.c.hour))
        .group_by(*keys)
    )
    found = {tuple(row[: len(keys)]): tuple(int(n) for n in row[len(keys) :]) for row in rows}
    wanted: list[tuple[Any, ...]] = []
    for day in span.days():
        if by == "day":
            wanted.append((day,))
        else:
            end = span.hour if day == span.last else 23
            wanted.extend((day, hour) for hour in range(end + 1))
    items = []
    for key in wanted:
        orders, units, revenue = found.get(key, (0, 0, 0))
        start = f"{key[0]}T{key[1] if by == 'hour' else 0:02d}:00:00Z"
        items.append({"start": start, "orders": orders, "units": units, "revenue": revenue})
    return items


async def categories(connection: AsyncConnection, span: Span) -> list[dict[str, Any]]:
    table = tables.category_days
    revenue = sa.func.sum(table.c.revenue)
    rows = (
        await connection.execute(
            sa.select(table.c.category, sa.func.sum(table.c.units), revenue)
            .where(span.of_days(table.c.day))
            .group_by(table.c.category)
            .order_by(revenue.desc(), table.c.category)
        )
    ).all()
    whole = sum(int(row[2]) for row in rows)
    return [
        {
            "category": row[0],
            "units": int(row[1]),
            "revenue": int(row[2]),
            "share": round(int(row[2]) / whole, 4) if whole else 0.0,
        }
        for row in rows
        if row[1] or row[2]
    ]


async def funnel(connection: AsyncConnection, span: Span) -> list[dict[str, Any]]:
    """From looking to buying: how many come to each step, and which share of those before."""
    table = tables.funnel_hours
    rows = await connection.execute(
        sa.select(table.c.step, sa.func.sum(table.c.events), sa.func.sum(table.c.sessions))
        .where(span.of_hours(table.c.day, table.c.hour))
        .group_by(table.c.step)
    )
    found = {row[0]: (int(row[1]), int(row[2])) for row in rows}
    steps: list[dict[str, Any]] = []
    first = before = 0
    for step in STEPS:
        events, sessions = found.get(step, (0, 0))
        steps.append(
            {
                "step": step,
                "events": events,
                "sessions": sessions,
                "of_previous": round(sessions / before, 4) if before else None,
                "of_first": round(sessions / first, 4) if first else None,
            }
        )
        first, before = first or sessions, sessions
    return steps


async def top(connection: AsyncConnection, span: Span, by: By, most: int) -> list[dict[str, Any]]:
    table, names = tables.product_days, tables.products
    sums = {
        name: sa.func.sum(table.c[name]).label(name)
        for name in ("orders", "units", "revenue", "views", "carts")
    }
    rows = await connection.execute(
        sa.select(table.c.product_id, names.c.name, names.c.category, *sums.values())
        .join(names, names.c.product_id == table.c.product_id, isouter=True)
        .where(span.of_days(table.c.day))
        .group_by(table.c.product_id, names.c.name, names.c.category)
        .having(sums[by] > 0)
        .order_by(sums[by].desc(), table.c.product_id)
        .limit(most)
    )
    return [
        {
            "product_id": row["product_id"],
            "name": row["name"] or row["product_id"],
            "category": row["category"] or "",
            **{name: int(row[name]) for name in sums},
        }
        for row in rows.mappings()
    ]


async def together(
    connection: AsyncConnection, product_id: str, most: int, since: str
) -> list[dict[str, Any]]:
    """What is bought with a product; where too little is known, what sells best beside it."""
    pairs, baskets, products = tables.pairs, tables.baskets, tables.products
    counts = await connection.execute(
        sa.select(baskets.c.product_id, baskets.c.times).where(
            baskets.c.product_id.in_([ALL, product_id])
        )
    )
    times = {row[0]: int(row[1]) for row in counts}
    rows = await connection.execute(
        sa.select(pairs.c.other_id, pairs.c.times, baskets.c.times)
        .join(baskets, baskets.c.product_id == pairs.c.other_id)
        .join(products, products.c.product_id == pairs.c.other_id)
        .where(pairs.c.product_id == product_id, products.c.is_there)
    )
    others = [(row[0], int(row[1]), int(row[2])) for row in rows]
    found = ranked(times.get(ALL, 0), times.get(product_id, 0), others, most=most)
    items: list[dict[str, Any]] = [
        {
            "product_id": one.product_id,
            "score": round(one.lift, 2),
            "together": one.together,
            "why": "bought_together",
        }
        for one in found
    ]
    if len(items) < most:
        taken = {product_id, *(item["product_id"] for item in items)}
        for other, units in await _popular_beside(connection, product_id, since):
            if other not in taken and len(items) < most:
                items.append(
                    {
                        "product_id": other,
                        "score": 0.0,
                        "together": 0,
                        "units": units,
                        "why": "popular_in_category",
                    }
                )
    return items


async def _popular_beside(
    connection: AsyncConnection, product_id: str, since: str
) -> list[tuple[str, int]]:
    days, products = tables.product_days, tables.products
    category = await connection.scalar(
        sa.select(products.c.category).where(products.c.product_id == product_id)
    )
    if not category:
        return []
    units = sa.func.sum(days.c.units)
    rows = await connection.execute(
        sa.select(days.c.product_id, units)
        .join(products, products.c.product_id == days.c.product_id)
        .where(products.c.category == category, products.c.is_there, days.c.day >= since)
        .group_by(days.c.product_id)
        .having(units > 0)
        .order_by(units.desc(), days.c.product_id)
        .limit(KEPT)
    )
    return [(row[0], int(row[1])) for row in rows]
