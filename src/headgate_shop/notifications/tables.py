"""What notifications keeps: which mails it sends. Never what stands in them: there are tokens."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

__all__ = ["erased", "mails", "metadata"]

metadata: Final = sa.MetaData()

mails: Final = sa.Table(
    "mails",
    metadata,
    # The id of the queue's message, and which of its mails: nothing is sent twice for one message.
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, nullable=False, index=True),
    sa.Column("recipient", sa.Text, nullable=False),
    sa.Column("template", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),  # waiting, sent, bounced or failed
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("sending_until", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("sent_at", sa.Float),
    sa.Index("mails_newest", "created_at", "id"),
)

erased: Final = sa.Table(
    "erased",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
)
"""Nothing is sent to them, or kept of them, that was still in the queue."""
