"""From a cart to an order: one for each key of a client, whatever happens in between.

Theory of operation
-------------------
The order, its saga, the client's key and the empty cart are written in one transaction. Before it
nothing has been done that counts: a client that hears nothing may ask again under its key, and so
may one whose payment service was away. After it the saga goes its way alone, and whoever comes with
the same key is told about the same order.

A customer's cart is held by that transaction, so two checkouts of one cart take turns, and the
second finds it empty. What is refused goes back into the cart.
"""

from __future__ import annotations

import random
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate.kit import Problem
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.orders import cart_store, order_store
from headgate_shop.orders.carts import CURRENCY, Line, user_cart
from headgate_shop.orders.driver import Driver, now_ms
from headgate_shop.orders.housekeeping import KEY_LIFE_MS
from headgate_shop.orders.ids import new_order_id
from headgate_shop.orders.order_store import Order, iso
from headgate_shop.orders.saga import begin
from headgate_shop.orders.saga_store import SagaStore, open_of_user
from headgate_shop.orders.shapes import CheckoutWanted
from headgate_shop.orders.steps import CardRefused, Outside, PaymentAway
from headgate_shop.orders.tables import KEYS, SAGAS
from headgate_shop.queue import Outbox

__all__ = ["Checkout", "problem_of"]

KEYS_A_DAY: Final = 500
OPEN_MAX: Final = 10


class Checkout:
    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        store: SagaStore,
        outside: Outside,
        driver: Driver,
        rng: random.Random,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._store = store
        self._outside = outside
        self._driver = driver
        self._rng = rng

    async def earlier(self, user_id: str, key: str, wanted: CheckoutWanted) -> str | None:
        """The order of this key, if there is one already."""
        async with self._database.reading() as connection:
            return await self._earlier(connection, user_id, key, wanted.fingerprint())

    async def place(self, user_id: str, email: str, key: str, wanted: CheckoutWanted) -> str:
        """The id of the order, which is under way. Raises Problem where none came to be."""
        async with self._database.reading() as connection:
            if not await cart_store.read(connection, user_cart(user_id)):
                # Perhaps because this very key has bought it a moment ago.
                found = await self._earlier(connection, user_id, key, wanted.fingerprint())
                if found is None:
                    raise _empty()
                return found
        token = await self._token(wanted)
        async with self._database.writing() as connection:
            now = now_ms()
            cart_id = user_cart(user_id)
            lines = await cart_store.hold(connection, cart_id, now)
            # Asked once more, now that nobody else buys this cart.
            found = await self._earlier(connection, user_id, key, wanted.fingerprint())
            if found is not None:
                return found
            if not lines:
                raise _empty()
            await self._bounds(connection, user_id, now)
            order_id = new_order_id(self._rng)
            saga = begin()
            await order_store.insert(
                connection,
                {
                    "id": order_id,
                    "user_id": user_id,
                    "email": email,
                    "status": saga.status,
                    "reason": "",
                    "refusal": {},
                    "lines": [_line(line) for line in lines],
                    "total": sum((line.price or 0) * line.quantity for line in lines),
                    "currency": CURRENCY,
                    "address": wanted.address.model_dump(),
                    "tracking": "",
                    "created_ms": now,
                    "history": [{"status": saga.status, "at": iso(now)}],
                },
                now,
                self._rng,
            )
            row = self._store.first_row(
                order_id,
                now,
                step=saga.step,
                card_token=token,
                expected_total=wanted.total,
                cart_id=cart_id,
            )
            await connection.execute(SAGAS.insert().values(**row))
            await connection.execute(
                KEYS.insert().values(
                    user_id=user_id,
                    key=key,
                    fingerprint=wanted.fingerprint(),
                    order_id=order_id,
                    created_ms=now,
                )
            )
            await cart_store.write(connection, cart_id, [])
            event = {"type": "checkout", "at": now / 1000, "session": user_id, "user_id": user_id}
            await self._outbox.add(connection, events.SHOPPING, {"events": [event]})
        self._driver.start(order_id)
        return order_id

    async def _token(self, wanted: CheckoutWanted) -> str:
        card = {
            "number": wanted.card.number.get_secret_value(),
            "expiry": wanted.card.expiry,
            "cvc": wanted.card.cvc.get_secret_value(),
        }
        try:
            return await self._outside.card_token(card)
        except CardRefused as error:
            raise Problem(422, str(error), code="card_invalid") from error
        except PaymentAway as error:
            raise Problem(
                503,
                "Payments are not possible at the moment. Nothing was ordered or charged; your"
                " cart is as it was.",
                code="payment_away",
                headers={"retry-after": "5"},
            ) from error

    async def _earlier(
        self, connection: AsyncConnection, user_id: str, key: str, fingerprint: str
    ) -> str | None:
        mine = (KEYS.c.user_id == user_id) & (KEYS.c.key == key)
        row = (await connection.execute(sa.select(KEYS).where(mine))).one_or_none()
        if row is None:
            return None
        if row.created_ms < now_ms() - KEY_LIFE_MS:
            return None  # `_bounds` throws it away
        if row.fingerprint != fingerprint:
            raise Problem(
                422,
                "this Idempotency-Key was sent with another checkout; make a new one for each",
                code="key_reused",
            )
        return str(row.order_id)

    async def _bounds(self, connection: AsyncConnection, user_id: str, now: int) -> None:
        is_old = KEYS.c.created_ms < now - KEY_LIFE_MS
        await connection.execute(KEYS.delete().where(KEYS.c.user_id == user_id, is_old))
        used = await connection.scalar(
            sa.select(sa.func.count()).select_from(KEYS).where(KEYS.c.user_id == user_id)
        )
        if (used or 0) >= KEYS_A_DAY or await open_of_user(connection, user_id) >= OPEN_MAX:
            raise Problem(
                429,
                "too many checkouts; wait until those under way have come to their end",
                code="checkout_limit",
                headers={"retry-after": "60"},
            )


def _line(line: Line) -> dict[str, Any]:
    return {
        "product_id": line.product_id,
        "name": line.name or line.product_id,
        "price": line.price,
        "quantity": line.quantity,
        "image": line.image,
    }


def _empty() -> Problem:
    return Problem(409, "the cart is empty", code="cart_empty")


def problem_of(order: Order) -> Problem:
    """What is said of an order that was refused."""
    names = {line["product_id"]: line.get("name") or line["product_id"] for line in order.lines}
    told: dict[str, Any] = {"order_id": order.id, "number": order.number, **order.refusal}
    match order.reason:
        case "payment_refused":
            why = str(order.refusal.get("reason", ""))
            detail = f"{_CARD_WORDS.get(why, _CARD_WORDS['refused'])} Nothing was charged."
            return Problem(402, detail, code="payment_refused", **told)
        case "out_of_stock":
            short = [
                {**one, "name": names.get(one["product_id"], one["product_id"])}
                for one in order.refusal.get("short", [])
            ]
            said = ", ".join(f"{one['name']} (left: {one['available']})" for one in short)
            detail = f"There is not enough of {said}." if said else "The goods are sold out."
            told["short"] = short
            return Problem(409, f"{detail} Nothing was charged.", code="out_of_stock", **told)
        case "gone":
            said = ", ".join(names.get(one, one) for one in order.refusal.get("gone", []))
            detail = f"No longer sold: {said or 'something in the cart'}. Nothing was charged."
            return Problem(409, detail, code="gone", **told)
        case "price_changed":
            return Problem(
                409,
                "Prices have changed since the cart was shown. Nothing was charged.",
                code="price_changed",
                **told,
            )
        case _:
            return Problem(
                503,
                "The order could not be carried out. Whatever was charged is given back; your"
                " cart is as it was.",
                code="unavailable",
                headers={"retry-after": "10"},
                **told,
            )


_CARD_WORDS: Final = {
    "refused": "The card was refused.",
    "no_money": "There is not enough money for this on the card.",
    "expired_card": "The card has expired.",
    "wrong_cvc": "The card's security code is wrong.",
}
