"""The one of two that is likely to answer sooner: by a moving average of latency, and load.

Theory of operation
-------------------
Two candidates are drawn in proportion to weight (as in `power_of_two.py`), and the lower cost wins:

    cost = latency * (in_flight * burden + 1)

With equal weights that is Finagle's latency * (in_flight + 1). Weight counts for what an instance
can do at once, not for how soon it answers: an idle group prefers the quick, a busy one fills by
weight.

*Latency* is an average that goes up at once and comes down slowly: a result over it replaces it,
one under it moves it by 1 - exp(-dt / decay_s), dt being the time since the last result. So an
instance that turns slow is avoided from its first slow answer on.

- A failure counts as twice what was expected, or what it took if that is more: an instance that
  refuses connections in no time must not look quick. Failures in a row double it, up to
  `_FAILED_MOST` times the typical latency.
- While nothing is in flight there, latency fades by exp(-idle / decay_s): who is avoided gets a
  request some time, to show that it is better. Fading is not stored. Once that one request is on
  its way the full latency counts again, so a frozen instance gets one request at a time, not all
  of them until the first has timed out. (Finagle fades it all the same.)
- A member that has not been measured counts with the typical latency of its pool, a slow average
  over all results. Were it nought, a newcomer would get all the traffic until its first answer.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection
from math import exp
from random import Random
from typing import Final

from headgate.policy.balancer.member import Member
from headgate.policy.balancer.power_of_two import PowerOfTwo
from headgate.policy.balancer.rules import BalanceRules

__all__ = ["PeakEwma"]

_LEAST_S: Final = 1e-4  # so that load counts even where all answer in no time
_UNKNOWN_S: Final = 0.1  # what a first failure is doubled from when nothing has ever succeeded
_FAILED_MOST: Final = 20.0
_TYPICAL_STEP: Final = 0.02


class PeakEwma(PowerOfTwo):
    __slots__ = ("_rate", "_typical_s")

    LISTENS = True

    def __init__(self, rules: BalanceRules, rng: Random) -> None:
        super().__init__(rules, rng)
        self._rate = 1 / rules.decay_s
        self._typical_s = 0.0
        """0.0 until something has succeeded."""

    def pick(self, now: float, key: int, excluded: Collection[Member]) -> Member | None:
        size = self._size
        if excluded or size < 2:
            pair = self.pair(excluded)
            if pair is None:
                return None
            one, two = pair
        elif self._sums is None:
            chance = self._chance
            first = int(chance() * size)
            second = int(chance() * (size - 1))
            one = self.members[first]
            two = self.members[second + 1 if second >= first else second]
        else:
            chance = self._chance
            one = self.members[bisect(self._sums, chance() * self._total)]
            two = self.members[bisect(self._sums, chance() * self._total)]
            if two is one:
                two = self.another(one, ())
        return two if self._cost(two, now) < self._cost(one, now) else one

    def _cost(self, member: Member, now: float) -> float:
        latency_s = member.ewma_s
        in_flight = member.in_flight
        if not latency_s:
            latency_s = self._typical_s or _LEAST_S
        elif not in_flight:
            return latency_s * exp((member.seen_at - now) * self._rate)
        return latency_s * (in_flight * member.burden + 1)

    def finished(self, member: Member, took_s: float, failed: bool, now: float) -> None:
        known_s = member.ewma_s
        took_s = max(took_s, _LEAST_S)
        if failed:
            usual_s = self._typical_s or _UNKNOWN_S
            worse_s = 2 * (known_s or usual_s)
            took_s = max(took_s, min(worse_s, _FAILED_MOST * usual_s))
        elif self._typical_s:
            self._typical_s += (took_s - self._typical_s) * _TYPICAL_STEP
        else:
            self._typical_s = took_s
        if took_s >= known_s:
            member.ewma_s = took_s
        else:
            kept = exp((member.seen_at - now) * self._rate)
            member.ewma_s = took_s + (known_s - took_s) * kept
        member.seen_at = now
