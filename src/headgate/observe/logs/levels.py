"""Levels by logger, changed while the process runs, for good or for a while.

Theory of operation. What the rules say is the ground; an order covers it for one logger, until it
is taken back or its time is over. `put_on` brings the loggers of this process to what holds now and
gives loggers that nothing is said about any more back to the one above them. The clock is an
argument: monotonic, so that a jump of the wall clock ends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headgate.observe.logs.rules import level_name

__all__ = ["LOGGERS_MAX", "LevelOrder", "Levels", "loggers_of"]

LOGGERS_MAX: Final = 200
"""So many orders hold at once."""
ROOT: Final = ""


@dataclass(frozen=True, slots=True)
class LevelOrder:
    logger: str
    level: int
    until: float | None = None
    """Monotonic; None holds until it is taken back."""


class Levels:
    def __init__(self) -> None:
        self._ground: dict[str, int] = {ROOT: logging.INFO}
        self._orders: dict[str, LevelOrder] = {}
        self._touched: set[str] = set()

    def take(self, root: int, levels: Mapping[str, int]) -> None:
        """What the rules say; orders go on holding."""
        self._ground = {ROOT: root, **levels}

    def order(self, order: LevelOrder) -> None:
        """Raises ValueError when there are too many."""
        if order.logger not in self._orders and len(self._orders) >= LOGGERS_MAX:
            raise ValueError(f"{LOGGERS_MAX} levels are changed already; take some back")
        self._orders[order.logger] = order

    def take_back(self, logger: str | None = None) -> None:
        if logger is None:
            self._orders.clear()
        else:
            self._orders.pop(logger, None)

    def expire(self, now: float) -> bool:
        """Let go of what is over; whether there was any."""
        over = [
            name
            for name, order in self._orders.items()
            if order.until is not None and now >= order.until
        ]
        for name in over:
            del self._orders[name]
        return bool(over)

    @property
    def orders(self) -> tuple[LevelOrder, ...]:
        return tuple(self._orders.values())

    def effective(self) -> dict[str, int]:
        return {**self._ground, **{name: order.level for name, order in self._orders.items()}}

    def put_on(self) -> None:
        """Bring the loggers of this process to it."""
        wanted = self.effective()
        for name in self._touched - wanted.keys():
            logging.getLogger(name).setLevel(logging.NOTSET)
        for name, level in wanted.items():
            logging.getLogger(name or None).setLevel(level)
        self._touched = set(wanted) - {ROOT}

    def shown(self) -> dict[str, str]:
        return {name or "root": level_name(level) for name, level in self.effective().items()}


def loggers_of(name: str) -> str:
    """A logger's name as it is kept here: the root is the empty one."""
    return "" if name.strip() in {"", "root"} else name.strip()[:200]
