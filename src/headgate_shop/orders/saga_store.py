"""Sagas in the database: who drives which, how far each has come, and what comes with a step.

Theory of operation
-------------------
A saga has a row while it is open. Whoever drives it holds a lease, which is a name and an end, and
every step is written by a transaction that finds that name still there: a process that stood still
and comes back writes nothing. It may have repeated an action outside meanwhile, and that is why
actions may be repeated.

Rows are locked in one order, here and wherever else: the order's, its saga's, the cart's.

What belongs together is written together: the step and the order's status, the message that tells
others of it, and the cart that gets its goods back. `tries` counts the attempts at the present
step, the one that is about to begin included.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.orders import cart_store, order_store
from headgate_shop.orders.carts import Line, merged
from headgate_shop.orders.ids import payment_of
from headgate_shop.orders.leases import is_over
from headgate_shop.orders.order_store import Order
from headgate_shop.orders.saga import (
    GIVE_UP_MS,
    Outcome,
    Saga,
    Step,
    advance,
    begin_cancel,
    wait_ms,
)
from headgate_shop.orders.tables import ORDERS, SAGAS
from headgate_shop.queue import Outbox

__all__ = ["LEASE_MS", "Found", "SagaStore", "Work", "open_count", "open_of_user"]

LEASE_MS: Final = 4_000
"""Renewed while an action takes longer: how long a killed process's sagas wait for another."""


@dataclass(frozen=True, slots=True)
class Work:
    """A saga that we hold, and its next action."""

    order: Order
    saga: Saga
    tries: int
    began_ms: int
    card_token: str
    expected_total: int | None
    cart_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """How an action came out, and what it has brought with it."""

    outcome: Outcome
    lines: list[dict[str, Any]] | None = None
    total: int = 0
    refusal: dict[str, Any] | None = None


class SagaStore:
    def __init__(self, database: Database, outbox: Outbox, lease: str, rng: random.Random) -> None:
        """`lease` is a name that no other process has, nor had: `leases.new_lease`."""
        self._database = database
        self._outbox = outbox
        self._lease = lease
        self._rng = rng

    # ---- whose it is

    def first_row(
        self,
        order_id: str,
        now_ms: int,
        *,
        step: Step,
        is_cancelled: bool = False,
        card_token: str = "",
        expected_total: int | None = None,
        cart_id: str = "",
    ) -> dict[str, Any]:
        """The row of a saga that begins and is ours: `claim` takes it up."""
        return {
            "order_id": order_id,
            "step": step,
            "is_cancelled": is_cancelled,
            "tries": 0,
            "began_ms": now_ms,
            "due_ms": now_ms,
            "lease": self._lease,
            "lease_ms": now_ms + LEASE_MS,
            "card_token": card_token,
            "expected_total": expected_total,
            "cart_id": cart_id,
        }

    async def due(self, now_ms: int, limit: int) -> list[str]:
        """Sagas that wait for somebody."""
        query = (
            sa.select(SAGAS.c.order_id)
            .where(SAGAS.c.due_ms <= now_ms, SAGAS.c.lease_ms <= now_ms)
            .order_by(SAGAS.c.due_ms)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return list((await connection.scalars(query)).all())

    async def claim(self, order_id: str, now_ms: int) -> Work | None:
        """Take it up, if nobody else has it: what is done next is written down as begun."""
        is_free = (SAGAS.c.lease_ms <= now_ms) | (SAGAS.c.lease == self._lease)
        async with self._database.writing() as connection:
            await order_store.find(connection, order_id, hold=True)
            done = await connection.execute(
                SAGAS.update()
                .where(SAGAS.c.order_id == order_id, SAGAS.c.due_ms <= now_ms, is_free)
                .values(lease=self._lease, lease_ms=now_ms + LEASE_MS, tries=SAGAS.c.tries + 1)
            )
            if done.rowcount != 1:
                return None
            return await self._work(connection, order_id)

    async def free_those_of_the_dead(self, is_there: Callable[[int], bool]) -> int:
        """Sagas of processes that have ended need not wait for their leases. Answers how many."""
        freed = 0
        async with self._database.writing() as connection:
            leases = await connection.scalars(sa.select(SAGAS.c.lease).distinct())
            for lease in leases.all():
                if is_over(lease, self._lease, is_there):
                    done = await connection.execute(
                        SAGAS.update().where(SAGAS.c.lease == lease).values(lease="", lease_ms=0)
                    )
                    freed += done.rowcount
        return freed

    async def renew(self, order_id: str, now_ms: int) -> None:
        async with self._database.writing() as connection:
            await connection.execute(
                SAGAS.update()
                .where(SAGAS.c.order_id == order_id, SAGAS.c.lease == self._lease)
                .values(lease_ms=now_ms + LEASE_MS)
            )

    async def _work(self, connection: AsyncConnection, order_id: str) -> Work | None:
        """The saga, if it is ours; others cannot change it until the transaction ends."""
        order = await order_store.find(connection, order_id, hold=True)
        row = (
            await connection.execute(
                sa.select(SAGAS)
                .where(SAGAS.c.order_id == order_id, SAGAS.c.lease == self._lease)
                .with_for_update()
            )
        ).one_or_none()
        if row is None or order is None:
            return None
        saga = Saga(Step(row.step), order.status, order.reason, row.is_cancelled)
        return Work(
            order, saga, row.tries, row.began_ms, row.card_token, row.expected_total, row.cart_id
        )

    # ---- how it goes on

    async def settle(self, order_id: str, step: Step, found: Found, now_ms: int) -> Work | None:
        """Write down how an action came out. Answers what is to be done at once, if anything."""
        async with self._database.writing() as connection:
            work = await self._work(connection, order_id)
            if work is None or work.saga.step is not step:
                return None  # somebody else has it meanwhile
            before = work.saga
            is_overdue = now_ms - work.began_ms > GIVE_UP_MS
            after = advance(before, found.outcome, is_overdue=is_overdue)
            if after.step is before.step:
                await connection.execute(
                    SAGAS.update()
                    .where(SAGAS.c.order_id == order_id)
                    .values(due_ms=now_ms + wait_ms(work.tries, self._rng), lease="", lease_ms=0)
                )
                return None
            await self._step(connection, work, after, found, now_ms)
            if after.step is Step.DONE:
                await connection.execute(SAGAS.delete().where(SAGAS.c.order_id == order_id))
                return None
            await connection.execute(
                SAGAS.update()
                .where(SAGAS.c.order_id == order_id)
                .values(step=after.step, tries=1, due_ms=now_ms, lease_ms=now_ms + LEASE_MS)
            )
            return await self._work(connection, order_id)

    async def _step(
        self, connection: AsyncConnection, work: Work, after: Saga, found: Found, now_ms: int
    ) -> None:
        """All that changes with a step, but the saga's own row."""
        order, values = work.order, dict[str, Any]()
        if found.lines is not None:
            values |= {"lines": found.lines, "total": found.total}
        if after.status != order.status:
            values |= {
                "status": after.status,
                "reason": after.reason,
                "history": order.then(after.status, now_ms),
            }
            if found.refusal is not None:
                values["refusal"] = found.refusal
        if values:
            await order_store.save(connection, order.id, **values)
            order = await order_store.find(connection, order.id) or order
        if after.step is Step.PAY:
            await self._tell(connection, events.ORDER_PLACED, order, now_ms)
        if after.status == work.order.status:
            return
        if after.status == "paid":
            await self._tell(
                connection, events.ORDER_PAID, order, now_ms, payment_id=payment_of(order.id)
            )
        elif after.status == "refused" and work.cart_id:
            await _put_back(connection, work.cart_id, order, now_ms)

    async def cancel(self, connection: AsyncConnection, order: Order, now_ms: int) -> None:
        """Turn an order round; the caller holds its row, and wakes the driver afterwards."""
        if order.status == "pending":
            await connection.execute(
                SAGAS.update()
                .where(SAGAS.c.order_id == order.id)
                .values(is_cancelled=True, due_ms=now_ms)
            )
            return
        saga = begin_cancel("cancelled")
        await order_store.save(
            connection,
            order.id,
            status=saga.status,
            reason=saga.reason,
            history=order.then(saga.status, now_ms),
        )
        row = self.first_row(order.id, now_ms, step=saga.step, is_cancelled=True)
        await connection.execute(SAGAS.insert().values(**row))
        await self._tell(connection, events.ORDER_CANCELLED, order, now_ms, reason=saga.reason)

    async def _tell(
        self, connection: AsyncConnection, topic: str, order: Order, now_ms: int, **more: Any
    ) -> None:
        # The id follows from the order's: told twice, it is heard once.
        await self._outbox.add(
            connection, topic, order.event(now_ms, **more), id=f"{order.id}/{topic}"
        )


async def _put_back(connection: AsyncConnection, cart_id: str, order: Order, now_ms: int) -> None:
    there = await cart_store.hold(connection, cart_id, now_ms)
    back = [
        Line(
            line["product_id"],
            line["quantity"],
            line.get("name", ""),
            line.get("price"),
            line.get("image", ""),
            now_ms,
        )
        for line in order.lines
    ]
    await cart_store.write(connection, cart_id, merged(there, back))


async def open_count(connection: AsyncConnection) -> dict[str, int]:
    """How many sagas are at which step."""
    rows: Sequence[Any] = (
        await connection.execute(sa.select(SAGAS.c.step, sa.func.count()).group_by(SAGAS.c.step))
    ).all()
    return {step: int(count) for step, count in rows}


async def open_of_user(connection: AsyncConnection, user_id: str) -> int:
    found = await connection.scalar(
        sa.select(sa.func.count())
        .select_from(SAGAS.join(ORDERS, ORDERS.c.id == SAGAS.c.order_id))
        .where(ORDERS.c.user_id == user_id)
    )
    return int(found or 0)
