from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.data import TINY
from headgate_shop.orders import cart_store, housekeeping
from headgate_shop.orders.ids import new_number, new_order_id
from headgate_shop.orders.seed import seed
from headgate_shop.orders.tables import KEYS, ORDERS
from headgate_shop.payments.seed import seed as seed_payments
from headgate_shop.queue import open_queue
from tests.shop.orders.till import at_a_till, open_till

ADMIN = ("admin",)


async def bought(till, user, count):
    found = []
    for _ in range(count):
        await till.put(user, "cup")
        found.append((await till.buy(user)).json())
    return found


@at_a_till
async def test_orders_come_page_by_page_and_are_their_owners(till):
    made = [order["id"] for order in await bought(till, "ada", 5)]
    await bought(till, "noor", 1)
    seen, cursor = [], ""
    while cursor is not None:
        answer = await till.client.get(
            "/api/orders", params={"limit": 2, "cursor": cursor}, headers=till.who("ada")
        )
        page = answer.json()
        assert len(page["items"]) <= 2
        seen += [order["id"] for order in page["items"]]
        cursor = page["next"]
    assert seen == made[::-1]
    path = f"/api/orders/{made[0]}"
    assert (await till.client.get(path, headers=till.who("noor"))).status_code == 404
    assert (await till.client.get(path, headers=till.who("boss", "admin"))).status_code == 200
    assert (await till.client.get(path)).status_code == 401
    for cursor in ("x", "b29wcw", "OjoK", "\u00e4", "MTIzOg"):
        answer = await till.client.get(
            "/api/orders", params={"cursor": cursor}, headers=till.who("ada")
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid"), cursor


@at_a_till
async def test_an_order_is_shipped_once_and_cannot_be_cancelled_then(till):
    (order,) = await bought(till, "ada", 1)
    path = f"/api/admin/orders/{order['id']}/ship"

    async def ship(tracking, *roles):
        return await till.client.post(
            path, json={"tracking": tracking}, headers=till.who("boss", *roles)
        )

    assert (await ship("HG1")).status_code == 403
    answers = [await ship("HG1", "admin"), await ship("HG1", "admin"), await ship("HG2", "admin")]
    assert [one.status_code for one in answers] == [200, 200, 409]
    assert answers[0].json()["tracking"] == "HG1"
    assert await till.told(events.ORDER_SHIPPED) == [f"{order['id']}/order.shipped"]
    cancel = await till.client.post(f"/api/orders/{order['id']}/cancel", headers=till.who("ada"))
    assert (cancel.status_code, cancel.json()["code"]) == (409, "shipped")
    assert (await ship("HG\t1", "admin")).status_code == 422


@at_a_till
async def test_an_order_is_either_shipped_or_cancelled(till):
    orders = await bought(till, "ada", 6)

    async def both(order):
        return await asyncio.gather(
            till.client.post(f"/api/orders/{order['id']}/cancel", headers=till.who("ada")),
            till.client.post(
                f"/api/admin/orders/{order['id']}/ship",
                json={"tracking": "HG1"},
                headers=till.who("boss", "admin"),
            ),
        )

    for cancelled, shipped in await asyncio.gather(*map(both, orders)):
        assert sorted([cancelled.status_code, shipped.status_code]) == [200, 409]
    await till.balances()


@at_a_till
async def test_those_who_work_here_see_all_orders_and_their_totals(till):
    await bought(till, "ada", 2)
    await till.put("noor", "cup")
    await till.buy("noor", number="4000000000000002")
    boss = till.who("boss", "admin")

    async def ask(path, **params):
        return (await till.client.get(path, params=params, headers=boss)).json()

    page = await ask("/api/admin/orders", status="paid")
    assert {order["user_id"] for order in page["items"]} == {"ada"} and page["next"] is None
    assert len((await ask("/api/admin/orders"))["items"]) == 3
    totals = await ask("/api/admin/orders/totals")
    assert totals["sales"] == {"count": 2, "total": 2000}
    assert totals["by_status"]["refused"]["count"] == 1
    assert (
        await till.client.get("/api/admin/orders", params={"status": "odd"}, headers=boss)
    ).status_code == 422
    assert (
        await till.client.get("/api/admin/orders/totals", headers=till.who("ada"))
    ).status_code == 403


@at_a_till
async def test_a_person_is_shown_all_and_taken_out(till):
    users = till.mesh.fake("users")
    users.on("GET", "/api/users/profile").returns(json={"email": "ada@shop.test"})
    first, second = await bought(till, "ada", 2)
    await till.put("ada", "kettle")
    shown = (await till.client.get("/internal/users/ada/export")).json()
    assert {order["email"] for order in shown["orders"]} == {"ada@shop.test"}
    assert shown["orders"][0]["address"]["street"] == "Lindenufer 12"
    assert [line["product_id"] for line in shown["cart"]] == ["kettle"]
    sales = (await till.books())["sales_total"]
    for expected in (2, 0):
        gone = await till.client.delete("/internal/users/ada")
        assert (gone.status_code, gone.json()) == (200, {"orders": expected})
    shown = (await till.client.get("/internal/users/ada/export")).json()
    assert shown == {"orders": [], "cart": []}
    assert (await till.books())["sales_total"] == sales  # the accounts keep their figures
    async with till.database.reading() as connection:
        rows = (await connection.execute(sa.select(ORDERS))).mappings().all()
    assert {row["id"] for row in rows} == {first["id"], second["id"]}
    assert len({row["user_id"] for row in rows}) == 2
    for row in rows:
        assert "ada" not in str(dict(row)).lower() and "Linden" not in str(dict(row))
        assert row["address"]["country"] == "DE"


@at_a_till
async def test_an_erasure_that_comes_by_the_queue_is_carried_out(till):
    await bought(till, "ada", 1)
    async with open_queue(till.settings.queue_url(), service="users") as queue:
        await queue.publish(events.USER_ERASED, {"user_id": "ada", "at": 0})
        until = time.monotonic() + 20
        while (await till.client.get("/internal/users/ada/export")).json()["orders"]:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


@at_a_till
async def test_keys_and_visitors_carts_are_forgotten_in_time(till):
    await bought(till, "ada", 1)
    now = int(time.time() * 1000)
    async with till.database.writing() as connection:
        await cart_store.hold(connection, "guest:old", now - 31 * 86_400_000)
        await cart_store.hold(connection, "guest:new", now)
        await connection.execute(KEYS.update().values(created_ms=now - 90_000_000))
    await housekeeping.clean(till.database, now)
    async with till.database.reading() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(KEYS)) == 0
        carts = await connection.execute(sa.text("SELECT id FROM carts WHERE id LIKE 'guest:%'"))
        assert [row[0] for row in carts] == ["guest:new"]


def test_numbers_and_ids_are_of_one_form():
    rng = random.Random(1)
    assert new_number(1_795_310_000_000, rng)[:7] == "261122-"
    for _ in range(200):
        order_id = new_order_id(rng)
        assert len(order_id) == 28 and not order_id.startswith("o-0")


def test_the_past_is_sown_once_and_the_payments_agree(tmp_path):
    async def main():
        settings = Settings("orders", tmp_path)
        found = await seed(settings, TINY)
        assert found["orders"] > 40
        assert await seed(settings, TINY) == {"orders": 0}
        # One that was killed before its end is taken up.
        database = Database(settings)
        async with database.writing() as connection:
            gone = sa.select(ORDERS.c.id).order_by(ORDERS.c.id).limit(30)
            await connection.execute(ORDERS.delete().where(ORDERS.c.id.in_(gone)))
        await database.close()
        assert await seed(settings, TINY) == found
        other = replace(settings, service="payments")
        assert (await seed_payments(other, TINY))["payments"] == found["orders"]
        assert await seed_payments(other, TINY) == {"payments": 0, "refunds": 0}
        database = Database(settings)
        async with database.reading() as connection:
            rows = (await connection.execute(sa.select(ORDERS))).mappings().all()
        await database.close()
        assert {row["status"] for row in rows} >= {"paid", "shipped"}
        for row in rows:
            assert row["total"] == sum(one["price"] * one["quantity"] for one in row["lines"])
        async with open_till(tmp_path) as till:
            assert await till.money() == (await till.books())["sales_total"]

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/internal/users/a b/export", "/api/orders/" + "x" * 41])
def test_ids_that_are_none_are_refused(tmp_path, path):
    async def main():
        async with open_till(tmp_path) as till:
            assert (await till.client.get(path, headers=till.who("ada"))).status_code == 422

    asyncio.run(main())
