"""What each service's `migrations/env.py` does: run the revisions on the connection it is given."""

from __future__ import annotations

from alembic import context

__all__ = ["run"]


def run() -> None:
    context.configure(
        connection=context.config.attributes["connection"],
        version_table="shop_schema",
        render_as_batch=True,  # SQLite alters a table by making it anew
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
