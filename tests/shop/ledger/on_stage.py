"""The ledger on the whole shop: customers come through the gateway, and its workers die as well."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from headgate_shop.stage.client import Role, Stage
from tests.shop.ledger.books import Books
from tests.shop.ledger.customers import Customer

CUSTOMERS: tuple[Role, ...] = ("user", "other", "admin")
"""Those who have an account. A customer has one cart, so more of them need more accounts."""
VICTIMS = ("orders", "orders", "products", "payments", "worker", "worker")
STOCK = 8


class OnStage:
    """What `Customer` and `Books` want to know of the processes, where these are a stage."""

    def __init__(self, shop: Stage) -> None:
        self.shop = shop
        self.signer = self
        self.kills = 0
        self._ports = {one["name"]: one["port"] for one in shop.state()["services"]}

    def headers(self, user: str, *roles: str, ttl_s: float = 0.0) -> dict[str, str]:
        role: Role = next((one for one in CUSTOMERS if one == user), "admin")
        return {"authorization": f"Bearer {self.shop.token(role)}"}

    def url(self, _service: str) -> str:
        return self.shop.url

    def place(self, service: str, path: str) -> str:
        """What is no part of the public API is asked of the service itself."""
        if path.startswith("/api/"):
            return self.shop.url + path
        return f"http://127.0.0.1:{self._ports[service]}{path}"

    def log(self, name: str) -> str:
        return self.shop.log(name)

    def kill(self, victim: str, rng: random.Random) -> None:
        if victim != "worker":
            self.shop.kill(victim)
        else:
            workers = self.shop.admin().get("/api/workers").raise_for_status().json()
            pids = [row["pid"] for row in workers if row["pid"] and is_of(row["pid"], "headgate")]
            if not pids:
                return
            os.kill(rng.choice(pids), signal.SIGKILL)
        self.kills += 1


def is_of(pid: int, name: str) -> bool:
    try:
        return name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class StageBooks(Books):
    """The books of what has come to be since `remember`: a stage has a history."""

    async def remember(self) -> None:
        self._before = {one["id"] for one in await super().all("orders", "/api/admin/orders", 100)}
        self._sales = (await self.ask("orders", "/internal/books"))["sales_total"]

    async def all(self, service: str, path: str, limit: int) -> list[Any]:
        found = await super().all(service, path, limit)
        if service == "orders":
            return [one for one in found if one["id"] not in self._before]
        return [one for one in found if one["payment_id"].partition(".")[0] not in self._before]

    async def settled(self) -> Any:
        books = await super().settled()
        return {**books, "sales_total": books["sales_total"] - self._sales}

    async def shelf(self, stock: dict[str, int]) -> Any:
        shelf = await super().shelf(stock)
        items = [one for one in shelf["items"] if one["product_id"] in stock]
        return {**shelf, "items": items}

    async def _heard(self, wanted: set[tuple[str, str]]) -> None:
        """Everybody has heard everything, and nothing has died on the way."""
        async with asyncio.timeout(60):
            while True:
                stats = await self.ask("notifications", "/api/queue/stats")
                if not stats["ready"] + stats["in_flight"]:
                    break
                await asyncio.sleep(0.2)
        assert stats["dead"] == 0, stats


async def at_work(shop: Stage, victim: str, customers: list[Customer]) -> None:
    """What was killed is back, and somebody has got something since: a service that is killed again
    and again is started ever more slowly.
    """
    if victim != "worker":
        await asyncio.to_thread(shop.until, victim, "running")
    count = sum(len(customer.told) for customer in customers)
    until = time.monotonic() + 10.0
    while time.monotonic() < until and sum(len(one.told) for one in customers) <= count:
        await asyncio.sleep(0.05)


async def play(shop: Stage, kills: int, seed: int) -> str:
    rng = random.Random(seed)
    stage = OnStage(shop)
    transport = httpx.AsyncHTTPTransport(local_address="127.78.0.1")
    async with httpx.AsyncClient(timeout=20.0, transport=transport) as client:
        books = StageBooks(stage, client)
        await books.remember()
        stock = {f"few-{seed}-{number}": STOCK for number in range(3)}
        for number, (product_id, count) in enumerate(stock.items()):
            await books.make(product_id, 1000 + 250 * number, count)
        customers = [
            Customer(name, stage, list(stock), random.Random(rng.random())) for name in CUSTOMERS
        ]
        async with asyncio.TaskGroup() as group:
            for customer in customers:
                group.create_task(customer.shop(), name=customer.name)
            for _ in range(kills):
                await asyncio.sleep(rng.uniform(0.1, 1.6))
                victim = rng.choice(VICTIMS)
                await asyncio.to_thread(stage.kill, victim, rng)
                if rng.random() < 0.8:
                    await at_work(shop, victim, customers)
            for customer in customers:
                customer.is_tired = True
        told = [one for customer in customers for one in customer.told]
        became = await books.agree(told, stock)
        troubles = sum(customer.troubles for customer in customers)
    assert became.get("paid", 0) > 0, "nobody bought anything: this has shown nothing"
    return f"seed {seed}: {stage.kills} kills, {troubles} troubles noticed, orders {became}"
