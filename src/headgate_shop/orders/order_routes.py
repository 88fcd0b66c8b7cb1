"""`/api/checkout` and `/api/orders`, for customers, and `/api/admin/orders`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from headgate.kit import Problem
from headgate.kit.fastapi import current_user, forwarded
from headgate.resilience import remaining
from headgate.security.identity import Identity
from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.orders import order_store, saga_store
from headgate_shop.orders.asking import Asking
from headgate_shop.orders.checkout import Checkout, problem_of
from headgate_shop.orders.driver import Driver, now_ms
from headgate_shop.orders.order_store import Order
from headgate_shop.orders.saga_store import SagaStore
from headgate_shop.orders.shapes import CheckoutWanted, Shipping, key_of
from headgate_shop.queue import Outbox

__all__ = ["admin_routes", "order_routes"]

User = Annotated[Identity, Depends(current_user())]
ADMIN: Final = Depends(current_user(roles=("admin",)))
OrderId = Annotated[str, Path(pattern=r"^[A-Za-z0-9-]{1,40}$")]
Cursor = Annotated[str, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=100)]

WAIT_S: Final = 8.0
ANSWER_S: Final = 0.5
"""Of the request's time, for telling what there is to tell."""


def order_routes(
    database: Database, store: SagaStore, checkout: Checkout, driver: Driver, asking: Asking
) -> APIRouter:
    routes = APIRouter(tags=["orders"])

    @routes.post("/api/checkout", status_code=201)
    async def buy(
        wanted: CheckoutWanted,
        user: User,
        request: Request,
        response: Response,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> dict[str, Any]:
        """Buy what is in the cart. The same Idempotency-Key buys once, however often it is sent.

        201: bought. 202: under way; ask `/api/orders/{id}`. 402, 409, 503: not bought, and why.
        """
        key = key_of(idempotency_key)
        order_id = await checkout.earlier(user.subject, key, wanted)
        if order_id is None:
            email = str(user.claims.get("email") or "") or await asking.email(forwarded(request))
            order_id = await driver.finish(checkout.place(user.subject, email, key, wanted))
        order = await driver.decided(order_id, max(0.0, remaining(WAIT_S) - ANSWER_S))
        if order is None:
            raise Problem(404, "the order of this key is not there any more", code="unknown")
        return _answered(order, response)

    @routes.get("/api/orders")
    async def orders(user: User, cursor: Cursor = "", limit: Limit = 20) -> dict[str, Any]:
        async with database.reading() as connection:
            found, following = await order_store.page(
                connection, cursor=cursor, limit=limit, user_id=user.subject
            )
        return {"items": [order.shown() for order in found], "next": following}

    @routes.get("/api/orders/{order_id}")
    async def order_by_id(order_id: OrderId, user: User) -> dict[str, Any]:
        """A customer's own; to others it is not there. Admins see all."""
        owner = None if "admin" in user.roles else user.subject
        async with database.reading() as connection:
            found = await order_store.find(connection, order_id, user_id=owner)
        if found is None:
            raise _no_order(order_id)
        return found.shown()

    @routes.post("/api/orders/{order_id}/cancel")
    async def cancel(order_id: OrderId, user: User, response: Response) -> dict[str, Any]:
        """The money goes back, and the goods onto the shelf. Not once it is shipped.

        202: it was not paid yet, and will be called off.
        """
        owner = None if "admin" in user.roles else user.subject

        async def turn_round() -> Order:
            async with database.writing() as connection:
                order = await order_store.find(connection, order_id, user_id=owner, hold=True)
                if order is None:
                    raise _no_order(order_id)
                if order.status == "cancelled":
                    return order
                if order.status not in ("pending", "paid"):
                    raise Problem(
                        409,
                        f"the order {order.number} is {order.status} and cannot be cancelled",
                        code=order.status,
                    )
                await store.cancel(connection, order, now_ms())
                after = await order_store.find(connection, order_id)
            driver.start(order_id)
            driver.wake()
            return after or order

        order = await driver.finish(turn_round())
        if order.status == "pending":
            response.status_code = 202
        return order.shown()

    return routes


def admin_routes(database: Database, outbox: Outbox, driver: Driver) -> APIRouter:
    routes = APIRouter(prefix="/api/admin/orders", tags=["admin"], dependencies=[ADMIN])

    @routes.get("")
    async def orders(
        status: Literal["pending", "paid", "shipped", "cancelled", "refused"] | None = None,
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> dict[str, Any]:
        async with database.reading() as connection:
            found, following = await order_store.page(
                connection, cursor=cursor, limit=limit, status=status
            )
        items = [
            {**order.shown(), "user_id": order.user_id, "email": order.email} for order in found
        ]
        return {"items": items, "next": following}

    @routes.get("/totals")
    async def totals() -> dict[str, Any]:
        async with database.reading() as connection:
            by_status = await order_store.totals(connection)
            steps = await saga_store.open_count(connection)
        sales = [by_status[name] for name in ("paid", "shipped") if name in by_status]
        return {
            "by_status": by_status,
            "sales": {
                "count": sum(one["count"] for one in sales),
                "total": sum(one["total"] for one in sales),
            },
            "open": sum(steps.values()),
            "currency": "EUR",
        }

    @routes.post("/{order_id}/ship")
    async def ship(order_id: OrderId, shipping: Shipping) -> dict[str, Any]:
        """It has left the house. The same tracking again changes nothing."""

        async def sent() -> Order:
            async with database.writing() as connection:
                order = await order_store.find(connection, order_id, hold=True)
                if order is None:
                    raise _no_order(order_id)
                if order.status == "shipped" and order.tracking == shipping.tracking:
                    return order
                if order.status != "paid":
                    raise Problem(
                        409,
                        f"the order {order.number} is {order.status}; only one that is paid is"
                        " shipped",
                        code=order.status,
                    )
                now = now_ms()
                await order_store.save(
                    connection,
                    order_id,
                    status="shipped",
                    tracking=shipping.tracking,
                    history=order.then("shipped", now),
                )
                await outbox.add(
                    connection,
                    events.ORDER_SHIPPED,
                    order.event(now, tracking=shipping.tracking),
                    id=f"{order.id}/{events.ORDER_SHIPPED}",
                )
                return await order_store.find(connection, order_id) or order

        return (await driver.finish(sent())).shown()

    return routes


def _answered(order: Order, response: Response) -> dict[str, Any]:
    if order.status == "refused":
        raise problem_of(order)
    response.headers["location"] = f"/api/orders/{order.id}"
    if order.status == "pending":
        response.status_code = 202
        response.headers["retry-after"] = "1"
    return order.shown()


def _no_order(order_id: str) -> Problem:
    return Problem(404, f"there is no order {order_id}", code="unknown")
