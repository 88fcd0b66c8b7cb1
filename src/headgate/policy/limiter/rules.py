"""What every limiter is told, what it answers, and the shape they share.

Theory of operation. A limiter keeps one small state a key and decides hits in O(1). All six answer
in the same words, and these hold for each of them:

- `limit` is what can be had at once after a rest; `remaining` is what can be had at once now. It is
  never negative and never above `limit`.
- A refused hit charges nothing. A cost above `limit` can never be had: it is refused with
  `retry_after_s = inf`. A cost of 0 is a look: allowed, and nothing is written.
- `retry_after_s` is exact: the same hit, made alone, is refused before it and allowed from then on.
  `reset_s` is exact too: after it, and not before, the whole limit can be had. For concurrency
  nobody knows when a seat comes free; there both are a guess, `period_s`.
- `charge` is for costs known only afterwards (a response names its price): it takes also what is
  not there, as a debt of at most one `limit`, that has to be worked off before the next hit.
- `refund` undoes a charge and never lifts above full.
- `now` never goes back; equal times are usual. Times closer than `SLACK_S` are one time: sums of
  floating-point seconds are off by about as much after months of uptime.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal, Protocol

Algorithm = Literal[
    "gcra", "token_bucket", "sliding_window", "sliding_log", "fixed_window", "concurrency"
]

SLACK_S: Final = 1e-8

_BURSTING: Final = frozenset({"gcra", "token_bucket"})
_LOG_LIMIT_MAX: Final = 100_000
_PERIOD_MIN_S: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRules:
    """`limit` hits a key in `period_s` seconds."""

    limit: int
    """How many hits, or units of cost, a key has in a period; for `concurrency`, at one time."""
    period_s: float = 1.0
    """Length of the period. For `concurrency` it is only what a refused client is told to wait."""
    algorithm: Algorithm = "gcra"
    """`gcra` and `token_bucket` refill evenly. `fixed_window` counts in periods of the clock, so
    that twice the limit fits around an edge. `sliding_window` weighs the last period's count in;
    `sliding_log` remembers each hit, exact and dear. `concurrency` counts what is under way."""
    burst: int | None = None
    """How many can be had at once after a rest (`gcra`, `token_bucket`); `limit` if not given."""
    max_keys: int = 1_000_000
    """How many keys are kept at most."""

    @property
    def capacity(self) -> int:
        """What can be had at once after a rest."""
        return self.limit if self.burst is None else self.burst

    def problems(self) -> tuple[str, ...]:
        """Settings without sense, in words."""
        found: list[str] = []
        if self.limit < 1:
            found.append(f"limit={self.limit} refuses every hit; it must be at least 1")
        if not (self.period_s >= _PERIOD_MIN_S and isfinite(self.period_s)):
            found.append(
                f"period_s={self.period_s:g} must be finite and at least {_PERIOD_MIN_S:g} seconds"
            )
        if self.burst is not None:
            if self.algorithm not in _BURSTING:
                found.append(
                    f"burst={self.burst} has no meaning for {self.algorithm}; "
                    "only gcra and token_bucket have a burst"
                )
            if self.burst < 1:
                found.append(f"burst={self.burst} refuses every hit; it must be at least 1")
        if self.algorithm == "sliding_log" and self.limit > _LOG_LIMIT_MAX:
            found.append(
                f"sliding_log remembers every hit: limit={self.limit} may take "
                f"{self.limit * 8 // 1024} KiB a key; use gcra or sliding_window above "
                f"{_LOG_LIMIT_MAX}"
            )
        if self.max_keys < 1:
            found.append(f"max_keys={self.max_keys} keeps no key; it must be at least 1")
        return tuple(found)


@dataclass(slots=True)
class Verdict:
    """The answer to a hit."""

    allowed: bool
    limit: int
    """What can be had at once after a rest."""
    remaining: int
    """What can be had at once now, after this hit."""
    reset_s: float
    """When the whole limit can be had again, if nobody hits."""
    retry_after_s: float
    """When this hit would be allowed; 0 if it was, `inf` if it never will be."""


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """What an operator may ask about a limiter."""

    algorithm: Algorithm
    limit: int
    period_s: float
    capacity: int
    keys: int
    max_keys: int
    evicted: int
    """Keys dropped for want of room while they still counted; 0 unless `max_keys` is too low."""


class Limiter(Protocol):
    @property
    def rules(self) -> LimitRules: ...

    def __len__(self) -> int:
        """How many keys have a state, those that could be swept included."""
        ...

    def hit(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        """Take `cost`, if it is there."""
        ...

    def peek(self, key: Hashable, now: float, cost: int = 1) -> Verdict:
        """What `hit` would answer, with `remaining` and `reset_s` as they are; writes nothing."""
        ...

    def charge(self, key: Hashable, cost: int, now: float) -> None:
        """Take `cost` also where it is not there, into a debt of at most one limit."""
        ...

    def refund(self, key: Hashable, cost: int, now: float, at: float | None = None) -> None:
        """Undo a hit of `cost` made at `at`, or a moment ago. For concurrency: leave."""
        ...

    def clear(self, key: Hashable) -> None:
        """Forget the key, so that it is full."""
        ...

    def top(self, now: float, most: int, look: int = 100_000) -> list[tuple[Hashable, float]]:
        """The keys that have used most, with how much; of about `look` keys."""
        ...

    def sweep(self, now: float, most: int = 1000) -> int:
        """Look at `most` keys or fewer and drop those that are full; says how many were."""
        ...

    def take_rules(self, rules: LimitRules, now: float) -> None:
        """Go on under other rules of the same algorithm."""
        ...

    def snapshot(self, now: float) -> LimiterSnapshot: ...
