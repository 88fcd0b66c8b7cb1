"""How long the stock lasts, by what is expected and by what may come. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Lasting", "lasting"]


@dataclass(frozen=True, slots=True)
class Lasting:
    days: float | None
    """Until it is sold out, if all goes as expected; None if it lasts beyond the forecast."""
    days_at_least: float | None
    """So long in nine of ten cases."""
    expected: float
    """What is expected to be sold over the forecast."""


def lasting(
    stock: int, expected: Sequence[float], most: Sequence[float], *, sold_today: float = 0.0
) -> Lasting:
    """`expected` by day, and `most` summed up; both begin with the whole of today, of which
    `sold_today` has left the stock already.
    """
    sums: list[float] = []
    total = 0.0
    for one in expected:
        total += one
        sums.append(total)
    return Lasting(
        days=_until(stock + sold_today, sums),
        days_at_least=_until(stock + sold_today, most),
        expected=round(max(0.0, total - sold_today), 2),
    )


def _until(stock: float, sums: Sequence[float]) -> float | None:
    before = 0.0
    for day, total in enumerate(sums):
        if total >= stock:
            step = total - before
            part = (stock - before) / step if step > 0 else 0.0
            return round(day + max(0.0, part), 1)
        before = total
    return None
