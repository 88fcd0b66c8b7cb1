"""What SQLite cannot show: transactions that run at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from headgate_shop.base import events
from headgate_shop.orders import order_routes
from tests.accounts.postgres_server import PostgresServer
from tests.shop.orders.shelf import Shelf
from tests.shop.orders.till import open_till

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    found = PostgresServer()
    try:
        found.start()
        yield f"postgresql://headgate@127.0.0.1:{found.port}"
    finally:
        found.stop()


def test_everything_at_once_on_postgresql(tmp_path, server, monkeypatch):
    async def main():
        async with open_till(tmp_path, database=server, shelf=Shelf(kettle=12, cup=100)) as till:
            # One key, many times; and one cart under many keys.
            await till.put("ada", "cup", 2)
            same = await asyncio.gather(*(till.buy("ada", "k") for _ in range(6)))
            assert {one.status_code for one in same} == {201}
            assert len({one.json()["id"] for one in same}) == 1
            await till.put("ada", "cup", 1)
            other = await asyncio.gather(*(till.buy("ada", f"k{n}") for n in range(6)))
            codes = sorted(one.status_code for one in other)
            assert codes == [201, 409, 409, 409, 409, 409]

            # Many want the last ones; some cards are bad, some calls break.
            till.products.plan = ["fine", "unheard", "busy"] * 3
            till.payments.plan = ["fine", "fine", "unheard", "lost"] * 2

            async def one(number):
                user = f"u{number}"
                await till.put(user, "kettle", 2)
                card = "4000000000000002" if number % 4 == 0 else "4242424242424242"
                while (answer := await till.buy(user, "k", card)).status_code in (202, 503):
                    await asyncio.sleep(0.05)
                return answer

            answers = await asyncio.gather(*(one(number) for number in range(10)))
            paid = [answer.json() for answer in answers if answer.status_code == 201]
            assert 1 <= len(paid) <= 6
            assert {answer.status_code for answer in answers} <= {201, 402, 409}
            await till.balances()

            # Cancelled and shipped at once, many times.
            for number, order in enumerate(paid):
                path = f"/api/orders/{order['id']}/cancel"
                boss = till.who("boss", "admin")
                answers = await asyncio.gather(
                    *(till.client.post(path, headers=boss) for _ in range(3)),
                    till.client.post(
                        f"/api/admin/orders/{order['id']}/ship",
                        json={"tracking": "HG1"},
                        headers=boss,
                    ),
                )
                assert {one.status_code for one in answers} == {200, 409}, number
            await till.balances()
            told = await till.told(events.ORDER_PAID)
            assert len(told) == len(set(told)) == len(paid) + 2

            # Carts that are changed and joined at once.
            guest = {"x-cart-id": "6f1f1ab4-3a0c-4a53-9a4e-0f60b9f0d001"}
            await till.client.put("/api/cart/items/cup", json={"quantity": 3}, headers=guest)
            await asyncio.gather(
                *(till.put("noor", "kettle", 1) for _ in range(4)),
                *(
                    till.client.post(
                        "/api/cart/merge",
                        json={"cart_id": guest["x-cart-id"]},
                        headers=till.who("noor"),
                    )
                    for _ in range(4)
                ),
            )
            lines = {
                line["product_id"]: line["quantity"] for line in (await till.cart("noor"))["lines"]
            }
            assert lines == {"kettle": 1, "cup": 3}

            # A page of orders, a person taken out.
            page = await till.client.get(
                "/api/admin/orders", params={"limit": 3}, headers=till.who("boss", "admin")
            )
            assert len(page.json()["items"]) == 3 and page.json()["next"]
            assert (await till.client.delete("/internal/users/ada")).json() == {"orders": 2}
            assert await till.orders("ada") == []

    asyncio.run(main())


def test_two_processes_do_not_drive_the_same_checkout(tmp_path, server, monkeypatch):
    """Two of them, one database: each saga is one's, until its lease is over."""
    monkeypatch.setattr(order_routes, "WAIT_S", 0.6)
    shelf = Shelf(kettle=10)

    async def main():
        async with (
            open_till(tmp_path / "a", database=server, shelf=shelf) as one,
            open_till(tmp_path / "b", database=server, shelf=shelf) as two,
        ):
            one.products.only = lambda method, path: path.endswith("/reservations")
            one.products.plan = ["busy"] * 1000
            await one.put("lin")
            order = (await one.buy("lin", "k")).json()
            assert order["status"] == "pending"
            # The other one finds it when it is due, and its calls are answered.
            await two.settled()
            assert (await two.order("lin", order["id"]))["status"] == "paid"
            assert two.products.count("POST", "/reservations") >= 1
            assert shelf.is_balanced() and shelf.available["kettle"] == 9
            assert await two.money() == (await two.books())["sales_total"]

    asyncio.run(main())
