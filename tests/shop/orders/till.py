"""Orders in this process, with the shelf and the payment company it needs, and customers."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import sqlalchemy as sa

from headgate.resilience import BREAKERS
from headgate.testing import FakeMesh
from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.orders import driver, saga
from headgate_shop.orders.app import app as orders_app
from headgate_shop.orders.tables import ORDERS, OUTBOX, SAGAS
from headgate_shop.payments.app import app as payments_app
from headgate_shop.queue import GROUPS, Message, open_queue
from tests.shop.orders.shelf import Shelf, Trouble
from tests.shop.signing import Signer

ADDRESS = {
    "name": "Ada Winter",
    "street": "Lindenufer 12",
    "city": "Berlin",
    "postcode": "10557",
    "country": "DE",
}
FINE = "4242 4242 4242 4242"
PATIENCE_S = 30.0
GROUP = "analytics"  # it hears of everything that orders tells


def card(number: str = FINE) -> dict[str, str]:
    return {"number": number, "expiry": "12/49", "cvc": "123"}


def wanted(number: str = FINE, **more: Any) -> dict[str, Any]:
    return {"address": ADDRESS, "card": card(number), **more}


class Till:
    def __init__(self, settings: Settings, signer: Signer, mesh: FakeMesh, shelf: Shelf) -> None:
        self.settings = settings
        self.signer = signer
        self.mesh = mesh
        self.shelf = shelf
        self.products: Trouble
        self.payments: Trouble
        self.client: httpx.AsyncClient
        self.database = Database(settings)
        self.heard: list[Message] = []
        self.queue = open_queue(settings.queue_url(), service=GROUP)
        topics = [topic for topic, groups in GROUPS.items() if GROUP in groups]
        self.queue.subscribe(topics, self._hear)

    async def _hear(self, message: Message) -> None:
        self.heard.append(message)

    def who(self, user: str, *roles: str) -> dict[str, str]:
        return self.signer.headers(user, "user", *roles)

    async def put(self, user: str, product: str = "kettle", quantity: int = 1) -> httpx.Response:
        return await self.client.put(
            f"/api/cart/items/{product}", json={"quantity": quantity}, headers=self.who(user)
        )

    async def cart(self, user: str) -> Any:
        return (await self.client.get("/api/cart", headers=self.who(user))).json()

    async def buy(
        self, user: str, key: str = "", number: str = FINE, **more: Any
    ) -> httpx.Response:
        return await self.client.post(
            "/api/checkout",
            json=wanted(number, **more),
            headers=self.who(user) | {"idempotency-key": key or str(uuid.uuid4())},
        )

    async def orders(self, user: str) -> list[Any]:
        answer = await self.client.get("/api/orders", headers=self.who(user))
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    async def order(self, user: str, order_id: str) -> Any:
        return (await self.client.get(f"/api/orders/{order_id}", headers=self.who(user))).json()

    async def books(self) -> Any:
        return (await self.client.get("/internal/books")).json()

    async def settled(self) -> Any:
        """The books, once no saga is open."""
        until = time.monotonic() + PATIENCE_S
        while True:
            books = await self.books()
            if not books["open"]:
                return books
            assert time.monotonic() < until, books
            await asyncio.sleep(0.02)

    async def money(self) -> int:
        totals = (await self.mesh.service("payments").get("/totals")).json()
        return totals["captured"] - totals["refunded"]

    async def balances(self) -> None:
        books = await self.settled()
        assert await self.money() == books["sales_total"]
        assert self.shelf.is_balanced()
        assert not self.shelf.held

    async def told(self, topic: str) -> list[str]:
        """Ids of the messages of a topic that others have heard."""
        until = time.monotonic() + PATIENCE_S
        while True:
            async with self.database.reading() as connection:
                waiting = await connection.scalar(sa.select(sa.func.count()).select_from(OUTBOX))
            stats = await self.queue.stats()
            mine = [row for row in stats.topics if row.group == GROUP]
            if not waiting and not any(row.ready + row.in_flight for row in mine):
                return [message.id for message in self.heard if message.topic == topic]
            assert time.monotonic() < until, (waiting, mine)
            await asyncio.sleep(0.02)

    async def hurry(self, **values: Any) -> None:
        """Change open sagas: make them due, or free, or old."""
        async with self.database.writing() as connection:
            await connection.execute(SAGAS.update().values(**(values or {"due_ms": 0})))

    async def rows(self) -> int:
        async with self.database.reading() as connection:
            return await connection.scalar(sa.select(sa.func.count()).select_from(ORDERS)) or 0


@asynccontextmanager
async def open_till(
    folder: Path, *, database: str = "", shelf: Shelf | None = None
) -> AsyncIterator[Till]:
    BREAKERS.remove("payments")
    signer = Signer(folder / "keys")
    settings = Settings(
        "orders",
        folder,
        database=database,
        identity_keys=signer.keys,
    )
    mesh = FakeMesh()
    till = Till(settings, signer, mesh, shelf or Shelf(kettle=10, cup=100))
    till.products = Trouble(till.shelf.app)
    till.payments = Trouble(payments_app(replace(settings, service="payments")))
    mesh.app("products", till.products)
    mesh.app("payments", till.payments)
    mesh.app("orders", orders_app(settings, mesh=mesh))
    with patch.object(driver, "LOOK_S", 0.1), patch.object(saga, "WAIT_FIRST_MS", 20):
        async with mesh, till.queue:
            transport = mesh.transport()
            async with httpx.AsyncClient(
                transport=transport, base_url="http://orders", timeout=60
            ) as client:
                till.client = client
                try:
                    yield till
                finally:
                    await till.database.close()


def at_a_till(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test whose first argument is a till that is open for it alone."""
    signature = inspect.signature(test)
    rest = [one for name, one in signature.parameters.items() if name != "till"]
    folder = inspect.Parameter("tmp_path", inspect.Parameter.KEYWORD_ONLY)

    @functools.wraps(test)
    def run(*, tmp_path: Path, **more: Any) -> None:
        async def main() -> None:
            async with open_till(tmp_path) as till:
                await test(till, **more)
            # A task that is left over would keep the test from ending, and nobody would know which.
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:
                _, late = await asyncio.wait(left, timeout=PATIENCE_S / 3)
                for one in late:
                    one.print_stack()

        asyncio.run(main())

    run.__signature__ = inspect.Signature([*rest, folder])  # type: ignore[attr-defined]
    return run
