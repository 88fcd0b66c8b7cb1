"""The object cache over a real Redis in trouble, with load running, by its own calls alone.

Two caches, each behind a link of its own, stand for two processes. What is asked: no call takes
longer than one deadline of the layer, the patience with another's lease, and what the loop itself
was late by; nobody is served what was invalidated longer than the bound ago, and whoever
invalidated is never; and once Redis is well again everything is found that was loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from headgate.cache import Cache, Invalidated
from tests.cache.redis_rig import Proxy, proxy_to, run, server_in, until
from tests.state.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KEYS = tuple(f"key:{n}" for n in range(12))
COHERENT_S = 0.1
DEADLINE_S = 0.05
TURNS_S = 0.75
"""What a call may take beside: the patience with who has the lease, which is 250 ms and ten loads,
and the turns of a loop that does other things."""


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with server_in(tmp_path / "redis") as server:
        yield server


class Lateness:
    """How much later the loop came to things than it was to, all in all."""

    def __init__(self) -> None:
        self.sum_s = 0.0

    async def watch(self) -> None:
        while True:
            due = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            self.sum_s += max(0.0, time.monotonic() - due)


class Load:
    def __init__(self, caches: list[Cache]) -> None:
        self.caches = caches
        self.truth = dict.fromkeys(KEYS, 0)
        self.told: dict[str, list[tuple[int, float]]] = {key: [] for key in KEYS}
        self.own: list[dict[str, int]] = [dict.fromkeys(KEYS, 0) for _ in caches]
        self.late = Lateness()
        self.worst_s = 0.0
        self.faults: list[str] = []
        self.loads = 0
        self.calls = 0
        self.is_over = False

    async def timed(self, what: str, call: Awaitable[object]) -> object:
        began, lag = time.monotonic(), self.late.sum_s
        answer = await call
        took_s = time.monotonic() - began - (self.late.sum_s - lag)
        self.calls += 1
        self.worst_s = max(self.worst_s, took_s)
        if took_s > DEADLINE_S + TURNS_S:
            self.faults.append(f"{what} took {took_s:.3f} s")
        return answer

    async def load(self, key: str) -> int:
        self.loads += 1
        version = self.truth[key]
        await asyncio.sleep(0)
        return version

    async def read(self, n: int, rng: random.Random) -> None:
        cache = self.caches[n]
        while not self.is_over:
            key = rng.choice(KEYS)
            at, mine = time.monotonic(), self.own[n][key]
            told = [version for version, when in self.told[key] if when + COHERENT_S < at]
            lag = self.late.sum_s
            how = rng.random()
            found: object
            if how < 0.2:
                found = await self.timed("get", cache.get(key))
            elif how < 0.3:
                many = await self.timed("get_many", cache.get_many([key]))
                found = many.get(key) if isinstance(many, dict) else None
            else:
                found = await self.timed(
                    "get_or_set",
                    cache.get_or_set(key, functools.partial(self.load, key), tags=[f"tag:{key}"]),
                )
            is_on_time = self.late.sum_s - lag < 0.02
            if isinstance(found, int):
                if found < mine:
                    self.faults.append(f"{key}: {found} after this cache itself invalidated {mine}")
                if told and found < told[-1] and is_on_time:
                    self.faults.append(f"{key}: {found}, {told[-1]} was told long ago")
            await asyncio.sleep(rng.uniform(0.0, 0.004))

    async def write(self, n: int, rng: random.Random) -> None:
        cache = self.caches[n]
        while not self.is_over:
            key = rng.choice(KEYS)
            self.truth[key] += 1
            version = self.truth[key]
            by_tag = rng.random() < 0.5
            call = cache.invalidate(tags=[f"tag:{key}"]) if by_tag else cache.delete(key)
            done = await self.timed("invalidate", call)
            self.own[n][key] = max(self.own[n][key], version)
            if isinstance(done, Invalidated) and not done.is_queued:
                self.told[key].append((version, time.monotonic()))
            await self.timed("increment", cache.increment("count"))
            await self.timed("set", cache.set(f"other:{n}", version))
            await asyncio.sleep(rng.uniform(0.0, 0.03))


Trouble = Callable[[RedisServer, list[Proxy]], Awaitable[None]]


async def killed(server: RedisServer, proxies: list[Proxy]) -> None:
    server.kill()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(server.start)


async def frozen(server: RedisServer, proxies: list[Proxy]) -> None:
    server.freeze()
    await asyncio.sleep(0.7)
    server.thaw()


async def flushed(server: RedisServer, proxies: list[Proxy]) -> None:
    for _ in range(3):
        await asyncio.to_thread(server.say, "FLUSHALL")
        await asyncio.sleep(0.1)


async def slow(server: RedisServer, proxies: list[Proxy]) -> None:
    for delay_s in (0.02, 0.2, 0.0):
        for proxy in proxies:
            proxy.delay_s = delay_s
        await asyncio.sleep(0.5)


async def cut(server: RedisServer, proxies: list[Proxy]) -> None:
    for proxy in proxies:
        proxy.cut()
        await asyncio.sleep(0.1)


async def half_open(server: RedisServer, proxies: list[Proxy]) -> None:
    proxies[0].is_still = True
    await asyncio.sleep(0.8)
    proxies[0].is_still = False


async def locked(server: RedisServer, proxies: list[Proxy]) -> None:
    """A password that these caches do not know, and connections that must be made anew."""
    await asyncio.to_thread(server.say, "CONFIG", "SET", "requirepass", "another")
    for proxy in proxies:
        proxy.cut()
    await asyncio.sleep(0.6)
    server.kill()
    await asyncio.to_thread(server.start)


async def scripts_gone(server: RedisServer, proxies: list[Proxy]) -> None:
    await asyncio.to_thread(server.say, "SCRIPT", "FLUSH")
    await asyncio.to_thread(server.say, "CLIENT", "KILL", "TYPE", "normal")


TROUBLES: dict[str, Trouble] = {
    "killed": killed,
    "frozen": frozen,
    "flushed": flushed,
    "slow": slow,
    "cut": cut,
    "half-open": half_open,
    "locked": locked,
    "scripts-gone": scripts_gone,
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_calls_stay_quick_and_true_while_redis_is_in_trouble(redis_server: RedisServer, kind: str):
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(proxy_to(redis_server)) for _ in range(2)]

        async def main() -> None:
            caches = [
                Cache(
                    proxy.url,
                    layer_settings={"deadline_s": DEADLINE_S},
                    jitter=0,
                    away_ttl=COHERENT_S / 2,
                )
                for proxy in proxies
            ]
            load = Load(caches)
            for cache in caches:
                await cache.start()
                await until(functools.partial(is_well, cache))
            watching = asyncio.create_task(load.late.watch())
            work = [
                asyncio.create_task(each)
                for n in range(2)
                for each in (
                    load.read(n, random.Random(f"read {n}")),
                    load.read(n, random.Random(f"again {n}")),
                    load.write(n, random.Random(f"write {n}")),
                )
            ]
            for _ in range(2):
                await asyncio.sleep(0.3)
                await TROUBLES[kind](redis_server, proxies)
            await until(lambda: load.calls > 300)
            load.is_over = True
            await asyncio.gather(*work)
            for cache in caches:
                await until(functools.partial(is_well, cache))
            await asyncio.sleep(2 * COHERENT_S)
            assert not load.faults, f"{len(load.faults)} of {load.calls}: {load.faults[:5]}"

            async def everything() -> int:
                before = load.loads
                for cache in caches:
                    for key in KEYS:
                        found = await cache.get_or_set(key, functools.partial(load.load, key))
                        assert found == load.truth[key]
                return load.loads - before

            await everything()
            await until_async(everything)
            watching.cancel()
            for cache in caches:
                assert cache.snapshot().layer is not None
                await cache.close()

        run(main)


def is_well(cache: Cache) -> bool:
    layer = cache.snapshot().layer
    return cache.health().is_ok and layer is not None and not layer.queued


async def until_async(ask: Callable[[], Awaitable[int]]) -> None:
    """Nothing needs to be loaded any more."""
    for _ in range(50):
        if await ask() == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the hit ratio does not recover")
