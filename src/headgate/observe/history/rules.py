"""How long and how much is kept, and what is brought to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["TIERS", "Family", "Keep", "KeepRules", "Scrape", "Tier"]

Kind = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Tier:
    name: str
    each_s: float
    """How much time one sample stands for."""
    block_s: float
    """How much time one file holds."""


TIERS: Final = (Tier("1s", 1.0, 60.0), Tier("1min", 60.0, 3600.0), Tier("1h", 3600.0, 86400.0))


@dataclass(frozen=True, slots=True)
class KeepRules:
    """How long samples of each tier are kept."""

    seconds_s: float = 6 * 3600.0
    minutes_s: float = 7 * 86400.0
    hours_s: float = 365 * 86400.0

    @property
    def by_tier(self) -> tuple[float, float, float]:
        return (self.seconds_s, self.minutes_s, self.hours_s)


@dataclass(frozen=True, slots=True)
class Keep:
    """The bounds of a store."""

    every_s: float = 1.0
    disk_bytes: int = 512_000_000
    keep: KeepRules = KeepRules()
    max_series: int = 50_000
    max_memory_bytes: int = 64_000_000
    """Of sealed blocks that cannot be written."""


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one name at one moment, by the values of its labels."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    samples: Mapping[tuple[str, ...], float]
    from_zero: bool = False
    """Whether its series are there from their first count on, and were 0 before."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """A service whose instances show figures of their own."""

    service: str
    path: str = "/metrics"
    every_s: float = 15.0
    max_series: int = 2000
