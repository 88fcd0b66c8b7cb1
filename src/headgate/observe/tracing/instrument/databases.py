"""Statements of SQLAlchemy, asyncpg and psycopg as client spans, and commands of Redis.

    trace_sqlalchemy(engine)                                           # Engine or AsyncEngine
    asyncpg.create_pool(..., connection_class=traced_asyncpg(asyncpg.Connection))
    connection.cursor_factory = traced_psycopg(psycopg.AsyncCursor)
    trace_redis(client)

A span holds the statement without its literals, how many rows there were, and the line of code that
asked. Parameters and keys of Redis are not told: they are somebody's data. Where nothing is being
recorded all of it costs one look.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

from headgate.errors import ExtraMissing
from headgate.observe.tracing.instrument.statements import caller, operation_of, without_literals
from headgate.observe.tracing.process import trace
from headgate.observe.tracing.span import Quiet, Span
from headgate.observe.tracing.tracer import Tracer

__all__ = ["trace_redis", "trace_sqlalchemy", "traced_asyncpg", "traced_psycopg"]

C = TypeVar("C")
_BEGIN = "_headgate_span_began"


def _about(system: str, database: str, statement: object) -> tuple[str, dict[str, Any]]:
    text = without_literals(statement, quotes_are_text=system in {"mysql", "mariadb"})
    operation = operation_of(text)
    said = {"db.system.name": system, "db.query.text": text, "db.operation.name": operation}
    if database:
        said["db.namespace"] = database
    return f"{operation} {database}".strip(), said


def _is_recording(tracer: Tracer) -> bool:
    return tracer.current.is_recording


def trace_sqlalchemy(engine: Any, *, tracer: Tracer = trace) -> Callable[[], None]:
    """Trace the statements of an engine; the answer ends that."""
    try:
        from sqlalchemy import event
    except ImportError as error:
        raise ExtraMissing("sqlalchemy", "traces of SQLAlchemy") from error
    engine = getattr(engine, "sync_engine", engine)
    system = {"postgres": "postgresql"}.get(engine.dialect.name, engine.dialect.name)
    database = engine.url.database or ""
    if system == "sqlite":
        database = database.rpartition("/")[2]

    def before(_c: Any, _cursor: Any, _s: Any, _p: Any, context: Any, _many: bool) -> None:
        if context is not None and _is_recording(tracer):
            setattr(context, _BEGIN, (perf_counter(), caller(3)))

    def after(_c: Any, cursor: Any, statement: Any, _p: Any, context: Any, _many: bool) -> None:
        ended(context, statement, getattr(cursor, "rowcount", -1), None)

    def failed(context: Any) -> None:
        ended(context.execution_context, context.statement, -1, context.original_exception)

    def ended(context: Any, statement: Any, rows: Any, error: BaseException | None) -> None:
        began = getattr(context, _BEGIN, None)
        if began is None:
            return
        delattr(context, _BEGIN)
        name, said = _about(system, database, statement)
        if isinstance(rows, int) and rows >= 0:
            said["db.response.returned_rows"] = rows
        took_s = perf_counter() - began[0]
        failed = None if error is None else type(error).__name__
        tracer.past(name, took_s, {**said, **began[1]}, kind="client", error=failed)

    hooks = (
        ("before_cursor_execute", before),
        ("after_cursor_execute", after),
        ("handle_error", failed),
    )
    for hook, function in hooks:
        event.listen(engine, hook, function)

    def end() -> None:
        for hook, function in hooks:
            if event.contains(engine, hook, function):
                event.remove(engine, hook, function)

    return end


def traced_asyncpg(connection_class: type[C], *, tracer: Tracer = trace) -> type[C]:
    """A connection class of asyncpg whose statements are spans."""

    def around(name: str) -> Any:
        original = getattr(connection_class, name)

        @functools.wraps(original)
        async def called(self: Any, query: Any, *args: Any, **more: Any) -> Any:
            if not _is_recording(tracer):
                return await original(self, query, *args, **more)
            title, said = _about("postgresql", "", query)
            with tracer.span(title, {**said, **caller(2)}, kind="client") as span:
                found = await original(self, query, *args, **more)
                _rows(span, name, found)
                return found

        return called

    names = ("execute", "executemany", "fetch", "fetchrow", "fetchval")
    members: dict[str, Any] = {
        name: around(name) for name in names if hasattr(connection_class, name)
    }
    members["__slots__"] = ()
    return type(f"Traced{connection_class.__name__}", (connection_class,), members)


def _rows(span: Span | Quiet, name: str, found: Any) -> None:
    if name == "fetch":
        span.set({"db.response.returned_rows": len(found)})
    elif name == "fetchrow":
        span.set({"db.response.returned_rows": 0 if found is None else 1})
    elif name == "execute" and isinstance(found, str):  # as in "UPDATE 3"
        count = found.rpartition(" ")[2]
        if count.isdigit():
            span.set({"db.response.returned_rows": int(count)})


def traced_psycopg(cursor_class: type[C], *, tracer: Tracer = trace) -> type[C]:
    """A cursor class of psycopg 3, sync or async, whose statements are spans."""
    members: dict[str, Any] = {}
    for name in ("execute", "executemany"):
        original = getattr(cursor_class, name)
        members[name] = (_async_cursor if inspect.iscoroutinefunction(original) else _cursor)(
            original, tracer
        )
    return type(f"Traced{cursor_class.__name__}", (cursor_class,), members)


def _cursor(original: Any, tracer: Tracer) -> Any:
    @functools.wraps(original)
    def called(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        if not _is_recording(tracer):
            return original(self, query, *args, **more)
        title, said = _about("postgresql", "", _text(query, self))
        with tracer.span(title, {**said, **caller(2)}, kind="client") as span:
            found = original(self, query, *args, **more)
            _count(span, self)
            return found

    return called


def _async_cursor(original: Any, tracer: Tracer) -> Any:
    @functools.wraps(original)
    async def called(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        if not _is_recording(tracer):
            return await original(self, query, *args, **more)
        title, said = _about("postgresql", "", _text(query, self))
        with tracer.span(title, {**said, **caller(2)}, kind="client") as span:
            found = await original(self, query, *args, **more)
            _count(span, self)
            return found

    return called


def _text(query: Any, cursor: Any) -> str:
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    as_string = getattr(query, "as_string", None)  # a composed statement
    return as_string(cursor) if as_string is not None else str(query)


def _count(span: Span | Quiet, cursor: Any) -> None:
    rows = getattr(cursor, "rowcount", -1)
    if isinstance(rows, int) and rows >= 0:
        span.set({"db.response.returned_rows": rows})


def trace_redis(client: C, *, tracer: Tracer = trace) -> C:
    """Trace the commands and pipelines of a client of redis-py, sync or async."""
    mine: Any = client
    if getattr(mine, "_headgate_traced", False):
        return client
    mine._headgate_traced = True  # noqa: SLF001  # twice is once
    mine.execute_command = _around_redis(mine.execute_command, tracer, lambda args: str(args[0]))
    pipeline = mine.pipeline

    @functools.wraps(pipeline)
    def traced_pipeline(*args: Any, **more: Any) -> Any:
        made = pipeline(*args, **more)
        made.execute = _around_redis(made.execute, tracer, lambda _: "PIPELINE")
        return made

    mine.pipeline = traced_pipeline
    return client


def _around_redis(original: Any, tracer: Tracer, name_of: Callable[[Any], str]) -> Any:
    def said(args: Any) -> tuple[str, dict[str, Any]]:
        name = name_of(args).split(" ", 1)[0].upper()[:32]
        return name, {"db.system.name": "redis", "db.operation.name": name, **caller(3)}

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def called(*args: Any, **more: Any) -> Any:
            if not _is_recording(tracer):
                return await original(*args, **more)
            with tracer.span(*said(args), kind="client"):
                return await original(*args, **more)

    else:

        @functools.wraps(original)
        def called(*args: Any, **more: Any) -> Any:
            if not _is_recording(tracer):
                return original(*args, **more)
            with tracer.span(*said(args), kind="client"):
                return original(*args, **more)

    return called
