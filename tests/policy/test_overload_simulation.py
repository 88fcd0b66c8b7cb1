"""Whole worlds in virtual time, seeded: what shedding and the adaptive limit do under overload.

Two plants stand for the two ways in which a worker is overloaded. In `loop_plant` the event loop
itself is the bottleneck: everything waits in one line for it, also the timer, and saying no costs
a fiftieth of saying yes. In `pool_plant` the loop is quick but what it calls is not: calls stand
in the worker's line for one of a few servers.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from headgate.policy.adaptive import AdaptiveLimit, AdaptiveRules
from headgate.policy.answers import Rejected
from headgate.policy.bulkhead import Bulkhead, BulkheadRules, Seat
from headgate.policy.shed import Shedder, ShedRules

MIX = (0.05, 0.15, 0.5, 0.2, 0.1)
CAPACITY = 1000.0
REJECTING_S = 0.02 / CAPACITY
TICK_S = 0.05
USEFUL_S = 1.0
"""Who has waited longer than this has given up; the work was for nothing."""

CALM, OVER, END = 3.0, 15.0, 30.0
SETTLE_S = 2.0
"""Half load until CALM, overload until OVER, half load again until END. The
measuring begins SETTLE_S after CALM."""


def load_at(at: float, overload: float) -> float:
    return CAPACITY * (overload if CALM <= at < OVER else 0.5)


@dataclass
class Seen:
    good_at: list[float] = field(default_factory=list)
    """When answers were given that were still of use."""
    offered: list[int] = field(default_factory=lambda: [0] * 5)
    admitted: list[int] = field(default_factory=lambda: [0] * 5)
    waits: list[float] = field(default_factory=list)
    shed_until: float = 0.0

    def goodput(self, start: float, end: float) -> float:
        """As a share of capacity."""
        return sum(start <= at < end for at in self.good_at) / ((end - start) * CAPACITY)

    def p99(self) -> float:
        return sorted(self.waits)[int(len(self.waits) * 0.99)]

    def accepted(self, priority: int) -> float:
        return self.admitted[priority] / self.offered[priority]


def priority_of(rng: Random) -> int:
    return rng.choices(range(5), MIX)[0]


def loop_plant(shedder: Shedder | None, overload: float, seed: int) -> Seen:
    rng = Random(seed)
    seen = Seen()
    now = free_at = 0.0
    tick_at = TICK_S
    while now < END:
        now += rng.expovariate(load_at(now, overload))
        while shedder is not None and tick_at <= now:
            at = max(tick_at, free_at)
            shedder.tick(at, at - tick_at, 0)
            if shedder.is_shedding:
                seen.shed_until = at
            tick_at = at + TICK_S

        priority = priority_of(rng)
        begun_at = max(now, free_at)
        counts = CALM + SETTLE_S <= now < OVER
        seen.offered[priority] += counts
        if shedder is not None and shedder.admit(priority, begun_at, 0) is not None:
            free_at = begun_at + REJECTING_S
            continue
        free_at = begun_at + rng.expovariate(CAPACITY)
        seen.admitted[priority] += counts
        if free_at - now < USEFUL_S:
            seen.good_at.append(free_at)
        if counts:
            seen.waits.append(free_at - now)
    return seen


def pool_plant(shedder: Shedder, overload: float, seed: int, servers: int = 10) -> Seen:
    rng = Random(seed)
    seen = Seen()
    line = deque[float]()
    ends: list[tuple[float, float]] = []  # when a server is done, and when that call had come
    now = 0.0
    tick_at = TICK_S
    in_flight = 0
    arrives_at = 0.0

    def serve(at: float) -> None:
        while line and len(ends) < servers:
            came_at = line.popleft()
            shedder.waited(at - came_at, at)
            heapq.heappush(ends, (at + rng.expovariate(CAPACITY / servers), came_at))

    while now < END:
        now = min(arrives_at, tick_at, ends[0][0] if ends else END)
        if ends and ends[0][0] == now:
            _, came_at = heapq.heappop(ends)
            in_flight -= 1
            if now - came_at < USEFUL_S:
                seen.good_at.append(now)
            if CALM + SETTLE_S <= came_at < OVER:
                seen.waits.append(now - came_at)
        elif tick_at == now:
            shedder.tick(now, 0.0, in_flight)
            if shedder.is_shedding:
                seen.shed_until = now
            tick_at = now + TICK_S
        else:
            priority = priority_of(rng)
            counts = CALM + SETTLE_S <= now < OVER
            seen.offered[priority] += counts
            if shedder.admit(priority, now, in_flight) is None:
                seen.admitted[priority] += counts
                in_flight += 1
                line.append(now)
            arrives_at = now + rng.expovariate(load_at(now, overload))
        serve(now)
    return seen


PLANTS: dict[str, Callable[[Shedder, float, int], Seen]] = {
    "loop": loop_plant,
    "pool": pool_plant,
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("plant", PLANTS)
def test_at_three_times_overload_nine_tenths_of_capacity_are_of_use(plant, seed):
    seen = PLANTS[plant](Shedder(ShedRules(), 0.0), 3.0, seed)
    assert seen.goodput(CALM + SETTLE_S, OVER) >= 0.9
    assert seen.accepted(0) >= 0.97
    assert seen.accepted(1) >= 0.9
    assert seen.accepted(3) <= 0.1
    assert seen.accepted(4) <= 0.05
    assert seen.p99() < 0.4


def test_without_shedding_nothing_is_of_use():
    """What the plants are worth: unprotected, they collapse as real ones do."""
    seen = loop_plant(None, 3.0, 1)
    assert seen.goodput(CALM + SETTLE_S, OVER) < 0.01


@pytest.mark.parametrize("overload, least", [(1.2, 0.9), (6.0, 0.8)])
def test_little_and_great_overload_are_borne_as_well(overload, least):
    # At six times, a tenth of the loop's time goes to saying no.
    seen = loop_plant(Shedder(ShedRules(), 0.0), overload, 1)
    assert seen.goodput(CALM + SETTLE_S, OVER) >= least
    assert seen.accepted(0) >= 0.98


@pytest.mark.parametrize("plant", PLANTS)
def test_when_the_load_has_gone_everything_is_admitted_again_within_seconds(plant):
    seen = PLANTS[plant](Shedder(ShedRules(), 0.0), 3.0, 3)
    assert OVER < seen.shed_until < OVER + 5.0
    assert seen.goodput(OVER + 5.0, END - 1.0) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("plant", PLANTS)
def test_a_steady_load_below_capacity_is_never_shed(plant):
    seen = PLANTS[plant](Shedder(ShedRules(), 0.0), 0.6, 4)
    assert seen.shed_until == 0.0
    assert all(seen.accepted(priority) == 1.0 for priority in range(5))


# ---- the adaptive limit


@dataclass
class Service:
    """So many servers, each a call at a time, behind a bulkhead with an adaptive limit."""

    rules: AdaptiveRules
    seed: int
    servers: int = 40
    call_s: float = 0.05
    slower_at: float = math.inf
    limits: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    served: int = 0

    def run(self, load: float, until: float, measured_from: float) -> AdaptiveLimit:
        rng = Random(self.seed)
        adaptive = AdaptiveLimit(self.rules, 0.0)
        gate = Bulkhead("service", BulkheadRules(), 0.0, adaptive)
        line = deque[tuple[Seat, float]]()
        ends: list[tuple[float, int, Seat, float]] = []
        arrives_at = now = 0.0
        number = 0
        while now < until:
            now = min(arrives_at, ends[0][0] if ends else until)
            if ends and ends[0][0] == now:
                _, _, seat, came_at = heapq.heappop(ends)
                gate.leave(seat, now)
                if now >= measured_from:
                    self.served += 1
                    self.waits.append(now - came_at)
                    self.limits.append(gate.limit)
            else:
                got = gate.enter(now, None)
                if not isinstance(got, Rejected):
                    assert isinstance(got, Seat)
                    line.append((got, now))
                arrives_at = now + rng.expovariate(load * self.servers / self.call_s)
            while line and len(ends) < self.servers:
                seat, came_at = line.popleft()
                number += 1
                call_s = self.call_s * (2.0 if now >= self.slower_at else 1.0)
                heapq.heappush(ends, (now + rng.gammavariate(4, call_s / 4), number, seat, came_at))
        return adaptive

    def use(self, seconds: float) -> float:
        return self.served / seconds / (self.servers / self.call_s)


@pytest.mark.parametrize("algorithm", ["gradient", "aimd"])
def test_the_limit_finds_what_the_service_bears(algorithm):
    service = Service(AdaptiveRules(algorithm=algorithm, target_s=0.15), seed=1)
    service.run(3.0, until=50.0, measured_from=35.0)
    assert service.use(15.0) >= 0.95
    assert min(service.limits) >= 40
    assert max(service.limits) <= 110
    assert sum(service.waits) / len(service.waits) < 0.05 * 2.5


def test_the_limit_does_not_creep_up_under_lasting_overload():
    service = Service(AdaptiveRules(), seed=2, servers=10)
    service.run(3.0, until=300.0, measured_from=200.0)
    assert max(service.limits) <= 35


def test_a_service_that_becomes_slower_for_good_gets_its_limit_back():
    service = Service(AdaptiveRules(probe_s=15.0), seed=3, servers=20, slower_at=40.0)
    adaptive = service.run(3.0, until=100.0, measured_from=85.0)
    assert service.use(15.0) >= 0.45  # of what it could do when it was quick
    assert adaptive.snapshot(100.0).baseline_s == pytest.approx(0.1, rel=0.35)


def test_a_limit_that_is_not_used_stays_where_it_is_needed():
    service = Service(AdaptiveRules(), seed=4)
    service.run(0.5, until=60.0, measured_from=30.0)
    assert service.use(30.0) == pytest.approx(0.5, abs=0.03)
    assert max(service.limits) <= 80  # some twice of what is ever under way
