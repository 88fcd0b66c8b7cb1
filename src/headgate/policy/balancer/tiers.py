"""How traffic is shared out between tiers of priority and between zones, by what is usable.

Theory of operation
-------------------
All shares are shares of weight, not of heads, and an instance of weight 0 counts nowhere.

A tier *reaches* its usable share over `spill`, at most 1: with spill at 0.7, a tier with 70 % or
more of its weight usable reaches all the traffic, one with 35 % reaches half. Tiers are filled in
order of priority, each up to its reach, until the traffic is used up. If all tiers together do
not reach 1 the shares are scaled up, for the traffic has to go somewhere. This is how Envoy does
it, with 1 / spill for its overprovisioning factor.

*Panic.* When so much of a tier is out, the checks may be what is broken, or the rest would be
overrun by traffic meant for all. A tier is in panic when its usable share is under `panic` and the
tiers together do not reach 1: while a backup can take the traffic there is no need to try what is
probably dead. In panic all members of the tier are used, in all zones. If nothing at all is usable
the first tier is used in panic, or, with panic off, nothing is.

*Zones.* Within a tier the own zone reaches its usable share over `zone_spill` in the same way, and
other zones get the rest. What is not considered is how much traffic other gateways send: an own
zone with one instance of thirty takes all the traffic of the gateways in that zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["TierShare", "Weights", "share_of_own_zone", "shares_of_tiers"]

_ENOUGH: Final = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Weights:
    """Of a tier or of a zone in it."""

    usable: float
    all: float

    @property
    def usable_share(self) -> float:
        return self.usable / self.all if self.all else 0.0


@dataclass(frozen=True, slots=True)
class TierShare:
    share: float
    is_panicking: bool


def shares_of_tiers(tiers: Sequence[Weights], spill: float, panic: float) -> list[TierShare]:
    """What each tier gets of all traffic, in the given order of priority."""
    reaches = [min(1.0, tier.usable_share / spill) for tier in tiers]
    reach = sum(reaches)
    if reach >= _ENOUGH:
        left = 1.0
        filled = []
        for each in reaches:
            part = min(left, each)
            left -= part
            filled.append(TierShare(part, False))
        return filled
    if reach > 0:
        return [
            TierShare(each / reach, 0 < tier.usable_share < panic)
            for each, tier in zip(reaches, tiers, strict=True)
        ]
    first = next((at for at, tier in enumerate(tiers) if tier.all), -1) if panic else -1
    return [TierShare(float(at == first), at == first) for at in range(len(tiers))]


def share_of_own_zone(own: Weights, others: Weights, zone_spill: float) -> float:
    """What the own zone gets of its tier's traffic. Something in the tier is usable."""
    if not own.usable:
        return 0.0
    if not others.usable:
        return 1.0
    return min(1.0, own.usable_share / zone_spill)
