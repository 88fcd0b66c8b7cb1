"""Reservations whose time is over are let go, by whichever process of the service looks first."""

from __future__ import annotations

import logging
import time
from typing import Final

from headgate_shop.base.background import Background
from headgate_shop.products.keeping import Purges
from headgate_shop.products.stock import Stock

__all__ = ["Sweeper"]

EVERY_S: Final = 2.0

log = logging.getLogger("headgate_shop.products")


class Sweeper(Background):
    """Sweeps while it is entered, and once at the start: after a long absence much is overdue."""

    task_name = "overdue goods"

    def __init__(self, stock: Stock, purges: Purges, every_s: float = EVERY_S) -> None:
        self._stock = stock
        self._purges = purges
        self._every_s = every_s

    async def _run(self) -> None:
        while not self.is_ending():
            try:
                while not self.is_ending() and (freed := await self._stock.expire(_now_ms())):
                    self._purges.soon(f"stock:{product_id}" for product_id in freed)
            except Exception as error:  # noqa: BLE001 - the database may be away for a while
                log.warning("overdue reservations are let go later: %s", error)
            await self.rest(self._every_s)


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - reservations outlive this process
