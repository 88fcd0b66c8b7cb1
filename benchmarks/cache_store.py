"""What the gateway's store of responses costs: `python -m benchmarks.cache_store`.

Nanoseconds per `find` and `put`, with and without `Vary`, after a purge (when each response is
judged once more), and while evicting; how long the loop stands still in a purge of 100,000
responses; what a million keys take; and what the disk costs on the loop and in all.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import resource
import tempfile
import time
from collections.abc import Callable

from headgate.cache.barriers import Barriers
from headgate.cache.http.stored import Stored
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching.disk import DiskStore
from headgate.gateway.caching.store import ResponseStore
from headgate.wire.message import Header

MB = 1024 * 1024
HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"public, max-age=600"),
    (b"date", b"Sat, 21 Nov 2026 10:00:00 GMT"),
    (b"etag", b'"0123456789abcdef"'),
    (b"server", b"origin"),
)
FIELDS: tuple[Header, ...] = (
    (b"accept", b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"de-DE,de;q=0.9,en;q=0.8"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0"),
)
VARY = (b"accept-encoding",)


def response(
    *tags: str, names: tuple[bytes, ...] = (), fields: tuple[Header, ...] = FIELDS
) -> Stored:
    return Stored(
        200,
        b"OK",
        HEADERS,
        received_at=time.time(),
        initial_age_s=0.0,
        fresh_s=600.0,
        etag=b'"0123456789abcdef"',
        vary=normal(names, fields),
        tags=tags,
    )


def fill(
    store: ResponseStore, count: int, names: tuple[bytes, ...] = (), body: bytes = bytes(1024)
) -> None:
    for n in range(count):
        stored = response("all", f"product:{n}", names=names)
        url = f"https://shop.example/product/{n}"
        store.put(f"GET {url}", url, stored, body, (), FIELDS, store.barriers.stamp)


def keys(count: int, of: int) -> list[str]:
    rng = random.Random(1)
    return [f"GET https://shop.example/product/{rng.randrange(of)}" for _ in range(count)]


def timed(label: str, count: int, work: Callable[[], object]) -> None:
    gc.collect()
    begun = time.perf_counter()
    work()
    took_ns = (time.perf_counter() - begun) / count * 1e9
    print(f"{label:58} {took_ns:12,.0f} ns")


def memory(count: int) -> None:
    wanted = keys(count, 10_000)

    def find_all(store: ResponseStore) -> None:
        find = store.find
        for key in wanted:
            find(key, FIELDS)

    store = ResponseStore(256 * MB)
    timed("put 1 KB, 2 tags, 5 fields", 10_000, lambda: fill(store, 10_000))
    timed("put again, replacing", 10_000, lambda: fill(store, 10_000))
    timed("find, 10,000 keys", count, lambda: find_all(store))
    absent = ["GET https://shop.example/absent"] * count
    timed("find, absent", count, lambda: [store.find(key, FIELDS) for key in absent])
    store.barriers.raise_for(Invalidation(tags=("other",), stamp=1))
    touched = list(dict.fromkeys(wanted))
    timed(
        "find, the first after a purge of something else",
        len(touched),
        lambda: [store.find(key, FIELDS) for key in touched],
    )
    for n in range(100):
        store.barriers.raise_for(Invalidation(urls=(f"https://h/{n}/*",), stamp=2 + n))
    timed(
        "the same with 100 patterns standing",
        len(touched),
        lambda: [store.find(key, FIELDS) for key in touched],
    )
    varied = ResponseStore(256 * MB)
    timed("put, Vary: Accept-Encoding", 10_000, lambda: fill(varied, 10_000, VARY))
    timed("find, Vary: Accept-Encoding", count, lambda: find_all(varied))
    small = ResponseStore(8 * MB)
    fill(small, 5000)
    timed("put while evicting", 20_000, lambda: fill(small, 20_000))


async def watch(stood_s: list[float]) -> None:
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0)
        now = time.perf_counter()
        stood_s.append(now - last)
        last = now


async def purges(entries: int) -> None:
    for label, asked in (
        ("tag of all", Invalidation(tags=("all",))),
        ("prefix of all", Invalidation(urls=("https://shop.example/*",))),
        ("pattern that fits none", Invalidation(urls=("*/cart/*.json",))),
        ("everything", Invalidation(everything="responses")),
        ("one URL", Invalidation(urls=("https://shop.example/product/5",))),
    ):
        store = ResponseStore(4096 * MB)
        fill(store, entries, body=b"")
        gc.collect()
        stood_s: list[float] = []
        watching = asyncio.create_task(watch(stood_s))
        await asyncio.sleep(0)
        begun = time.perf_counter()
        struck = await store.purge(asked)
        took_s = time.perf_counter() - begun
        watching.cancel()
        await asyncio.wait([watching])
        print(
            f"purge of {entries:,}: {label:24} struck {struck:8,} in {took_s * 1e3:7.1f} ms,"
            f" the loop stood {max(stood_s) * 1e3:6.2f} ms"
        )


def million(count: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = ResponseStore(512 * MB)
    timed(f"put, {count:,} keys into 512 MB", count, lambda: fill(store, count, body=b"x" * 200))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    said = store.snapshot()
    print(f"held {said.entries:,}, counted {said.bytes / MB:.0f} MB, grown by {grown:.0f} MB")


async def disk(count: int) -> None:
    with tempfile.TemporaryDirectory() as where:
        lower = DiskStore(where, 512 * MB)
        store = ResponseStore(256 * MB, Barriers("responses"), lower)
        await lower.start(store.barriers)
        begun = time.perf_counter()
        for start in range(0, count, 500):
            for n in range(start, start + 500):
                url = f"https://shop.example/product/{n}"
                store.put(f"GET {url}", url, response("all"), bytes(1024), (), FIELDS, 0)
            while lower.snapshot().queued:
                await asyncio.sleep(0.001)
        took_s = time.perf_counter() - begun
        print(f"disk: {count / took_s:12,.0f} responses written a second")
        wanted = keys(2000, count)
        begun = time.perf_counter()
        for key in wanted:
            await lower.find(key, FIELDS)
        took_us = (time.perf_counter() - begun) / len(wanted) * 1e6
        print(f"disk: {took_us:12,.0f} us a find, one after the other")
        await lower.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finds", type=int, default=300_000)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    said = parser.parse_args()
    million(said.keys)  # first: it tells by how much the process has grown
    memory(said.finds)
    asyncio.run(purges(said.entries))
    asyncio.run(disk(10_000))


if __name__ == "__main__":
    main()
