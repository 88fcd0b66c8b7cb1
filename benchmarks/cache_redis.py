"""What the second layer costs: `python -m benchmarks.cache_redis [--redis URL] [--repeats 9]`.

A row is a client, a column how many tasks ask in one turn of the loop, each for one key of 100
bytes. A cell is microseconds a command, until all are answered, divided by their number: wall time,
as most of it is Redis' and the kernel's, and behind it the CPU time of this process. All clients
are measured in turns; a cell is the median. Redis is started on a free port unless a URL is given.

`headgate` decodes, judges by barriers and reads the clock as well; `headgate, Cache.get` is the
whole cache with an empty memory before it. `redis-py pipeline` is what a programmer writes by hand
who has all keys at once. dogpile.cache blocks; its row is one thread and one key after the other.
Clients that are not installed are left out. The last two rows are a service's bad day: the longest
of many reads while Redis is frozen, in milliseconds.
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
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from headgate.cache import Cache
from headgate.cache.entry import Entry
from headgate.cache.layer import LayerAway
from headgate.cache.redis import open_layer

AT_ONCE = (1, 10, 100)
VALUE = "x" * 100
_BATCH_S = 0.03
_PATIENT_S = 5.0
"""A machine that stands still for a moment is to be a slow cell, and not the end of the run."""
KEYS = [f"bench:{n}" for n in range(100)]

One = Callable[[str], Awaitable[Any]]
Many = Callable[[list[str]], Awaitable[Any]]


@contextlib.asynccontextmanager
async def tasks_alone(url: str) -> AsyncIterator[dict[str, Many]]:
    """What so many tasks cost that do nothing."""

    async def nothing(key: str) -> None:
        return

    yield {"tasks that do nothing": _gathered(nothing)}


@contextlib.asynccontextmanager
async def headgate(url: str) -> AsyncIterator[dict[str, Many]]:
    layer = open_layer(url, deadline_s=_PATIENT_S)
    await layer.start()
    now = time.time()

    async def put(key: str) -> None:
        entry = Entry(VALUE, now, now + 600, now + 600, stamp=layer.barriers.stamp)
        await layer.put({key: entry})

    cache = await Cache(url, layer_settings={"deadline_s": _PATIENT_S}).start()

    async def through(keys: list[str]) -> None:
        cache.memory.clear()
        await one_by_one(keys)

    one_by_one = _gathered(cache.get)
    yield {
        "headgate get": _gathered(lambda key: layer.get((key,))),
        "headgate set": _gathered(put),
        "headgate get, one call": layer.get,
        "headgate, Cache.get": through,
        "headgate, Cache.set": _gathered(lambda key: cache.set(key, VALUE)),
    }
    await cache.close()
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
    from cashews import Cache as Cashews

    cache = Cashews()
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
    "asyncio": tasks_alone,
    "redis": redis_py,
    "headgate": headgate,
    "cashews": cashews,
    "aiocache": aiocache,
    "dogpile": dogpile,
}


async def measured(many: Many, keys: list[str]) -> tuple[float, float]:
    """Microseconds a command: wall, and of this thread's CPU."""
    at_once = len(keys)
    await many(keys)
    began, began_cpu, count = time.perf_counter(), time.thread_time(), 0
    while (took := time.perf_counter() - began) < _BATCH_S:
        await many(keys)
        count += at_once
    return took / count * 1e6, (time.thread_time() - began_cpu) / count * 1e6


async def measure(url: str, repeats: int, missing: set[str]) -> list[dict[str, Any]]:
    """A row for each client, operation and number of tasks."""
    async with contextlib.AsyncExitStack() as stack:
        rows: dict[str, Many] = {}
        for module, peer in PEERS.items():
            if importlib.util.find_spec(module) is None:
                missing.add(module)
            else:
                rows |= await stack.enter_async_context(peer(url))
        # Sets first, so that gets find something.
        rows = dict(sorted(rows.items(), key=lambda row: "set" not in row[0]))
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(repeats):
            for name, many in rows.items():
                # What one client has written, another could not read.
                keys = [f"{name.split()[0].strip(',')}:{key}" for key in KEYS]
                for at_once in AT_ONCE:
                    cell = await measured(many, keys[:at_once])
                    found.setdefault((name, at_once), []).append(cell)
        return [
            {
                "contender": name,
                "at_once": at_once,
                "us": round(statistics.median(wall for wall, _ in cells), 1),
                "cpu_us": round(statistics.median(cpu for _, cpu in cells), 1),
            }
            for (name, at_once), cells in found.items()
        ]


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| us a command (of which CPU here) | "
        + " | ".join(f"{n} at once" for n in AT_ONCE)
        + " |",
        "|---|" + "---:|" * len(AT_ONCE),
    ]
    cells: dict[str, list[str]] = {}
    for row in results:
        cells.setdefault(row["contender"], []).append(f"{row['us']:.1f} ({row['cpu_us']:.1f})")
    lines += [f"| {name} | {' | '.join(texts)} |" for name, texts in cells.items()]
    return "\n".join(lines)


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


async def main(url: str, repeats: int, pid: int | None) -> None:
    missing: set[str] = set()
    print(table(await measure(url, repeats, missing)), flush=True)
    for name in sorted(missing):
        print(f"not installed: {name}")
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
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    factory = None
    if given.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if given.redis:
            runner.run(main(given.redis, given.repeats, None))
        else:
            with own_redis() as (place, pid):
                runner.run(main(place, given.repeats, pid))
