"""Ids of orders, and of everything that is done for one: these follow from the order's.

So whoever takes up an order that another process has left asks for the same payment and the same
reservation, and nothing is done a second time.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Final

__all__ = ["new_number", "new_order_id", "payment_of", "refund_of", "reservation_of"]

_LETTERS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no i, l, o or u, which are misread or make words."""


def new_order_id(rng: random.Random) -> str:
    """`o-` and 26 letters, 130 bits. Those of the seeded past begin `o-0`; the first letter here
    is never a 0.
    """
    first = _LETTERS[rng.randrange(1, 32)]
    return "o-" + first + "".join(_LETTERS[rng.randrange(32)] for _ in range(25))


def new_number(now_ms: int, rng: random.Random) -> str:
    """What people read out on the telephone: the day, and five letters. It does not tell how many
    orders there are. Another order may have it already: `number` is unique in the table.
    """
    day = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%y%m%d")
    return f"{day}-" + "".join(_LETTERS[rng.randrange(32)] for _ in range(5)).upper()


def reservation_of(order_id: str) -> str:
    return order_id


def payment_of(order_id: str) -> str:
    return f"{order_id}.payment"


def refund_of(order_id: str) -> str:
    return f"{order_id}.refund"
