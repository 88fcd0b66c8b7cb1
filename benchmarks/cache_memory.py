"""What the first layer of `headgate.cache` costs an operation, beside others, on one core.

    python -m benchmarks.cache_memory            # nanoseconds an operation: medians of 15 rounds
    python -m benchmarks.cache_memory --rounds 5

The rounds of all are interleaved, so that a slow moment of the machine strikes each of them. A
peer that is not installed is named as missing. Beside the bare shelf (what decides who stays) is
the whole layer: expiry to the moment, an estimate of the size, a private copy, statistics, a ghost.
`functools.lru_cache` cannot be put into; its put is a call that misses. cashews is asynchronous: its
backend is driven without a loop's turn, which flatters it. theine's is a Rust core.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from headgate.cache.entry import Entry
from headgate.cache.eviction import Shelf
from headgate.cache.memory import Memory

PLACES = 1000
OPERATIONS = 10_000
HERE = [f"user:{number}" for number in range(PLACES)]
AWAY = [f"away:{number}" for number in range(PLACES)]
STEPS = ("hit", "miss", "put", "put-evict")

Run = Callable[[], None]


def _rounds(one: Callable[[str], object], keys: list[str]) -> Run:
    def run() -> None:
        for _ in range(OPERATIONS // len(keys)):
            for key in keys:
                one(key)

    return run


def _evicting(put: Callable[[str], object]) -> Run:
    """Puts of keys that were never there, made before the clock starts."""
    count = 0

    def run() -> None:
        for key in fresh:
            put(key)

    fresh: list[str] = []

    def prepare() -> None:
        nonlocal count
        count += 1
        fresh[:] = [f"new:{count}:{number}" for number in range(OPERATIONS)]
        for key in fresh:
            hash(key)

    run.prepare = prepare  # type: ignore[attr-defined]  # a seat on the function is enough here
    return run


def _steps(get: Callable[[str], object], put: Callable[[str], object]) -> dict[str, Run]:
    for key in HERE:
        put(key)
    return {
        "hit": _rounds(get, HERE[PLACES // 4 : PLACES // 2]),
        "miss": _rounds(get, AWAY),
        "put": _rounds(put, HERE[PLACES // 4 : PLACES // 2]),
        "put-evict": _evicting(put),
    }


def shelf() -> dict[str, Run]:
    kept: Shelf[str] = Shelf(PLACES, 1 << 40)
    return _steps(kept.get, lambda key: kept.put(key, "value", 1))


def memory(has_ghost: bool = True) -> dict[str, Run]:
    kept = Memory(PLACES, 1 << 40, has_ghost=has_ghost)
    entry = Entry("value", 0.0, 1e9, 1e9)
    return _steps(lambda key: kept.get(key, 5.0), lambda key: kept.put(key, entry))


def cachetools(name: str) -> dict[str, Run]:
    module: Any = importlib.import_module("cachetools")
    kept = module.TTLCache(PLACES, 1e9) if name == "TTLCache" else getattr(module, name)(PLACES)
    return _steps(kept.get, lambda key: kept.__setitem__(key, "value"))


def theine() -> dict[str, Run]:
    kept = importlib.import_module("theine").Cache(PLACES)
    return _steps(kept.get, lambda key: kept.set(key, "value"))


def cashews() -> dict[str, Run]:
    backend: Any = importlib.import_module("cashews.backends.memory").Memory(size=PLACES)

    def drive(make: Callable[[str], Any]) -> Callable[[str], None]:
        def one(key: str) -> None:
            try:
                make(key).send(None)
            except StopIteration:
                return
            raise RuntimeError("it waits, so it cannot be measured without a loop")

        return one

    return _steps(drive(backend.get), drive(lambda key: backend.set(key, "value")))


def lru_cache() -> dict[str, Run]:
    kept = functools.lru_cache(PLACES)(lambda key: "value")
    steps = _steps(kept, kept)
    return {"hit": steps["hit"], "put-evict": steps["put-evict"]}


CAST: dict[str, Callable[[], dict[str, Run]]] = {
    "headgate Shelf": shelf,
    "headgate Memory": memory,
    "headgate Memory, no ghost": lambda: memory(False),
    "cachetools LRUCache": lambda: cachetools("LRUCache"),
    "cachetools LFUCache": lambda: cachetools("LFUCache"),
    "cachetools TTLCache": lambda: cachetools("TTLCache"),
    "theine Cache": theine,
    "cashews memory": cashews,
    "functools.lru_cache": lru_cache,
}


def measure(rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    ready: dict[str, dict[str, Run]] = {}
    missing: dict[str, str] = {}
    for name, make in CAST.items():
        try:
            ready[name] = make()
        except ImportError as error:
            missing[name] = str(error)
        except (AttributeError, TypeError, RuntimeError) as error:
            missing[name] = f"its interface is another than this was written for: {error}"
    times: dict[str, dict[str, list[float]]] = {
        name: {step: [] for step in steps} for name, steps in ready.items()
    }
    for _ in range(rounds):
        for step in STEPS:
            for name, steps in ready.items():
                if step in steps:
                    run = steps[step]
                    getattr(run, "prepare", lambda: None)()
                    start = time.perf_counter_ns()
                    run()
                    times[name][step].append((time.perf_counter_ns() - start) / OPERATIONS)
    found = {
        name: {step: statistics.median(all_) for step, all_ in steps.items()}
        for name, steps in times.items()
    }
    return found, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    found, missing = measure(parser.parse_args().rounds)
    print(f"| nanoseconds | {' | '.join(STEPS)} |")
    print(f"|---|{'---:|' * len(STEPS)}")
    for name, row in found.items():
        print(f"| {name} | {' | '.join(f'{row[s]:,.0f}' if s in row else '-' for s in STEPS)} |")
    for name, why in missing.items():
        print(f"\nMISSING: {name}: {why}")


if __name__ == "__main__":
    main()
