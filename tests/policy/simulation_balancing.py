"""A seeded simulation of a balanced service, in virtual time: no clock, no socket, no thread.

Requests arrive at random (Poisson) at one group. Each instance works on what it is given one at a
time, in order of arrival, and a request's latency is its time in the queue and its own. Everything
that happens comes off one heap in order of time, so thousands of instances take seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from headgate.policy.balancer.group import BalanceRules, Group, Member, MemberSpec


@dataclass(slots=True)
class Seen:
    """What came of a run."""

    served: Counter[str] = field(default_factory=Counter)
    latencies: list[tuple[float, str, float]] = field(default_factory=list)
    """When it arrived, where it went, how long it took."""
    in_flight_most: int = 0
    """The most that any one instance had."""
    unserved: int = 0

    def percentile(self, share: float, since: float = 0.0) -> float:
        took = sorted(took_s for at, _, took_s in self.latencies if at >= since)
        return took[int(share * (len(took) - 1))]

    def share_of(self, ids: Sequence[str], since: float = -1.0, until: float = 1e9) -> float:
        wanted = set(ids)
        there = [where in wanted for at, where, _ in self.latencies if since < at <= until]
        return sum(there) / len(there)


class Simulation:
    """`work_s(id, rng)` is how long one request keeps an instance busy."""

    def __init__(
        self,
        rules: BalanceRules,
        specs: Sequence[MemberSpec],
        work_s: Callable[[str, Random], float],
        seed: int = 1,
    ) -> None:
        self.rng = Random(seed)
        self.group = Group(rules, specs, 0.0, Random(seed + 1))
        self.now = 0.0
        self.seen = Seen()
        self._work_s = work_s
        self._free_at: dict[str, float] = {}
        self._ends: list[tuple[float, int, float, Member]] = []
        self._number = 0

    def run(self, requests: int, per_s: float, keys: Sequence[int] = ()) -> Seen:
        """That many more requests."""
        for _ in range(requests):
            self.now += self.rng.expovariate(per_s)
            self._finish(self.now)
            member = self.group.pick(self.now, self.rng.choice(keys) if keys else 0)
            if member is None:
                self.seen.unserved += 1
            else:
                self._give(member)
        return self.seen

    def finish_all(self) -> Seen:
        self._finish(float("inf"))
        return self.seen

    def _give(self, member: Member) -> None:
        self.group.started(member)
        self.seen.in_flight_most = max(self.seen.in_flight_most, member.in_flight)
        begins = max(self.now, self._free_at.get(member.id, 0.0))
        ends = begins + self._work_s(member.id, self.rng)
        self._free_at[member.id] = ends
        self._number += 1
        heappush(self._ends, (ends, self._number, self.now, member))
        self.seen.served[member.id] += 1

    def _finish(self, until: float) -> None:
        while self._ends and self._ends[0][0] <= until:
            ends, _, arrived, member = heappop(self._ends)
            self.group.finished(member, ends - arrived, False, ends)
            self.seen.latencies.append((arrived, member.id, ends - arrived))


def pick(group: Group, now: float = 0.0, key: int = 0, excluded: Collection[Member] = ()) -> Member:
    """A member, where there must be one."""
    member = group.pick(now, key, excluded)
    if member is None:
        raise AssertionError("nobody was picked")
    return member


def specs_of(count: int, weight: int = 1, priority: int = 0, zone: str = "") -> list[MemberSpec]:
    return [MemberSpec(f"{zone}{priority}-{at}", weight, priority, zone) for at in range(count)]


def is_spread_by(counts: Counter[str], weights: dict[str, float]) -> bool:
    """Pearson's chi-square test, at a bound that chance passes about once in a million.

    With k degrees of freedom the statistic has mean k and variance 2k; six standard deviations and
    a constant for the heavy tail of small k bound it.
    """
    total, sum_of_weights = counts.total(), sum(weights.values())
    expected = {name: total * weight / sum_of_weights for name, weight in weights.items() if weight}
    if counts.keys() - expected.keys() or min(expected.values()) < 5:
        return False
    statistic = sum((counts[name] - mean) ** 2 / mean for name, mean in expected.items())
    freedom = len(expected) - 1
    return statistic <= freedom + 6 * (2 * freedom) ** 0.5 + 12
