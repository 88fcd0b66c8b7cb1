"""Single faults of the Redis layer that load brought to light, each by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from headgate.cache import Cache
from headgate.cache.layer import LayerAway
from headgate.cache.redis.link import open_link
from tests.cache.redis_rig import (
    cluster_in,
    of_tags,
    opened,
    proxy_to,
    run,
    server_in,
    settled,
    until,
)
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with server_in(tmp_path / "redis") as server:
        yield server


def test_a_reading_on_that_has_just_ended_is_not_waited_for_again(redis_server: RedisServer):
    async def main() -> None:
        async with opened(redis_server) as layer, opened(redis_server) as other:
            await settled(layer)
            await settled(other)
            if layer._news_link is not None:
                layer._news_link.end("none is pushed")
            layer._renew_news = lambda: None  # type: ignore[method-assign]
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            layer._catching = done
            await other.invalidate(of_tags("t"))
            before = layer._heard.said
            text = f"{other._heard.clock} {other._heard.said} {other._heard.epoch}".encode()
            await asyncio.wait_for(layer._settle(text, before, time.monotonic()), 5)
            assert layer._heard.said >= other._heard.said

    run(main)


def test_news_that_came_by_push_before_they_were_read_are_not_lost(redis_server: RedisServer):
    async def main() -> None:
        async with opened(redis_server) as layer, opened(redis_server) as other:
            await settled(layer)
            lost: list[str] = []
            layer._lose_home = lost.append  # type: ignore[assignment, method-assign]
            for _ in range(200):
                done = asyncio.create_task(other.invalidate(of_tags("t")))
                await asyncio.gather(*(layer.get(["k"]) for _ in range(3)), done)
            assert not lost

    run(main)


@pytest.mark.parametrize("how", ["cancelled", "unheard"])
def test_a_lease_whose_grant_nobody_heard_of_is_given_back(redis_server: RedisServer, how: str):
    async def main() -> None:
        with proxy_to(redis_server) as proxy:
            async with (
                opened(proxy.url, deadline_s=0.05) as layer,
                opened(redis_server) as other,
            ):
                await settled(layer)
                await settled(other)
                began = time.monotonic()
                if how == "cancelled":
                    asked = asyncio.create_task(layer.lease("k", 60))
                    await asyncio.sleep(0)  # it is sent, and not answered
                    await asyncio.sleep(0)
                    asked.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await asked
                else:
                    proxy.delay_s = 0.1  # there and back: Redis gives it, and the answer is late
                    with pytest.raises(LayerAway):
                        await layer.lease("k", 60)
                    proxy.delay_s = 0.0
                await until(lambda: not layer._owed)
                lease = await other.lease("k", 60)
                assert lease is not None
                assert time.monotonic() - began < 30

    run(main)


def test_a_lease_that_could_not_be_given_back_is_given_back_later(redis_server: RedisServer):
    async def main() -> None:
        with proxy_to(redis_server) as proxy:
            async with opened(proxy.url) as layer, opened(redis_server) as other:
                await settled(layer)
                lease = await layer.lease("k", 60)
                assert lease is not None
                proxy.is_still = True
                await layer.release(lease)
                assert await other.lease("k", 60) is None
                proxy.is_still = False
                await until(lambda: not layer._owed)
                assert await other.lease("k", 60) is not None

    run(main)


def test_a_cancellation_that_connecting_swallowed_is_heeded():
    class Connection:
        _writer = _reader = None

        async def connect(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self._writer = SimpleNamespace(transport=SimpleNamespace(abort=lambda: None))

    async def main() -> None:
        task = asyncio.create_task(open_link(Connection(), None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_redis_that_evicts_serves_nothing_stale_and_does_not_fill_up(tmp_path: Path):
    options = ("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru")
    with server_in(tmp_path, *options) as server:

        async def main() -> None:
            async with Cache(server.url, items=10) as one, Cache(server.url, items=10) as other:
                await until(lambda: one.health().is_ok and other.health().is_ok)
                for n in range(300):
                    key, noise = f"k{n % 5}", "x" * 100 + str(n)
                    await one.set(key, n, tags=["all"])
                    await one.set(f"noise:{n}", [noise + str(i) for i in range(200)])
                    found = await other.get_or_set(key, lambda: -1)
                    if found not in (n, -1):  # it may not have heard yet
                        await asyncio.sleep(0.1)
                        found = await other.get_or_set(key, lambda: -1)
                    assert found in (n, -1)
                    if n % 10 == 9:
                        await one.invalidate(tags=["all"])
                        assert not await one.get_many([f"k{i}" for i in range(5)])
                assert one.health().is_ok

        run(main)


def test_a_cluster_that_loses_a_node_costs_only_loads(tmp_path: Path):
    with cluster_in(tmp_path) as nodes:

        async def main() -> None:
            url = nodes[0].url.replace("redis://", "redis+cluster://", 1)
            async with Cache(url) as one, Cache(url) as other:
                for cache in (one, other):
                    assert cache.core.home is not None
                    await settled(cache.core.home.layer)  # type: ignore[arg-type]
                keys = [f"k{n}" for n in range(30)]
                for key in keys:
                    await one.set(key, 1, tags=["all"])
                    assert await one.increment(f"count:{key}") == 1
                assert len(await other.get_many(keys)) == len(keys)
                assert await other.get("count:k3") == 1
                nodes[2].kill()
                for key in keys:
                    began = time.monotonic()
                    assert await one.get_or_set(f"new:{key}", lambda: 2, tags=["all"]) == 2
                    assert time.monotonic() - began < 5
                await one.invalidate(tags=["all"])
                assert not await one.get_many(keys)
                nodes[2].start()
                await until(lambda: one.health().is_ok)

        run(main)
