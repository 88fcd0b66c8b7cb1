"""Every order of loading, invalidating, hearing and crashing, checked to the end.

A writer changes the truth and invalidates; two processes load, write back, read and hear of it, each
step whenever it may come. The store may forget once: all of it, or what came after a copy of it was
made. Where a process has heard all, nothing it holds and no answer of the store is older than what
an invalidation that returned has promised. Barriers are judged by the real ones.

Checked as well: that a rule left out is found out.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pytest

from headgate.cache.barriers import Barriers, Standing
from headgate.cache.invalidation import Invalidation


# Tuples, since a hundred thousand of them are made, changed and compared.
class Process(NamedTuple):
    epoch: int = 0
    said: int = 0
    clock: int = 0
    barriers: tuple[tuple[int, str], ...] = ()
    floor: int = 0
    held: tuple[int, int] | None = None
    """Version and stamp."""
    step: int = 0
    stamp: int = 0
    loaded: int = 0


class World(NamedTuple):
    now: int = 10
    truth: int = 0
    promised: int = 0
    writes: int = 0
    step: int = 0
    told: int = 0
    epoch: int = 0
    clock: int = 1
    news: tuple[tuple[int, int, str], ...] = ()
    """Stamp, the one before, what is struck."""
    hard: int = 0
    entry: tuple[int, int] | None = (0, 1)
    has_crashed: bool = False
    processes: tuple[Process, ...] = (Process(clock=1), Process(clock=1))

    @property
    def said(self) -> int:
        return self.news[-1][0] if self.news else 0


@dataclass(frozen=True, slots=True)
class Rules:
    by_tag: bool = False
    writes: int = 2
    crash: str = ""
    broken: str = ""


def judge(process: Process, stamp: int) -> Standing:
    return _judge(process.barriers, process.floor, stamp)


@functools.lru_cache(4096)
def _judge(raised: tuple[tuple[int, str], ...], floor: int, stamp: int) -> Standing:
    barriers = Barriers()
    for at, what in raised:
        everything: Literal["", "all"] = "all" if what == "all" else ""
        tags = ("t",) if what == "tag" else ()
        keys = ("k",) if what == "key" else ()
        barriers.raise_for(Invalidation(tags=tags, keys=keys, everything=everything, stamp=at))
    barriers.raise_floor(floor)
    return barriers.judge("k", ("t",), stamp)


def has_heard_all(world: World, process: Process) -> bool:
    return process.epoch == world.epoch and process.said == world.said


def hear(world: World, process: Process, broken: str) -> Process:
    """The next record, or, where the history is another, all of it as a gap."""
    new = [record for record in world.news if record[0] > process.said]
    if process.epoch == world.epoch and new and new[0][1] <= process.said:
        stamp, _, what = new[0]
        return process._replace(
            said=stamp,
            clock=max(process.clock, stamp),
            barriers=(*process.barriers, (stamp, what)),
        )
    is_safe = broken != "a gap drops nothing"
    return process._replace(
        epoch=world.epoch,
        said=world.said,
        clock=world.clock,
        barriers=tuple((stamp, what) for stamp, _, what in world.news if what != "all" or is_safe),
        floor=world.clock if is_safe else process.floor,
        held=None if is_safe else process.held,
    )


def write(world: World, rules: Rules) -> World:
    if world.step == 0:
        return world._replace(truth=world.truth + 1, step=1)
    if world.step == 1:
        stamp = max(world.clock + 1, world.now)
        news = (stamp, world.said, "tag" if rules.by_tag else "key")
        return world._replace(clock=stamp, news=(*world.news, news), told=stamp, step=2)
    if world.step == 2:
        if rules.by_tag:
            return world._replace(step=3)
        is_older = world.entry is not None and world.entry[1] < world.told
        entry = None if is_older else world.entry
        return world._replace(hard=max(world.hard, world.told), entry=entry, step=3)
    return world._replace(promised=world.truth, writes=world.writes + 1, step=0)


def crash(world: World, kind: str, broken: str) -> World:
    stamp = max(world.clock + 1, world.now) if kind == "copy" else world.now
    what = "all" if broken != "a restart is trusted" else "nothing"
    after = world._replace(has_crashed=True, step=min(world.step, 1), clock=stamp)
    if kind == "copy":  # as it stood at the beginning
        return after._replace(news=((stamp, 0, what),), hard=0, entry=(0, 1))
    return after._replace(epoch=1, news=((stamp, 0, what),), hard=0, entry=None)


def load(world: World, process: Process, rules: Rules) -> tuple[World, Process]:
    late = rules.broken == "the stamp is noted after loading"
    if process.step == 0:
        return world, process._replace(stamp=process.clock, step=1)
    if process.step == 1:
        stamp = process.clock if late else process.stamp
        return world, process._replace(loaded=world.truth, stamp=stamp, step=2)
    if process.step == 2:
        stamp = process.clock if late else process.stamp
        if stamp >= world.hard and judge(process, stamp) is not Standing.DEAD:
            world = world._replace(entry=(process.loaded, stamp))
        return world, process._replace(stamp=stamp, step=3)
    stamp = world.clock if late else process.stamp
    return world, process._replace(held=(process.loaded, stamp), step=4)


def steps(world: World, rules: Rules) -> Iterator[World]:
    later = world._replace(now=world.now + 1)
    if world.writes < rules.writes:
        yield write(later, rules)
    if rules.crash and not world.has_crashed and world.now > 10:
        yield crash(later, rules.crash, rules.broken)
    for n, process in enumerate(world.processes):
        others = later.processes

        def with_(changed: Process, base: World = later, n: int = n) -> World:
            rest = base.processes
            return base._replace(processes=(*rest[:n], changed, *rest[n + 1 :]))

        if not has_heard_all(world, process):
            yield with_(hear(world, process, rules.broken))
        if process.step < 4:
            base, changed = load(later, process, rules)
            yield with_(changed, base)
        if world.entry is not None and has_heard_all(world, process) and n == 0:
            version, stamp = world.entry
            if stamp >= world.hard and judge(process, stamp) is Standing.ALIVE:
                assert version >= world.promised, "the store served what was invalidated"
                yield with_(process._replace(held=(version, max(stamp, process.clock))))
        assert others is later.processes


def check(rules: Rules) -> int:
    """Visit every state; how many there were."""
    start = World()
    seen, todo = {start._replace(now=0)}, [start]
    while todo:
        world = todo.pop()
        for process in world.processes:
            if process.held is not None and has_heard_all(world, process):
                version, stamp = process.held
                if judge(process, stamp) is Standing.ALIVE:
                    assert version >= world.promised, "a process held what was invalidated"
        for after in steps(world, rules):
            # Stamps matter by their order alone, so that the time itself is not of the state.
            bare = _ranked(after)._replace(now=0)
            if bare not in seen:
                seen.add(bare)
                todo.append(after)
    return len(seen)


def _ranked(world: World) -> World:
    """The same world with its stamps numbered in their order."""
    stamps = {0, world.clock, world.told, world.hard}
    for at, before, _ in world.news:
        stamps |= {at, before}
    if world.entry is not None:
        stamps.add(world.entry[1])
    for process in world.processes:
        stamps |= {process.said, process.clock, process.floor, process.stamp}
        for at, _ in process.barriers:
            stamps.add(at)
        if process.held is not None:
            stamps.add(process.held[1])
    ordered = sorted(stamps)
    if ordered[-1] == len(ordered) - 1:
        return world  # they are numbered so already
    rank = {stamp: n for n, stamp in enumerate(ordered)}
    return world._replace(
        clock=rank[world.clock],
        told=rank[world.told],
        hard=rank[world.hard],
        news=tuple([(rank[s], rank[b], what) for s, b, what in world.news]),
        entry=None if world.entry is None else (world.entry[0], rank[world.entry[1]]),
        processes=tuple(
            [
                process._replace(
                    said=rank[process.said],
                    clock=rank[process.clock],
                    floor=rank[process.floor],
                    stamp=rank[process.stamp],
                    barriers=tuple([(rank[s], what) for s, what in process.barriers]),
                    held=None if process.held is None else (process.held[0], rank[process.held[1]]),
                )
                for process in world.processes
            ]
        ),
    )


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """All states stay and none is in a cycle: the collector would walk them again and again."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("by_tag", [False, True], ids=["key", "tag"])
@pytest.mark.parametrize(
    "crash_",
    [
        pytest.param("", id="calm"),
        pytest.param("all", id="forgets-all", marks=pytest.mark.slow),
        pytest.param("copy", id="old-copy", marks=pytest.mark.slow),
    ],
)
def test_in_no_order_is_anything_served_that_was_invalidated(by_tag: bool, crash_: str):
    assert check(Rules(by_tag=by_tag, writes=1 if crash_ else 2, crash=crash_)) > 1000


@pytest.mark.parametrize(
    ("broken", "crash_"),
    [
        ("the stamp is noted after loading", ""),
        ("a gap drops nothing", "all"),
        ("a restart is trusted", "copy"),
    ],
    ids=["late-stamp", "no-floor", "trusting"],
)
def test_a_rule_left_out_is_found_out(broken: str, crash_: str):
    with pytest.raises(AssertionError, match="invalidated"):
        check(Rules(writes=1, crash=crash_, broken=broken))
