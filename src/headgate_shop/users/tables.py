"""What `users` keeps beside the tables of the accounts.

An erasure outlives the person: when it is done its row no longer says whom it was about, only a
digest by which the same request is known again.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from headgate_shop.queue import outbox_table

__all__ = ["ERASURES", "METADATA", "OUTBOX", "PROFILES", "STEPS"]

METADATA: Final = sa.MetaData()

PROFILES: Final = sa.Table(
    "profiles",
    METADATA,
    sa.Column("user_id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("phone", sa.String(40), nullable=False),
    sa.Column("address", sa.JSON, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
)

ERASURES: Final = sa.Table(
    "erasures",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("whose", sa.String(64), nullable=False, unique=True),  # a digest of the user's id
    sa.Column("user_id", sa.String(32), nullable=False),  # empty when it is done
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("ended_ms", sa.BigInteger),
)

STEPS: Final = sa.Table(
    "erasure_steps",
    METADATA,
    sa.Column("erasure_id", sa.String(40), sa.ForeignKey("erasures.id"), primary_key=True),
    sa.Column("service", sa.String(40), primary_key=True),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due_ms", sa.BigInteger, nullable=False),
    sa.Column("done_ms", sa.BigInteger),
    sa.Column("why", sa.Text, nullable=False),
    sa.Index("ix_erasure_steps_due", "done_ms", "due_ms"),
)

OUTBOX: Final = outbox_table(METADATA)
