"""Whether a service is well: checks of what it depends on, and the endpoints that tell.

    from headgate.observe import health

    checks = health.Checks(service="orders", version="1.4.2")
    checks.add("database", health.asyncpg(pool), critical=True)
    checks.add("disk", health.disk("/var/lib/orders"), every="1min")

    @checks.check("ledger", timeout="2s", every="10s")
    async def ledger() -> None:
        await client.ping()

    app.add_middleware(health.HealthMiddleware, checks=checks)     # /health/live, /ready, /startup

Drivers and clients are those of the service; nothing is imported before it is used.
"""

from __future__ import annotations

from headgate.observe.health.asgi import HealthEndpoints, HealthMiddleware
from headgate.observe.health.checks import Checks, Hold, Report
from headgate.observe.health.databases import asyncpg, postgres, psycopg, sqlalchemy
from headgate.observe.health.machine import disk, file_age, loop_lag, memory
from headgate.observe.health.network import certificate, dns, http, tcp
from headgate.observe.health.outcome import (
    Bounds,
    Degraded,
    Failing,
    Outcome,
    Result,
    Status,
    degraded,
    failing,
    ok,
    overall,
    worst,
)
from headgate.observe.health.queues import queue_lag
from headgate.observe.health.stores import redis

__all__ = [
    "Bounds",
    "Checks",
    "Degraded",
    "Failing",
    "HealthEndpoints",
    "HealthMiddleware",
    "Hold",
    "Outcome",
    "Report",
    "Result",
    "Status",
    "asyncpg",
    "certificate",
    "degraded",
    "disk",
    "dns",
    "failing",
    "file_age",
    "http",
    "loop_lag",
    "memory",
    "ok",
    "overall",
    "postgres",
    "psycopg",
    "queue_lag",
    "redis",
    "sqlalchemy",
    "tcp",
    "worst",
]
