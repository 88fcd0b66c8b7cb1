"""Forgets what is long settled with the stock, so that its books do not grow for ever.

Theory of operation
-------------------
The books stay balanced, by what `books` adds up: of each kind of movement the sum stays as it was,
and so does what reservations have sold.

    let go, or expired     The movements of such a reservation undo each other: all of it goes.
    sold                   Its movements and lines are added to those of one reservation that stands
                           for all of them (CARRIED), product by product, and then it goes.
    received, counted      Many of one product become one.

An id that is forgotten could be used again, and goods that were sold could not be given back by it.
So each is kept for longer than anybody may come back with it: orders take theirs to an end within
minutes, and cancel what has not been shipped within months.

A turn takes so much at most, in one transaction, and holds up nobody for long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new, upsert
from headgate_shop.products.tables import CARRIED, MOVEMENTS, RESERVATIONS, RESERVED

__all__ = ["forget"]

DAY_MS: Final = 86_400_000
KEEP_ENDED_MS: Final = 30 * DAY_MS
KEEP_SOLD_MS: Final = 400 * DAY_MS
KEEP_RECEIVED: Final = 200
"""Movements of one product that belong to no reservation; with more, the older ones become one."""
AT_ONCE: Final = 200


async def forget(database: Database, now_ms: int) -> int:
    """One turn; answers how many reservations and movements are fewer now."""
    count = 0
    async with database.writing() as connection:
        ids = await _settled(connection, ("ended", "expired"), now_ms - KEEP_ENDED_MS)
        count += len(ids)
        await _remove(connection, ids)
    async with database.writing() as connection:
        ids = await _settled(connection, ("sold",), now_ms - KEEP_SOLD_MS)
        count += len(ids)
        await _carry(connection, ids, now_ms)
        await _remove(connection, ids)
    async with database.writing() as connection:
        count += await _join_received(connection)
    return count


async def _settled(connection: AsyncConnection, states: Sequence[str], before_ms: int) -> list[str]:
    query = (
        sa.select(RESERVATIONS.c.id)
        .where(
            RESERVATIONS.c.state.in_(states),
            # By when it was to end, for which there is an index, and by when it did.
            RESERVATIONS.c.expires_ms < before_ms,
            RESERVATIONS.c.settled_ms < before_ms,
            RESERVATIONS.c.id != CARRIED,
        )
        .order_by(RESERVATIONS.c.id)
        .limit(AT_ONCE)
        .with_for_update()
    )
    return list((await connection.scalars(query)).all())


async def _remove(connection: AsyncConnection, ids: Sequence[str]) -> None:
    if ids:
        await connection.execute(sa.delete(MOVEMENTS).where(MOVEMENTS.c.reservation_id.in_(ids)))
        await connection.execute(sa.delete(RESERVED).where(RESERVED.c.reservation_id.in_(ids)))
        await connection.execute(sa.delete(RESERVATIONS).where(RESERVATIONS.c.id.in_(ids)))


async def _carry(connection: AsyncConnection, ids: Sequence[str], now_ms: int) -> None:
    """What these have sold becomes a part of what CARRIED has sold."""
    if not ids:
        return
    lines = RESERVED.c.reservation_id.in_(ids)
    total = sa.func.sum(RESERVED.c.quantity).label("total")
    rows = await connection.execute(
        sa.select(RESERVED.c.product_id, total).where(lines).group_by(RESERVED.c.product_id)
    )
    sold = {row.product_id: int(row.total) for row in rows}
    row = {
        "id": CARRIED,
        "state": "sold",
        "created_ms": now_ms,
        "expires_ms": now_ms,
        "settled_ms": now_ms,
    }
    await insert_new(connection, RESERVATIONS, row)
    blank = {"name": "", "price": 0, "currency": "", "category": "", "image": ""}
    made = [
        {"reservation_id": CARRIED, "product_id": one, "quantity": quantity, **blank}
        for one, quantity in sold.items()
    ]
    await upsert(connection, RESERVED, made, present="add", only=("quantity",))
    await _replace(connection, sold, now_ms)


async def _replace(connection: AsyncConnection, sold: Mapping[str, int], now_ms: int) -> None:
    """What CARRIED has sold of each product is one movement of each kind, with this added."""
    table = MOVEMENTS
    there = sa.and_(table.c.reservation_id == CARRIED, table.c.product_id.in_(list(sold)))
    total = sa.func.sum(table.c.quantity).label("total")
    rows = await connection.execute(
        sa.select(table.c.product_id, total)
        .where(there, table.c.kind == "sold")
        .group_by(table.c.product_id)
    )
    before = {row.product_id: int(row.total) for row in rows}
    await connection.execute(sa.delete(table).where(there))
    made = [
        {
            "product_id": one,
            "kind": kind,
            "quantity": quantity + before.get(one, 0),
            "reservation_id": CARRIED,
            "at_ms": now_ms,
        }
        for one, quantity in sorted(sold.items())
        for kind in ("reserved", "sold")
    ]
    if made:
        await connection.execute(sa.insert(table), made)


async def _join_received(connection: AsyncConnection) -> int:
    table = MOVEMENTS
    is_ours = table.c.kind.in_(("received", "counted"))
    crowded = (
        sa.select(table.c.product_id)
        .where(is_ours)
        .group_by(table.c.product_id)
        .having(sa.func.count() > KEEP_RECEIVED)
        .limit(10)
    )
    gone = 0
    for product_id in (await connection.scalars(crowded)).all():
        query = (
            sa.select(table.c.number, table.c.quantity, table.c.at_ms)
            .where(is_ours, table.c.product_id == product_id)
            .order_by(table.c.number.desc())
            .offset(KEEP_RECEIVED // 2)
            .limit(2 * KEEP_RECEIVED)
            .with_for_update()
        )
        old = (await connection.execute(query)).all()
        if len(old) < 2:
            continue
        await connection.execute(
            sa.delete(table).where(table.c.number.in_([row.number for row in old]))
        )
        one = {
            "product_id": product_id,
            "kind": "received",
            "quantity": sum(row.quantity for row in old),
            "reservation_id": None,
            "at_ms": old[0].at_ms,
        }
        await connection.execute(sa.insert(table).values(**one))
        gone += len(old) - 1
    return gone
