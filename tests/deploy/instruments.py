"""Every ready instrument of a service, used once, so that each of its families has a sample."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx

from headgate.cache import Cache
from headgate.observe.meters import bridges, database
from headgate.observe.meters.asgi import MetricsMiddleware
from headgate.observe.meters.families import Family
from headgate.observe.meters.http_client import metered
from headgate.observe.meters.queues import QueueMeter
from headgate.observe.meters.registry import Registry
from headgate.observe.meters.runtime import Runtime
from headgate.observe.meters.vitals import VitalsEndpoint


@dataclass
class _Guard:
    name: str = "orders"
    state: str = "open"
    limit: int = 1
    in_flight: int = 1
    waiting: int = 0
    rejected: int = 1
    rejected_total: int = 1
    retries_total: int = 1
    gave_up_total: int = 1
    refused_total: int = 1
    keys: int = 1

    def snapshot(self) -> _Guard:
        return self


def families() -> list[Family]:
    registry = Registry()
    runtime = Runtime(registry)
    try:
        asyncio.run(_use(registry))
        database._watch_pool(registry, "shop", lambda: {"size": 5.0, "idle": 3.0})
        guard = _Guard()
        bridges.watch_resilience(
            breakers=SimpleNamespace(snapshot=lambda: {"orders": guard}),
            limits={"api": guard},
            bulkheads=[guard],
            retries=[guard],
            registry=registry,
        )
        return registry.collect()
    finally:
        runtime.stop()


async def _use(registry: Registry) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(_message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("c", 1)}
    await MetricsMiddleware(app, registry=registry)(scope, receive, send)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/broken":
            raise httpx.ConnectError("broken")
        return httpx.Response(200)

    inner = metered(httpx.MockTransport(answer), registry=registry)
    async with httpx.AsyncClient(transport=inner) as client:
        await client.get("http://orders/")
        try:
            await client.get("http://orders/broken")
        except httpx.ConnectError:
            pass

    queue = QueueMeter("mail", depth=lambda: 1, registry=registry)
    queue.added()
    queue.lag(0.1)
    queue.processed("ok", 0.1)
    durations, failures = database._meters(registry)
    durations.put(0.01, "shop", "select")
    failures.add(1, "shop", "timeout")
    vitals = VitalsEndpoint(pages=["/"], registry=registry)
    vitals._seconds.put(1.0, "LCP", "/")
    vitals._shifts.put(0.1, "/")
    vitals._ratings.add(1, "LCP", "/", "good")
    vitals._beacons.add(1, "ok")
    registry["event_loop_lag_seconds"].observe(0.001)  # type: ignore[attr-defined]
    registry["python_gc_pause_seconds"].observe(0.001)  # type: ignore[attr-defined]
    async with Cache() as cache:
        await cache.get_or_set("item:1", lambda: 1)
        await cache.get_or_set("item:1", lambda: 1)
        rows = cache.rows()
    registry.include(lambda: bridges.families_of_rows(rows))
