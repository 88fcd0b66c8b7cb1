"""The tables, under a prefix. All times are seconds since 1970 in UTC, as `double precision`.

`metadata` is for Alembic: give `accounts.metadata` to its `target_metadata` (a list may hold
several) and tables are made by migrations; `create_tables()` is then not needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

__all__ = ["Tables", "make_tables"]


@dataclass(frozen=True, slots=True)
class Tables:
    metadata: sa.MetaData
    users: sa.Table
    grants: sa.Table
    sessions: sa.Table
    tickets: sa.Table
    recovery: sa.Table
    counts: sa.Table
    keys: sa.Table


def make_tables(prefix: str, schema: str | None = None) -> Tables:
    metadata = sa.MetaData(schema=schema)

    def owner(*, is_key: bool = False) -> sa.Column[str]:
        return sa.Column(
            "user_id",
            sa.String(32),
            sa.ForeignKey(users.c.id, ondelete="CASCADE"),
            primary_key=is_key,
            nullable=False,
            index=not is_key,
        )

    users = sa.Table(
        f"{prefix}users",
        metadata,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("email", sa.String(320), nullable=False),  # as it was typed: mail goes there
        sa.Column("email_key", sa.String(320), nullable=False, unique=True),  # in one spelling
        sa.Column("email_verified_at", sa.Double),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("password_changed_at", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_login_at", sa.Double),
        sa.Column("is_active", sa.Boolean, nullable=False),
        # Access tokens of a lower version are refused; moved when rights are taken away.
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("version_at", sa.Double, nullable=False, index=True),
        sa.Column("totp_sealed", sa.LargeBinary),
        sa.Column("totp_since", sa.Double),  # empty until a first code has confirmed it
        sa.Column("totp_step", sa.BigInteger),  # the last one that was used
    )
    grants = sa.Table(
        f"{prefix}grants",
        metadata,
        owner(is_key=True),
        sa.Column("kind", sa.String(8), primary_key=True),  # role, scope
        sa.Column("name", sa.String(100), primary_key=True),
    )
    sessions = sa.Table(
        f"{prefix}sessions",
        metadata,
        sa.Column("id", sa.String(32), primary_key=True),
        owner(),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False, index=True),
        sa.Column("ends_by", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double, index=True),
        sa.Column("end_reason", sa.String(40)),
        sa.Column("ip", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(200), nullable=False),
        sa.Column("amr", sa.String(60), nullable=False),  # RFC 8176, by spaces
        sa.Column("auth_at", sa.Double, nullable=False),
        # The refresh token: see rotation.py.
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("pasts", sa.Text, nullable=False),
    )
    tickets = sa.Table(
        f"{prefix}tickets",
        metadata,
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(12), nullable=False),  # register, verify, reset, email
        # No foreign key: who registers is no user yet.
        sa.Column("user_id", sa.String(32), nullable=False, index=True),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("email_key", sa.String(320), nullable=False, index=True),
        sa.Column("password_hash", sa.Text),  # of a registration
        sa.Column("bound", sa.String(64), nullable=False),  # what must not have changed
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False, index=True),
        sa.Column("used_at", sa.Double),
    )
    recovery = sa.Table(
        f"{prefix}recovery_codes",
        metadata,
        owner(is_key=True),
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("used_at", sa.Double),
    )
    counts = sa.Table(
        f"{prefix}counts",
        metadata,
        sa.Column("key", sa.String(64), primary_key=True),  # a keyed hash: no address, no e-mail
        sa.Column("level", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False, index=True),
        sa.Column("free_at", sa.Double, nullable=False),
        sa.Column("succeeded_at", sa.Double, nullable=False),
    )
    keys = sa.Table(
        f"{prefix}keys",
        metadata,
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.String(8), nullable=False),
        sa.Column("signs_from", sa.Double, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    return Tables(metadata, users, grants, sessions, tickets, recovery, counts, keys)
