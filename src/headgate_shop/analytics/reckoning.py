"""What orders and events add to the sums. Pure: nothing here reads a clock or a database.

Theory of operation
-------------------
An order is in the sums while it is paid and not cancelled; `Sums.take` adds or, with a sign of -1,
takes away exactly what it had added, at the hour at which it was placed. What is taken from several
orders or events is written as one change of each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

__all__ = ["ALL", "STEPS", "Line", "Seen", "Sold", "Sums", "day_of", "hour_of", "lines_of"]

Step = Literal["visit", "view", "search", "cart", "checkout", "order", "registered"]
STEPS: Final[tuple[Step, ...]] = ("visit", "view", "cart", "checkout", "order")
"""The way to an order. Searching is beside it, registering too."""
ALL: Final = ""
"""Stands for all orders among the baskets."""
QUANTITY_MAX: Final = 1_000_000
PRICE_MAX: Final = 10**12
PAIRED_MAX: Final = 15
"""Of a larger basket the first ones alone are paired: pairs grow with the square."""


def day_of(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def hour_of(at: float) -> int:
    return int(at % 86400 // 3600)


@dataclass(frozen=True, slots=True)
class Line:
    product_id: str
    quantity: int
    price: int
    category: str = ""

    @property
    def total(self) -> int:
        return self.quantity * self.price


def lines_of(data: Iterable[Mapping[str, Any]], categories: Mapping[str, str]) -> tuple[Line, ...]:
    """Lines as they stand in a message or a row; the category is the line's own if it has one.
    Raise ValueError for amounts that nobody can mean.
    """
    lines = tuple(
        Line(
            product_id=str(line["product_id"]),
            quantity=int(line["quantity"]),
            price=int(line["price"]),
            category=str(line.get("category") or categories.get(str(line["product_id"]), "")),
        )
        for line in data
    )
    for line in lines:
        if not (0 < line.quantity <= QUANTITY_MAX and 0 <= line.price <= PRICE_MAX):
            raise ValueError(f"{line.quantity} of {line.product_id} for {line.price}")
    return lines


@dataclass(frozen=True, slots=True)
class Sold:
    at: float
    total: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that a visitor did."""

    step: Step
    at: float
    session: str
    product_id: str = ""


@dataclass(slots=True)
class Sums:
    """Changes of sums, by the key of the row."""

    hours: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """orders, units, revenue"""
    products: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """orders, units, revenue, views, carts"""
    categories: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """units, revenue"""
    funnel: dict[tuple[str, int, str], list[int]] = field(default_factory=dict)
    """events, sessions"""
    baskets: dict[str, int] = field(default_factory=dict)
    pairs: dict[tuple[str, str], int] = field(default_factory=dict)

    def take(self, sold: Sold, sign: int = 1) -> None:
        """An order, into the sums or (-1) out of them."""
        day, hour = day_of(sold.at), hour_of(sold.at)
        units = sum(line.quantity for line in sold.lines)
        _add(self.hours, (day, hour), (sign, sign * units, sign * sold.total))
        _add(self.funnel, (day, hour, "order"), (sign, sign))
        counted: set[str] = set()
        for line in sold.lines:
            first = sign if line.product_id not in counted else 0
            counted.add(line.product_id)
            change = (first, sign * line.quantity, sign * line.total, 0, 0)
            _add(self.products, (day, line.product_id), change)
            change_of_kind = (sign * line.quantity, sign * line.total)
            _add(self.categories, (day, line.category), change_of_kind)
        self._pair(sorted(counted)[:PAIRED_MAX], sign)

    def see(self, seen: Seen, *, is_first: bool) -> None:
        """An event; `is_first` if its session had not come to this step on this day."""
        day, hour = day_of(seen.at), hour_of(seen.at)
        _add(self.funnel, (day, hour, seen.step), (1, int(is_first)))
        if seen.product_id and seen.step in ("view", "cart"):
            is_view = seen.step == "view"
            change = (0, 0, 0, int(is_view), int(not is_view))
            _add(self.products, (day, seen.product_id), change)

    def _pair(self, products: Sequence[str], sign: int) -> None:
        for one in (ALL, *products):
            self.baskets[one] = self.baskets.get(one, 0) + sign
        for one in products:
            for other in products:
                if one != other:
                    self.pairs[one, other] = self.pairs.get((one, other), 0) + sign


def _add(sums: dict[Any, list[int]], key: Any, change: tuple[int, ...]) -> None:
    there = sums.get(key)
    if there is None:
        sums[key] = list(change)
        return
    for place, amount in enumerate(change):
        there[place] += amount
