"""Eight processes, one truth: after an invalidation returned, nobody serves the old value for long.

The truth is a file each reader looks at before it loads, so that what is served can be told apart
by its version. A writer changes the truth, invalidates, and notes when that returned unqueued.
The reader's time is that before it looked, the writer's that after it was told: a process that the
machine puts aside in between is judged more mildly by it, so that the bound holds without a margin.
Readers serve by the rules of `redis_rig.SmallCache` and note what they served when. The clock is
`time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from headgate.cache.layer import LayerAway
from headgate.cache.redis import open_layer
from tests.cache.redis_rig import Proxy, SmallCache, made, of_keys, of_tags, proxy_to, server_in
from tests.state.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

READERS = 7
KEYS = ("a", "b", "c")
BOUND_S = 0.1


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, which it may kill, freeze and flush."""
    with server_in(tmp_path / "redis") as server:
        yield server


def truth_of(folder: Path, key: str) -> int:
    return int((folder / key).read_text())


def set_truth(folder: Path, key: str, version: int) -> None:
    (folder / f"{key}.new").write_text(str(version))
    (folder / f"{key}.new").replace(folder / key)


def read_process(url: str, folder: Path, seed: int, pipe: Connection) -> None:
    """Serve until told to end; send (key, version, when it was decided) of each serving."""

    async def main() -> None:
        rng = random.Random(seed)
        layer = open_layer(url)
        await layer.start()
        cache = SmallCache(layer)
        served: list[tuple[str, int, float]] = []
        hits = {"first": 0, "second": 0, "loaded": 0}
        pipe.send("ready")
        while not pipe.poll():
            key = rng.choice(KEYS)
            at = time.monotonic()
            entry = cache.find(key)
            where = "first"
            if entry is None:
                stamp = layer.barriers.stamp
                try:
                    (entry,) = await layer.get([key])
                    where = "second"
                except LayerAway:
                    if seed % 2:  # it holds on to what it had, for when Redis is back
                        await asyncio.sleep(0.005)
                        continue
                if entry is None:
                    where = "loaded"
                    version = truth_of(folder, key)
                    at = time.monotonic()
                    await asyncio.sleep(rng.choice((0.0, 0.001, 0.03)))  # a slow loader
                    entry = made(layer, version, (f"tag-{key}",), stamp=stamp)
                    await layer.put({key: entry})
                    # What the caller itself loaded is its answer; only what is kept counts.
                    cache.keep(key, entry)
                    hits[where] += 1
                    continue
                cache.keep(key, entry)
            hits[where] += 1
            served.append((key, entry.value, at))
            await asyncio.sleep(rng.uniform(0.0, 0.003))
        await layer.close()
        pipe.send(json.dumps({"served": served, "hits": hits}))

    asyncio.run(main())


def write_process(url: str, folder: Path, seed: int, pipe: Connection) -> None:
    """Change the truth and invalidate; send (key, version, when it was told)."""

    async def main() -> None:
        rng = random.Random(seed)
        layer = open_layer(url)
        await layer.start()
        told: list[tuple[str, int, float]] = []
        version = 0
        pipe.send("ready")
        while not pipe.poll():
            key = rng.choice(KEYS)
            version += 1
            set_truth(folder, key, version)
            said = of_keys(key) if rng.random() < 0.5 else of_tags(f"tag-{key}")
            got = await layer.invalidate(said)
            if not got.is_queued:
                told.append((key, version, time.monotonic()))
            await asyncio.sleep(rng.uniform(0.0, 0.06))
        await layer.close()
        pipe.send(json.dumps({"told": told}))

    asyncio.run(main())


def stalest(
    served: list[tuple[str, int, float]], told: list[tuple[str, int, float]]
) -> tuple[float, int]:
    """How long after it was told to be old a value was still served; how many were judged."""
    worst = 0.0
    by_key = {key: [(v, at) for k, v, at in told if k == key] for key in KEYS}
    for key, version, at in served:
        for newer, told_at in by_key[key]:
            if newer > version and told_at < at:
                worst = max(worst, at - told_at)
                break  # told in order of the versions
    return worst, len(served)


async def trouble(kind: str, server: RedisServer, proxies: list[Proxy], rng: random.Random) -> None:
    for _ in range(4):
        await asyncio.sleep(rng.uniform(0.4, 0.8))
        some = rng.sample(proxies, 3)
        is_apart = kind in ("restart", "flush") and rng.random() < 0.6
        for proxy in proxies if is_apart else ():
            proxy.is_still = True  # what the writer says meanwhile, readers never hear of
        if kind == "restart":
            server.kill()
            await asyncio.sleep(rng.uniform(0.0, 0.3))
            server.start()
        elif kind == "freeze":
            server.freeze()
            await asyncio.sleep(rng.uniform(0.05, 1.5))
            server.thaw()
        elif kind == "half-open":
            for proxy in some:
                proxy.is_still = True
            await asyncio.sleep(rng.uniform(0.1, 1.2))
            for proxy in some:
                proxy.is_still = False
        elif kind == "cut":
            for proxy in some:
                proxy.cut()
        elif kind == "flush":
            server.say("FLUSHALL")
        elif kind == "slow":
            for proxy in some:
                proxy.delay_s = rng.choice((0.01, 0.03, 0.08))
        if is_apart:
            await asyncio.sleep(0.4)
            for proxy in proxies:
                proxy.is_still = False
        await asyncio.sleep(0.2)
    for proxy in proxies:
        proxy.delay_s = 0.0
    await asyncio.sleep(0.7)


@pytest.mark.parametrize("kind", ["calm", "restart", "freeze", "half-open", "cut", "flush", "slow"])
def test_nobody_serves_what_was_invalidated_for_longer_than_the_bound(
    tmp_path: Path, redis_server: RedisServer, kind: str
):
    import contextlib

    for key in KEYS:
        set_truth(tmp_path, key, 0)
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        # The writer, too, is behind one, but only readers are cut off.
        proxies = [stack.enter_context(proxy_to(redis_server)) for _ in range(READERS)]
        processes = []
        for n in range(READERS + 1):
            here, there = context.Pipe()
            is_reader = n < READERS
            url = proxies[n].url if is_reader else redis_server.url
            target = read_process if is_reader else write_process
            process = context.Process(target=target, args=(url, tmp_path, n, there), daemon=True)
            process.start()
            processes.append((process, here))
        try:
            for _, pipe in processes:
                assert pipe.poll(60), "a process does not start"
                assert pipe.recv() == "ready"
            asyncio.run(trouble(kind, redis_server, proxies, random.Random(kind)))
            results = []
            for _, pipe in processes:
                pipe.send("end")
            for _, pipe in processes:
                assert pipe.poll(30), "a process does not end"
                results.append(json.loads(pipe.recv()))
        finally:
            for process, _ in processes:
                process.kill()
                process.join(10)
    told = [tuple(each) for each in results[-1]["told"]]
    assert len(told) > 20
    firsts = 0
    for result in results[:-1]:
        worst, judged = stalest([tuple(each) for each in result["served"]], told)
        assert judged > 50
        firsts += result["hits"]["first"]
        assert worst <= BOUND_S, f"{worst:.3f} s after; {result['hits']}"
    assert firsts > 300  # it was a cache all the while
