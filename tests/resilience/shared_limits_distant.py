"""A ledger for tests of shared limits, which does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from headgate.policy.limiter import Ask, Back, LimitRules, Verdict
from headgate.state.home import HomeAway, LimitAsk, LimitGrant
from headgate.state.memory import MemoryShared
from tests.resilience.virtual import Time

LONG_S: Final = 5.0
"""All leases have run out by then."""
RATES: Final = ("gcra", "token_bucket", "sliding_window", "sliding_log", "fixed_window")


def allowed(verdicts: Iterable[Verdict]) -> list[bool]:
    return [one.allowed for one in verdicts]


class Distant:
    """A home that can be slow, away, or broken; `far` is another member of the same ledger."""

    def __init__(self, time: Time) -> None:
        self.far = MemoryShared(time.clock)
        self.near = self.far.join()
        self.is_away = False
        self.is_broken = False
        self.go = asyncio.Event()
        self.go.set()
        self.asked: list[LimitAsk] = []
        self.returned: list[tuple[str, Back]] = []
        self.holders = 1

    async def take(self, asks: Sequence[LimitAsk]) -> list[LimitGrant]:
        if self.is_away:
            raise HomeAway("told so")
        if self.is_broken:
            raise ValueError("broken")
        self.asked += asks
        grants = await self.near.take(asks)
        await self.go.wait()
        if self.is_away:
            raise HomeAway("told so meanwhile")
        return grants

    def give_back(self, backs: Sequence[tuple[str, Back]]) -> None:
        self.returned += backs
        self.near.give_back(backs)

    async def left(self, rule: str, rules: LimitRules, key: str = "") -> int:
        """What the ledger has left."""
        (grant,) = await self.far.take([LimitAsk(rule, rules, Ask(key, 0, 0))])
        return grant.remaining

    def waiting(self) -> int:
        """Hits that have been asked for."""
        return sum(one.ask.least > 0 for one in self.asked)
