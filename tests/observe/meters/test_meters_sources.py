"""Ready families: runtime, clients, databases, queues, the toolkit's own, and business figures."""

from __future__ import annotations

import asyncio
import gc
import importlib
import types
from typing import Any

import httpx
import pytest

from headgate.cache import Cache
from headgate.observe.meters.bridges import watch_cache, watch_resilience
from headgate.observe.meters.business import NAMES_MAX, Business
from headgate.observe.meters.database import (
    operation_of,
    watch_asyncpg,
    watch_asyncpg_pool,
    watch_sqlalchemy,
)
from headgate.observe.meters.http_client import metered
from headgate.observe.meters.queues import QueueMeter
from headgate.observe.meters.registry import Registry
from headgate.observe.meters.runtime import watch_runtime
from headgate.observe.meters.text import to_openmetrics, to_text
from headgate.resilience import BreakerOpen, bulkhead, limit, retry
from headgate.resilience import Registry as Breakers
from headgate.resilience import breaker as make_breaker


def families(registry):
    return {family.name: family for family in registry.collect()}


def numbers(registry, name):
    return families(registry)[name].numbers


# ---- runtime


def test_the_process_and_the_machine_are_known():
    registry = Registry()

    async def scene():
        watch = watch_runtime(registry, disks=("/", "/no/such/place"))
        try:
            gc.collect()
            async with asyncio.timeout(30):
                while not families(registry)["event_loop_lag_seconds"].sketches[()].count:
                    await asyncio.sleep(0.05)
            return families(registry), to_text(registry.collect())
        finally:
            watch.stop()
            watch.stop()

    found, _ = asyncio.run(scene())
    assert found["process_cpu_seconds_total"].numbers[()] > 0
    assert found["process_resident_memory_bytes"].numbers[()] > 1e6
    assert found["process_threads"].numbers[()] >= 1
    assert found["process_uptime_seconds"].numbers[()] >= 0
    assert found["system_cpus"].numbers[()] >= 1
    assert (
        found["system_memory_bytes"].numbers["total",]
        > found["system_memory_bytes"].numbers["available",]
    )
    assert {labels[0] for labels in found["system_disk_bytes"].numbers} == {"/"}
    assert found["python_gc_pause_seconds"].sketches[()].count >= 1
    assert "process_threads" not in families(registry)


# ---- HTTP clients


def test_requests_of_an_httpx_client_are_counted():
    registry = Registry()

    def answer(request):
        if request.url.path == "/down":
            raise httpx.ConnectError("refused")
        return httpx.Response(404 if request.url.path == "/none" else 200)

    transport = metered(httpx.MockTransport(answer), registry=registry, hosts=("users",))

    async def scene():
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get("http://users/a")
            await client.get("http://users/none")
            await client.get("http://anywhere.example/a")
            with pytest.raises(httpx.ConnectError):
                await client.post("http://users/down")

    asyncio.run(scene())
    with httpx.Client(transport=transport) as client:
        client.get("http://users/a")
    assert numbers(registry, "http_client_requests_total") == {
        ("users", "GET", "200"): 2,
        ("users", "GET", "404"): 1,
        ("other", "GET", "200"): 1,
    }
    assert numbers(registry, "http_client_failures_total") == {("users", "ConnectError"): 1}
    assert numbers(registry, "http_client_requests_in_flight") == {("users",): 0, ("other",): 0}
    took = families(registry)["http_client_request_duration_seconds"].sketches
    assert {labels: sketch.count for labels, sketch in took.items()} == {
        ("users", "GET"): 3,
        ("other", "GET"): 1,
        ("users", "POST"): 1,
    }


# ---- databases


@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        ("SELECT 1", "select"),
        ("  -- why\n insert into t values (1)", "insert"),
        ("/* hint */ WITH a AS (SELECT 1) SELECT 2", "with"),
        ("(select 1)", "select"),
        ("COMMIT;", "commit"),
        ("VACUUM", "other"),
        ("", "other"),
        ("--", "other"),
        ("/*", "other"),
        (None, "other"),
    ],
)
def test_what_a_statement_does(statement, operation):
    assert operation_of(statement) == operation


def test_queries_and_the_pool_of_sqlalchemy_are_seen():
    sqlalchemy = importlib.import_module("sqlalchemy")
    registry = Registry()
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.QueuePool, pool_size=3)
    end = watch_sqlalchemy(engine, name="shop", registry=registry)
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
            assert numbers(registry, "db_pool_connections")["shop", "in_use"] == 1
            with pytest.raises(sqlalchemy.exc.OperationalError):
                connection.execute(sqlalchemy.text("select * from nowhere"))
        assert numbers(registry, "db_pool_connections")["shop", "in_use"] == 0
        assert numbers(registry, "db_pool_connections")["shop", "size"] == 3
        took = families(registry)["db_query_duration_seconds"].sketches
        assert took["shop", "select"].count == 2
        assert numbers(registry, "db_query_failures_total") == {("shop", "OperationalError"): 1}
        end()
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
        took = families(registry)["db_query_duration_seconds"].sketches
        assert took["shop", "select"].count == 2
    finally:
        engine.dispose()


def test_queries_and_the_pool_of_asyncpg_are_seen():
    asyncpg = importlib.import_module("asyncpg")
    fields = importlib.import_module("asyncpg.connection").LoggedQuery._fields
    assert {"query", "elapsed", "exception"} <= set(fields)
    assert hasattr(asyncpg.Connection, "add_query_logger")
    registry = Registry()
    loggers: list[Any] = []
    connection = types.SimpleNamespace(add_query_logger=loggers.append)
    asyncio.run(watch_asyncpg(connection, registry=registry))
    loggers[0](types.SimpleNamespace(query="select 1", elapsed=0.1, exception=None))
    loggers[0](types.SimpleNamespace(query="select 1", elapsed=0.1, exception=OSError()))
    pool = types.SimpleNamespace(
        get_size=lambda: 5, get_idle_size=lambda: 2, get_max_size=lambda: 10
    )
    end = watch_asyncpg_pool(pool, registry=registry)
    assert numbers(registry, "db_pool_connections") == {
        ("postgresql", "in_use"): 3,
        ("postgresql", "idle"): 2,
        ("postgresql", "size"): 10,
    }
    end()
    assert numbers(registry, "db_pool_connections") == {}
    assert numbers(registry, "db_query_failures_total") == {("postgresql", "OSError"): 1}


# ---- queues


def test_a_queue_shows_depth_lag_and_results():
    registry = Registry()
    waiting = ["a", "b"]
    jobs = QueueMeter("mail", depth=lambda: len(waiting), registry=registry)
    jobs.added(2)
    with jobs.processing(enqueued_wall=0.0):
        assert numbers(registry, "queue_in_progress") == {("mail",): 1}
    with pytest.raises(LookupError), jobs.processing():
        raise LookupError
    with pytest.raises(asyncio.CancelledError), jobs.processing():
        raise asyncio.CancelledError
    assert numbers(registry, "queue_depth") == {("mail",): 2}
    assert numbers(registry, "queue_processed_total") == {
        ("mail", "ok"): 1,
        ("mail", "failed"): 1,
        ("mail", "cancelled"): 1,
    }
    assert numbers(registry, "queue_in_progress") == {("mail",): 0}
    assert families(registry)["queue_lag_seconds"].sketches["mail",].sum > 1e9


# ---- the toolkit


def test_a_cache_is_shown():
    registry = Registry()

    async def scene():
        async with Cache() as cache:
            end = watch_cache(cache, registry=registry)
            await cache.set("user:1", "ada", ttl=60)
            await cache.get("user:1")
            await cache.get("user:2")
            text, opened = to_text(registry.collect()), to_openmetrics(registry.collect())
            end()
            return text, opened

    text, opened = asyncio.run(scene())
    assert "headgate_cache_layer_hits_total" in text
    parser = importlib.import_module("prometheus_client.openmetrics.parser")
    assert list(parser.text_string_to_metric_families(opened))


def test_what_guards_calls_is_shown():
    registry, breakers = Registry(), Breakers()
    users = make_breaker("users", registry=breakers)
    rate = limit("1/min")
    rate.try_hit()
    rate.try_hit()
    seats = bulkhead("db", limit=2)
    again = retry(attempts=2)
    watch_resilience(
        breakers=breakers,
        limits={"api": rate},
        bulkheads=[seats],
        retries=[again],
        registry=registry,
    )
    users.force_open("test")
    with pytest.raises(BreakerOpen):
        users.call(lambda: None)
    found = families(registry)
    states = found["breaker_state"].numbers
    assert sum(states.values()) == 1
    assert found["breaker_rejected_total"].numbers == {("users",): 1}
    assert found["limit_keys"].numbers == {("api",): 1}
    assert found["bulkhead_limit"].numbers == {("db",): 2}
    assert "retry_retries_total" in found
    to_openmetrics(registry.collect())


# ---- business


def test_business_figures_by_one_call():
    registry = Registry()
    shop = Business(registry)
    shop.count("orders", 1, tier="gold", country="de")
    shop.count("orders", 2, country="de", tier="gold")
    shop.count("visits")
    shop.measure("basket_eur", 12.5)
    assert numbers(registry, "orders_total") == {("gold", "de"): 3}
    assert numbers(registry, "visits_total") == {(): 1}
    assert families(registry)["basket_eur"].sketches[()].sum == 12.5


def test_a_figure_that_does_not_fit_is_left_out_and_counted(caplog):
    registry = Registry()
    shop = Business(registry)
    shop.count("orders", 1, tier="gold")
    shop.count("orders", 1)
    shop.count("orders", -1, tier="gold")
    wrong: Any = "many"
    shop.count("orders", wrong, tier="gold")
    shop.measure("orders_total", 3)
    shop.count("not a name")
    wrong = None
    shop.measure("basket_eur", wrong)
    assert numbers(registry, "orders_total") == {("gold",): 1}
    assert sum(numbers(registry, "observe_misused_total").values()) == 6
    assert len(caplog.records) <= 3


def test_names_of_business_figures_are_bounded():
    registry = Registry()
    shop = Business(registry)
    for at in range(NAMES_MAX + 10):
        shop.count(f"n{at}")
    assert numbers(registry, "observe_misused_total") == {("other",): 10}
