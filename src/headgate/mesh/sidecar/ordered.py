"""Operators' orders, as a sidecar's worker hears of them: as a gateway's does, one message each.

Theory of operation. Control tells all that stand (`mesh.client.orders`); workers are told one by
one, what is given and what is taken back. So what was told is remembered, and what stands no more
is taken back by a message that is a little later than the order itself: one that is given again
later is later still. Pure.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Final

from headgate.mesh.client.orders import Order, order_of

__all__ = ["TOPIC", "Ordered"]

log: Final = logging.getLogger("headgate.sidecar")

TOPIC: Final = "order"
_LATER_S: Final = 0.0005


class Ordered:
    def __init__(self) -> None:
        self._told: dict[str, dict[str, Any]] = {}

    def messages(
        self, rows: Iterable[object], names: Mapping[str, str], wall: float
    ) -> list[tuple[str, dict[str, Any]]]:
        """What the worker is to be told now that these stand, each under its subject. `names` is
        what services are called there.
        """
        found: dict[str, dict[str, Any]] = {}
        for row in rows:
            try:
                order = order_of(row, 0.0)
            except (KeyError, TypeError, ValueError) as error:
                log.warning("an order cannot be read: %.200s: %s", ascii(row), error)
                continue
            if order is not None and order.service in names:
                subject = f"{order.what} {order.service} {order.url}"
                found[subject] = _message(order, names[order.service], subject, wall)
        told, self._told = self._told, found
        news = [
            (subject, message)
            for subject, message in found.items()
            if told.get(subject, {}).get("at") != message["at"]
            or told[subject]["service"] != message["service"]
        ]
        back = [
            (subject, _taken_back(message))
            for subject, message in told.items()
            if subject not in found
        ]
        return back + news


def _message(order: Order, service: str, subject: str, wall: float) -> dict[str, Any]:
    message: dict[str, Any] = {
        "what": order.what,
        "service": service,
        "instance": order.url,
        "why": order.why,
        "order": subject,
        "at": order.at,
        "until": None if order.ends == inf else wall + order.ends,
    }
    if order.what == "weight":
        return message | {"weight": order.weight, "of_file": order.of_file}
    return message | {"out": True, "readmit": False}


def _taken_back(message: Mapping[str, Any]) -> dict[str, Any]:
    undone = {"weight": None} if message["what"] == "weight" else {"out": False, "readmit": False}
    return {**message, **undone, "at": message["at"] + _LATER_S, "until": None, "why": "over"}
