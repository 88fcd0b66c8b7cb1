"""What services tell each other through the queue: names, and what stands in each.

A message's data is JSON. `at` is seconds of Unix time, an `id` is a text, money is in cents. A
consumer that does not know a field leaves it alone, so fields may be added.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAIL_WANTED",
    "ORDER_CANCELLED",
    "ORDER_PAID",
    "ORDER_PLACED",
    "ORDER_SHIPPED",
    "PRODUCT_CHANGED",
    "PRODUCT_REMOVED",
    "SHOPPING",
    "STOCK_LOW",
    "USER_ERASED",
    "USER_REGISTERED",
]

USER_REGISTERED: Final = "user.registered"
"""{user_id, email, name, at}"""
USER_ERASED: Final = "user.erased"
"""{user_id, at}: forget the person; figures may stay."""
MAIL_WANTED: Final = "mail.wanted"
"""{to, template, values: {...}, user_id}: for notifications alone; the priority is high."""
ORDER_PLACED: Final = "order.placed"
"""{order_id, user_id, email, at, total, currency, lines: [{product_id, name, quantity, price}]}"""
ORDER_PAID: Final = "order.paid"
"""The same and {payment_id}: the sale is made."""
ORDER_CANCELLED: Final = "order.cancelled"
"""The same and {reason}."""
ORDER_SHIPPED: Final = "order.shipped"
"""The same and {tracking}."""
PRODUCT_CHANGED: Final = "product.changed"
"""{product_id, name, price, category, at}: made or edited."""
PRODUCT_REMOVED: Final = "product.removed"
"""{product_id, at}"""
STOCK_LOW: Final = "stock.low"
"""{product_id, name, available, at}"""
SHOPPING: Final = "shopping"
"""{events: [{type: view|search|cart|checkout, at, session, user_id, product_id, query}]}"""
