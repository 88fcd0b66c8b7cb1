"""Forecasts as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.forecasting import tables
from headgate_shop.forecasting.choosing import COVERAGE
from headgate_shop.forecasting.running_out import Lasting, lasting

__all__ = ["Stock", "forecast_of", "page", "running_out"]

MOST_IDS: Final = 500


@dataclass(frozen=True, slots=True)
class Stock:
    """What products say is there; without it, why not."""

    available: Mapping[str, int]
    trouble: str = ""


async def forecast_of(
    connection: AsyncConnection, product_id: str, days: int, history_days: int, today: str
) -> dict[str, Any] | None:
    """None where nothing is known of the product."""
    products, table = tables.products, tables.forecasts
    product = (
        (await connection.execute(sa.select(products).where(products.c.product_id == product_id)))
        .mappings()
        .first()
    )
    if product is None:
        return None
    made = (
        (await connection.execute(sa.select(table).where(table.c.product_id == product_id)))
        .mappings()
        .first()
    )
    sold = await _sold(connection, product_id, history_days, today)
    shown: dict[str, Any] = {
        "product_id": product_id,
        "name": product["name"],
        "history": [
            {"day": day, "quantity": quantity} for day, quantity in sold.items() if day != today
        ],
        "sold_today": sold[today],
        "forecast": [],
        "method": None,
        "error": None,
        "coverage": COVERAGE,
        "is_current": product["changed"] == product["reckoned"]
        and product["reckoned_day"] == today,
    }
    if made is not None:
        first = date.fromisoformat(made["first_day"])
        lines = made["lines"]
        rows = [
            {
                "day": (first + timedelta(days=place)).isoformat(),
                "expected": expected,
                "low": lines["low"][place],
                "high": lines["high"][place],
            }
            for place, expected in enumerate(lines["expected"])
        ]
        shown |= {
            "forecast": [row for row in rows if row["day"] >= today][:days],
            "method": made["method"],
            "error": made["error"],
            "naive_error": made["naive_error"],
            "tries": made["tries"],
            "made_at": datetime.fromtimestamp(made["made_at"], UTC).isoformat(),
        }
    return shown


async def _sold(
    connection: AsyncConnection, product_id: str, days: int, today: str
) -> dict[str, int]:
    """Each day up to today, with zeros."""
    last = date.fromisoformat(today)
    first = last - timedelta(days=days)
    rows = await connection.execute(
        sa.select(tables.days.c.day, tables.days.c.quantity).where(
            tables.days.c.product_id == product_id,
            tables.days.c.day >= first.isoformat(),
            tables.days.c.day <= today,
        )
    )
    there = {row[0]: max(0, row[1]) for row in rows}
    wanted = [(first + timedelta(days=ahead)).isoformat() for ahead in range(days + 1)]
    return {day: there.get(day, 0) for day in wanted}


async def page(
    connection: AsyncConnection, limit: int, after: tuple[float, str] | None
) -> tuple[list[dict[str, Any]], tuple[float, str] | None]:
    """What sells most first; with the place to go on from."""
    table, products = tables.forecasts, tables.products
    query = (
        sa.select(table, products.c.name)
        .join(products, products.c.product_id == table.c.product_id)
        .where(products.c.is_there)
        .order_by(table.c.week.desc(), table.c.product_id)
        .limit(limit + 1)
    )
    if after is not None:
        week, product_id = after
        query = query.where(
            sa.or_(
                table.c.week < week,
                sa.and_(table.c.week == week, table.c.product_id > product_id),
            )
        )
    rows = (await connection.execute(query)).mappings().all()
    items = [
        {
            "product_id": row["product_id"],
            "name": row["name"],
            "expected_7_days": round(row["week"], 2),
            "method": row["method"],
            "error": row["error"],
            "naive_error": row["naive_error"],
        }
        for row in rows[:limit]
    ]
    more = (rows[limit - 1]["week"], rows[limit - 1]["product_id"]) if len(rows) > limit else None
    return items, more


async def running_out(
    connection: AsyncConnection, stock: Stock, within_days: int, limit: int, today: str
) -> list[dict[str, Any]]:
    """The products whose stock may end within so many days, the soonest first; where the stock is
    not known, those that sell most, and nothing is said of when.
    """
    table, products, days = tables.forecasts, tables.products, tables.days
    query = (
        sa.select(table.c.product_id, products.c.name, table.c.week, table.c.whole, days.c.quantity)
        .join(products, products.c.product_id == table.c.product_id)
        .join(
            days,
            sa.and_(days.c.product_id == table.c.product_id, days.c.day == today),
            isouter=True,
        )
        .where(products.c.is_there, table.c.week > 0, table.c.first_day == today)
        .order_by(table.c.week.desc(), table.c.product_id)
    )
    if stock.trouble:
        rows = (await connection.execute(query.limit(limit))).mappings()
        return [_item(row, None, Lasting(None, None, 0.0)) for row in rows]
    near: dict[str, Any] = {}
    for row in (await connection.execute(query)).mappings():
        available = stock.available.get(row["product_id"])
        # What lasts beyond the forecast in any case is most of the shop, and need not be read.
        if available is not None and available + _sold_today(row) <= row["whole"]:
            near[row["product_id"]] = row
    found: list[tuple[float, dict[str, Any]]] = []
    for product_id, lines in await _lines(connection, list(near)):
        row, available = near[product_id], stock.available[product_id]
        lasts = lasting(available, lines["expected"], lines["most"], sold_today=_sold_today(row))
        soonest = lasts.days_at_least if lasts.days_at_least is not None else lasts.days
        if soonest is not None and soonest <= within_days:
            found.append((soonest, _item(row, available, lasts)))
    found.sort(key=lambda one: (one[0], -one[1]["expected_7_days"], one[1]["product_id"]))
    return [item for _, item in found[:limit]]


async def _lines(
    connection: AsyncConnection, ids: Sequence[str]
) -> list[tuple[str, Mapping[str, Any]]]:
    table = tables.forecasts
    found: list[tuple[str, Mapping[str, Any]]] = []
    for start in range(0, len(ids), MOST_IDS):
        query = sa.select(table.c.product_id, table.c.lines).where(
            table.c.product_id.in_(ids[start : start + MOST_IDS])
        )
        found.extend((row[0], row[1]) for row in await connection.execute(query))
    return found


def _sold_today(row: Mapping[Any, Any]) -> float:
    return float(max(0, row["quantity"] or 0))


def _item(row: Mapping[Any, Any], available: int | None, lasts: Lasting) -> dict[str, Any]:
    return {
        "product_id": row["product_id"],
        "name": row["name"],
        "expected_7_days": round(row["week"], 2),
        "available": available,
        "days_left": lasts.days,
        "days_left_at_least": lasts.days_at_least,
    }
