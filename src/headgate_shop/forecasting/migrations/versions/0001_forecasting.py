"""Sales by day, and forecasts."""

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
        "days",
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, primary_key=True, index=True),
        sa.Column("quantity", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "hours",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "orders",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("at", sa.Float, nullable=False, index=True),
        sa.Column("lines", sa.JSON, nullable=False),
        sa.Column("is_paid", sa.Boolean, nullable=False),
        sa.Column("is_cancelled", sa.Boolean, nullable=False),
    )
    op.create_table(
        "products",
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("is_there", sa.Boolean, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("reckoned", sa.BigInteger, nullable=False),
        sa.Column("reckoned_day", sa.Text, nullable=False),
    )
    op.create_table(
        "forecasts",
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
    inbox_table(sa.MetaData()).create(op.get_bind())


def downgrade() -> None:
    for name in ("inbox", "forecasts", "products", "orders", "hours", "days"):
        op.drop_table(name)
