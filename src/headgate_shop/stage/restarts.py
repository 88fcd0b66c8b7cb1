"""When a process that has died is started again.

Theory of operation
-------------------
The first death in a while is an accident: the next one is started at once. One that dies again and
again is started later and later, up to `LONGEST_S`, and is called failed from `FAILED` deaths on;
it goes on being tried. Whoever has lived for `CALM_S` is new again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Deaths"]

FIRST_S: Final = 0.1
LONGEST_S: Final = 10.0
CALM_S: Final = 20.0
FAILED: Final = 4


@dataclass(slots=True)
class Deaths:
    in_a_row: int = 0

    def died(self, lived_s: float) -> float:
        """How long to wait until it is started again."""
        self.in_a_row = 1 if lived_s >= CALM_S else self.in_a_row + 1
        return float(min(FIRST_S * 4 ** (self.in_a_row - 1), LONGEST_S))

    @property
    def is_failed(self) -> bool:
        return self.in_a_row >= FAILED
