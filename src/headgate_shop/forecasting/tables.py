"""What forecasting keeps: sales by day, the orders that are in them, and its forecasts.

A day is a text `2026-11-22`, of UTC.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from headgate_shop.queue import inbox_table

__all__ = ["days", "forecasts", "hours", "inbox", "metadata", "orders", "products"]

metadata: Final = sa.MetaData()

days: Final = sa.Table(
    "days",
    metadata,
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("day", sa.Text, primary_key=True, index=True),
    sa.Column("quantity", sa.BigInteger, nullable=False),
)

hours: Final = sa.Table(
    "hours",
    metadata,
    sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("quantity", sa.BigInteger, nullable=False),
)
"""Of all days and products together: how a usual day goes."""

orders: Final = sa.Table(
    "orders",
    metadata,
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("lines", sa.JSON, nullable=False),
    sa.Column("is_paid", sa.Boolean, nullable=False),
    sa.Column("is_cancelled", sa.Boolean, nullable=False),
)
"""`lines` is {product: quantity}. Nothing here names a person."""

products: Final = sa.Table(
    "products",
    metadata,
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("is_there", sa.Boolean, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Column("reckoned", sa.BigInteger, nullable=False),
    sa.Column("reckoned_day", sa.Text, nullable=False),
)
"""`changed` counts changes of the sales, and `reckoned` is that count when the forecast was made:
where they differ, or the day is another, a new one is due."""

forecasts: Final = sa.Table(
    "forecasts",
    metadata,
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("made_at", sa.Float, nullable=False),
    sa.Column("first_day", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("error", sa.Float),
    sa.Column("naive_error", sa.Float),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("week", sa.Float, nullable=False, index=True),
    sa.Column("whole", sa.Float, nullable=False),
    sa.Column("lines", sa.JSON, nullable=False),
)
"""`week` is what is expected of seven days, to find what sells most; `whole` as much as may be sold
over the forecast; `lines` has expected, low, high and most by day."""

inbox: Final = inbox_table(metadata)
