"""What integrations keeps: where each connector stands, what is to go out, what came in."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from headgate_shop.queue import inbox_table

__all__ = [
    "connectors",
    "days",
    "faults",
    "inbox",
    "incoming",
    "marks",
    "metadata",
    "orders",
    "outgoing",
]

metadata: Final = sa.MetaData()

connectors: Final = sa.Table(
    "connectors",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("cursor", sa.Text, nullable=False),
    sa.Column("pushed", sa.BigInteger, nullable=False),
    sa.Column("pulled", sa.BigInteger, nullable=False),
    sa.Column("last_sync_at", sa.Float),
    sa.Column("last_ok_at", sa.Float),
    sa.Column("failures", sa.Integer, nullable=False),
)
"""`failures` are those in a row."""

outgoing: Final = sa.Table(
    "outgoing",
    metadata,
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
    sa.Index("outgoing_waiting", "connector", "state", "queued_at"),
)
"""`state` is waiting, sent or refused. The payload is forgotten once it is sent. `news` is the time
of what is told, so that older news does not replace newer; `version` counts its changes, so that
what changed while it was being sent is sent again."""

incoming: Final = sa.Table(
    "incoming",
    metadata,
    sa.Column("connector", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("remote_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
)

faults: Final = sa.Table(
    "faults",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("connector", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

days: Final = sa.Table(
    "days",
    metadata,
    sa.Column("connector", sa.Text, primary_key=True),
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("up_s", sa.Float, nullable=False),
    sa.Column("down_s", sa.Float, nullable=False),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.BigInteger, nullable=False),
)
"""Time in which nobody asked is in neither."""

orders: Final = sa.Table(
    "orders",
    metadata,
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("is_paid", sa.Boolean, nullable=False),
    sa.Column("is_cancelled", sa.Boolean, nullable=False),
)

marks: Final = sa.Table(
    "marks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
"""How far it has come with what is done once."""

inbox: Final = inbox_table(metadata)
