"""What the second layer costs: `python -m benchmarks.cache_redis [--redis URL] [--seconds 0.5]`.

A row is a client, a column how many tasks ask in one turn of the loop, each for one key of 100
bytes. A cell is microseconds a command: until all are answered, divided by their number. Redis is
started on a free port unless a URL is given. `headgate` decodes, judges by barriers and reads the
clock as well; `redis-py pipeline` is what a programmer writes by hand who has all keys at once.
Peers that are not installed are left out. The two last rows are a gateway's bad day: the longest of
many reads while Redis is frozen, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from headgate.cache.entry import Entry
from headgate.cache.layer import LayerAway
from headgate.cache.redis import open_layer

AT_ONCE = (1, 10, 100)
VALUE = "x" * 100
KEYS = [f"bench:{n}" for n in range(100)]

One = Callable[[str], Awaitable[Any]]
Many = Callable[[list[str]], Awaitable[Any]]


@contextlib.asynccontextmanager
async def headgate(url: str) -> AsyncIterator[dict[str, Many]]:
    layer = open_layer(url)
    await layer.start()
    now = time.time()

    async def put(key: str) -> None:
        entry = Entry(VALUE, now, now + 600, now + 600, stamp=layer.barriers.stamp)
        await layer.put({key: entry})

    yield {
        "headgate get": _gathered(lambda key: layer.get((key,))),
        "headgate set": _gathered(put),
        "headgate get, one call": layer.get,
    }
    await layer.close()


@contextlib.asynccontextmanager
async def redis_py(url: str) -> AsyncIterator[dict[str, Many]]:
    from redis.asyncio import Redis

    client = Redis.from_url(url)

    async def pipelined(keys: list[str]) -> None:
        async with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.get(key)
            await pipe.execute()

    yield {
        "redis-py gather get": _gathered(client.get),
        "redis-py gather set": _gathered(lambda key: client.set(key, VALUE, ex=600)),
        "redis-py pipeline get": pipelined,
    }
    await client.aclose()


@contextlib.asynccontextmanager
async def cashews(url: str) -> AsyncIterator[dict[str, Many]]:
    from cashews import Cache

    cache = Cache()
    cache.setup(url)
    yield {
        "cashews get": _gathered(cache.get),
        "cashews set": _gathered(lambda key: cache.set(key, VALUE, expire=600)),
        "cashews get_many": lambda keys: cache.get_many(*keys),
    }
    await cache.close()


@contextlib.asynccontextmanager
async def aiocache(url: str) -> AsyncIterator[dict[str, Many]]:
    from aiocache import RedisCache  # type: ignore[import-untyped]  # it has no types
    from aiocache.serializers import JsonSerializer  # type: ignore[import-untyped]

    port = int(url.rsplit(":", 1)[1].partition("/")[0])
    cache = RedisCache(endpoint="127.0.0.1", port=port, serializer=JsonSerializer())
    yield {
        "aiocache get": _gathered(cache.get),
        "aiocache set": _gathered(lambda key: cache.set(key, VALUE, ttl=600)),
        "aiocache multi_get": cache.multi_get,
    }
    await cache.close()


@contextlib.asynccontextmanager
async def dogpile(url: str) -> AsyncIterator[dict[str, Many]]:
    """It blocks: a row of one thread."""
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.redis", arguments={"url": url})

    async def get(keys: list[str]) -> None:
        for key in keys:
            region.get(key)

    async def put(keys: list[str]) -> None:
        for key in keys:
            region.set(key, VALUE)

    async def get_multi(keys: list[str]) -> None:
        region.get_multi(keys)  # type: ignore[no-untyped-call]  # dogpile's gap

    yield {"dogpile get": get, "dogpile set": put, "dogpile get_multi": get_multi}


def _gathered(one: One) -> Many:
    async def many(keys: list[str]) -> None:
        if len(keys) == 1:
            await one(keys[0])
        else:
            await asyncio.gather(*map(one, keys))

    return many


PEERS = {
    "redis": redis_py,
    "headgate": headgate,
    "cashews": cashews,
    "aiocache": aiocache,
    "dogpile": dogpile,
}


async def measured(many: Many, at_once: int, seconds: float) -> float:
    """Microseconds a command: the best of three rounds, since others may use the machine."""
    keys = KEYS[:at_once]
    await many(keys)
    best = float("inf")
    for _ in range(3):
        began, count = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds / 3:
            await many(keys)
            count += at_once
        best = min(best, took / count)
    return best * 1e6


async def frozen(url: str, pid: int) -> None:
    layer = open_layer(url)
    await layer.start()
    os.kill(pid, signal.SIGSTOP)
    try:
        for name, for_s in (("at once", 0.3), ("later", 1.0)):
            worst, end = 0.0, time.monotonic() + for_s
            while time.monotonic() < end:
                began = time.monotonic()
                with contextlib.suppress(LayerAway):
                    await layer.get(KEYS[:1])
                worst = max(worst, time.monotonic() - began)
                await asyncio.sleep(0.001)
            print(f"{'frozen, ' + name:26}{worst * 1000:9.1f} ms")
    finally:
        os.kill(pid, signal.SIGCONT)
    await layer.close()


async def main(url: str, seconds: float, pid: int | None) -> None:
    print(f"{'us a command':26}" + "".join(f"{n:>9}" for n in AT_ONCE))
    for module, peer in PEERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{module:26} not installed")
            continue
        async with peer(url) as rows:
            for name in sorted(rows, key=lambda name: "set" not in name):
                cells = [await measured(rows[name], n, seconds) for n in AT_ONCE]
                print(f"{name:26}" + "".join(f"{cell:9.1f}" for cell in cells), flush=True)
    if pid is not None:
        await frozen(url, pid)


@contextlib.contextmanager
def own_redis() -> Any:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise SystemExit("no redis-server here; give --redis URL")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        process = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0", process.pid
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    factory = None
    if given.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if given.redis:
            runner.run(main(given.redis, given.seconds, None))
        else:
            with own_redis() as (place, pid):
                runner.run(main(place, given.seconds, pid))
