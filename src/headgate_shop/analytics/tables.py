"""What analytics keeps: sums by hour, product and category, and what they were made of.

Days are texts `2026-11-22` and hours numbers 0 to 23, both of UTC, so that either database groups
and compares them alike. Money is in cents.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from headgate_shop.queue import inbox_table

__all__ = [
    "baskets",
    "category_days",
    "erased",
    "funnel_hours",
    "inbox",
    "metadata",
    "orders",
    "pairs",
    "product_days",
    "products",
    "sales_hours",
    "sessions",
]

metadata: Final = sa.MetaData()

orders: Final = sa.Table(
    "orders",
    metadata,
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("lines", sa.JSON, nullable=False),
    sa.Column("is_paid", sa.Boolean, nullable=False),
    sa.Column("is_cancelled", sa.Boolean, nullable=False),
)
"""What is known of each order. It is in the sums while it is paid and not cancelled, whichever of
these was heard of first."""

sales_hours: Final = sa.Table(
    "sales_hours",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("orders", sa.BigInteger, nullable=False),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.Column("revenue", sa.BigInteger, nullable=False),
)

product_days: Final = sa.Table(
    "product_days",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("orders", sa.BigInteger, nullable=False),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.Column("revenue", sa.BigInteger, nullable=False),
    sa.Column("views", sa.BigInteger, nullable=False),
    sa.Column("carts", sa.BigInteger, nullable=False),
)

category_days: Final = sa.Table(
    "category_days",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("category", sa.Text, primary_key=True),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.Column("revenue", sa.BigInteger, nullable=False),
)

funnel_hours: Final = sa.Table(
    "funnel_hours",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("sessions", sa.BigInteger, nullable=False),
)
"""`sessions` counts each session once a day for each step."""

sessions: Final = sa.Table(
    "sessions",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("session", sa.Text, primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
)
"""Who was counted already; kept for two days."""

products: Final = sa.Table(
    "products",
    metadata,
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False, index=True),
    sa.Column("is_there", sa.Boolean, nullable=False),
)
"""As products tell of them."""

baskets: Final = sa.Table(
    "baskets",
    metadata,
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("times", sa.BigInteger, nullable=False),
)
"""In how many orders each product was; of all orders under an empty id."""

pairs: Final = sa.Table(
    "pairs",
    metadata,
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("other_id", sa.Text, primary_key=True),
    sa.Column("times", sa.BigInteger, nullable=False),
)

erased: Final = sa.Table(
    "erased",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
)
"""Who asked to be forgotten: what is told of them late is kept without a name. The id says nothing
once users have forgotten it too."""

inbox: Final = inbox_table(metadata)
