"""A hundred callers ask for one cold key at once: how often is it loaded, and who gets an error?

    python -m benchmarks.toolkit_stampede

Then once more, and the caller who came first is cancelled (its client has left) while it loads. Its
own end is no error; that of the ninety-nine others is, and so is a second load of what was on its
way. Coroutines in one loop, or threads where a library is for threads (which nobody cancels). The
load takes 20 ms. `finished` is how many loads came to their end, of those that began.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

CALLERS: Final = 100
LOAD_S: Final = 0.02
TTL_S: Final = 300
_LONGEST_S: Final = 10.0


@dataclass(slots=True)
class Source:
    """What is behind the cache."""

    began: int = 0
    finished: int = 0
    loading: asyncio.Event = field(default_factory=asyncio.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def load(self, user: str) -> str:
        self.began += 1
        self.loading.set()
        await asyncio.sleep(LOAD_S)
        self.finished += 1
        return user

    def load_sync(self, user: str) -> str:
        with self.lock:
            self.began += 1
        time.sleep(LOAD_S)
        with self.lock:
            self.finished += 1
        return user


Cold = Callable[[Source], Callable[[str], Any]]


def ours(source: Source) -> Callable[[str], Any]:
    from headgate.cache import Cache

    # A method has no template here: what is decorated is the function of one source.
    async def load(user: str) -> str:
        return await source.load(user)

    return Cache().cached("user:{user}", ttl=TTL_S)(load)


def ours_get_or_set(source: Source) -> Callable[[str], Any]:
    from headgate.cache import Cache

    cache = Cache()
    return lambda user: cache.get_or_set(user, lambda: source.load(user), ttl=TTL_S)


def cashews(source: Source) -> Callable[[str], Any]:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://")

    async def load(user: str) -> str:
        return await source.load(user)

    return cache(ttl=TTL_S, key="user:{user}")(load)


def aiocache(source: Source) -> Callable[[str], Any]:
    from aiocache import cached  # type: ignore[import-untyped]  # it has no types

    async def load(user: str) -> str:
        return await source.load(user)

    made: Callable[[str], Any] = cached(ttl=TTL_S, key_builder=lambda _, user: user)(load)
    return made


def aiocache_stampede(source: Source) -> Callable[[str], Any]:
    from aiocache import cached_stampede

    async def load(user: str) -> str:
        return await source.load(user)

    made: Callable[[str], Any] = cached_stampede(
        lease=2, ttl=TTL_S, key_builder=lambda _, user: user
    )(load)
    return made


def theine(source: Source) -> Callable[[str], Any]:
    from theine import Memoize

    async def load(user: str) -> str:
        return await source.load(user)

    made: Any = Memoize(1000, timedelta(seconds=TTL_S))(load)
    made.key(lambda user: user)

    async def call(user: str) -> Any:
        return await made(user)

    return call


def ours_threads(source: Source) -> Callable[[str], Any]:
    from headgate.cache import Cache

    def load(user: str) -> str:
        return source.load_sync(user)

    return Cache().cached("user:{user}", ttl=TTL_S)(load)


def cachetools_threads(source: Source) -> Callable[[str], Any]:
    from cachetools import TTLCache, cached

    made: Callable[[str], Any] = cached(TTLCache(1000, TTL_S), condition=threading.Condition())(
        source.load_sync
    )
    return made


def dogpile_threads(source: Source) -> Callable[[str], Any]:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL_S)
    return lambda user: region.get_or_create(user, lambda: source.load_sync(user))


def theine_threads(source: Source) -> Callable[[str], Any]:
    from theine import Memoize

    def load(user: str) -> str:
        return source.load_sync(user)

    made: Any = Memoize(1000, timedelta(seconds=TTL_S))(load)
    made.key(lambda user: user)
    found: Callable[[str], Any] = made
    return found


def lru_threads(source: Source) -> Callable[[str], Any]:
    from functools import lru_cache

    return lru_cache(1000)(source.load_sync)


COROUTINES: Final[dict[str, Cold]] = {
    "headgate, cached function": ours,
    "headgate, get_or_set": ours_get_or_set,
    "cashews": cashews,
    "aiocache, cached": aiocache,
    "aiocache, cached_stampede": aiocache_stampede,
    "theine": theine,
}
THREADS: Final[dict[str, Cold]] = {
    "headgate, cached function": ours_threads,
    "cachetools, with a condition": cachetools_threads,
    "dogpile.cache": dogpile_threads,
    "theine": theine_threads,
    "functools.lru_cache": lru_threads,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    began: int
    finished: int
    errors: int
    took_s: float


async def together(make: Cold, *, is_cancelled: bool) -> Outcome:
    source = Source()
    call = make(source)

    async def ask(user: str) -> Any:
        return await call(user)

    start = time.perf_counter()
    tasks = [asyncio.create_task(ask("ada")) for _ in range(CALLERS)]
    if is_cancelled:
        await asyncio.wait_for(source.loading.wait(), _LONGEST_S)
        await asyncio.sleep(LOAD_S / 4)
        tasks[0].cancel()
    _, hung = await asyncio.wait(tasks, timeout=_LONGEST_S)
    took_s = time.perf_counter() - start
    for task in hung:
        task.cancel()
    if hung:
        await asyncio.wait(hung)
    others = tasks[1:] if is_cancelled else tasks
    errors = sum(task.cancelled() or task.exception() is not None for task in others)
    await asyncio.sleep(2 * LOAD_S)  # for a load that nobody waits for any more
    if is_cancelled and not tasks[0].cancelled():
        tasks[0].exception()
    return Outcome(source.began, source.finished, errors, took_s)


def in_threads(make: Cold) -> Outcome:
    source = Source()
    call = make(source)
    gate = threading.Barrier(CALLERS + 1)

    def ask() -> bool:
        gate.wait(_LONGEST_S)
        try:
            call("ada")
        except Exception:
            return False  # whatever it is: that there is one is what is counted
        return True

    with ThreadPoolExecutor(CALLERS) as pool:
        asked = [pool.submit(ask) for _ in range(CALLERS)]
        gate.wait(_LONGEST_S)
        start = time.perf_counter()
        errors = sum(not one.result(_LONGEST_S) for one in asked)
        took_s = time.perf_counter() - start
    return Outcome(source.began, source.finished, errors, took_s)


def summed(found: list[Outcome]) -> dict[str, float]:
    """Counts are the worst of the repeats, the time their median."""
    return {
        "loads": max(one.began for one in found),
        "finished": max(one.finished for one in found),
        "errors": max(one.errors for one in found),
        "ms": round(statistics.median(one.took_s for one in found) * 1000, 1),
    }


async def run(repeats: int, missing: set[str]) -> list[dict[str, Any]]:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    found: dict[tuple[str, str], list[Outcome]] = {}

    def keep(name: str, case: str, one: Outcome) -> None:
        found.setdefault((name, case), []).append(one)

    for _ in range(repeats):
        for name, make in COROUTINES.items():
            try:
                keep(name, "coroutines", await together(make, is_cancelled=False))
                keep(name, "the first is cancelled", await together(make, is_cancelled=True))
            except ImportError:
                missing.add(name.split(",")[0])
        for name, make in THREADS.items():
            try:
                keep(name, "threads", in_threads(make))
            except ImportError:
                missing.add(name.split(",")[0])
    cases = ("coroutines", "the first is cancelled", "threads")
    return [
        {"case": case, "contender": name, **summed(all_)}
        for case in cases
        for (name, of_case), all_ in found.items()
        if of_case == case
    ]


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| | | loads | finished | errors | ms |",
        "|---|---|---:|---:|---:|---:|",
    ]
    last = ""
    for row in results:
        shown = "" if row["case"] == last else row["case"]
        last = row["case"]
        lines.append(
            f"| {shown} | {row['contender']} | {row['loads']} | {row['finished']} | "
            f"{row['errors']} | {row['ms']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    missing: set[str] = set()
    print(table(asyncio.run(run(5, missing))))
    for name in sorted(missing):
        print(f"not installed: {name}")


if __name__ == "__main__":
    main()
