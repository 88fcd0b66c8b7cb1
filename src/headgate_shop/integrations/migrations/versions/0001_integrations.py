"""Connectors, what goes out and what came in."""

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
        "connectors",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("pushed", sa.BigInteger, nullable=False),
        sa.Column("pulled", sa.BigInteger, nullable=False),
        sa.Column("last_sync_at", sa.Float),
        sa.Column("last_ok_at", sa.Float),
        sa.Column("failures", sa.Integer, nullable=False),
    )
    op.create_table(
        "outgoing",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("news", sa.Float, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.JSON),
        sa.Column("user_id", sa.Text, index=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("queued_at", sa.Float, nullable=False),
        sa.Column("sent_at", sa.Float),
        sa.Column("remote_id", sa.Text),
        sa.Column("error", sa.Text),
    )
    op.create_index("outgoing_waiting", "outgoing", ["connector", "state", "queued_at"])
    op.create_table(
        "incoming",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("remote_id", sa.Text, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_table(
        "faults",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("connector", sa.Text, nullable=False, index=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "days",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("up_s", sa.Float, nullable=False),
        sa.Column("down_s", sa.Float, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "orders",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("is_paid", sa.Boolean, nullable=False),
        sa.Column("is_cancelled", sa.Boolean, nullable=False),
    )
    inbox_table(sa.MetaData()).create(op.get_bind())


def downgrade() -> None:
    for name in (
        "inbox",
        "orders",
        "days",
        "faults",
        "incoming",
        "outgoing",
        "connectors",
    ):
        op.drop_table(name)
