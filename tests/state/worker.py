"""A worker as the gateway is one: it leases from a home, and notes when what passed."""

from __future__ import annotations

import asyncio
import random
import time

from headgate.policy.limiter.lease import Ask, LeaseRules, leased_of
from headgate.policy.limiter.rules import LimitRules, Verdict
from headgate.state.home import HomeAway, LimitAsk, LimitHome

TURN_S = 0.02


class Worker:
    def __init__(self, home: LimitHome, rules: LimitRules, lease: LeaseRules) -> None:
        self.home = home
        self.rules = rules
        self.leased = leased_of(rules, lease, holders=home.holders)
        self.passed: list[float] = []
        self.refused = 0
        self.alone = 0
        """Hits that were decided without the home."""
        self.under_way = 0
        self.most_under_way = 0

    async def hit(self, key: str = "k") -> bool:
        now = time.monotonic()
        got = self.leased.hit(key, now)
        verdict = await self._ask(got) if isinstance(got, Ask) else got
        if verdict.allowed:
            self.passed.append(time.monotonic())
        else:
            self.refused += 1
        return verdict.allowed

    async def _ask(self, ask: Ask) -> Verdict:
        try:
            (grant,) = await self.home.take([LimitAsk("r", self.rules, ask)])
        except HomeAway:
            self.alone += 1
            return self.leased.fail(ask, time.monotonic())
        return self.leased.take(ask, grant, time.monotonic())

    async def turn(self) -> None:
        now = time.monotonic()
        if self.home.is_away:
            self.leased.away(now)
        else:
            self.leased.back(now)
        self.leased.holders = self.home.holders
        self.home.give_back([("r", back) for back in self.leased.expired(now)])
        asks = self.leased.wants(now)
        if asks:
            try:
                grants = await self.home.take([LimitAsk("r", self.rules, ask) for ask in asks])
            except HomeAway:
                for ask in asks:
                    self.leased.fail(ask, time.monotonic())
            else:
                for ask, grant in zip(asks, grants, strict=True):
                    self.leased.take(ask, grant, time.monotonic())

    async def load(self, per_s: float, for_s: float, rng: random.Random) -> None:
        """Hits at random moments, and turns between them."""
        ends = time.monotonic() + for_s
        async with asyncio.TaskGroup() as group:
            group.create_task(self._turns(ends))
            at = time.monotonic()
            while at < ends:
                at += rng.expovariate(per_s)
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                group.create_task(self.hit())

    async def _turns(self, ends: float) -> None:
        while time.monotonic() < ends:
            await self.turn()
            await asyncio.sleep(TURN_S)


def worst_excess(passed: list[float], capacity: float, per_s: float) -> float:
    """By how many hits some stretch of time had more than `capacity + per_s x its length`.

    With `level` the fill of a bucket that drains at `per_s`, that is how far it ran over.
    """
    level = most = 0.0
    last = passed[0] if passed else 0.0
    for at in passed:
        level = max(0.0, level - (at - last) * per_s) + 1
        last = at
        most = max(most, level)
    return most - capacity


def most_in_window(passed: list[float], window_s: float) -> int:
    """The most hits in any stretch of that length."""
    most = begin = 0
    for end, at in enumerate(passed):
        while passed[begin] <= at - window_s:
            begin += 1
        most = max(most, end - begin + 1)
    return most
