"""How long those who deliver (spans, lines, figures, alerts) wait before they try again."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["wait_s"]

_DOUBLINGS: Final = 16
"""More would be beyond any bound."""


def wait_s(failures: int, first_s: float, longest_s: float, rng: random.Random) -> float:
    """After so many failures in a row: twice as long each time, up to `longest_s`. A half of it is
    left to chance, so that all who lost one receiver do not come back to it at once.
    """
    doubled = first_s * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS)
    return min(longest_s, doubled) * (0.5 + rng.random() / 2)
