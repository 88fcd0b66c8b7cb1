"""How `make bench-toolkit` measures: in turns, on the clock of the thread, as what a call adds.

Each repeat measures every contender once, in an order that shifts from repeat to repeat, so that a
slow moment of the machine falls on all. Time is that of the thread's CPU, which others on the
machine do not add to. A row is the median of the repeats, with the plain call of the same repeat
taken off. The ratio is that to Headgate's own way of doing the same.
"""

from __future__ import annotations

import gc
import inspect
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

HEADGATE: Final = "headgate"
PLAIN: Final = "plain call"
_BATCH_S: Final = 0.02
_WARM: Final = 500
"""Calls before anything is measured: a cache has by then loaded all that is asked for."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do it. `make` imports the library and answers what is called once a time; it may
    be a coroutine function.
    """

    name: str
    make: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Primitive:
    """What is compared; the plain call comes first and Headgate second."""

    name: str
    is_async: bool
    contenders: tuple[Contender, ...]


def work() -> int:
    return 1


async def work_async() -> int:
    return 1


def of(plain: Callable[[], Any], *others: tuple[str, Callable[[], Any]]) -> tuple[Contender, ...]:
    return (Contender(PLAIN, lambda: plain), *(Contender(name, make) for name, make in others))


def batch(call: Callable[[], Any], count: int) -> float:
    turns = range(count)
    start = time.thread_time()
    for _ in turns:
        call()
    return (time.thread_time() - start) / count * 1e9


async def batch_async(call: Callable[[], Awaitable[Any]], count: int) -> float:
    turns = range(count)
    start = time.thread_time()
    for _ in turns:
        await call()
    return (time.thread_time() - start) / count * 1e9


async def sized(primitive: Primitive, call: Callable[[], Any]) -> int:
    """How many calls make a batch; also warms it up."""
    await measured(primitive, call, _WARM)
    count = 200
    while True:
        start = time.perf_counter()
        await measured(primitive, call, count)
        took_s = time.perf_counter() - start
        if took_s >= _BATCH_S / 4:
            return max(count, int(count * _BATCH_S / took_s))
        count *= 4


async def measured(primitive: Primitive, call: Callable[[], Any], count: int) -> float:
    if primitive.is_async:
        return await batch_async(call, count)
    return batch(call, count)


async def run(primitive: Primitive, repeats: int, missing: set[str]) -> list[dict[str, Any]]:
    calls: dict[str, tuple[Callable[[], Any], int]] = {}
    for contender in primitive.contenders:
        try:
            call = contender.make()
            if inspect.isawaitable(call):
                call = await call
            calls[contender.name] = call, await sized(primitive, call)
        except ImportError:
            missing.add(contender.name.split(",")[0])
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for repeat in range(repeats):
        for at in range(len(names)):
            name = names[(at + repeat) % len(names)]
            call, count = calls[name]
            gc.collect()
            found[name].append(await measured(primitive, call, count))
    return list(rows(primitive, found))


def rows(primitive: Primitive, found: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    plain = found[PLAIN]
    added = {
        name: [ns - without for ns, without in zip(all_ns, plain, strict=True)]
        for name, all_ns in found.items()
    }
    ours = statistics.median(added[HEADGATE])
    for name, all_ns in added.items():
        if name == PLAIN:
            continue
        ns = statistics.median(all_ns)
        yield {
            "primitive": primitive.name,
            "contender": name,
            "added_ns": round(ns, 1),
            "low_ns": round(min(all_ns), 1),
            "high_ns": round(max(all_ns), 1),
            "plain_ns": round(statistics.median(plain), 1),
            "ratio": round(ns / ours, 2),
        }
