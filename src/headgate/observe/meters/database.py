"""Databases: how long queries take, and how full the pool is.

    observe.watch_sqlalchemy(engine)                                     # also an AsyncEngine
    pool = await asyncpg.create_pool(dsn, init=observe.watch_asyncpg)    # each connection
    observe.watch_asyncpg_pool(pool)

The label is what a query does (select, insert, ...), never its text, which may hold what users
typed.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from headgate.errors import ExtraMissing
from headgate.observe.meters.counter import Counter
from headgate.observe.meters.families import Family, Labels
from headgate.observe.meters.histogram import Timer
from headgate.observe.meters.registry import REGISTRY, Registry

__all__ = ["operation_of", "watch_asyncpg", "watch_asyncpg_pool", "watch_sqlalchemy"]

_QUERIES: Final = ("select", "insert", "update", "delete", "merge", "with", "copy", "call", "set")
_OPERATIONS: Final = frozenset(
    (*_QUERIES, "begin", "commit", "rollback", "savepoint", "release", "create", "alter", "drop")
)
_BEGIN: Final = "_headgate_began"


def operation_of(statement: object) -> str:
    """What a statement does, as one word of a short list."""
    text = str(statement)[:400].lstrip(" \t\r\n(;")
    while text.startswith(("--", "/*")):
        _, _, text = text.partition("\n" if text.startswith("--") else "*/")
        text = text.lstrip(" \t\r\n(;")
    word = text.split(None, 1)[0].rstrip(";(").lower() if text else ""
    return word if word in _OPERATIONS else "other"


def _meters(registry: Registry) -> tuple[Timer, Counter]:
    return (
        registry.timer(
            "db_query_duration_seconds",
            "From sending a query to its result.",
            ("database", "operation"),
        ),
        registry.counter("db_query_failures", "Queries that failed.", ("database", "error")),
    )


def watch_sqlalchemy(
    engine: Any, *, name: str = "", registry: Registry = REGISTRY
) -> Callable[[], None]:
    """Time the queries of an Engine or AsyncEngine and show its pool; the answer ends that."""
    try:
        from sqlalchemy import event
    except ImportError as error:
        raise ExtraMissing("sqlalchemy", "metrics of SQLAlchemy") from error
    engine = getattr(engine, "sync_engine", engine)
    database = name or engine.url.database or engine.dialect.name
    durations, failures = _meters(registry)

    def before(
        _connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        if context is not None:
            setattr(context, _BEGIN, time.perf_counter())

    def after(
        _connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        began = getattr(context, _BEGIN, None)
        if began is not None:
            durations.put(time.perf_counter() - began, database, operation_of(statement))

    def failed(context: Any) -> None:
        failures.add(1, database, type(context.original_exception).__name__)
        began = getattr(context.execution_context, _BEGIN, None)
        if began is not None:
            took_s = time.perf_counter() - began
            durations.put(took_s, database, operation_of(context.statement))

    hooks = (
        ("before_cursor_execute", before),
        ("after_cursor_execute", after),
        ("handle_error", failed),
    )
    for hook, function in hooks:
        event.listen(engine, hook, function)

    def pool() -> dict[str, float]:
        counted = {"in_use": "checkedout", "idle": "checkedin", "size": "size"}
        found = {}
        for state, method in counted.items():
            ask = getattr(engine.pool, method, None)  # a NullPool or StaticPool has none of them
            if ask is not None:
                found[state] = float(ask())
        return found

    end_pool = _watch_pool(registry, database, pool)

    def end() -> None:
        end_pool()
        for hook, function in hooks:
            if event.contains(engine, hook, function):
                event.remove(engine, hook, function)

    return end


async def watch_asyncpg(
    connection: Any, *, name: str = "postgresql", registry: Registry = REGISTRY
) -> None:
    """Time the queries of a connection of asyncpg (0.29 or later); to be given as `init`."""
    durations, failures = _meters(registry)

    def heard(query: Any) -> None:
        durations.put(query.elapsed, name, operation_of(query.query))
        if query.exception is not None:
            failures.add(1, name, type(query.exception).__name__)

    connection.add_query_logger(heard)


def watch_asyncpg_pool(
    pool: Any, *, name: str = "postgresql", registry: Registry = REGISTRY
) -> Callable[[], None]:
    """Show how full a pool of asyncpg is; the answer ends that."""

    def figures() -> dict[str, float]:
        size, idle = pool.get_size(), pool.get_idle_size()
        return {"in_use": size - idle, "idle": idle, "size": pool.get_max_size()}

    return _watch_pool(registry, name, figures)


class _Pools:
    """All pools of a registry: they share a family."""

    def __init__(self) -> None:
        self.asked: dict[int, tuple[str, Callable[[], dict[str, float]]]] = {}

    def __call__(self) -> Iterable[Family]:
        numbers: dict[Labels, float] = {}
        for database, figures in list(self.asked.values()):
            for state, value in figures().items():
                numbers[database, state] = numbers.get((database, state), 0) + value
        return [
            Family(
                "db_pool_connections",
                "gauge",
                "Connections of the pool; `size` is how many it may keep.",
                ("database", "state"),
                numbers=numbers,
            )
        ]


_pools: Final[weakref.WeakKeyDictionary[Registry, _Pools]] = weakref.WeakKeyDictionary()


def _watch_pool(
    registry: Registry, database: str, figures: Callable[[], dict[str, float]]
) -> Callable[[], None]:
    pools = _pools.get(registry)
    if pools is None:
        pools = _pools[registry] = _Pools()
        registry.include(pools)
    key = id(figures)
    pools.asked[key] = database, figures

    def end() -> None:
        pools.asked.pop(key, None)

    return end
