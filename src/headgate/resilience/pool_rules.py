"""How a pool of resources is to behave, what it says of itself, and what it raises."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.errors import HeadgateError
from headgate.resilience.errors import Refused, TimedOut

__all__ = [
    "PoolClosed",
    "PoolFull",
    "PoolOpenFailed",
    "PoolRules",
    "PoolSnapshot",
    "PoolTimedOut",
]


class PoolFull(Refused):
    """Everything is lent and the line before it is full."""


class PoolClosed(Refused):
    """It lends nothing more."""


class PoolOpenFailed(HeadgateError):
    """The callable that opens a resource ended without one and without an error of its own."""


class PoolTimedOut(TimedOut):
    """Nothing became free in time."""

    def __init__(self, name: str, after_s: float, state: str) -> None:
        self.name = name
        self.after_s = after_s
        self.state = state
        super().__init__(name, after_s, state)

    def __str__(self) -> str:
        return f"{self.name}: nothing became free within {self.after_s:g}s ({self.state})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRules:
    max_size: int = 10
    min_idle: int = 0
    """Kept ready even when nobody asks."""
    max_waiting: int = 100
    acquire_timeout_s: float = 5.0
    """How long to stand in line at most; the deadline of the caller may be sooner."""
    open_timeout_s: float = 5.0
    check_timeout_s: float = 2.0
    close_timeout_s: float = 5.0
    check_after_s: float = 30.0
    """Idle for this long, a resource is checked before it is lent."""
    max_idle_s: float = 300.0
    max_lifetime_s: float = 3600.0
    lifetime_jitter: float = 0.1
    """Up to this share of its lifetime is taken off each."""

    def problems(self) -> tuple[str, ...]:
        found = []
        if self.max_size < 1:
            found.append(f"max_size={self.max_size} could lend nothing")
        elif not 0 <= self.min_idle <= self.max_size:
            found.append(f"min_idle={self.min_idle} must lie between 0 and max_size")
        if self.max_waiting < 0:
            found.append(f"max_waiting={self.max_waiting} must not be negative")
        for name in (
            "acquire_timeout_s",
            "open_timeout_s",
            "check_timeout_s",
            "close_timeout_s",
            "max_idle_s",
            "max_lifetime_s",
        ):
            if not getattr(self, name) > 0.0:
                found.append(f"{name}={getattr(self, name):g} must be above 0")
        if self.check_after_s < 0.0:
            found.append(f"check_after_s={self.check_after_s:g} must not be negative")
        if not 0.0 <= self.lifetime_jitter < 1.0:
            found.append(f"lifetime_jitter={self.lifetime_jitter:g} is no share below 1")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    name: str
    max_size: int
    size: int
    idle: int
    lent: int
    opening: int
    checking: int
    closing: int
    waiting: int
    lent_longest_s: float
    opened: int
    """Ever, as all that follow."""
    reused: int
    closed: int
    open_failed: int
    check_failed: int
    close_failed: int
    timed_out: int
    rejected: int
    late: int
    """Leases given back twice, or after the pool had taken them back itself."""
