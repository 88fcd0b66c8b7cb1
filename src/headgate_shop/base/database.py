"""A service's own database: SQLite or PostgreSQL, brought to the present schema when it starts.

Theory of operation
-------------------
Tables stand in `<service>/tables.py` as SQLAlchemy metadata, and each change of them is an Alembic
revision in `<service>/migrations/versions`. `migrate` runs those that are missing; two processes
that start at once (a service and its canary) take turns, by a lock file or PostgreSQL's own lock.

SQLite runs in WAL mode, waits for other writers, and a transaction that will write says so at its
beginning (`BEGIN IMMEDIATE`): one that read first and could not become a writer would fail.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from headgate.db.sqlite import SqliteConnections
from headgate_shop.base.faults import NO_FAULT, Faults, slow_down
from headgate_shop.base.settings import Settings
from headgate_shop.base.short_reads import Prepared, Row, SqliteReads

__all__ = ["Database", "migrate"]

SHOP: Final = Path(__file__).resolve().parent.parent
BUSY_S: Final = 10
CLOSE_S: Final = 5
_MIGRATING: Final = 7_463_221  # any number that nobody else locks in PostgreSQL


class Database:
    """The engine of one service, and the ways to use it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pings: set[asyncio.Task[None]] = set()
        self.url = settings.database_url()
        self.is_sqlite = self.url.startswith("sqlite")
        options: dict[str, Any] = {}
        if self.is_sqlite:
            settings.folder.mkdir(parents=True, exist_ok=True)
            file = sa.make_url(self.url).database or ""
            self._connections = SqliteConnections(lambda: sqlite3.connect(file, timeout=BUSY_S))
            options["async_creator"] = self._connections.open
        else:
            options["pool_size"] = 8
            options["pool_pre_ping"] = True
        self.engine: AsyncEngine = create_async_engine(self.url, **options)
        self._faults = Faults(settings.folder, settings.service)
        slow_down(self.engine, self._faults)
        self._short: SqliteReads | None = None
        if self.is_sqlite:
            self._short = SqliteReads(self.engine.url.database or "")
            sa.event.listen(self.engine.sync_engine, "connect", _tune)
            sa.event.listen(self.engine.sync_engine, "begin", _begin)

    async def start(self) -> None:
        """Make the database where there is none, and bring it to the present schema."""
        if not self.is_sqlite:
            await _make(self.url)
        await migrate(self.engine, self._settings)

    async def close(self) -> None:
        """Connections that are on their way back are waited for, but not for ever: SQLAlchemy gives
        those of a task that was cancelled back beside it, and one that comes after this would wait
        for a thread that has ended.
        """
        if self._short is not None:
            self._short.close()
        if self._pings:
            await asyncio.wait(self._pings, timeout=CLOSE_S)
        out = getattr(self.engine.pool, "checkedout", lambda: 0)
        until = time.monotonic() + CLOSE_S
        while out() and time.monotonic() < until:  # noqa: ASYNC110 - a pool tells nobody
            await asyncio.sleep(0.01)
        await self.engine.dispose()
        if self.is_sqlite:
            await self._connections.close(CLOSE_S)

    @property
    def writers(self) -> int:
        """So many writing transactions make sense at once: SQLite has one, and the others poll."""
        return 1 if self.is_sqlite else 4

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that writes; it is kept if the block ends well."""
        async with self.engine.connect() as connection:
            await connection.execution_options(shop_writes=True)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One view of the data, which others may change meanwhile."""
        async with self.engine.connect() as connection, connection.begin():
            yield connection

    async def rows(self, prepared: Prepared, **values: Any) -> Sequence[Row]:
        """What one short statement finds: `short_reads` says how."""
        if self._short is not None and self._faults.current(time.monotonic()) is NO_FAULT:
            short = self._short.rows(prepared, values)
            if short is not None:
                return short
        async with self.reading() as connection:
            found: Sequence[Row] = (await connection.execute(prepared.select, values)).all()
        return found

    async def ping(self) -> None:
        """Whoever asks may leave; a connection that is being made is made nevertheless, since one
        that is given up half-way is never closed.
        """
        task = asyncio.get_running_loop().create_task(self._ask(), name="database ping")
        self._pings.add(task)
        task.add_done_callback(self._pings.discard)
        await asyncio.shield(task)

    async def _ask(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))


async def migrate(engine: AsyncEngine, settings: Settings) -> None:
    """Run the revisions that the service's database lacks."""
    config = Config()
    versions = SHOP / settings.room / "migrations" / "versions"
    for option, value in (
        ("script_location", str(SHOP / "base" / "migrations")),
        ("version_locations", str(versions)),
        ("path_separator", "os"),  # a folder's name may hold a blank
    ):
        config.set_main_option(option, value.replace("%", "%%"))
    is_sqlite = engine.url.get_backend_name() == "sqlite"

    def upgrade(connection: sa.Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    lock = settings.folder / f"{settings.room}.migrating"
    turn = _turn(lock) if is_sqlite else nullcontext()
    async with turn, engine.connect() as connection:
        await connection.execution_options(shop_writes=True)
        async with connection.begin():
            if not is_sqlite:
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
            await connection.run_sync(upgrade)


@asynccontextmanager
async def _turn(path: Path) -> AsyncIterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


async def _make(url: str) -> None:
    """`CREATE DATABASE`, which PostgreSQL does only outside of a transaction."""
    name = sa.make_url(url).database or ""
    server = create_async_engine(
        sa.make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT"
    )
    try:
        async with server.connect() as connection:
            found = await connection.scalar(
                sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}
            )
            if found is None:
                try:
                    await connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
                except sa.exc.DBAPIError as error:
                    if "already exists" not in str(error) and "unique" not in str(error):
                        raise
    finally:
        await server.dispose()


def _tune(connection: Any, _: object) -> None:
    connection.isolation_level = None  # SQLAlchemy begins; the driver must not begin for us
    cursor = connection.cursor()
    for line in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {line}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("shop_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
