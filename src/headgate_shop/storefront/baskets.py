"""A cart as `orders` tells of it, made fit to be shown. Pure, but for the questions at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headgate.mesh import Mesh
from headgate_shop.storefront.asking import AWAY, Reply, ask
from headgate_shop.storefront.goods import Product, product_of
from headgate_shop.storefront.prices import Price, price
from headgate_shop.storefront.visitors import Visitor

__all__ = ["EMPTY", "Basket", "Line", "add", "basket_of", "change", "fetch"]

GLANCE_S: Final = 0.8
CART_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Line:
    product: Product
    quantity: int
    each: Price | None
    total: Price | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Basket:
    lines: tuple[Line, ...] = ()
    total: Price | None = None
    trouble: tuple[str, ...] = ()
    """What is wrong with the cart as a whole."""

    @property
    def count(self) -> int:
        return sum(line.quantity for line in self.lines)

    @property
    def can_be_bought(self) -> bool:
        return bool(self.lines) and all(line.total is not None for line in self.lines)


EMPTY: Final = Basket()


def basket_of(data: Any) -> Basket:
    if not isinstance(data, Mapping):
        return EMPTY
    currency = data.get("currency")
    unit = currency if isinstance(currency, str) and currency else "EUR"
    by_product: dict[str, list[str]] = {}
    whole: list[str] = []
    for row in _rows(data.get("trouble")):
        said, number = row.get("detail"), row.get("product_id")
        if isinstance(said, str) and said:
            (by_product.setdefault(number, []) if isinstance(number, str) else whole).append(said)
    lines = []
    for row in _rows(data.get("lines")):
        product = product_of({**row, "id": row.get("product_id"), "currency": unit})
        quantity = row.get("quantity")
        if product is None or not isinstance(quantity, int) or quantity < 1:
            continue
        told = " ".join(by_product.pop(product.id, ()))
        lines.append(Line(product, quantity, product.price, _money(row.get("total"), unit), told))
    for left in by_product.values():
        whole.extend(left)
    return Basket(tuple(lines), _money(data.get("total"), unit), tuple(whole))


async def fetch(mesh: Mesh, visitor: Visitor, timeout_s: float = CART_S) -> tuple[Basket, Reply]:
    """The visitor's cart; with a reply that is away, nothing is known of it."""
    if not visitor.has_cart:
        return EMPTY, Reply(200)
    reply = await ask(
        mesh, "orders", "GET", "/api/cart", headers=visitor.headers, timeout_s=timeout_s
    )
    if not reply.is_ok:
        return EMPTY, reply if reply.is_away else AWAY
    return basket_of(reply.data), reply


async def add(mesh: Mesh, visitor: Visitor, number: str, quantity: int) -> Reply:
    """Put so many more of a product into the cart."""
    return await ask(
        mesh,
        "orders",
        "POST",
        f"/api/cart/items/{number}",
        json={"quantity": quantity},
        headers=visitor.headers,
        timeout_s=CART_S,
    )


async def change(mesh: Mesh, visitor: Visitor, number: str, quantity: int) -> Reply:
    """Have so many of a product in the cart."""
    path = f"/api/cart/items/{number}"
    if quantity <= 0:
        return await ask(mesh, "orders", "DELETE", path, headers=visitor.headers, timeout_s=CART_S)
    return await ask(
        mesh,
        "orders",
        "PUT",
        path,
        json={"quantity": quantity},
        headers=visitor.headers,
        timeout_s=CART_S,
    )


def _rows(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [row for row in value if isinstance(row, Mapping)]


def _money(value: Any, currency: str) -> Price | None:
    is_money = isinstance(value, int) and not isinstance(value, bool)
    return price(value, currency) if is_money else None
