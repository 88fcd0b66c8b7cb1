"""Responses in a real Redis: found from another machine, struck from anywhere, never waited for."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headgate.cache.barriers import Barriers
from headgate.cache.http.stored import Stored
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.cache.redis import open_layer
from headgate.gateway.caching.redis import RedisStore, open_redis
from headgate.gateway.caching.redis_clock import Readings
from headgate.gateway.caching.store import Kept
from headgate.wire.message import Header
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path: Path) -> Any:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def response(
    key: str,
    *tags: str,
    body: bytes = b"body",
    stamp: int = 0,
    fields: tuple[Header, ...] = (),
    names: tuple[bytes, ...] = (),
    age_s: float = 0.0,
) -> Kept:
    wall = time.time()
    stored = Stored(
        200,
        b"OK",
        ((b"content-type", b"text/html"),),
        received_at=wall,
        initial_age_s=age_s,
        fresh_s=60.0,
        vary=normal(names, fields),
        tags=tags,
    )
    return Kept(key, f"https://h/{key}", stored, body, stamp=stamp, keep_until=wall + 3600.0)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def opened(server: RedisServer, **said: Any) -> AsyncIterator[tuple[RedisStore, Barriers]]:
    # No bound that a busy machine could reach: what is late is a test of its own.
    store, barriers = open_redis(server.url, **({"deadline_s": 5.0} | said)), Barriers("responses")
    await store.start(barriers)
    await until(lambda: not store.snapshot().is_away)
    # So that a reading of the clock is older than what is put next.
    await store.find("nothing", ())
    await asyncio.sleep(0.01)
    try:
        yield store, barriers
    finally:
        await store.close()


async def written(store: RedisStore) -> None:
    await until(lambda: store._writing is None or store._writing.done())


def test_another_machine_finds_it_and_its_variants(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server) as (one, _), opened(server) as (two, _):
            one.put(response("a", body=b"plain"))
            for said in (b"de", b"fr"):
                fields = ((b"accept-language", said),)
                one.put(response("b", body=said, fields=fields, names=(b"accept-language",)))
            await written(one)
            for url in ("https://h/a", "", "https://other/"):
                found = await two.find("a", (), url)
                assert found is not None
                assert found.body == b"plain"
            for said in (b"de", b"fr"):
                found = await two.find("b", ((b"accept-language", said),))
                assert found is not None
                assert found.body == said
            assert await two.find("b", ()) is None
            assert two.snapshot().hits == 5

    asyncio.run(main())


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(Invalidation(tags=("red",)), id="tag"),
        pytest.param(Invalidation(urls=("https://h/a",)), id="url"),
        pytest.param(Invalidation(urls=("https://h/a*",)), id="prefix"),
        pytest.param(Invalidation(urls=("/a",)), id="path"),
        pytest.param(Invalidation(everything="responses"), id="all"),
    ],
)
@pytest.mark.parametrize("url", ["https://h/a", ""], ids=["told", "untold"])
def test_what_redis_was_told_is_not_found(
    server: RedisServer, asked: Invalidation, url: str
) -> None:
    async def main() -> None:
        layer = open_layer(server.url)
        await layer.start()
        async with opened(server) as (one, _):
            one.put(response("a", "red"))
            await written(one)
            assert await one.find("a", (), url) is not None
            assert not (await layer.invalidate(asked)).is_queued
            assert await one.find("a", (), url) is None
            await asyncio.sleep(0.01)
            one.put(response("a", "red", body=b"new"))
            await written(one)
            found = await one.find("a", (), url)
            assert found is not None
            assert found.body == b"new"
        # One that comes later looks up what it has not heard.
        await layer.invalidate(asked)
        async with opened(server) as (two, _):
            assert await two.find("a", (), url) is None
        await layer.close()

    asyncio.run(main())


def test_a_soft_purge_leaves_it_stale(server: RedisServer) -> None:
    async def main() -> None:
        layer = open_layer(server.url)
        await layer.start()
        async with opened(server) as (one, _):
            one.put(response("a", "t"))
            await written(one)
            await layer.invalidate(Invalidation(tags=("t",), soft=True))
            found = await one.find("a", (), "https://h/a")
            assert found is not None
            assert found.is_soft_struck
        await layer.close()

    asyncio.run(main())


def test_what_may_have_been_made_before_a_purge_is_not_kept(server: RedisServer) -> None:
    async def main() -> None:
        layer = open_layer(server.url)
        await layer.start()
        async with opened(server) as (one, _):
            late = response("a", "t")
            aged = response("b", "t", age_s=0.005)
            await layer.invalidate(Invalidation(tags=("t",)))
            await one.find("nothing", ())
            one.put(late)
            one.put(aged)
            await written(one)
            assert await one.find("a", (), "https://h/a") is None
            assert await one.find("b", (), "https://h/b") is None
        await layer.close()

    asyncio.run(main())


def test_the_barriers_of_the_worker_hold_as_well(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server) as (store, barriers):
            store.put(response("a", "t", stamp=3))
            await written(store)
            barriers.raise_for(Invalidation(tags=("t",), stamp=5))
            assert await store.find("a", (), "https://h/a") is None
            store.put(response("b", stamp=9))
            await written(store)
            found = await store.find("b", ())
            assert found is not None
            assert found.stamp == 5

    asyncio.run(main())


def test_what_an_unsafe_method_changed_is_gone_for_all(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server) as (one, _), opened(server) as (two, _):
            one.put(response("a"))
            await written(one)
            two.forget(("https://h/a",), is_news=True)
            await written(two)
            assert await two.find("a", ()) is not None
            two.forget(("https://h/a",))
            await written(two)
            assert await one.find("a", ()) is None

    asyncio.run(main())


def test_what_is_too_large_is_not_sent(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server, value_bytes_max=10_000) as (store, _):
            store.put(response("a", body=bytes(20_000)))
            assert store.snapshot().dropped == 1
            assert store.snapshot().queued == 0

    asyncio.run(main())


def test_what_another_wrote_there_is_a_miss(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server) as (store, _):
            store.put(response("a"))
            await written(store)
            (name,) = [each for each in server.key_names() if "responses:" in each]
            server.say("SETRANGE", name, "150", "spoilt")
            assert await store.find("a", ()) is None
            server.say("SET", name, "spoilt")
            assert await store.find("a", ()) is None
            assert store.snapshot().spoilt == 2

    asyncio.run(main())


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_a_redis_in_trouble_costs_no_more_than_the_deadline(server: RedisServer, how: str) -> None:
    async def main() -> None:
        async with opened(server, deadline_s=0.05) as (store, _):
            if how == "frozen":
                os.kill(server.pid, signal.SIGSTOP)
            else:
                server.kill()
            try:
                for _ in range(20):
                    begun = time.monotonic()
                    assert await store.find("a", ()) is None
                    # A hang would be far longer; the machine may be busy.
                    assert time.monotonic() - begun < 3.0
                await until(lambda: store.snapshot().is_away)
                before = store.snapshot().failures
                for n in range(3000):
                    store.put(response(f"{n}"))
                    assert await store.find(f"{n}", ()) is None
                assert store.snapshot().queued <= 1000
                assert store.snapshot().dropped >= 2000
                assert store.snapshot().failures < before + 100
                store.forget(tuple(f"https://h/{n}" for n in range(3000)))
            finally:
                if how == "frozen":
                    os.kill(server.pid, signal.SIGCONT)
            if how == "frozen":
                await until(lambda: not store.snapshot().is_away)
                async with asyncio.timeout(20):
                    while await store.find("back", ()) is None:
                        store.put(response("back"))
                        await asyncio.sleep(0.02)

    asyncio.run(main())


def test_a_caller_that_is_cancelled_leaves_nothing_behind(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server) as (store, _):
            for turns in range(6):
                asking = asyncio.create_task(store.find("a", ()))
                for _ in range(turns):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait([asking])
            assert store._reads == 0
            store.put(response("a"))
            await written(store)
            assert await store.find("a", ()) is not None

    asyncio.run(main())


def test_a_stamp_is_from_before_the_request() -> None:
    readings = Readings()
    assert readings.before(100.0) == 0
    readings.note(0, 1.0)
    readings.note(7, 10.0)
    readings.note(7, 11.0)
    readings.note(9, 20.0)
    assert readings.before(10.0) == 0
    assert readings.before(15.0) == 7
    assert readings.before(20.0) == 7
    assert readings.before(21.0) == 9
    # The clock is set back: what was seen later by it is no guide.
    readings.note(12, 15.0)
    assert readings.before(16.0) == 12
    assert readings.before(14.0) == 7
    for n in range(10_000):
        readings.note(100 + n, 100.0 + n)
    assert len(readings._at) <= 4096
    assert readings.before(1e9) == 10_099
