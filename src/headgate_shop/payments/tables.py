"""What the payment company keeps. Numbers of cards are not among it."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

__all__ = ["CARDS", "METADATA", "PAYMENTS", "REFUNDS"]

METADATA: Final = sa.MetaData()

CARDS: Final = sa.Table(
    "cards",
    METADATA,
    sa.Column("token", sa.String(64), primary_key=True),
    sa.Column("verdict", sa.String(32), nullable=False),  # "" captures; else the refusal's reason
    sa.Column("last4", sa.String(4), nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False, index=True),
)

PAYMENTS: Final = sa.Table(
    "payments",
    METADATA,
    sa.Column("payment_id", sa.String(128), primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),  # captured | refused | void
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("refunded", sa.BigInteger, nullable=False),
    sa.Column("last4", sa.String(4), nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)

REFUNDS: Final = sa.Table(
    "refunds",
    METADATA,
    sa.Column("refund_id", sa.String(128), primary_key=True),
    sa.Column(
        "payment_id",
        sa.String(128),
        sa.ForeignKey("payments.payment_id"),
        nullable=False,
        index=True,
    ),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)
