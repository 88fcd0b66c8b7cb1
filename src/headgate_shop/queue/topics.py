"""Who hears of what: the groups of each topic, known before any of them runs.

A group is a service (all its processes together; each message goes to one of them). Because groups
stand here and not with those who happen to run, a message for a service that is down waits for it.
A service that subscribes needs its name here; a name here needs a service that subscribes, or its
messages wait until the queue of that group is full and publishing is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headgate_shop.base import events

__all__ = ["GROUPS"]

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    events.USER_REGISTERED: ("notifications", "analytics"),
    events.USER_ERASED: ("orders", "notifications", "analytics", "integrations"),
    events.MAIL_WANTED: ("notifications",),
    events.ORDER_PLACED: ("notifications", "analytics"),
    events.ORDER_PAID: ("notifications", "analytics", "forecasting", "integrations"),
    events.ORDER_CANCELLED: ("notifications", "analytics", "forecasting", "integrations"),
    events.ORDER_SHIPPED: ("notifications", "analytics", "integrations"),
    events.PRODUCT_CHANGED: ("analytics", "forecasting", "integrations"),
    events.PRODUCT_REMOVED: ("analytics", "forecasting", "integrations"),
    events.STOCK_LOW: ("notifications", "integrations"),
    events.SHOPPING: ("analytics",),
}
