"""Checks and monitors against a real Redis and a real PostgreSQL, also frozen and gone."""

from __future__ import annotations

import asyncio
import time

import pytest

from headgate.config.model import DnsSpec
from headgate.control.observing.monitors_probe import Looking, look
from headgate.observe import health
from headgate.observe.health.monitoring import Monitor
from headgate.observe.health.running import Runs
from headgate.wire.resolve import Resolver
from tests.accounts.postgres_server import PostgresServer
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def postgres():
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = RedisServer(
        tmp_path_factory.mktemp("redis"), "--requirepass", "s3cret", "--maxmemory", "100mb"
    )
    server.start()
    yield server
    server.stop()


def with_password(redis) -> str:
    return f"redis://:s3cret@127.0.0.1:{redis.port}"


async def once(check, timeout="10s"):
    checks = health.Checks(registry=None)
    checks.add("a", check, timeout=timeout)
    (found,) = (await checks.report()).checks
    return found


async def looked(kind, target, timeout_s=10.0, **more):
    resolver = Resolver(DnsSpec())
    monitor = Monitor("a", kind, target, timeout_s=timeout_s, **more)
    looking = Looking(resolver, lambda: Resolver(DnsSpec()), time.time)
    found = []

    async def ask():
        found.append(await look(monitor, looking))
        return found[0].outcome

    runs = Runs()
    try:
        return await runs.run("a", ask, timeout_s)
    finally:
        async with asyncio.timeout(20):
            while runs.is_hung("a"):
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)  # so that what was ended has closed its connection
        await resolver.aclose()


def test_redis_is_asked_by_address_and_by_client(redis):
    import redis as library
    from redis import asyncio as later

    async def main():
        assert (await once(health.redis(with_password(redis)))).status == "ok"
        client = later.Redis(port=redis.port, password="s3cret")
        assert (await once(health.redis(client))).status == "ok"
        await client.aclose()
        plain = library.Redis(port=redis.port, password="s3cret")
        assert (await once(health.redis(plain))).status == "ok"
        plain.close()
        tight = health.redis(with_password(redis), warn_memory="0.1%", fail_memory=None)
        assert "memory" in (await once(tight)).why
        assert (await looked("redis", with_password(redis))).status == "ok"

    asyncio.run(main())


def test_a_wrong_password_fails_and_is_not_told(redis):
    async def main():
        url = f"redis://:wr0ng@127.0.0.1:{redis.port}"
        for found in (await once(health.redis(url)), await looked("redis", url)):
            assert found.status == "failing"
            assert "AUTH was refused: WRONGPASS" in found.why
            assert "wr0ng" not in found.why
        url = f"redis://127.0.0.1:{redis.port}"
        assert "NOAUTH" in (await looked("redis", url)).why

    asyncio.run(main())


def test_a_frozen_redis_fails_in_time_and_a_thawed_one_is_well(redis):
    async def main():
        redis.freeze()
        try:
            found = await once(health.redis(with_password(redis)), timeout="100ms")
            assert "no answer within 100ms" in found.why
            found = await looked("redis", with_password(redis), timeout_s=0.1)
            assert "no answer within 100ms" in found.why
        finally:
            redis.thaw()
        assert (await looked("redis", with_password(redis))).status == "ok"

    asyncio.run(main())


def test_postgres_is_asked_by_pool_engine_and_address(postgres):
    import asyncpg  # type: ignore[import-untyped]  # no stubs
    from sqlalchemy.ext.asyncio import create_async_engine

    url = f"postgresql://headgate@127.0.0.1:{postgres.port}/postgres"

    async def main():
        pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
        try:
            assert (await once(health.asyncpg(pool))).status == "ok"
            first, second = await pool.acquire(), await pool.acquire()
            found = await once(health.asyncpg(pool))
            assert (found.status, found.why) == ("failing", "2 of 2 connections are taken")
            await pool.release(first)
            await pool.release(second)
            assert "no_such" in (await once(health.asyncpg(pool, query="SELECT no_such"))).why
        finally:
            await pool.close()
        engine = create_async_engine(postgres.url)
        assert (await once(health.sqlalchemy(engine))).status == "ok"
        await engine.dispose()
        assert (await once(health.postgres(url))).status == "ok"
        assert (await looked("postgres", url)).status == "ok"
        wrong = await looked("postgres", f"postgresql://nobody:pw@127.0.0.1:{postgres.port}/x")
        assert (wrong.status, "pw" in wrong.why) == ("failing", False)

    asyncio.run(main())


def test_what_is_not_there_is_refused_with_a_reason():
    from tests.ports import free_port

    port = free_port()

    async def main():
        for kind, target in (
            ("redis", f"redis://127.0.0.1:{port}"),
            ("postgres", f"postgresql://a@127.0.0.1:{port}/a"),
            ("tcp", f"127.0.0.1:{port}"),
            ("url", f"http://127.0.0.1:{port}/"),
            ("certificate", f"127.0.0.1:{port}"),
        ):
            found = await looked(kind, target)
            assert (found.status, found.why) == ("failing", "connection refused"), kind
        assert (await once(health.tcp("127.0.0.1", port))).status == "failing"
        assert (await once(health.http(f"http://127.0.0.1:{port}/"))).status == "failing"

    asyncio.run(main())
