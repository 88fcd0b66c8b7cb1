"""What operators say of instances, as control told it last: drained, ejected, weighed otherwise.

Theory of operation
-------------------
Control tells all orders that stand about the services that are followed, whole each time (the event
`orders` of the registry's stream). What is not among them any more is taken back. An order with an
end is counted down here. While control is away they hold, up to their end.

`onto` brings what a caller knows of a service's instances in line. It is asked again whenever the
service's plan or its instances have changed, because what is ordered of an instance that is not
there is forgotten there, and holds again when it comes back.

Pure: the clock is an argument.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Final, Literal, Protocol

__all__ = ["Order", "Orders", "order_of"]

log: Final = logging.getLogger("headgate.mesh")

_MOST: Final = 10_000
_WEIGHT_MAX: Final = 1000
_CHARS_MAX: Final = 500
What = Literal["instance", "eject", "weight"]


class Served(Protocol):
    """What is told of orders: `policy.serving.Serving`."""

    drained: dict[str, str]
    put_out: dict[str, str]
    weights: dict[str, tuple[int, int]]

    def has(self, url: str) -> bool: ...
    def drain(self, url: str, why: str | None, now: float) -> None: ...
    def say(self, source: dict[str, str], url: str, why: str | None, now: float) -> None: ...
    def weigh(self, url: str, weight: int | None, of_plan: int, now: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class Order:
    what: What
    service: str
    url: str
    why: str
    weight: int = 0
    of_file: int = 0
    """The weight that the plan said when the order was given; it overtakes the order by another."""
    ends: float = inf
    """By the monotonic clock."""
    at: float = 0.0
    """When it was given, by control's wall clock: by which one is told from the next."""


def order_of(row: object, now: float) -> Order | None:
    """An order as it was told; None for one that says nothing, or that a newer control knows.
    Raises ValueError, TypeError or KeyError for what is none.
    """
    if not isinstance(row, Mapping):
        raise TypeError("an order is an object")
    what, service, url = row["what"], row["service"], row["instance"]
    if not isinstance(service, str) or not isinstance(url, str):
        raise TypeError("service and instance are text")
    left_s = row.get("left_s")
    if left_s is not None and (
        not isinstance(left_s, (int, float)) or isinstance(left_s, bool) or not isfinite(left_s)
    ):
        raise TypeError("left_s is a number")
    ends = inf if left_s is None else now + left_s
    at = row.get("at", 0.0)
    if at.__class__ not in (int, float):
        raise TypeError("at is a time")
    why = str(row.get("why") or "by hand")[:_CHARS_MAX]
    if what in ("instance", "eject"):
        return Order(what, service, url, why, ends=ends, at=at) if row.get("out") else None
    if what != "weight" or row.get("weight") is None:
        return None
    weight, of_file = row["weight"], row.get("of_file", 0)
    for number in (weight, of_file):
        if number.__class__ is not int or not 0 <= number <= _WEIGHT_MAX:
            raise ValueError(f"a weight is a whole number up to {_WEIGHT_MAX}")
    return Order("weight", service, url, why, weight, of_file, ends, at)


class Orders:
    """Those that stand, by service."""

    def __init__(self) -> None:
        self._by_service: dict[str, dict[tuple[What, str], Order]] = {}
        self._next_end = inf

    def of(self, service: str) -> Mapping[tuple[What, str], Order]:
        return self._by_service.get(service, {})

    def take(self, rows: Iterable[object], now: float) -> set[str]:
        """All that stand from now on; answers the services for which something is different."""
        found: dict[str, dict[tuple[What, str], Order]] = {}
        count = 0
        for row in rows:
            try:
                order = order_of(row, now)
            except (KeyError, TypeError, ValueError) as error:
                log.warning("an order cannot be read: %.200s: %s", ascii(row), error)
                continue
            if order is not None and order.ends > now and count < _MOST:
                count += 1
                found.setdefault(order.service, {})[order.what, order.url] = order
        before, self._by_service = self._by_service, found
        self._note_end()
        names = before.keys() | found.keys()
        return {name for name in names if before.get(name) != found.get(name)}

    def over(self, now: float) -> set[str]:
        """Forget those that have ended; answers their services."""
        if now < self._next_end:
            return set()
        changed = set()
        for service, orders in list(self._by_service.items()):
            for key in [key for key, order in orders.items() if order.ends <= now]:
                del orders[key]
                changed.add(service)
            if not orders:
                del self._by_service[service]
        self._note_end()
        return changed

    def onto(self, service: str, serving: Served, now: float) -> None:
        """Have its instances be as operators say, and no otherwise by an order that is over."""
        wanted = self._by_service.get(service, {})
        for url in [url for url in serving.drained if ("instance", url) not in wanted]:
            serving.drain(url, None, now)
        for url in [url for url in serving.put_out if ("eject", url) not in wanted]:
            serving.say(serving.put_out, url, None, now)
        for url in [url for url in serving.weights if ("weight", url) not in wanted]:
            serving.weigh(url, None, 0, now)
        for (what, url), order in wanted.items():
            if not serving.has(url):
                continue
            if what == "instance":
                if url not in serving.drained:
                    serving.drain(url, order.why, now)
            elif what == "eject":
                if url not in serving.put_out:
                    serving.say(serving.put_out, url, order.why, now)
            else:
                serving.weigh(url, order.weight, order.of_file, now)

    def _note_end(self) -> None:
        self._next_end = min(
            (order.ends for orders in self._by_service.values() for order in orders.values()),
            default=inf,
        )
