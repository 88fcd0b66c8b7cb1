"""The retry budget for a service's own calls: see `headgate.policy.budget` for the rules."""

from __future__ import annotations

import threading
import time

from headgate.policy.budget import BudgetRules, BudgetSnapshot, RetryBudget
from headgate.resilience.settings import Clock, Duration, RateText, Share, given, rate, seconds
from headgate.resilience.settings import share as share_of

__all__ = ["Budget"]


class Budget:
    """Shared by all that retries or hedges calls to one callee: give it to each of them."""

    def __init__(
        self,
        share: Share | None = None,
        *,
        floor: RateText | None = None,
        window: Duration | None = None,
        rules: BudgetRules | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        if rules is None:
            rules = BudgetRules(
                **given(
                    share=share_of("share", share),
                    floor_per_s=None if floor is None else rate("floor", floor).per_second,
                    window_s=seconds("window", window),
                )
            )
        self.clock = clock
        self._lock = threading.Lock()
        self.core = RetryBudget(rules, clock())
        """For those who count first tries on their fast path, which needs no lock."""

    @property
    def rules(self) -> BudgetRules:
        return self.core.rules

    def count(self) -> None:
        """A first try."""
        self.core.count(self.clock())

    def try_take(self) -> bool:
        """Whether one more try may be made; it then counts as made."""
        with self._lock:
            return self.core.try_take(self.clock())

    def snapshot(self) -> BudgetSnapshot:
        with self._lock:
            return self.core.snapshot(self.clock())
