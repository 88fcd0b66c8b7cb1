"""The payment company's book: who paid what, what was refused, what was given back.

Theory of operation
-------------------
A payment is told apart by the id that the merchant gives it, for ever:

    unknown -> captured -> refunded, in parts, up to what was captured
            -> refused
            -> void        it shall never be carried out, however late it is asked for

The first word on an id stands. Whoever asks again hears what became of it, and whoever asks for
another amount under the same id is refused. `void` is for a merchant who does not know whether his
request arrived, and wants to be sure that it does nothing any more; of a payment that was carried
out it changes nothing, and says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.kit import Problem
from headgate_shop.base.database import Database
from headgate_shop.base.rows import insert_new
from headgate_shop.payments.cards import Verdict
from headgate_shop.payments.tables import CARDS, PAYMENTS, REFUNDS

__all__ = ["Book", "Payment"]

TOKEN_LIFE_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Payment:
    payment_id: str
    status: str
    reason: str
    amount: int
    currency: str
    refunded: int
    last4: str
    at_ms: int

    def shown(self) -> dict[str, Any]:
        return asdict(self)


class Book:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep_card(self, token: str, verdict: Verdict, now_ms: int) -> int:
        """Answers until when the token stands for the card, in milliseconds."""
        expires_ms = now_ms + TOKEN_LIFE_MS
        async with self._database.writing() as connection:
            await connection.execute(CARDS.delete().where(CARDS.c.expires_ms < now_ms))
            await connection.execute(
                CARDS.insert().values(
                    token=token, verdict=verdict.reason, last4=verdict.last4, expires_ms=expires_ms
                )
            )
        return expires_ms

    async def pay(
        self, payment_id: str, amount: int, currency: str, card: Verdict | str, now_ms: int
    ) -> Payment:
        """`card` is a card or the token of one."""
        async with self._database.writing() as connection:
            found = await self._find(connection, payment_id)
            if found is None:
                verdict = await self._card(connection, card, now_ms)
                await insert_new(
                    connection,
                    PAYMENTS,
                    {
                        "payment_id": payment_id,
                        "status": "refused" if verdict.reason else "captured",
                        "reason": verdict.reason,
                        "amount": amount,
                        "currency": currency,
                        "refunded": 0,
                        "last4": verdict.last4,
                        "at_ms": now_ms,
                    },
                )
                found = await self._there(connection, payment_id)
        if found.status == "void":
            raise Problem(
                409, f"the payment {payment_id} was made void; it is not carried out", code="void"
            )
        if (found.amount, found.currency) != (amount, currency):
            raise Problem(
                409,
                f"the payment {payment_id} is one of {found.amount} {found.currency},"
                f" not of {amount} {currency}",
                code="other_payment",
            )
        return found

    async def find(self, payment_id: str) -> Payment:
        async with self._database.reading() as connection:
            found = await self._find(connection, payment_id)
        if found is None:
            raise Problem(404, f"no payment {payment_id} was ever seen", code="unknown")
        return found

    async def void(self, payment_id: str, now_ms: int) -> Payment:
        async with self._database.writing() as connection:
            await insert_new(
                connection,
                PAYMENTS,
                {
                    "payment_id": payment_id,
                    "status": "void",
                    "reason": "",
                    "amount": 0,
                    "currency": "",
                    "refunded": 0,
                    "last4": "",
                    "at_ms": now_ms,
                },
            )
            return await self._there(connection, payment_id)

    async def refund(self, payment_id: str, refund_id: str, amount: int, now_ms: int) -> Payment:
        async with self._database.writing() as connection:
            found = await self._find(connection, payment_id, lock=True)
            if found is None:
                raise Problem(404, f"no payment {payment_id} was ever seen", code="unknown")
            earlier = (
                await connection.execute(sa.select(REFUNDS).where(REFUNDS.c.refund_id == refund_id))
            ).one_or_none()
            if earlier is not None:
                if (earlier.payment_id, earlier.amount) != (payment_id, amount):
                    raise Problem(
                        409,
                        f"the refund {refund_id} is one of {earlier.amount} of the payment"
                        f" {earlier.payment_id}",
                        code="other_refund",
                    )
                return found
            left = found.amount - found.refunded if found.status == "captured" else 0
            if amount > left:
                raise Problem(
                    409,
                    f"{amount} cannot be given back: {left} of the payment {payment_id} are left",
                    code="too_much",
                )
            await connection.execute(
                REFUNDS.insert().values(
                    refund_id=refund_id, payment_id=payment_id, amount=amount, at_ms=now_ms
                )
            )
            await connection.execute(
                PAYMENTS.update()
                .where(PAYMENTS.c.payment_id == payment_id)
                .values(refunded=PAYMENTS.c.refunded + amount)
            )
            return await self._there(connection, payment_id)

    async def page(self, after: str, limit: int) -> list[Payment]:
        """By id, from the one after `after`."""
        query = (
            sa.select(PAYMENTS)
            .where(PAYMENTS.c.payment_id > after)
            .order_by(PAYMENTS.c.payment_id)
            .limit(limit)
        )
        async with self._database.reading() as connection:
            return [Payment(**row) for row in (await connection.execute(query)).mappings()]

    async def totals(self) -> dict[str, int]:
        captured = sa.func.coalesce(
            sa.func.sum(sa.case((PAYMENTS.c.status == "captured", PAYMENTS.c.amount), else_=0)), 0
        )
        refunded = sa.func.coalesce(sa.func.sum(PAYMENTS.c.refunded), 0)
        async with self._database.reading() as connection:
            row = (await connection.execute(sa.select(captured, refunded))).one()
        return {"captured": int(row[0]), "refunded": int(row[1])}

    async def _card(self, connection: AsyncConnection, card: Verdict | str, now_ms: int) -> Verdict:
        if isinstance(card, Verdict):
            return card
        row = (
            await connection.execute(sa.select(CARDS).where(CARDS.c.token == card))
        ).one_or_none()
        if row is None or row.expires_ms < now_ms:
            raise Problem(422, "the token stands for no card, or not any more", code="no_card")
        return Verdict(row.verdict, row.last4)

    async def _find(
        self, connection: AsyncConnection, payment_id: str, *, lock: bool = False
    ) -> Payment | None:
        query = sa.select(PAYMENTS).where(PAYMENTS.c.payment_id == payment_id)
        if lock:
            query = query.with_for_update()
        row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else Payment(**row)

    async def _there(self, connection: AsyncConnection, payment_id: str) -> Payment:
        found = await self._find(connection, payment_id)
        if found is None:
            raise RuntimeError(f"the payment {payment_id} has gone from the book")
        return found
