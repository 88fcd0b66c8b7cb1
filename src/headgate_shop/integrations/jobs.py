"""What is to be told to whom when something happens in the shop. Pure.

Each job has a key that stays the same however often the news comes: the key is what the partner
knows it by (the number of an invoice, the id of a message), so that sending twice does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headgate_shop.base import events

__all__ = ["Job", "jobs_of"]


@dataclass(frozen=True, slots=True)
class Job:
    connector: str
    key: str
    kind: str
    news: float
    """When it was so, in seconds of Unix time."""
    payload: Mapping[str, Any]
    user_id: str | None = None


def jobs_of(topic: str, data: Mapping[str, Any], sign: int) -> list[Job]:
    """`sign` is whether an order became a sale now (1), ceased to be one (-1), or neither."""
    if topic in (events.PRODUCT_CHANGED, events.PRODUCT_REMOVED):
        return _product(topic, data)
    if topic == events.STOCK_LOW:
        day = _date(float(data["at"]))
        text = f"{data.get('name') or data['product_id']}: {int(data['available'])} left"
        key = f"stock:{data['product_id']}:{day}"
        return [Job("chat", key, "message", float(data["at"]), {"text": text})]
    return _order(topic, data, sign)


def _product(topic: str, data: Mapping[str, Any]) -> list[Job]:
    product_id = str(data["product_id"])
    is_there = topic == events.PRODUCT_CHANGED
    payload: dict[str, Any] = {"product_id": product_id, "is_there": is_there}
    if is_there:
        payload |= {
            "name": str(data.get("name") or product_id),
            "price": int(data["price"]),
            "category": str(data.get("category") or ""),
        }
    return [
        Job(connector, f"product:{product_id}", "product", float(data["at"]), payload)
        for connector in ("shop", "marketplace")
    ]


def _order(topic: str, data: Mapping[str, Any], sign: int) -> list[Job]:
    order_id, at = str(data["order_id"]), float(data["at"])
    user_id = data.get("user_id")
    user_id = user_id if isinstance(user_id, str) else None
    jobs: list[Job] = []
    if sign:
        kind = "invoice" if sign > 0 else "credit"
        payload = {
            "order_id": order_id,
            "email": str(data.get("email") or ""),
            "date": _date(at),
            "currency": str(data.get("currency") or "EUR"),
            "lines": [
                {
                    "product_id": str(line["product_id"]),
                    "name": str(line.get("name") or line["product_id"]),
                    "quantity": int(line["quantity"]),
                    "price": int(line["price"]),
                }
                for line in data["lines"]
            ],
        }
        jobs.append(Job("accounting", f"{kind}:{order_id}", kind, at, payload, user_id))
    happened = "sold" if sign > 0 else "cancelled" if sign < 0 else ""
    if topic == events.ORDER_SHIPPED:
        happened = "shipped"
    if happened:
        jobs.append(
            Job("chat", f"{happened}:{order_id}", "message", at, {"text": _text(happened, data)})
        )
    return jobs


def _text(happened: str, data: Mapping[str, Any]) -> str:
    pieces = sum(int(line["quantity"]) for line in data["lines"])
    worth = f"{int(data['total']) / 100:.2f} {data.get('currency') or 'EUR'}"
    many = "1 piece" if pieces == 1 else f"{pieces} pieces"
    return f"Order {data['order_id']} {happened}: {many}, {worth}"


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
