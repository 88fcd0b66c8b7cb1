"""Orders in the database, and as they are shown."""

from __future__ import annotations

import base64
import binascii
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.kit import Problem
from headgate_shop.base.rows import insert_new
from headgate_shop.orders.ids import new_number
from headgate_shop.orders.saga import Status
from headgate_shop.orders.tables import ORDERS

__all__ = ["Order", "cursor_of", "find", "insert", "iso", "page", "save", "totals"]

NUMBER_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Order:
    """As it stands in its row."""

    id: str
    number: str
    user_id: str
    email: str
    status: Status
    reason: str
    refusal: dict[str, Any]
    lines: list[dict[str, Any]]
    total: int
    currency: str
    address: dict[str, str]
    tracking: str
    created_ms: int
    history: list[dict[str, str]]

    def shown(self) -> dict[str, Any]:
        """To its owner, and to those who work here."""
        document: dict[str, Any] = {
            "id": self.id,
            "number": self.number,
            "status": self.status,
            "lines": [
                {**line, "total": (line.get("price") or 0) * line["quantity"]}
                for line in self.lines
            ],
            "total": self.total,
            "currency": self.currency,
            "address": self.address,
            "created_at": iso(self.created_ms),
            "history": self.history,
        }
        if self.reason:
            document["reason"] = self.reason
        if self.tracking:
            document["tracking"] = self.tracking
        return document

    def event(self, at_ms: int, **more: Any) -> dict[str, Any]:
        """As other services hear of it: `base.events`."""
        return {
            "order_id": self.id,
            "number": self.number,
            "user_id": self.user_id,
            "email": self.email,
            "at": at_ms / 1000,
            "total": self.total,
            "currency": self.currency,
            "lines": self.lines,
            **more,
        }

    def then(self, status: Status, now_ms: int) -> list[dict[str, str]]:
        """The history, when it has become this."""
        return [*self.history, {"status": status, "at": iso(now_ms)}]


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


async def find(
    connection: AsyncConnection, order_id: str, *, user_id: str | None = None, hold: bool = False
) -> Order | None:
    """With `user_id`, only if it is that user's. `hold` keeps others from changing it."""
    query = sa.select(ORDERS).where(ORDERS.c.id == order_id)
    if user_id is not None:
        query = query.where(ORDERS.c.user_id == user_id)
    if hold:
        query = query.with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else Order(**row)


async def insert(
    connection: AsyncConnection, values: Mapping[str, Any], now_ms: int, rng: random.Random
) -> None:
    """A row with a number that no other order has."""
    for _ in range(NUMBER_TRIES):
        row = {**values, "number": new_number(now_ms, rng)}
        if await insert_new(connection, ORDERS, row):
            return
    raise RuntimeError("no number is free for an order")


async def save(connection: AsyncConnection, order_id: str, **values: Any) -> None:
    await connection.execute(ORDERS.update().where(ORDERS.c.id == order_id).values(**values))


async def page(
    connection: AsyncConnection,
    *,
    cursor: str,
    limit: int,
    user_id: str | None = None,
    status: str | None = None,
) -> tuple[list[Order], str | None]:
    """The newest first, and the cursor of the next page if there is one."""
    query = sa.select(ORDERS).order_by(ORDERS.c.created_ms.desc(), ORDERS.c.id.desc())
    if user_id is not None:
        query = query.where(ORDERS.c.user_id == user_id)
    if status is not None:
        query = query.where(ORDERS.c.status == status)
    if cursor:
        at, order_id = _place(cursor)
        query = query.where(
            (ORDERS.c.created_ms < at) | ((ORDERS.c.created_ms == at) & (ORDERS.c.id < order_id))
        )
    rows = (await connection.execute(query.limit(limit + 1))).mappings().all()
    found = [Order(**row) for row in rows[:limit]]
    return found, cursor_of(found[-1]) if len(rows) > limit else None


def cursor_of(order: Order) -> str:
    return base64.urlsafe_b64encode(f"{order.created_ms}:{order.id}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[int, str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        at, _, order_id = text.decode("ascii").partition(":")
        if not at.isdigit() or len(at) > 15 or not order_id:
            raise ValueError
        return int(at), order_id
    except (ValueError, binascii.Error):
        raise Problem(
            422, "cursor is not one that an answer gave as `next`", code="cursor_invalid"
        ) from None


async def totals(connection: AsyncConnection) -> dict[str, dict[str, int]]:
    """How many orders there are of each status, and what they come to."""
    rows: Sequence[Any] = (
        await connection.execute(
            sa.select(ORDERS.c.status, sa.func.count(), sa.func.sum(ORDERS.c.total)).group_by(
                ORDERS.c.status
            )
        )
    ).all()
    return {status: {"count": int(count), "total": int(total)} for status, count, total in rows}
