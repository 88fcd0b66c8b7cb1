"""Engines and pools whose connections use credentials that Vault makes.

    async with Vault(rules) as vault:
        engine = rotating_engine(vault.database_role("shop"), "postgresql+asyncpg://db/shop")

New connections get the current credentials. After a rotation idle connections are closed, one
that is in use is closed when it comes back to the pool, and the old credentials are given back with
the last of them. No query is cut off, as long as it is shorter than what is left of the lease (a
third of its time at least).

Close the engine or pool before the `Vault`: closing gives all credentials back.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from headgate.errors import ExtraMissing
from headgate.security.secrets.database import DatabaseRole, Ticket

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["rotating_engine", "rotating_pool"]

log = logging.getLogger("headgate.secrets")


def rotating_engine(role: DatabaseRole, url: str, **options: Any) -> AsyncEngine:
    """A SQLAlchemy engine. `url` names no user; `options` are those of `create_async_engine`."""
    try:
        from sqlalchemy import event, exc
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.util.concurrency import await_only
    except ImportError:
        raise ExtraMissing("postgres", "an engine with credentials from Vault") from None
    engine = create_async_engine(url, **options)
    # By the connection itself: its record is cleared when it is made anew.
    tickets: dict[int, tuple[Any, Ticket]] = {}

    def connect(dialect: Any, record: Any, arguments: Any, named: Any) -> Any:
        ticket: Ticket = await_only(role.take())
        try:
            credentials = ticket.credentials
            fields = {"user": credentials.username, "password": credentials.password}
            made = dialect.connect(*arguments, **{**named, **fields})
        except BaseException:
            ticket.release()
            raise
        tickets[id(made)] = (made, ticket)
        return made

    def closed(made: Any, record: Any = None) -> None:
        found = tickets.pop(id(made), None)
        if found is not None:
            found[1].release()

    def is_retired(made: Any) -> bool:
        found = tickets.get(id(made))
        return found is not None and found[1].is_retired

    def checkout(made: Any, record: Any, proxy: Any) -> None:
        if is_retired(made):
            raise exc.DisconnectionError("there are newer credentials")  # the pool connects anew

    def checkin(made: Any, record: Any) -> None:
        if made is not None and is_retired(made):
            record.invalidate()

    async def rotated() -> None:
        # Idle connections are closed now, and those in use when they come back.
        await engine.dispose()

    sync = engine.sync_engine
    event.listen(sync, "do_connect", connect)
    event.listen(sync, "close", closed)
    event.listen(sync, "close_detached", closed)
    event.listen(sync, "checkout", checkout)
    event.listen(sync, "checkin", checkin)
    role.on_rotation(rotated)
    return engine


async def rotating_pool(role: DatabaseRole, dsn: str, **options: Any) -> Any:
    """A pool of asyncpg. `dsn` names no user; `options` are those of `asyncpg.create_pool`."""
    try:
        import asyncpg  # type: ignore[import-untyped]  # no stubs
    except ImportError:
        raise ExtraMissing("postgres", "a pool with credentials from Vault") from None

    async def connect(*arguments: Any, **named: Any) -> Any:
        ticket = await role.take()
        try:
            credentials = ticket.credentials
            fields = {"user": credentials.username, "password": credentials.password}
            made = await asyncpg.connect(*arguments, **{**named, **fields})
            made.add_termination_listener(lambda _made: ticket.release())
        except BaseException:
            ticket.release()
            raise
        return made

    # An idle connection of old credentials is closed when it is next asked for; one that nobody
    # asks for must not hold them for long.
    options.setdefault("max_inactive_connection_lifetime", 60.0)
    pool = asyncpg.create_pool(dsn, connect=connect, **options)
    role.on_rotation(pool.expire_connections)
    return await pool
