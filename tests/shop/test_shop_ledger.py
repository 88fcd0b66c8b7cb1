"""Orders, products, payments and a consumer of events as real processes; customers who buy scarce
things all at once; and a hand that kills any of them at any moment. In the end the books agree.

    SHOP_LEDGER_KILLS=200 SHOP_LEDGER_SEED=7 pytest tests/shop/test_shop_ledger.py -s --timeout 900

runs it for longer, or as it ran before: the seed is that of the hand and of the customers' wishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

import httpx
import pytest

from tests.shop.ledger.books import Books
from tests.shop.ledger.customers import Customer
from tests.shop.ledger.processes import EVERYBODY, Processes

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("SHOP_LEDGER_KILLS", "6"))
SEED = int(os.environ.get("SHOP_LEDGER_SEED", "1"))
CUSTOMERS = 6
STOCK_PER_KILL = 6


async def hand(processes: Processes, rng: random.Random) -> None:
    """Kills one or two at a time, and starts them again a moment later. Mostly it lets them get to
    work before the next one, else nothing would ever be under way; at times it does not.
    """
    for _ in range(KILLS):
        await asyncio.sleep(rng.uniform(0.0, 0.6))
        # Orders most often: it is the one that holds things together.
        chosen = {rng.choice((*EVERYBODY, "orders"))}
        if rng.random() < 0.2:
            chosen.add(rng.choice(EVERYBODY))
        for name in sorted(chosen):
            processes.kill(name)
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        for name in sorted(chosen):
            processes.start(name)
        if rng.random() < 0.85:
            for name in sorted(chosen):
                await processes.listens(name)


async def weather(processes: Processes, client: httpx.AsyncClient) -> None:
    """The payment company is slow to answer, so that it is often killed between deed and answer."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            await client.post(processes.url("payments") + "/simulator", json={"latency_ms": 300})
        await asyncio.sleep(0.3)


async def play(processes: Processes) -> None:
    rng = random.Random(SEED)
    for name in EVERYBODY:
        processes.start(name)
    async with httpx.AsyncClient(timeout=10.0) as client:
        books = Books(processes, client)
        await books.ask("products", "/internal/books")
        stock = {f"few-{number}": 5 + KILLS * STOCK_PER_KILL // 4 for number in range(4)}
        for number, (product_id, count) in enumerate(stock.items()):
            await books.make(product_id, 1000 + 250 * number, count)
        customers = [
            Customer(f"customer-{number}", processes, list(stock), random.Random(rng.random()))
            for number in range(CUSTOMERS)
        ]
        async with asyncio.TaskGroup() as group:
            for customer in customers:
                group.create_task(customer.shop(), name=customer.name)
            slow = group.create_task(weather(processes, client))
            await hand(processes, rng)
            slow.cancel()
            for customer in customers:
                customer.is_tired = True
        told = [one for customer in customers for one in customer.told]
        became = await books.agree(told, stock)
        troubles = sum(customer.troubles for customer in customers)
        print(f"seed {SEED}: {processes.kills} kills, {troubles} troubles noticed, orders {became}")
        assert became.get("paid", 0) > 0, "nobody bought anything: this has shown nothing"


def test_the_books_agree_whoever_is_killed_whenever(tmp_path):
    print(f"SHOP_LEDGER_SEED={SEED}")
    processes = Processes(tmp_path, os.environ.get("SHOP_LEDGER_DATABASE", ""))
    try:
        asyncio.run(play(processes))
    finally:
        processes.stop()
