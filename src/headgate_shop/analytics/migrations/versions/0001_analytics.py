"""The sums, the orders behind them, and what goes together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headgate_shop.queue import inbox_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, index=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("lines", sa.JSON, nullable=False),
        sa.Column("is_paid", sa.Boolean, nullable=False),
        sa.Column("is_cancelled", sa.Boolean, nullable=False),
    )
    op.create_table(
        "sales_hours",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("orders", sa.BigInteger, nullable=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("revenue", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "product_days",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("orders", sa.BigInteger, nullable=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("revenue", sa.BigInteger, nullable=False),
        sa.Column("views", sa.BigInteger, nullable=False),
        sa.Column("carts", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "category_days",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("category", sa.Text, primary_key=True),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("revenue", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "funnel_hours",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("step", sa.Text, primary_key=True),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("sessions", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("session", sa.Text, primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
    )
    op.create_table(
        "products",
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False, index=True),
        sa.Column("is_there", sa.Boolean, nullable=False),
    )
    op.create_table(
        "baskets",
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("times", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "pairs",
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("other_id", sa.Text, primary_key=True),
        sa.Column("times", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "erased",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
    )
    inbox_table(sa.MetaData()).create(op.get_bind())


def downgrade() -> None:
    for name in (
        "inbox",
        "erased",
        "pairs",
        "baskets",
        "products",
        "sessions",
        "funnel_hours",
        "category_days",
        "product_days",
        "sales_hours",
        "orders",
    ):
        op.drop_table(name)
