"""Accounts (the tables of `headgate.security.accounts`), profiles, erasures, the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headgate_shop.queue import outbox_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _accounts()
    op.create_table(
        "profiles",
        sa.Column("user_id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("phone", sa.String(40), nullable=False),
        sa.Column("address", sa.JSON, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("whose", sa.String(64), nullable=False, unique=True),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_table(
        "erasure_steps",
        sa.Column("erasure_id", sa.String(40), sa.ForeignKey("erasures.id"), primary_key=True),
        sa.Column("service", sa.String(40), primary_key=True),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due_ms", sa.BigInteger, nullable=False),
        sa.Column("done_ms", sa.BigInteger),
        sa.Column("why", sa.Text, nullable=False),
    )
    op.create_index("ix_erasure_steps_due", "erasure_steps", ["done_ms", "due_ms"])
    outbox_table(sa.MetaData()).create(op.get_bind())


def _accounts() -> None:
    """As `Accounts.metadata` has them: a test compares the two, so that an upgrade of the library
    that brings another schema asks for a revision of its own.
    """
    op.create_table(
        "headgate_users",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("email_key", sa.String(320), nullable=False, unique=True),
        sa.Column("email_verified_at", sa.Double),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("password_changed_at", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_login_at", sa.Double),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("version_at", sa.Double, nullable=False),
        sa.Column("totp_sealed", sa.LargeBinary),
        sa.Column("totp_since", sa.Double),
        sa.Column("totp_step", sa.BigInteger),
    )
    op.create_index("ix_headgate_users_version_at", "headgate_users", ["version_at"])
    op.create_table(
        "headgate_grants",
        _owner(is_key=True),
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("name", sa.String(100), primary_key=True),
    )
    op.create_table(
        "headgate_sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        _owner(),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("ends_by", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("end_reason", sa.String(40)),
        sa.Column("ip", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(200), nullable=False),
        sa.Column("amr", sa.String(60), nullable=False),
        sa.Column("auth_at", sa.Double, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("pasts", sa.Text, nullable=False),
    )
    op.create_index("ix_headgate_sessions_user_id", "headgate_sessions", ["user_id"])
    op.create_index("ix_headgate_sessions_expires_at", "headgate_sessions", ["expires_at"])
    op.create_index("ix_headgate_sessions_ended_at", "headgate_sessions", ["ended_at"])
    op.create_table(
        "headgate_tickets",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("email_key", sa.String(320), nullable=False),
        sa.Column("password_hash", sa.Text),
        sa.Column("bound", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
    )
    op.create_index("ix_headgate_tickets_user_id", "headgate_tickets", ["user_id"])
    op.create_index("ix_headgate_tickets_email_key", "headgate_tickets", ["email_key"])
    op.create_index("ix_headgate_tickets_expires_at", "headgate_tickets", ["expires_at"])
    op.create_table(
        "headgate_recovery_codes",
        _owner(is_key=True),
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("used_at", sa.Double),
    )
    op.create_table(
        "headgate_counts",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("level", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("free_at", sa.Double, nullable=False),
        sa.Column("succeeded_at", sa.Double, nullable=False),
    )
    op.create_index("ix_headgate_counts_at", "headgate_counts", ["at"])
    op.create_table(
        "headgate_keys",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.String(8), nullable=False),
        sa.Column("signs_from", sa.Double, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )


def _owner(*, is_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "user_id",
        sa.String(32),
        sa.ForeignKey("headgate_users.id", ondelete="CASCADE"),
        primary_key=is_key,
        nullable=False,
    )


def downgrade() -> None:
    for table in (
        "outbox", "erasure_steps", "erasures", "profiles", "headgate_keys", "headgate_counts",
        "headgate_recovery_codes", "headgate_tickets", "headgate_sessions", "headgate_grants",
        "headgate_users",
    ):  # fmt: skip
        op.drop_table(table)
