"""The database: SQLite or PostgreSQL by SQLAlchemy, with transactions that hold under races.

Theory of operation. A writer on SQLite begins IMMEDIATE: it waits its turn at the start, and is
never refused in the middle because another wrote since it read. On PostgreSQL, READ COMMITTED is
enough: every change of a state is one statement with its condition (`... WHERE used_at IS NULL`),
and whoever comes second sees no row. Rows are locked in one order, so that nobody waits in a ring:

    counts (by key), users, tickets, recovery codes, sessions (by id)
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from headgate.errors import ExtraMissing

if TYPE_CHECKING:
    from headgate.db.sqlite import SqliteConnections

__all__ = ["close_engine", "insert_new", "open_engine", "writer_of"]

WRITES: Final = "headgate_writes"
_CLOSE_S: Final = 5.0
_connections: weakref.WeakKeyDictionary[sa.Engine, SqliteConnections] = weakref.WeakKeyDictionary()
DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


class Tidy(sqlite3.Connection):
    """A connection that is closed when it is told so.

    SQLite keeps a connection, with its transaction and its locks, until the last statement that is
    under way is let go. After a cancelled call, that is whenever the garbage collector comes by.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._open: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self, *args: Any, **options: Any) -> Any:  # as flexible as the one it stands for
        made = super().cursor(*args, **options)
        self._open.add(made)
        return made

    def close(self) -> None:
        for cursor in list(self._open):
            cursor.close()
        super().close()


def open_engine(database: str) -> AsyncEngine:
    url = make_url(database)
    kind = "postgresql" if url.drivername == "postgres" else url.get_backend_name()
    if kind not in DRIVERS:
        raise ValueError(
            f"accounts are kept in SQLite or PostgreSQL, not in {kind}; "
            "write sqlite+aiosqlite:///users.db or postgresql+asyncpg://user@host/name"
        )
    if url.drivername in {"sqlite", "postgresql", "postgres"}:
        url = url.set(drivername=DRIVERS[kind])
    try:
        return _engine(url, kind)
    except ModuleNotFoundError as missing:
        raise ExtraMissing("accounts", f"{url.drivername} ({missing.name})") from missing


def _engine(url: sa.URL, kind: str) -> AsyncEngine:
    # Parameters are hashes and addresses; the texts of errors end up in logs.
    if kind == "postgresql":
        return create_async_engine(url, pool_pre_ping=True, hide_parameters=True)
    from headgate.db.sqlite import SqliteConnections  # needs the driver

    if url.database in {None, "", ":memory:"}:
        # One connection is one database; two would be two.
        connections = SqliteConnections(_connects(url))
        engine = create_async_engine(
            url,
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1,
            max_overflow=0,
            hide_parameters=True,
            async_creator=connections.open,
        )
    else:
        connections = SqliteConnections(_connects(url, timeout=30))
        engine = create_async_engine(url, async_creator=connections.open, hide_parameters=True)
    _connections[engine.sync_engine] = connections
    _prepare(engine)
    return engine


async def close_engine(engine: AsyncEngine) -> None:
    """Close all connections, also those that were given up in the middle of something."""
    await engine.dispose()
    connections = _connections.get(engine.sync_engine)
    if connections is not None:
        await connections.close(_CLOSE_S)


def _connects(url: sa.URL, **options: Any) -> Callable[[], sqlite3.Connection]:
    arguments, named = url.get_dialect()().create_connect_args(url)
    return partial(sqlite3.connect, *arguments, **{**named, **options, "factory": Tidy})


def _prepare(engine: AsyncEngine) -> None:
    """Take transactions over from the driver, which begins too late and commits too early."""

    @sa.event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")  # what is erased is overwritten
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begun(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def writer_of(engine: AsyncEngine) -> AsyncEngine:
    """The same engine, for transactions that write."""
    return engine.execution_options(**{WRITES: True})


def insert_new(engine: AsyncEngine, table: sa.Table) -> postgresql.dml.Insert | sqlite.dml.Insert:
    """An INSERT that knows ON CONFLICT."""
    if engine.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)
