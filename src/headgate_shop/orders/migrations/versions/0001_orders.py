"""Carts, orders, sagas, keys, outbox and inbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headgate_shop.queue import inbox_table, outbox_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "carts",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("touched_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_carts_touched_ms", "carts", ["touched_ms"])
    op.create_table(
        "cart_lines",
        sa.Column(
            "cart_id",
            sa.String(80),
            sa.ForeignKey("carts.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("product_id", sa.String(64), primary_key=True),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("added_ms", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("price", sa.BigInteger, nullable=True),
        sa.Column("image", sa.Text, nullable=False),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("number", sa.String(16), nullable=False, unique=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("refusal", sa.JSON, nullable=False),
        sa.Column("lines", sa.JSON, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("address", sa.JSON, nullable=False),
        sa.Column("tracking", sa.String(200), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("history", sa.JSON, nullable=False),
    )
    op.create_index("ix_orders_user", "orders", ["user_id", "created_ms", "id"])
    op.create_index("ix_orders_status", "orders", ["status", "created_ms", "id"])
    op.create_index("ix_orders_created", "orders", ["created_ms", "id"])
    op.create_table(
        "sagas",
        sa.Column("order_id", sa.String(40), sa.ForeignKey("orders.id"), primary_key=True),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("is_cancelled", sa.Boolean, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("due_ms", sa.BigInteger, nullable=False),
        sa.Column("lease", sa.String(64), nullable=False),
        sa.Column("lease_ms", sa.BigInteger, nullable=False),
        sa.Column("card_token", sa.String(128), nullable=False),
        sa.Column("expected_total", sa.BigInteger, nullable=True),
        sa.Column("cart_id", sa.String(80), nullable=False),
    )
    op.create_index("ix_sagas_due_ms", "sagas", ["due_ms"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("order_id", sa.String(40), sa.ForeignKey("orders.id"), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_idempotency_keys_created_ms", "idempotency_keys", ["created_ms"])
    metadata = sa.MetaData()
    outbox_table(metadata)
    inbox_table(metadata)
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    for table in (
        "inbox",
        "outbox",
        "idempotency_keys",
        "sagas",
        "orders",
        "cart_lines",
        "carts",
    ):
        op.drop_table(table)
