"""What orders keeps: carts, orders, checkouts under way, and keys of clients."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from headgate_shop.queue import inbox_table, outbox_table

__all__ = ["CARTS", "CART_LINES", "INBOX", "KEYS", "METADATA", "ORDERS", "OUTBOX", "SAGAS"]

METADATA: Final = sa.MetaData()

CARTS: Final = sa.Table(
    "carts",
    METADATA,
    sa.Column("id", sa.String(80), primary_key=True),  # user:<id>, or guest:<uuid>
    sa.Column("touched_ms", sa.BigInteger, nullable=False, index=True),
)

CART_LINES: Final = sa.Table(
    "cart_lines",
    METADATA,
    sa.Column(
        "cart_id", sa.String(80), sa.ForeignKey("carts.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("product_id", sa.String(64), primary_key=True),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.Column("added_ms", sa.BigInteger, nullable=False),
    # As products last said: shown when it cannot be asked.
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("price", sa.BigInteger, nullable=True),
    sa.Column("image", sa.Text, nullable=False),
)

ORDERS: Final = sa.Table(
    "orders",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("number", sa.String(16), nullable=False, unique=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("email", sa.String(320), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("refusal", sa.JSON, nullable=False),  # what else is told about a refusal
    sa.Column("lines", sa.JSON, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("address", sa.JSON, nullable=False),
    sa.Column("tracking", sa.String(200), nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("history", sa.JSON, nullable=False),
    sa.Index("ix_orders_user", "user_id", "created_ms", "id"),
    sa.Index("ix_orders_status", "status", "created_ms", "id"),
    sa.Index("ix_orders_created", "created_ms", "id"),
)

SAGAS: Final = sa.Table(
    "sagas",
    METADATA,
    # A row for each checkout that is not at its end; most orders have none.
    sa.Column("order_id", sa.String(40), sa.ForeignKey("orders.id"), primary_key=True),
    sa.Column("step", sa.String(16), nullable=False),
    sa.Column("is_cancelled", sa.Boolean, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("began_ms", sa.BigInteger, nullable=False),
    sa.Column("due_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("lease", sa.String(64), nullable=False),
    sa.Column("lease_ms", sa.BigInteger, nullable=False),
    sa.Column("card_token", sa.String(128), nullable=False),
    sa.Column("expected_total", sa.BigInteger, nullable=True),
    sa.Column("cart_id", sa.String(80), nullable=False),
)

KEYS: Final = sa.Table(
    "idempotency_keys",
    METADATA,
    sa.Column("user_id", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("order_id", sa.String(40), sa.ForeignKey("orders.id"), nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False, index=True),
)

OUTBOX: Final = outbox_table(METADATA)
INBOX: Final = inbox_table(METADATA)
