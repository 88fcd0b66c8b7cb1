"""What a service calls, as spans: each library by one call, and none of them imported here.

client = trace_httpx(httpx.AsyncClient())
trace_sqlalchemy(engine)
trace_cache(cache)
"""

from __future__ import annotations

from headgate.observe.tracing.instrument.databases import (
    trace_redis,
    trace_sqlalchemy,
    traced_asyncpg,
    traced_psycopg,
)
from headgate.observe.tracing.instrument.httpx_client import trace_httpx
from headgate.observe.tracing.instrument.toolkit import guard_events, on_guard, trace_cache

__all__ = [
    "guard_events",
    "on_guard",
    "trace_cache",
    "trace_httpx",
    "trace_redis",
    "trace_sqlalchemy",
    "traced_asyncpg",
    "traced_psycopg",
]
