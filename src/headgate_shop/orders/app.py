"""Orders: carts, checkout, and what becomes of orders. `saga` and `driver` say how one survives."""

from __future__ import annotations

import random

from fastapi import FastAPI

from headgate.mesh import Mesh
from headgate_shop.base import events
from headgate_shop.base.service import Service
from headgate_shop.base.settings import Settings
from headgate_shop.orders import people
from headgate_shop.orders.asking import Asking
from headgate_shop.orders.cart_routes import cart_routes
from headgate_shop.orders.checkout import Checkout
from headgate_shop.orders.driver import Driver
from headgate_shop.orders.internal_routes import internal_routes
from headgate_shop.orders.leases import new_lease
from headgate_shop.orders.order_routes import admin_routes, order_routes
from headgate_shop.orders.saga_store import SagaStore
from headgate_shop.orders.steps import Outside
from headgate_shop.queue import Message, Outbox, Reject, open_queue

__all__ = ["app"]


def app(settings: Settings, *, mesh: Mesh | None = None) -> FastAPI:
    service = Service(settings, "Orders: carts and checkout", mesh=mesh)
    database = service.database()
    others = service.mesh()
    queue = open_queue(settings.queue_url(), service=settings.service)
    outbox = Outbox(database, queue)
    rng = random.SystemRandom()

    outside, asking = Outside(others), Asking(others)
    store = SagaStore(database, outbox, new_lease(), rng)
    driver = Driver(database, store, outside, rng=rng)
    checkout = Checkout(database, outbox, store, outside, driver, rng)

    async def erased(message: Message) -> None:
        user_id = message.data.get("user_id")
        if not isinstance(user_id, str) or not user_id:
            raise Reject("no user_id")
        await people.erase(database, user_id)  # twice does nothing, so it needs no inbox

    queue.subscribe(events.USER_ERASED, erased)
    for resource in (queue, outbox, driver):
        service.opened(resource)

    api = service.api
    api.include_router(cart_routes(database, outbox, asking, driver))
    api.include_router(order_routes(database, store, checkout, driver, asking))
    api.include_router(admin_routes(database, outbox, driver))
    api.include_router(internal_routes(database))
    return service.finish()
