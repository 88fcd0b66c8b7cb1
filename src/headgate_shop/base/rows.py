"""Rows that may be there already: left alone, added to or replaced, in SQLite and PostgreSQL alike.

Several rows are written in the order of their keys, so that two writers cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["insert_many", "insert_new", "insert_new_of", "insert_of", "upsert"]

Row = Mapping[str, Any]


async def insert_new(connection: AsyncConnection, table: sa.Table, row: Row) -> bool:
    """Insert the row unless one with its key is there; answers whether it is new.

    Of two transactions that do so at once the second waits for the first, and is told no.
    """
    statement = insert_of(connection, table).values(**row).on_conflict_do_nothing()
    return (await connection.execute(statement)).rowcount == 1


async def insert_new_of(
    connection: AsyncConnection, table: sa.Table, rows: Sequence[Row], key: str
) -> set[Any]:
    """Insert those rows whose keys are not there yet; answers the values of `key` of these."""
    if not rows:
        return set()
    ordered = sorted(rows, key=lambda row: str(row[key]))
    statement = insert_of(connection, table).on_conflict_do_nothing().returning(table.c[key])
    return set((await connection.scalars(statement, [dict(row) for row in ordered])).all())


async def insert_many(connection: AsyncConnection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert those rows whose keys are not there yet."""
    if rows:
        await connection.execute(insert_of(connection, table).on_conflict_do_nothing(), rows)


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
    statement = insert_of(connection, table)
    if present == "keep" or not others:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    elif present == "replace":
        changes = {name: statement.excluded[name] for name in others}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
    else:
        changes = {name: table.c[name] + statement.excluded[name] for name in others}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
    await connection.execute(statement, [dict(row) for row in ordered])


def insert_of(connection: AsyncConnection, table: sa.Table) -> Any:
    """`INSERT`, as the database of the connection takes it: with `on_conflict_do_...`."""
    is_postgresql = connection.dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgresql else sqlite.insert(table)
