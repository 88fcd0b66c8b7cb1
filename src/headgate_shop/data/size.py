"""How much there is to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEMO", "TINY", "SeedSize"]


@dataclass(frozen=True, slots=True)
class SeedSize:
    products: int
    customers: int
    days: int
    """So far back the history of sales goes."""
    orders_per_day: float


TINY: Final = SeedSize(products=60, customers=20, days=21, orders_per_day=4)
"""For tests."""
DEMO: Final = SeedSize(products=3000, customers=1500, days=180, orders_per_day=60)
