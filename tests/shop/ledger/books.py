"""What the services' books say when all is quiet, and what they must agree on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import httpx

from headgate_shop.base import events
from tests.shop.ledger.customers import Told
from tests.shop.ledger.processes import counted

PATIENCE_S = 60.0


class Books:
    def __init__(self, processes: Any, client: httpx.AsyncClient) -> None:
        self._processes = processes  # `Processes`, or what stands for them on a stage
        self._client = client
        self._admin = processes.signer.headers("boss", "user", "admin", ttl_s=3600.0)

    async def ask(self, service: str, path: str, **params: Any) -> Any:
        """Until it answers."""
        until = time.monotonic() + PATIENCE_S
        url = self._processes.place(service, path)
        while True:
            try:
                answer = await self._client.get(url, params=params, headers=self._admin)
                if answer.status_code == 200:
                    return answer.json()
                problem = answer.text
            except httpx.HTTPError as error:
                problem = repr(error)
            assert time.monotonic() < until, (url, problem, self._processes.log(service))
            await asyncio.sleep(0.1)

    async def all(self, service: str, path: str, limit: int) -> list[Any]:
        found: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await self.ask(service, path, cursor=cursor, limit=limit)
            found += page["items"]
            cursor = page["next"]
        return found

    async def make(self, product_id: str, price: int, stock: int) -> None:
        """A product, and so many of it."""
        base = self._processes.place("products", "/api/admin/products")
        body = {
            "id": product_id,
            "name": f"Thing {product_id}",
            "description": "One of few.",
            "category": "things",
            "brand": "Few",
            "price": price,
        }
        made = await self._client.post(base, json=body, headers=self._admin)
        assert made.status_code == 201, made.text
        filled = await self._client.post(
            f"{base}/{product_id}/stock", json={"set": stock}, headers=self._admin
        )
        assert filled.status_code == 200, filled.text

    async def settled(self) -> Any:
        """The orders' books once no checkout is open."""
        until = time.monotonic() + PATIENCE_S
        while True:
            books = await self.ask("orders", "/internal/books")
            if not books["open"]:
                return books
            assert time.monotonic() < until, (books, self._processes.log("orders"))
            await asyncio.sleep(0.1)

    async def shelf(self, stock: dict[str, int]) -> Any:
        """The books of the goods, of these at least."""
        return await self.ask("products", "/internal/books")

    async def agree(self, told: list[Told], stock: dict[str, int]) -> dict[str, int]:
        """All that must hold. Answers how many orders came to what."""
        books = await self.settled()
        orders = await self.all("orders", "/api/admin/orders", 100)

        # No order is lost, and none is doubled.
        by_key = Counter(one.order_id for one in told)
        assert max(by_key.values(), default=0) <= 1, "two keys are told of one order"
        assert {order["id"] for order in orders} == set(by_key), "orders that nobody asked for"
        by_id = {order["id"]: order for order in orders}
        for one in told:
            became = by_id[one.order_id]["status"]
            wanted = ("paid", "cancelled") if one.status == "paid" else (one.status,)
            assert became in wanted, (one, became)

        # The money is that of the orders that were paid, to the order.
        payments = {one["payment_id"]: one for one in await self.all("payments", "/payments", 500)}
        kept = 0
        for payment in payments.values():
            if payment["status"] == "captured":
                kept += payment["amount"] - payment["refunded"]
        sales = sum(order["total"] for order in orders if order["status"] == "paid")
        assert kept == sales == books["sales_total"], "the money does not agree"
        for order in orders:
            payment = payments.get(f"{order['id']}.payment", {})
            left = payment.get("amount", 0) - payment.get("refunded", 0)
            if payment.get("status") != "captured":
                left = 0
            assert left == (order["total"] if order["status"] == "paid" else 0), (order, payment)

        # The stock is what came less what was sold, and never less than nothing.
        sold: Counter[str] = Counter()
        for order in orders:
            if order["status"] == "paid":
                for line in order["lines"]:
                    sold[line["product_id"]] += line["quantity"]
        shelf = await self.shelf(stock)
        assert shelf["balanced"], shelf
        for item in shelf["items"]:
            product_id = item["product_id"]
            assert item["received"] == stock[product_id]
            assert item["sold"] == sold[product_id], (product_id, item, sold)
            assert item["reserved"] == 0, (product_id, item)
            assert item["available"] == item["received"] - item["sold"] >= 0, item

        # What was paid was heard of, and had its effect once.
        def was_paid(order: Any) -> bool:
            return any(one["status"] == "paid" for one in order["history"])

        paid = {order["id"] for order in orders if was_paid(order)}
        cancelled = {order["id"] for order in orders if order["status"] == "cancelled"} & paid
        await self._heard({(events.ORDER_PAID, one) for one in paid})
        await self._heard({(events.ORDER_CANCELLED, one) for one in cancelled})
        return dict(Counter(order["status"] for order in orders))

    async def _heard(self, wanted: set[tuple[str, str]]) -> None:
        topics = {topic for topic, _ in wanted}
        until = time.monotonic() + PATIENCE_S / 2
        while True:
            found = {
                key: times
                for key, times in (await counted(self._processes.settings("orders"))).items()
                if key[0] in topics
            }
            assert set(found) <= wanted, "somebody heard of what was not"
            if set(found) == wanted:
                break
            missing = len(wanted - set(found))
            assert time.monotonic() < until, f"{missing} of {topics} were never heard of"
            await asyncio.sleep(0.1)
        assert set(found.values()) <= {1}, "an event had its effect more than once"
