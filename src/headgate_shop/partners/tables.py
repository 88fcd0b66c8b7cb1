"""What partners keep: their products, orders, feeds, invoices and messages."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

__all__ = ["clocks", "metadata", "objects"]

metadata: Final = sa.MetaData()

objects: Final = sa.Table(
    "objects",
    metadata,
    sa.Column("partner", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Index("objects_by_seq", "partner", "kind", "seq"),
)
"""`id` is what its maker calls it (a handle, a number of an invoice), `number` is the partner's
own; `seq` grows with every change of anything of the partner's."""

clocks: Final = sa.Table(
    "clocks",
    metadata,
    sa.Column("partner", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
