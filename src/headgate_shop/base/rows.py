"""Rows that may be there already: left alone, added to or replaced, in SQLite and PostgreSQL alike.

Several rows are written in the order of their keys, so that two writers cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["insert_many", "insert_new", "upsert"]

Row = Mapping[str, Any]


async def insert_new(connection: AsyncConnection, table: sa.Table, row: Row) -> bool:
    """Insert the row unless one with its key is there; answers whether it is new.

    Of two transactions that do so at once the second waits for the first, and is told no.
    """
    statement = _insert(connection, table).values(**row).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount == 1


async def insert_many(connection: AsyncConnection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert those rows whose keys are not there yet."""
    if rows:
        await connection.execute(_insert(connection, table).on_conflict_do_nothing(), rows)


async def upsert(
    connection: AsyncConnection,
    table: sa.Table,
    rows: Sequence[Row],
    *,
    present: Literal["add", "replace", "keep"],
    only: Sequence[str] = (),
) -> None:
    """Insert rows; where the primary key is `present`, add up the other columns, replace them or
    keep what stands there. `only` names the columns that change. All rows have the same columns,
    and no key twice.
    """
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    others = list(only) or [name for name in rows[0] if name not in keys]
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    statement = _insert(connection, table)
    if present == "keep" or not others:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    elif present == "replace":
        changes = {name: statement.excluded[name] for name in others}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
    else:
        changes = {name: table.c[name] + statement.excluded[name] for name in others}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
    await connection.execute(statement, [dict(row) for row in ordered])


def _insert(connection: AsyncConnection, table: sa.Table) -> Any:
    is_postgresql = connection.dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgresql else sqlite.insert(table)
