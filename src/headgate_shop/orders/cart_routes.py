"""`/api/cart`: a signed-in customer's, or that of a visitor by `x-cart-id`."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Response

from headgate.kit import Problem
from headgate.kit.fastapi import current_user
from headgate.security.identity import Identity
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.orders import cart_store
from headgate_shop.orders.asking import Asking
from headgate_shop.orders.carts import (
    Known,
    guest_cart,
    has_line,
    merged,
    set_quantity,
    shown,
    user_cart,
)
from headgate_shop.orders.driver import Driver, now_ms
from headgate_shop.orders.shapes import CartMerge, ItemAdded, ItemWanted, ProductId
from headgate_shop.queue import Outbox

__all__ = ["cart_routes"]

Somebody = Annotated[Identity | None, Depends(current_user(optional=True))]
User = Annotated[Identity, Depends(current_user())]


async def whose_cart(
    identity: Somebody, x_cart_id: Annotated[str | None, Header(max_length=64)] = None
) -> str:
    """The id of the cart that is asked for. Whoever is signed in has one of their own."""
    if identity is not None:
        return user_cart(identity.subject)
    if x_cart_id is None:
        raise Problem(
            400,
            "whose cart? Sign in, or send x-cart-id with a UUID of your own making",
            code="cart_unknown",
        )
    try:
        return guest_cart(str(UUID(x_cart_id)))
    except ValueError:
        raise Problem(422, "x-cart-id is not a UUID", code="cart_unknown") from None


CartId = Annotated[str, Depends(whose_cart)]


def cart_routes(database: Database, outbox: Outbox, asking: Asking, driver: Driver) -> APIRouter:
    routes = APIRouter(prefix="/api/cart", tags=["cart"])

    async def show(cart_id: str, response: Response) -> dict[str, Any]:
        response.headers["cache-control"] = "no-store"
        lines = await cart_store.look(database, cart_id)
        return shown(cart_id, lines, await asking.products(line.product_id for line in lines))

    @routes.get("")
    async def cart(cart_id: CartId, response: Response) -> dict[str, Any]:
        return await show(cart_id, response)

    async def sold(product_id: str) -> Known | None:
        """As products says; None where it does not say. Raises Problem for what is not sold."""
        found = await asking.products([product_id])
        if found is None:
            return None
        if product_id not in found:
            raise Problem(404, f"there is no product {product_id}", code="gone")
        return found[product_id]

    @routes.put("/items/{product_id}")
    async def put_item(
        product_id: ProductId, item: ItemWanted, cart_id: CartId, response: Response
    ) -> dict[str, Any]:
        """Have so many of it in the cart. What nobody sells cannot be put in."""
        known = await sold(product_id) if item.quantity else None
        await driver.finish(put(cart_id, product_id, item.quantity, known))
        return await show(cart_id, response)

    async def put(cart_id: str, product_id: str, quantity: int, known: Known | None) -> None:
        now = now_ms()
        async with database.writing() as connection:
            lines = await cart_store.hold(connection, cart_id, now)
            if quantity:
                is_new = all(line.product_id != product_id for line in lines)
                lines = set_quantity(lines, product_id, quantity, known, now)
                if is_new:
                    await outbox.add(connection, events.SHOPPING, _put_in(cart_id, product_id, now))
            else:
                lines = [line for line in lines if line.product_id != product_id]
            await cart_store.write(connection, cart_id, lines)

    @routes.post("/items/{product_id}")
    async def add_item(
        product_id: ProductId, item: ItemAdded, cart_id: CartId, response: Response
    ) -> dict[str, Any]:
        """Put so many more of it into the cart, up to 99."""
        known = await sold(product_id)
        await driver.finish(add(cart_id, product_id, item.quantity, known))
        return await show(cart_id, response)

    async def add(cart_id: str, product_id: str, quantity: int, known: Known | None) -> None:
        now = now_ms()
        async with database.writing() as connection:
            lines = await cart_store.hold(connection, cart_id, now)
            is_new = not has_line(lines, product_id)
            await cart_store.add(connection, cart_id, product_id, quantity, known, now)
            if is_new:
                await outbox.add(connection, events.SHOPPING, _put_in(cart_id, product_id, now))

    @routes.delete("/items/{product_id}")
    async def remove_item(
        product_id: ProductId, cart_id: CartId, response: Response
    ) -> dict[str, Any]:
        await driver.finish(put(cart_id, product_id, 0, None))
        return await show(cart_id, response)

    @routes.delete("")
    async def empty(cart_id: CartId, response: Response) -> dict[str, Any]:
        async def drop() -> None:
            async with database.writing() as connection:
                await cart_store.forget(connection, cart_id)

        await driver.finish(drop())
        return await show(cart_id, response)

    @routes.post("/merge")
    async def merge(wanted: CartMerge, user: User, response: Response) -> dict[str, Any]:
        """What a visitor has put in before signing in joins the customer's own cart, once."""
        mine, guests = user_cart(user.subject), guest_cart(str(wanted.cart_id))

        async def join() -> None:
            async with database.writing() as connection:
                # Always the guest's first: two who hold both could otherwise wait for each other.
                theirs = await cart_store.hold(connection, guests, now_ms())
                if theirs:
                    own = await cart_store.hold(connection, mine, now_ms())
                    await cart_store.write(connection, mine, merged(own, theirs))
                await cart_store.forget(connection, guests)

        await driver.finish(join())
        return await show(mine, response)

    return routes


def _put_in(cart_id: str, product_id: str, now: int) -> dict[str, Any]:
    kind, _, name = cart_id.partition(":")
    event = {
        "type": "cart",
        "at": now / 1000,
        "session": name,  # one person, one session, whatever their browser says
        "user_id": name if kind == "user" else "",
        "product_id": product_id,
    }
    return {"events": [event]}
