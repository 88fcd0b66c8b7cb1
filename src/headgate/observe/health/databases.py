"""Checks of databases: is one there that answers, and has the pool room.

Theory of operation. A pool that is used up is told without asking: the question would wait in the
same line as the requests that are stuck, and the check would say no more than "no answer". Pools
are read through what their libraries show; nothing of those libraries is imported here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final

from headgate.errors import ExtraMissing
from headgate.observe.health.outcome import Bounds, Outcome, ok
from headgate.units import parse_percent

__all__ = ["asyncpg", "postgres", "psycopg", "sqlalchemy"]

_WARN_POOL: Final = "80%"
_FAIL_POOL: Final = "100%"

AsyncCheck = Callable[[], Coroutine[Any, Any, Outcome]]


def pool_outcome(used: float, most: float, bounds: Bounds) -> Outcome:
    """How full a pool is."""
    if most <= 0:
        return ok()
    share = used / most
    words = f"{used:g} of {most:g} connections are taken"
    status = bounds.judge(share)
    return Outcome(status, "" if status == "ok" else words, round(share * 100, 1), "percent")


def _pool_bounds(warn_pool: str | float | None, fail_pool: str | float | None) -> Bounds:
    return Bounds(
        None if warn_pool is None else parse_percent(warn_pool),
        None if fail_pool is None else parse_percent(fail_pool),
    )


def sqlalchemy(
    engine: Any,
    *,
    query: str = "SELECT 1",
    warn_pool: str | float | None = _WARN_POOL,
    fail_pool: str | float | None = _FAIL_POOL,
) -> Callable[[], Any]:
    """An Engine or AsyncEngine of SQLAlchemy: the query, and how full its pool is."""
    bounds = _pool_bounds(warn_pool, fail_pool)

    def room() -> Outcome:
        pool = engine.pool
        try:
            most = float(pool.size()) + max(0.0, float(pool._max_overflow))  # noqa: SLF001
            # Without a bound of its own a pool is never full.
            is_bounded = float(pool._max_overflow) >= 0  # noqa: SLF001
            used = float(pool.checkedout())
        except (AttributeError, TypeError):
            return ok()  # a pool of another kind, which has no size
        return pool_outcome(used, most, bounds) if is_bounded else ok()

    if hasattr(engine, "sync_engine"):

        async def ask() -> Outcome:
            from sqlalchemy import text

            full = room()
            if full.status == "failing":
                return full
            async with engine.connect() as connection:
                await connection.execute(text(query))
            return full

        return ask

    def ask_plainly() -> Outcome:
        from sqlalchemy import text

        full = room()
        if full.status == "failing":
            return full
        with engine.connect() as connection:
            connection.execute(text(query))
        return full

    return ask_plainly


def asyncpg(
    pool: Any,
    *,
    query: str = "SELECT 1",
    warn_pool: str | float | None = _WARN_POOL,
    fail_pool: str | float | None = _FAIL_POOL,
) -> AsyncCheck:
    """A pool of asyncpg."""
    bounds = _pool_bounds(warn_pool, fail_pool)

    async def ask() -> Outcome:
        used = pool.get_size() - pool.get_idle_size()
        full = pool_outcome(used, pool.get_max_size(), bounds)
        if full.status == "failing":
            return full
        await pool.fetchval(query)
        return full

    return ask


def psycopg(
    pool: Any,
    *,
    query: str = "SELECT 1",
    warn_pool: str | float | None = _WARN_POOL,
    fail_pool: str | float | None = _FAIL_POOL,
) -> Callable[[], Any]:
    """A ConnectionPool or AsyncConnectionPool of psycopg_pool."""
    bounds = _pool_bounds(warn_pool, fail_pool)

    def room() -> Outcome:
        said = pool.get_stats()
        most = float(said.get("pool_max", 0)) or float(pool.max_size)
        # Connections that are opened on demand are not there yet, and not taken.
        used = float(said.get("pool_size", 0)) - float(said.get("pool_available", 0))
        return pool_outcome(used, most, bounds)

    if inspect.iscoroutinefunction(pool.getconn):

        async def ask() -> Outcome:
            full = room()
            if full.status == "failing":
                return full
            async with pool.connection() as connection:
                await connection.execute(query)
            return full

        return ask

    def ask_plainly() -> Outcome:
        full = room()
        if full.status == "failing":
            return full
        with pool.connection() as connection:
            connection.execute(query)
        return full

    return ask_plainly


def postgres(
    url: str,
    *,
    query: str = "SELECT 1",
    connect_s: float = 5.0,
    server: Any = None,
    tls: Any = None,
) -> AsyncCheck:
    """A PostgreSQL by its address, with a connection of its own each time. Needs asyncpg."""

    async def ask() -> Outcome:
        try:
            import asyncpg as library  # type: ignore[import-untyped]  # it has none
        except ImportError as error:
            raise ExtraMissing("postgres", "a check of PostgreSQL by its address") from error
        more: dict[str, Any] = {}
        if server is not None:
            more["host"], more["port"] = server
        if tls is not None:
            more["ssl"] = tls
        connection = await library.connect(url, timeout=connect_s, **more)
        try:
            await connection.fetchval(query)
        finally:
            connection.terminate()
        return ok()

    return ask
