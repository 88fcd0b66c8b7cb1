"""A service of its own process that hits a shared limit at random moments."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from headgate.resilience import limit
from headgate.resilience.shared import Shared

PATIENCE_S = 30.0
PATIENT = "2s"
"""A deadline for machines that are busy; who tests a time-out says how long."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one process does."""

    url: str
    rates: tuple[str, ...]
    per_s: float
    for_s: float
    processes: int
    seed: int
    settings: dict[str, Any]
    key: str = "k"
    by: str | None = None


async def until(what: Any, patience_s: float = PATIENCE_S) -> None:
    over_at = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < over_at, "waited in vain"
        await asyncio.sleep(0.005)


async def run_load(load: Load) -> list[float]:
    """When hits passed, by the clock that all processes of this machine have."""
    home = Shared(load.url, deadline=PATIENT)
    bound = limit(*load.rates, home=home, rule="r", by=load.by, **load.settings)
    rng = random.Random(load.seed)
    passed: list[float] = []

    async def hit() -> None:
        if (await bound.try_hit(load.key)).allowed:
            passed.append(time.monotonic())

    async with home:
        await until(lambda: home.holders >= load.processes)
        await asyncio.sleep(0.2)  # until all have seen it
        ends = time.monotonic() + load.for_s
        at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while at < ends:
                at += rng.expovariate(load.per_s)
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                group.create_task(hit())
        await asyncio.sleep(0.3)  # so that none leaves while others still count it
    return passed


def serve(load: Load, pipe: Connection) -> None:
    pipe.send(asyncio.run(run_load(load)))


def hold_seats(url: str, seats: int, pipe: Connection) -> None:
    """Take them, say so, and never give them back."""

    async def main() -> None:
        home = Shared(url, deadline=PATIENT)
        bound = limit(f"{seats}/s", algorithm="concurrency", home=home, rule="seats", **SEATS)
        async with home, contextlib.AsyncExitStack() as stack:
            for _ in range(seats):
                await stack.enter_async_context(bound.hold())
            pipe.send("held")
            await asyncio.sleep(PATIENCE_S)

    asyncio.run(main())


def seats_settings() -> dict[str, Any]:
    from headgate.policy.limiter import LeaseRules

    return {"lease": LeaseRules(seat_ttl_s=1.0)}


SEATS = seats_settings()


@contextlib.contextmanager
def process(target: Any, *args: Any) -> Iterator[tuple[Any, Connection]]:
    """A process, and what it says; it ends with the block."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    made = spawn.Process(target=target, args=(*args, theirs), daemon=True)
    made.start()
    try:
        yield made, ours
    finally:
        made.kill()
        made.join(PATIENCE_S)
        made.close()
        ours.close()
        theirs.close()


def run_all(loads: list[Load]) -> list[list[float]]:
    """Each in a process of its own; what passed, by process."""
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(process(serve, load))[1] for load in loads]
        found = []
        for pipe in pipes:
            assert pipe.poll(PATIENCE_S), "no answer from a process"
            found.append(pipe.recv())
        return found
