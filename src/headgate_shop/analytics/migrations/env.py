"""Run by Alembic; the connection is given by the service."""

from __future__ import annotations

from headgate_shop.base.migrating import run

run()
