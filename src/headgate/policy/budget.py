"""The retry budget: retries may be a share of the traffic and no more.

Theory of operation. Retries help when few calls fail and hurt when all do: three tries each make
an outage three times as heavy. So over any `window_s` no more than `share` of the first tries may
be retried, plus `floor_per_s`, without which a service with one call a minute could never retry.
First tries and retries are counted in rings of buckets, which are added up only when a retry is
asked for; memory and time per call are constant. A bucket leaves whole, so the window spans 9/10
of its seconds to all of them.

The floor is 1 a second: with the window of 10 s an idle client has 10 retries at hand, and a
hundred callers who all fail at once put no more than 100 calls a second on what is down. (Finagle
and Linkerd take 10 a second, which was chosen for one client process on a machine, not for eight
workers of a gateway times its machines.)

Time is taken from the window, not from calls in flight: a share of three calls in flight is
nothing, however many calls a second they make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["BudgetRules", "BudgetSnapshot", "RetryBudget"]

_BUCKETS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRules:
    share: float = 0.2
    """Retries as a share of first tries."""
    floor_per_s: float = 1.0
    """Retries a second that are always allowed."""
    window_s: float = 10.0

    def problems(self) -> tuple[str, ...]:
        found: list[str] = []
        if not 0.0 <= self.share <= 1.0:
            found.append(f"share={self.share:g} must be between 0 and 1 (100%)")
        if not self.floor_per_s >= 0.0:
            found.append(f"floor_per_s={self.floor_per_s:g} must not be negative")
        if not self.window_s > 0.0:
            found.append(f"window_s={self.window_s:g} must be over 0")
        elif self.floor_per_s >= 0.0 and self.share <= 0.0 and self.most_idle < 1.0:
            found.append(
                "this budget never allows a retry: share is 0 and "
                f"floor_per_s={self.floor_per_s:g} makes less than one in window_s="
                f"{self.window_s:g}; turn retries off with attempts=1 instead"
            )
        return tuple(found)

    @property
    def most_idle(self) -> float:
        """Retries in one window that need no traffic."""
        return self.floor_per_s * self.window_s


@dataclass(frozen=True, slots=True)
class BudgetSnapshot:
    firsts: int
    """First tries in the window."""
    retries: int
    left: int
    """Retries that would be allowed now."""
    taken_total: int
    refused_total: int


class RetryBudget:
    """One per service; its hedges draw on it too."""

    __slots__ = (
        "_at",
        "_floor",
        "_firsts",
        "_retries",
        "_until",
        "_width",
        "refused_total",
        "rules",
        "taken_total",
    )

    def __init__(self, rules: BudgetRules, now: float) -> None:
        _check(rules)
        self.taken_total = 0
        self.refused_total = 0
        self._start(rules, now)

    def _start(self, rules: BudgetRules, now: float) -> None:
        self.rules = rules
        self._floor = rules.most_idle
        self._width = rules.window_s / _BUCKETS
        self._until = now + self._width
        self._at = 0
        self._firsts = [0] * _BUCKETS
        self._retries = [0] * _BUCKETS

    def count(self, now: float) -> None:
        """A first try. Threads may do this without a lock: at worst one is lost."""
        if now >= self._until:
            self._advance(now)
        self._firsts[self._at] += 1

    def try_take(self, now: float) -> bool:
        """Whether one retry may be made; it then counts as made."""
        if now >= self._until:
            self._advance(now)
        if sum(self._retries) + 1 > self._floor + self.rules.share * sum(self._firsts):
            self.refused_total += 1
            return False
        self._retries[self._at] += 1
        self.taken_total += 1
        return True

    def put_back(self, now: float) -> None:
        """A retry that was allowed is not made after all."""
        self.taken_total -= 1
        if now >= self._until:
            self._advance(now)
        if self._retries[self._at]:  # else it was taken in a bucket before: it ages there
            self._retries[self._at] -= 1

    def take_rules(self, rules: BudgetRules, now: float) -> None:
        """Change the rules in place. The counts are kept unless `window_s` changes."""
        _check(rules)
        if rules.window_s != self.rules.window_s:
            self._start(rules, now)
        else:
            self.rules = rules
            self._floor = rules.most_idle

    def snapshot(self, now: float) -> BudgetSnapshot:
        if now >= self._until:
            self._advance(now)
        firsts, retries = sum(self._firsts), sum(self._retries)
        return BudgetSnapshot(
            firsts=firsts,
            retries=retries,
            left=max(0, int(self._floor + self.rules.share * firsts - retries)),
            taken_total=self.taken_total,
            refused_total=self.refused_total,
        )

    def _advance(self, now: float) -> None:
        steps = int((now - self._until) / self._width) + 1
        for _ in range(min(steps, _BUCKETS)):
            at = self._at = (self._at + 1) % _BUCKETS
            self._firsts[at] = self._retries[at] = 0
        self._until += steps * self._width


def _check(rules: BudgetRules) -> None:
    if problems := rules.problems():
        raise ValueError("retry budget: " + "; ".join(problems))
