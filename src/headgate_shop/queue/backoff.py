"""How long a message that failed waits before it is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling waits, each somewhere between its half and its whole: failures that came together
    do not come together again.
    """

    first_s: float = 1.0
    longest_s: float = 300.0

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """The wait after the given attempt, which is 1 for the first."""
        whole_s = min(self.longest_s, self.first_s * 2.0 ** min(attempt - 1, 60))
        return whole_s * rng.uniform(0.5, 1.0)
