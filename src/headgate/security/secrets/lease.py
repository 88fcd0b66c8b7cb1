"""How long something lent lives: a token, or database credentials. Pure; times are monotonic.

Theory of operation
-------------------
    granted ----- 2/3 of its time ----> renew ----> granted for as long again
                                          |
                                          +-------> granted for less: its longest life is near,
                                                    nothing will make it longer. Replace it now,
                                                    while the rest of its time lets users finish
                                          +-------> no answer: again soon, until it ends

The time counts from before the request, so a slow answer never makes a lease look longer than
it is.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["Lease", "pause_s", "seconds_of"]

_SHARE = 2.0 / 3.0
_FULL = 0.9
"""A renewal that brings less than this share of the first time has met the longest life."""


@dataclass(frozen=True, slots=True)
class Lease:
    granted_at: float
    ttl_s: float
    """0.0: it does not end."""
    first_ttl_s: float

    @classmethod
    def of(cls, granted_at: float, ttl_s: float) -> Lease:
        return cls(granted_at, ttl_s, ttl_s)

    @property
    def is_endless(self) -> bool:
        return self.ttl_s <= 0.0

    @property
    def renew_at(self) -> float:
        return float("inf") if self.is_endless else self.granted_at + self.ttl_s * _SHARE

    @property
    def expires_at(self) -> float:
        return float("inf") if self.is_endless else self.granted_at + self.ttl_s

    @property
    def is_ending(self) -> bool:
        """It cannot be made longer any more."""
        return not self.is_endless and self.ttl_s < self.first_ttl_s * _FULL

    def renewed(self, granted_at: float, ttl_s: float) -> Lease:
        return Lease(granted_at, ttl_s, self.first_ttl_s)


def seconds_of(value: object) -> float:
    """A time to live as a server says it. Raises ValueError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    if not 0 <= value < math.inf:
        raise ValueError("no time")
    return float(value)


def pause_s(failures: int, left_s: float, rng: random.Random) -> float:
    """How long to wait after so many failures in a row, when so much time is left: short
    against what is left, longer from one to the next, and never twice the same for a fleet.
    """
    longest = min(30.0, 0.25 * 2.0 ** min(failures, 10), max(0.1, left_s / 4.0))
    return longest * rng.uniform(0.5, 1.0)
