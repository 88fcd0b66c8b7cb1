"""A home and its workers in virtual time: messages take time, clocks differ, turns are taken."""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import count
from typing import Any

from headgate.policy.limiter import Ask, LeaseRules, LimitRules, home_of, leased_of


class Fleet:
    def __init__(
        self,
        rules: LimitRules,
        lease: LeaseRules,
        workers: int,
        *,
        way_s: float = 0.001,
        start: float = 1_000.0,
        home_clock: float = 31_000.0,
    ):
        self.rules = rules
        self.lease = lease
        self.way_s = way_s
        self.now = start
        self.home_clock = home_clock
        """The home's clock less that of the workers."""
        self.home = home_of(rules, lease)
        self.workers = [leased_of(rules, lease, workers) for _ in range(workers)]
        self.dead: set[int] = set()
        self.cut: set[int] = set()
        """Workers whose messages are lost; an ask of theirs fails after a moment."""
        self.passed: list[tuple[float, str, int]] = []
        """When by the home's clock, key, cost. A hit that waited counts when it was charged."""
        self.refused: list[tuple[float, str, int]] = []
        self.sent = Counter[str]()
        self.under_way = Counter[str]()
        """Seats taken and not left."""
        self._events: list[tuple[float, int, Any]] = []
        self._order = count()
        for at in range(workers):
            self._later(start + lease.ttl_s / 4 * (at + 1) / workers, self._turn, at)

    # ---- the clock

    def _later(self, at, do, *args):
        heapq.heappush(self._events, (at, next(self._order), (do, args)))

    def at(self, when, do, *args):
        self._later(when, do, *args)

    def run(self, until):
        while self._events and self._events[0][0] <= until:
            self.now, _, (do, args) = heapq.heappop(self._events)
            do(*args)
        self.now = until

    # ---- what happens

    def hit(self, worker, key="key", cost=1, done=None):
        if worker in self.dead:
            return
        got = self.workers[worker].hit(key, self.now, cost)
        if isinstance(got, Ask):
            self._send(worker, got, done)
        else:
            self._decided(worker, key, cost, got, self.now + self.home_clock, done)

    def leave(self, worker, key="key", cost=1):
        if worker not in self.dead:
            self.under_way[key] -= cost
            self.workers[worker].refund(key, cost, self.now)

    def _decided(self, worker, key, cost, verdict, at, done):
        (self.passed if verdict.allowed else self.refused).append((at, key, cost))
        if verdict.allowed:
            self.under_way[key] += cost
        if done is not None:
            done(worker, verdict)

    def _send(self, worker, ask, done=None):
        self.sent["asks"] += 1
        if ask.least:
            self.sent["waited"] += 1
        if worker in self.cut:
            self._later(self.now + 10 * self.way_s, self._lost, worker, ask, done)
        else:
            self._later(self.now + self.way_s, self._at_home, worker, ask, done)

    def _lost(self, worker, ask, done):
        if worker in self.dead:
            return
        verdict = self.workers[worker].fail(ask, self.now)
        if ask.least:
            self._decided(worker, ask.key, ask.cost, verdict, self.now + self.home_clock, done)

    def _at_home(self, worker, ask, done):
        now = self.now + self.home_clock
        grant = self.home.grant(
            ask.key, ask.want, ask.least, str(worker), now, ask.owed, ask.holding
        )
        self._later(self.now + self.way_s, self._answered, worker, ask, grant, done)

    def _answered(self, worker, ask, grant, done):
        if worker in self.dead:
            return
        verdict = self.workers[worker].take(ask, grant, self.now)
        if ask.least:
            self._decided(worker, ask.key, ask.cost, verdict, grant.at, done)

    def _turn(self, worker):
        if worker in self.dead:
            return
        self._later(self.now + self.lease.ttl_s / 4, self._turn, worker)
        leased = self.workers[worker]
        for back in leased.expired(self.now):
            self.sent["backs"] += 1
            if worker not in self.cut:
                self._later(self.now + self.way_s, self._back_home, worker, back)
        for ask in leased.wants(self.now):
            self._send(worker, ask)

    def _back_home(self, worker, back):
        now = self.now + self.home_clock
        self.home.give_back(back.key, back.n, now, str(worker), back.at)

    def lose(self, workers):
        for worker in workers:
            self.cut.add(worker)
            self.workers[worker].away(self.now)

    def find(self, workers):
        for worker in workers:
            self.cut.discard(worker)
            self.workers[worker].back(self.now)


def overshoot(rules: LimitRules, passed: list[tuple[float, str, int]]) -> float:
    """By how much more passed, in the worst stretch of time, than the algorithm allows."""
    worst = 0.0
    for key in {key for _, key, _ in passed}:
        times = sorted((at, cost) for at, name, cost in passed if name == key)
        worst = max(worst, _OVERSHOOT[rules.algorithm](rules, times))
    return worst


def _of_bucket(rules, times):
    rate = rules.limit / rules.period_s
    worst = level = 0.0
    before = times[0][0]
    for at, cost in times:
        level = max(0.0, level - (at - before) * rate) + cost
        before = at
        worst = max(worst, level - rules.capacity)
    return worst


def _of_log(rules, times):
    worst = begin = used = 0
    for at, cost in times:
        used += cost
        while times[begin][0] <= at - rules.period_s + 1e-6:
            used -= times[begin][1]
            begin += 1
        worst = max(worst, used - rules.limit)
    return worst


def _windows(rules, times):
    counts = Counter[int]()
    for at, cost in times:
        counts[int((at + 1e-8) / rules.period_s)] += cost
    return counts


def _of_fixed(rules, times):
    return max(_windows(rules, times).values()) - rules.limit


def _of_sliding(rules, times):
    worst = 0.0
    counts = Counter[int]()
    for at, cost in times:
        window = int((at + 1e-8) / rules.period_s)
        counts[window] += cost
        part = window + 1 - at / rules.period_s
        worst = max(worst, counts[window] + counts[window - 1] * part - rules.limit)
    return worst


_OVERSHOOT = {
    "gcra": _of_bucket,
    "token_bucket": _of_bucket,
    "sliding_log": _of_log,
    "sliding_window": _of_sliding,
    "fixed_window": _of_fixed,
}
