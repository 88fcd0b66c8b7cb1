"""Operators' words about instances, told to those who watch the registry.

Theory of operation
-------------------
Workers hear orders on the board. Clients and sidecars elsewhere hear them here, as an event
`orders` of the stream they follow anyway: all that stand about the instances of their services,
whole each time, so that what is not in it any more is taken back. It is no change of the registry
and has no id: who comes back is told anew whatever it has missed.

An order that ends is told with what is left of it and not with the moment, because the clocks of
two machines differ; whoever hears it counts for itself.

A control process that has just begun hears from its workers what was ordered before it. Until that
had time to come (`FIRST_S`) nothing is told: who was told by its predecessor goes on by that, and
does not for a moment take an order for taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

__all__ = ["OrdersTold", "rows_of"]

FIRST_S: Final = 1.0
TOGETHER_S: Final = 0.02
_SAID: Final = ("what", "service", "instance", "out", "weight", "of_file", "why", "at")
_WHAT: Final = frozenset({"instance", "eject", "weight"})


class Standing(Protocol):
    """An order as it stands."""

    @property
    def order(self) -> Mapping[str, Any]: ...


class Book(Protocol):
    """Those that stand, and who is told when that changes."""

    on_change: Callable[[], None]

    def standing(self) -> list[Any]: ...


class Watched(Protocol):
    """Who follows the registry."""

    def follow_orders(self, rows: Callable[[], list[dict[str, Any]]]) -> None: ...
    def tell_orders(self) -> None: ...


def rows_of(standing: Iterable[Standing], wall: float) -> list[dict[str, Any]]:
    """What is told of them: those about instances, each with what is left of it."""
    rows = []
    for given in standing:
        order = given.order
        if order.get("what") not in _WHAT:
            continue
        row = {key: order[key] for key in _SAID if key in order}
        until = order.get("until")
        row["left_s"] = None if until is None else round(max(0.0, float(until) - wall), 3)
        rows.append(row)
    return rows


class OrdersTold:
    def __init__(
        self,
        orders: Book,
        watchers: Watched,
        later: Callable[[float, Callable[[], None]], object],
        wall: Callable[[], float] = time.time,  # noqa: TID251  what an order's end is written in
    ) -> None:
        self._orders = orders
        self._watchers = watchers
        self._later = later
        self._wall = wall
        self._is_begun = False
        self._is_due = False

    def start(self) -> None:
        self._orders.on_change = self._changed
        self._later(FIRST_S, self._begin)

    def _begin(self) -> None:
        self._is_begun = True
        self._watchers.follow_orders(lambda: rows_of(self._orders.standing(), self._wall()))

    def _changed(self) -> None:
        """What happens within a moment is told once."""
        if self._is_begun and not self._is_due:
            self._is_due = True
            self._later(TOGETHER_S, self._tell)

    def _tell(self) -> None:
        self._is_due = False
        self._watchers.tell_orders()
