"""How instances of a service are chosen: the settings, their defaults, and what is senseless."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ["BalanceBy", "BalanceRules"]

BalanceBy = Literal[
    "round_robin",
    "least_connections",
    "power_of_two",
    "peak_ewma",
    "consistent_hash",
    "random",
]

_NAMES: Final = get_args(BalanceBy)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceRules:
    by: BalanceBy = "round_robin"
    slow_start_s: float = 0.0
    """How long an instance that joined or came back takes from a tenth of its weight to all of
    it. The consistent hash has none: moving keys twice would cost more than it saves."""
    bound: float = 1.25
    """Consistent hash: an instance takes at most this many times the average in flight, and the
    next on the ring takes what is more. 0 is no bound."""
    bound_from: int = 8
    """Consistent hash: the bound counts from this many requests in flight on. Below it the average
    is mostly chance, and the parallel requests of one page would be torn apart."""
    decay_s: float = 10.0
    """Peak EWMA: how long a latency is remembered."""
    panic: float = 0.5
    """Usable share of a tier's weight under which its health is not believed and all its members
    are used, unless other tiers can take the traffic. 0 is never."""
    spill: float = 0.7
    """Usable share of a tier's weight under which the next tier takes a part. (0.7 is an
    overprovisioning factor of 1.4 in Envoy's words.)"""
    zone: str = ""
    """Where this gateway is; instances of the same zone are preferred. Empty: no preference."""
    zone_spill: float = 0.7
    """Usable share of the own zone's weight under which other zones take a part."""

    def problems(self) -> tuple[str, ...]:
        """Settings that cannot work or have no effect, in words."""
        found = []
        if self.by not in _NAMES:
            found.append(f"by is {self.by!r}; it may be {', '.join(_NAMES)}")
        if not 0 <= self.slow_start_s < math.inf:
            found.append(f"slow_start_s is {self.slow_start_s}; it must be 0 or more")
        if self.slow_start_s > 0 and self.by == "consistent_hash":
            found.append("slow_start_s has no effect with consistent_hash")
        if self.bound != 0 and not 1 < self.bound < math.inf:
            found.append(
                f"bound is {self.bound}; it must be over 1, because somebody has to take"
                " more than the average, or 0 for no bound"
            )
        if self.bound_from < 0:
            found.append(f"bound_from is {self.bound_from}; it must be 0 or more")
        if not 0 < self.decay_s < math.inf:
            found.append(f"decay_s is {self.decay_s}; it must be more than 0")
        if not 0 <= self.panic <= 1:
            found.append(f"panic is {self.panic}; a share is from 0 to 1")
        for name, share in (("spill", self.spill), ("zone_spill", self.zone_spill)):
            if not 0 < share <= 1:
                found.append(f"{name} is {share}; it must be more than 0 and at most 1")
        if 0 < self.spill < self.panic <= 1:
            found.append(
                f"panic of {self.panic} is over spill of {self.spill}: a tier with {self.spill}"
                " or more of its weight usable takes all traffic and is never in panic"
            )
        return tuple(found)
