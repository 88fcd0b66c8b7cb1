"""When to ask a second instance: after the time in which most calls have long been answered.

Theory of operation. `record` counts the latency of a successful attempt in a histogram of
`_PLACES` places on a log scale, each ten per cent wide, from 0.1 ms to 100 s. New counts weigh
more than old ones: the weight of a call doubles every `half_life_s`, which is the same as halving
all that is already there, without touching it. The percentile is not worked out when somebody
asks but every `_EVERY` records or every eighth of a half-life, whichever comes first; asking is
reading an attribute.

Without news the count decays as well: after some half-lives in silence there are no longer
`minimum_calls` worth of it, and hedging waits for fresh ones.

What the caller must keep to:
- Failures are not recorded. A fast refusal says nothing about how long an answer takes.
- An attempt that is given up because the other one answered first is recorded with the time it
  had been out. Left out, the slow ones would be missing, the percentile would sink, and there
  would be ever more hedges.
- Each hedge is taken from the retry budget, so that a service which is slow as a whole is not
  asked twice by everybody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["HedgeDelay", "HedgeRules", "HedgeSnapshot"]

_GROWTH: Final = 1.1
_FIRST_S: Final = 0.0001
_BOUNDS: Final = tuple(_FIRST_S * _GROWTH**place for place in range(146))  # the last is > 100 s
_PLACES: Final = len(_BOUNDS) + 1
_EVERY: Final = 64
_HALVINGS_MAX: Final = 64.0  # then the weights are brought down, far from where floats end


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeRules:
    after_s: float | None = None
    """A fixed delay; without one the live percentile decides."""
    percentile: float = 0.95
    """The share of calls that have been answered by then, so the rest is what is asked twice."""
    most: int = 1
    """Further attempts beside the first, each after one more delay."""
    minimum_calls: int = 50
    """Successful calls within some half-lives before the percentile is trusted."""
    least_s: float = 0.001
    """Never sooner: below this a second attempt costs more than the wait."""
    half_life_s: float = 60.0

    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.after_s is not None and not self.after_s > 0.0:
            yield f"after_s={self.after_s:g}: a hedge at once doubles every call"
        if not 0.0 < self.percentile < 1.0:
            yield f"percentile={self.percentile:g} must lie between 0 and 1"
        elif self.after_s is None and self.percentile < 0.5:
            yield f"percentile={self.percentile:g} would ask twice for more than half of the calls"
        if self.most < 1:
            yield f"most={self.most} never hedges; leave hedging out instead"
        if self.minimum_calls < 1:
            yield f"minimum_calls={self.minimum_calls} must be at least 1"
        if self.least_s < 0.0:
            yield f"least_s={self.least_s:g} must not be negative"
        if not self.half_life_s > 0.0:
            yield f"half_life_s={self.half_life_s:g} must be above 0"


@dataclass(frozen=True, slots=True)
class HedgeSnapshot:
    delay_s: float | None
    calls: float
    """What the calls seen count for, the older the less."""


class HedgeDelay:
    __slots__ = ("_counts", "_delay_s", "_due", "_left", "_rules", "_start", "_weight")

    def __init__(self, rules: HedgeRules, now: float) -> None:
        if problems := rules.problems():
            raise ValueError("; ".join(problems))
        self._rules = rules
        self._counts = [0.0] * _PLACES
        self._start = now
        """When a call weighed 1."""
        self._weight = 1.0
        self._left = _EVERY
        self._due = now + rules.half_life_s / 8
        self._delay_s = rules.after_s

    def record(self, took_s: float, now: float) -> None:
        if self._left <= 0 or now >= self._due:
            self._renew(now)  # before counting: after a silence the old weight is too small
        self._left -= 1
        self._counts[bisect_left(_BOUNDS, took_s)] += self._weight

    def delay_s(self, now: float) -> float | None:
        """How long to wait before asking another instance; None: not yet known, do not hedge."""
        if now >= self._due:
            self._renew(now)
        return self._delay_s

    def take_rules(self, rules: HedgeRules, now: float) -> None:
        """The latencies counted so far are kept; the delay is worked out anew from them."""
        if problems := rules.problems():
            raise ValueError("; ".join(problems))
        self._rebase(now)
        self._rules = rules
        self._renew(now)

    def snapshot(self, now: float) -> HedgeSnapshot:
        self._renew(now)
        return HedgeSnapshot(self._delay_s, sum(self._counts) / self._weight)

    def _renew(self, now: float) -> None:
        rules = self._rules
        self._left = _EVERY
        self._due = now + rules.half_life_s / 8
        halvings = (now - self._start) / rules.half_life_s
        if halvings > _HALVINGS_MAX:
            self._rebase(now)
        else:
            self._weight = 2.0**halvings
        if rules.after_s is not None:
            self._delay_s = rules.after_s
            return
        total = sum(self._counts)
        if total < rules.minimum_calls * self._weight * (1.0 - 1e-9):
            self._delay_s = None
            return
        self._delay_s = max(rules.least_s, self._quantile(rules.percentile * total))

    def _quantile(self, rank: float) -> float:
        """The value below which `rank` of the weight lies, evenly spread inside its place."""
        seen = 0.0
        for place, count in enumerate(self._counts):
            if count and seen + count >= rank:
                if place >= len(_BOUNDS):
                    break
                low = _BOUNDS[place - 1] if place else 0.0
                return low + (_BOUNDS[place] - low) * (rank - seen) / count
            seen += count
        return _BOUNDS[-1]

    def _rebase(self, now: float) -> None:
        """Bring the counts down so that a call weighs 1 again: numbers must not grow for ever."""
        halvings = max(0.0, (now - self._start) / self._rules.half_life_s)
        factor = 2.0**-halvings if halvings < 1000.0 else 0.0
        self._counts = [count * factor for count in self._counts]
        self._start = now
        self._weight = 1.0
