"""An order as `orders` tells of it, made fit to be shown. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headgate_shop.storefront.goods import Product, product_of
from headgate_shop.storefront.prices import Price, price

__all__ = ["STATES", "Order", "OrderLine", "Step", "is_order_id", "order_of", "orders_of"]

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
STATES: Final[Mapping[str, str]] = {
    "pending": "Being paid",
    "paid": "Paid",
    "shipped": "On its way",
    "cancelled": "Cancelled",
    "refused": "Payment refused",
}


@dataclass(frozen=True, slots=True)
class OrderLine:
    name: str
    quantity: int
    each: Price | None
    total: Price | None
    product: Product | None
    """None if there is nothing to link to."""


@dataclass(frozen=True, slots=True)
class Step:
    status: str
    label: str
    at: str


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    number: str
    status: str
    label: str
    lines: tuple[OrderLine, ...]
    total: Price | None
    address: tuple[str, ...]
    created_at: str
    history: tuple[Step, ...]
    tracking: str

    @property
    def count(self) -> int:
        return sum(line.quantity for line in self.lines)

    @property
    def is_pending(self) -> bool:
        return self.status == "pending"

    @property
    def can_be_cancelled(self) -> bool:
        return self.status in ("pending", "paid")


def is_order_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def order_of(data: Any) -> Order | None:
    if not isinstance(data, Mapping):
        return None
    number = data.get("id")
    if not isinstance(number, str) or not is_order_id(number):
        return None
    unit = _text(data.get("currency")) or "EUR"
    status = _text(data.get("status"))
    return Order(
        id=number,
        number=_text(data.get("number")) or number,
        status=status if status in STATES else "unknown",
        label=STATES.get(status, "Being looked at"),
        lines=tuple(_line(row, unit) for row in _rows(data.get("lines"))),
        total=_money(data.get("total"), unit),
        address=_address(data.get("address")),
        created_at=_text(data.get("created_at")),
        history=tuple(
            Step(_text(row.get("status")), STATES.get(_text(row.get("status")), ""), _text(at))
            for row in _rows(data.get("history"))
            if (at := row.get("at")) and _text(row.get("status")) in STATES
        ),
        tracking=_text(data.get("tracking")),
    )


def orders_of(data: Any) -> tuple[Order, ...]:
    rows = data.get("items") if isinstance(data, Mapping) else data
    return tuple(one for one in map(order_of, _rows(rows)) if one is not None)


def _line(row: Mapping[str, Any], unit: str) -> OrderLine:
    quantity = row.get("quantity")
    count = quantity if isinstance(quantity, int) and not isinstance(quantity, bool) else 1
    each = _money(row.get("price"), unit)
    total = _money(row.get("total"), unit)
    if total is None and each is not None:
        total = price(each.cents * count, unit)
    product = product_of({**row, "id": row.get("product_id"), "currency": unit})
    return OrderLine(_text(row.get("name")) or "A product", count, each, total, product)


def _address(value: Any) -> tuple[str, ...]:
    if not isinstance(value, Mapping):
        return ()
    town = f"{_text(value.get('postcode'))} {_text(value.get('city'))}".strip()
    lines = (
        _text(value.get("name")),
        _text(value.get("street")),
        town,
        _text(value.get("country")),
    )
    return tuple(line for line in lines if line)


def _rows(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [row for row in value if isinstance(row, Mapping)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _money(value: Any, unit: str) -> Price | None:
    is_money = isinstance(value, int) and not isinstance(value, bool)
    return price(value, unit) if is_money else None
