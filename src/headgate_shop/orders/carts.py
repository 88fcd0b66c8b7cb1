"""What a cart may hold, what becomes of two of them, and what is wrong with one.

A cart holds ids and quantities. Names and prices are what products says now; where it cannot be
asked, what it said last, and the cart says so. Prices that are charged are those of the checkout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from headgate.kit import Problem

__all__ = [
    "LINES_MAX",
    "QUANTITY_MAX",
    "Known",
    "Line",
    "guest_cart",
    "has_line",
    "merged",
    "set_quantity",
    "shown",
    "user_cart",
]

LINES_MAX: Final = 50
QUANTITY_MAX: Final = 99
CURRENCY: Final = "EUR"


@dataclass(frozen=True, slots=True)
class Known:
    """A product, as products says it is."""

    product_id: str
    name: str
    price: int
    image: str = ""
    available: int | None = None
    """None: it does not say."""


@dataclass(frozen=True, slots=True)
class Line:
    product_id: str
    quantity: int
    name: str = ""
    price: int | None = None
    image: str = ""
    added_ms: int = 0


def user_cart(user_id: str) -> str:
    return f"user:{user_id}"


def guest_cart(cart_id: str) -> str:
    return f"guest:{cart_id}"


def has_line(lines: Sequence[Line], product_id: str) -> bool:
    """Whether there is a line for it. Raises Problem where there is none, and no room for one."""
    if any(line.product_id == product_id for line in lines):
        return True
    if len(lines) >= LINES_MAX:
        raise Problem(409, f"a cart holds {LINES_MAX} different products at most", code="cart_full")
    return False


def set_quantity(
    lines: Sequence[Line], product_id: str, quantity: int, known: Known | None, now_ms: int
) -> list[Line]:
    """The lines with so many of this product. Raises Problem where there would be too many."""
    has_line(lines, product_id)
    found = {line.product_id: line for line in lines}
    before = found.get(product_id)
    line = replace(before or Line(product_id, quantity, added_ms=now_ms), quantity=quantity)
    if known is not None:
        line = replace(line, name=known.name, price=known.price, image=known.image)
    found[product_id] = line
    return list(found.values())


def merged(into: Sequence[Line], other: Sequence[Line]) -> list[Line]:
    """Both in one: quantities add up to what a line may have; what finds no room stays out."""
    found = {line.product_id: line for line in into}
    for line in other:
        before = found.get(line.product_id)
        if before is not None:
            quantity = min(QUANTITY_MAX, before.quantity + line.quantity)
            found[line.product_id] = replace(before, quantity=quantity)
        elif len(found) < LINES_MAX:
            found[line.product_id] = line
    return list(found.values())


def shown(cart_id: str, lines: Sequence[Line], known: Mapping[str, Known] | None) -> dict[str, Any]:
    """The cart as its owner sees it. `known` is None where products cannot be asked."""
    trouble: list[dict[str, Any]] = []
    if known is None and lines:
        trouble.append(
            {
                "product_id": None,
                "code": "prices_old",
                "detail": "Prices and stock cannot be checked at the moment; these are the last"
                " known ones.",
            }
        )
    rows: list[dict[str, Any]] = []
    for line in lines:
        now = line
        if known is not None:
            product = known.get(line.product_id)
            trouble += _trouble(line, product)
            if product is not None:
                now = replace(line, name=product.name, price=product.price, image=product.image)
        rows.append(
            {
                "product_id": now.product_id,
                "name": now.name or now.product_id,
                "price": now.price,
                "quantity": now.quantity,
                "total": None if now.price is None else now.price * now.quantity,
                "image": now.image,
            }
        )
    return {
        "id": cart_id.partition(":")[2],
        "lines": rows,
        "total": sum(row["total"] or 0 for row in rows),
        "currency": CURRENCY,
        "trouble": trouble,
    }


def _trouble(line: Line, product: Known | None) -> list[dict[str, Any]]:
    name = line.name or line.product_id
    if product is None:
        return [
            {
                "product_id": line.product_id,
                "code": "gone",
                "detail": f"{name} is no longer sold.",
            }
        ]
    found: list[dict[str, Any]] = []
    if product.available is not None and product.available < line.quantity:
        left = product.available
        is_are = "is" if left == 1 else "are"
        found.append(
            {
                "product_id": line.product_id,
                "code": "short",
                "available": left,
                "detail": f"Only {left} of {product.name} {is_are} left."
                if left
                else f"{product.name} is sold out.",
            }
        )
    if line.price is not None and line.price != product.price:
        found.append(
            {
                "product_id": line.product_id,
                "code": "price_changed",
                "before": line.price,
                "detail": f"The price of {product.name} has changed since you put it here.",
            }
        )
    return found
