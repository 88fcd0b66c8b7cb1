"""The stock: what came, what is held for a checkout, what was sold, and never more than there is.

Theory of operation
-------------------
For each product three counts, each the sum of movements of its kinds:

    received   received, counted (what was counted differs from what was thought to be there)
    reserved   reserved - released - expired - sold
    sold       sold - returned

and `received - sold - reserved` is available, which the database itself keeps from falling below 0.

A reservation is `held`, then one of:

    sold       by a commit
    expired    its time was over; a commit that comes still takes the goods if they are there
    ended      somebody let it go: nothing of it is held or sold, whatever it was before

`ended` is final, also for an id that was never seen: a request that was on its way for long cannot
reserve after its release. Each call with the same id and lines again answers the same, and moves
nothing again.

In PostgreSQL the reservation's row is locked first, then stock in the order of the products' ids;
in SQLite there is one writer. A change is one transaction, so a process that is killed has moved
all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new
from headgate_shop.products.shapes import LOW_AT
from headgate_shop.products.tables import (
    MOVEMENTS,
    PRODUCTS,
    RESERVATIONS,
    RESERVED,
    STOCK,
)
from headgate_shop.queue import Outbox

__all__ = ["Differs", "Ended", "Gone", "Line", "Reservation", "Short", "Stock"]

SWEEP_AT_ONCE: Final = 100


class Short(Exception):
    """There is less than was asked for."""

    def __init__(self, short: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("there is not enough of " + ", ".join(one["product_id"] for one in short))
        self.short = list(short)


class Gone(Exception):
    """Some products are not sold here (any more)."""

    def __init__(self, gone: Sequence[str]) -> None:
        super().__init__("not sold here: " + ", ".join(gone))
        self.gone = list(gone)


class Ended(Exception):
    """The reservation is over, or never was."""


class Differs(Exception):
    """There is a reservation of this id for something else."""


@dataclass(frozen=True, slots=True)
class Line:
    product_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Reservation:
    id: str
    state: str
    expires_ms: int
    lines: tuple[dict[str, Any], ...]


class Stock:
    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    # ---- reservations

    async def reserve(
        self, reservation_id: str, lines: Sequence[Line], ttl_s: float, now_ms: int
    ) -> Reservation:
        """Raises `Short`, `Gone`, `Ended`, `Differs`; then nothing is held."""
        wanted = _summed(lines)
        try:
            return await self._reserve(reservation_id, wanted, ttl_s, now_ms)
        except Short:
            if not await self.expire(now_ms):
                raise
        return await self._reserve(
            reservation_id, wanted, ttl_s, now_ms
        )  # what was overdue is back

    async def _reserve(
        self, reservation_id: str, wanted: Mapping[str, int], ttl_s: float, now_ms: int
    ) -> Reservation:
        async with self._database.writing() as connection:
            expires_ms = now_ms + int(ttl_s * 1000)
            row = {
                "id": reservation_id,
                "state": "held",
                "created_ms": now_ms,
                "expires_ms": expires_ms,
            }
            if not await insert_new(connection, RESERVATIONS, row):
                return await self._again(connection, reservation_id, wanted)
            goods = await _goods(connection, list(wanted))
            gone = sorted(set(wanted) - set(goods))
            if gone:
                raise Gone(gone)
            await self._hold(connection, reservation_id, wanted, now_ms)
            made = [
                {"reservation_id": reservation_id, "quantity": quantity, **goods[product_id]}
                for product_id, quantity in wanted.items()
            ]
            await connection.execute(sa.insert(RESERVED), made)
        return Reservation(reservation_id, "held", expires_ms, tuple(map(_shown, made)))

    async def _again(
        self, connection: AsyncConnection, reservation_id: str, wanted: Mapping[str, int]
    ) -> Reservation:
        found = await _reservation(connection, reservation_id)
        if found is None or found.state in ("ended", "expired"):
            raise Ended
        if {line["product_id"]: line["quantity"] for line in found.lines} != wanted:
            raise Differs
        return found

    async def commit(self, reservation_id: str, now_ms: int) -> Reservation:
        """The goods are sold. Raises `Ended`."""
        async with self._database.writing() as connection:
            found = await _reservation(connection, reservation_id, is_locking=True)
            if found is None or found.state == "ended":
                raise Ended
            if found.state == "sold":
                return found
            quantities = {line["product_id"]: line["quantity"] for line in found.lines}
            if found.state == "expired":
                try:
                    await self._hold(connection, reservation_id, quantities, now_ms)
                except Short as error:
                    raise Ended from error
            for product_id, quantity in sorted(quantities.items()):
                await _move(connection, "sold", product_id, quantity, now_ms, reservation_id)
            await _settle(connection, reservation_id, "sold", now_ms)
            await self._warn(connection, quantities, now_ms)
        return Reservation(found.id, "sold", found.expires_ms, found.lines)

    async def end(self, reservation_id: str, now_ms: int) -> Reservation:
        """Let it go, whatever it was; what it had sold comes back."""
        async with self._database.writing() as connection:
            note = {
                "id": reservation_id,
                "state": "ended",
                "created_ms": now_ms,
                "expires_ms": now_ms,
                "settled_ms": now_ms,
            }
            if await insert_new(connection, RESERVATIONS, note):
                return Reservation(reservation_id, "ended", now_ms, ())
            found = await _reservation(connection, reservation_id, is_locking=True)
            if found is None:
                raise Ended  # it was forgotten at this moment
            kind = {"held": "released", "sold": "returned"}.get(found.state)
            for line in sorted(found.lines, key=lambda line: str(line["product_id"])):
                if kind is not None:
                    await _move(
                        connection, kind, line["product_id"], line["quantity"], now_ms,
                        reservation_id,
                    )  # fmt: skip
            if found.state != "ended":
                await _settle(connection, reservation_id, "ended", now_ms)
        return Reservation(found.id, "ended", found.expires_ms, found.lines)

    async def expire(self, now_ms: int) -> list[str]:
        """Let go of what is overdue; answers the products of which there is more again."""
        overdue = (
            sa.select(RESERVATIONS.c.id)
            .where(RESERVATIONS.c.state == "held", RESERVATIONS.c.expires_ms <= now_ms)
            .order_by(RESERVATIONS.c.expires_ms)
            .limit(SWEEP_AT_ONCE)
        )
        async with self._database.reading() as connection:
            ids = list((await connection.scalars(overdue)).all())
        freed: set[str] = set()
        for reservation_id in ids:
            async with self._database.writing() as connection:
                found = await _reservation(connection, reservation_id, is_locking=True)
                if found is None or found.state != "held" or found.expires_ms > now_ms:
                    continue  # it was settled meanwhile
                for line in sorted(found.lines, key=lambda line: str(line["product_id"])):
                    freed.add(line["product_id"])
                    await _move(
                        connection, "expired", line["product_id"], line["quantity"], now_ms,
                        reservation_id,
                    )  # fmt: skip
                await _settle(connection, reservation_id, "expired", now_ms)
        return sorted(freed)

    async def _hold(
        self,
        connection: AsyncConnection,
        reservation_id: str,
        quantities: Mapping[str, int],
        now_ms: int,
    ) -> None:
        """Reserve all or raise `Short`, which ends the transaction."""
        short = []
        for product_id, quantity in sorted(quantities.items()):
            if await _move(connection, "reserved", product_id, quantity, now_ms, reservation_id):
                continue
            there = await _available(connection, [product_id])
            short.append({"product_id": product_id, "available": there.get(product_id, 0)})
        if short:
            raise Short(short)

    # ---- what comes in

    async def receive(
        self, connection: AsyncConnection, product_id: str, quantity: int, now_ms: int
    ) -> None:
        """So much more, or less: raises `Short` if that much is not there to be taken away."""
        if not await _move(connection, "received", product_id, quantity, now_ms):
            available = (await _available(connection, [product_id])).get(product_id, 0)
            raise Short([{"product_id": product_id, "available": available}])
        await self._warn(connection, {product_id: -quantity}, now_ms)

    async def count(
        self, connection: AsyncConnection, product_id: str, found: int, now_ms: int
    ) -> None:
        """So many were counted, with those that are reserved."""
        query = sa.select(STOCK).where(STOCK.c.product_id == product_id).with_for_update()
        row = (await connection.execute(query)).one_or_none()
        there = 0 if row is None else row.received - row.sold
        if found == there:
            return
        if not await _move(connection, "counted", product_id, found - there, now_ms):
            reserved = 0 if row is None else row.reserved
            raise Short([{"product_id": product_id, "available": 0, "reserved": reserved}])
        await self._warn(connection, {product_id: there - found}, now_ms)

    async def _warn(
        self, connection: AsyncConnection, taken: Mapping[str, int], now_ms: int
    ) -> None:
        """Tell of what has become scarce by this, and was not before."""
        on_shelf = STOCK.c.received - STOCK.c.sold
        query = (
            sa.select(
                PRODUCTS.c.id,
                PRODUCTS.c.name,
                on_shelf.label("on_shelf"),
                (on_shelf - STOCK.c.reserved).label("available"),
            )
            .join(PRODUCTS, PRODUCTS.c.id == STOCK.c.product_id)
            .where(STOCK.c.product_id.in_(list(taken)), on_shelf < LOW_AT)
        )
        for row in (await connection.execute(query)).all():
            if row.on_shelf + taken[row.id] >= LOW_AT:
                word = {
                    "product_id": row.id,
                    "name": row.name,
                    "available": int(row.available),
                    "at": now_ms / 1000,
                }
                await self._outbox.add(connection, events.STOCK_LOW, word)


_EFFECTS: Final = {
    # kind: what it adds to received, reserved, sold
    "received": (1, 0, 0),
    "counted": (1, 0, 0),
    "reserved": (0, 1, 0),
    "released": (0, -1, 0),
    "expired": (0, -1, 0),
    "sold": (0, -1, 1),
    "returned": (0, 0, -1),
}


async def _move(
    connection: AsyncConnection,
    kind: str,
    product_id: str,
    quantity: int,
    now_ms: int,
    reservation_id: str | None = None,
) -> bool:
    """One movement: the counts and the ledger. False if there is too little for it."""
    received, reserved, sold = (sign * quantity for sign in _EFFECTS[kind])
    takes = reserved + sold - received
    change = (
        sa.update(STOCK)
        .where(STOCK.c.product_id == product_id)
        .values(
            received=STOCK.c.received + received,
            reserved=STOCK.c.reserved + reserved,
            sold=STOCK.c.sold + sold,
        )
    )
    if takes > 0:
        change = change.where(STOCK.c.received - STOCK.c.sold - STOCK.c.reserved >= takes)
    if (await connection.execute(change)).rowcount != 1:
        is_new = received > 0 and await insert_new(
            connection,
            STOCK,
            {"product_id": product_id, "received": received, "sold": 0, "reserved": 0},
        )
        if not is_new:
            return False
    await connection.execute(
        sa.insert(MOVEMENTS).values(
            product_id=product_id,
            kind=kind,
            quantity=quantity,
            reservation_id=reservation_id,
            at_ms=now_ms,
        )
    )
    return True


async def _available(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, int]:
    query = sa.select(
        STOCK.c.product_id, (STOCK.c.received - STOCK.c.sold - STOCK.c.reserved).label("available")
    ).where(STOCK.c.product_id.in_(ids))
    return {row.product_id: int(row.available) for row in await connection.execute(query)}


async def _goods(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    columns = [PRODUCTS.c[name] for name in ("id", "name", "price", "currency", "category")]
    query = sa.select(*columns, PRODUCTS.c.images).where(
        PRODUCTS.c.id.in_(ids), PRODUCTS.c.removed_ms.is_(None)
    )
    return {
        row.id: {
            "product_id": row.id,
            "name": row.name,
            "price": row.price,
            "currency": row.currency,
            "category": row.category,
            "image": f"/images/{row.images[0]}" if row.images else "",
        }
        for row in await connection.execute(query)
    }


async def _reservation(
    connection: AsyncConnection, reservation_id: str, *, is_locking: bool = False
) -> Reservation | None:
    query = sa.select(RESERVATIONS).where(RESERVATIONS.c.id == reservation_id)
    if is_locking:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    lines = await connection.execute(
        sa.select(RESERVED)
        .where(RESERVED.c.reservation_id == reservation_id)
        .order_by(RESERVED.c.product_id)
    )
    shown = tuple(_shown(dict(line)) for line in lines.mappings())
    return Reservation(row.id, row.state, row.expires_ms, shown)


async def _settle(
    connection: AsyncConnection, reservation_id: str, state: str, now_ms: int
) -> None:
    await connection.execute(
        sa.update(RESERVATIONS)
        .where(RESERVATIONS.c.id == reservation_id)
        .values(state=state, settled_ms=now_ms)
    )


def _summed(lines: Sequence[Line]) -> dict[str, int]:
    """A product that stands in two lines is one wish, for the sum."""
    wanted: dict[str, int] = {}
    for line in lines:
        wanted[line.product_id] = wanted.get(line.product_id, 0) + line.quantity
    return dict(sorted(wanted.items()))


def _shown(line: Mapping[str, Any]) -> dict[str, Any]:
    names = ("product_id", "name", "price", "currency", "quantity", "category", "image")
    return {name: line[name] for name in names}
