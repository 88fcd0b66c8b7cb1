"""Run by Alembic when the service starts."""

from headgate_shop.base.migrating import run

run()
