from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import sqlalchemy as sa

from headgate_shop.base import events
from headgate_shop.base.database import Database
from headgate_shop.data.catalogue import catalogue
from headgate_shop.products import forgetting
from headgate_shop.products.books import books
from headgate_shop.products.tables import MOVEMENTS, RESERVATIONS, RESERVED, STOCK
from tests.shop.products.shelves import hearing, run_statement, until

ITEMS = {item.id: item for item in catalogue(60)}
THING = next(one for one in ITEMS.values() if one.stock >= 10).id
OTHER = next(one for one in ITEMS.values() if one.stock >= 10 and one.id != THING).id
NAME = THING.replace("-", "_")


def test_a_reservation_holds_and_says_what_is_bought(both):
    async def scene():
        async with both() as shop:
            made = await shop.reserve("r1", **{NAME: 2})
            assert made.status_code == 201
            line = made.json()["lines"][0]
            assert line["product_id"] == THING and line["quantity"] == 2
            assert line["price"] == ITEMS[THING].price and line["name"] == ITEMS[THING].name
            account = await shop.account(THING)
            stock = ITEMS[THING].stock
            assert account["reserved"] == 2 and account["available"] == stock - 2
            # Again is the same, and holds no more.
            assert (await shop.reserve("r1", **{NAME: 2})).json() == made.json()
            assert (await shop.account(THING))["reserved"] == 2
            sold = await shop.commit("r1")
            assert sold.status_code == 200 and sold.json()["lines"] == made.json()["lines"]
            assert (await shop.commit("r1")).status_code == 200
            assert (await shop.reserve("r1", **{NAME: 2})).json()["lines"] == made.json()["lines"]
            account = await shop.account(THING)
            assert (account["sold"], account["reserved"]) == (2, 0)
            # Given back, once.
            for _ in range(2):
                assert (await shop.end("r1")).status_code == 200
            account = await shop.account(THING)
            assert (account["sold"], account["reserved"], account["available"]) == (0, 0, stock)
            assert (await shop.commit("r1")).json()["code"] == "ended"

    asyncio.run(scene())


def test_nothing_is_held_when_one_of_it_is_short(both):
    async def scene():
        async with both() as shop:
            stock = ITEMS[THING].stock
            other = OTHER.replace("-", "_")
            refused = await shop.reserve("r1", **{other: 1, NAME: stock + 1})
            assert refused.status_code == 409
            assert refused.json()["code"] == "short"
            assert refused.json()["short"] == [{"product_id": THING, "available": stock}]
            assert (await shop.account(OTHER))["reserved"] == 0
            # The id is not spent by that.
            assert (await shop.reserve("r1", **{other: 1})).status_code == 201
            differs = await shop.reserve("r1", **{other: 2})
            assert differs.status_code == 409 and differs.json()["code"] == "differs"

    asyncio.run(scene())


def test_a_reservation_that_was_let_go_cannot_come_back(both):
    async def scene():
        async with both() as shop:
            assert (await shop.end("never-seen")).status_code == 200
            late = await shop.reserve("never-seen", **{NAME: 1})
            assert late.status_code == 409 and late.json()["code"] == "ended"
            assert (await shop.commit("unknown")).json()["code"] == "ended"
            assert (await shop.account(THING))["reserved"] == 0

    asyncio.run(scene())


def test_what_is_not_sold_here_is_named(shelves):
    async def scene():
        async with shelves() as shop:
            await shop.client.delete(f"/api/admin/products/{THING}", headers=shop.admin)
            gone = await shop.reserve("r1", nothing=1, **{NAME: 1})
            assert gone.status_code == 409
            assert gone.json()["gone"] == sorted(["nothing", THING])

    asyncio.run(scene())


def test_what_nobody_pays_for_is_let_go_in_time(both):
    async def scene():
        async with both() as shop:
            stock = ITEMS[THING].stock
            assert (await shop.reserve("r1", **{NAME: stock})).status_code == 201
            await run_statement(shop.settings, sa.update(RESERVATIONS).values(expires_ms=1))
            # Whoever wants it need not wait until somebody looks.
            assert (await shop.reserve("r2", **{NAME: stock})).status_code == 201
            # A payment that comes late, when the goods are gone: the order cannot be.
            late = await shop.commit("r1")
            assert late.status_code == 409 and late.json()["code"] == "ended"
            await shop.end("r2")
            # And when they are there, it can.
            assert (await shop.commit("r1")).status_code == 200
            assert (await shop.account(THING))["sold"] == stock

    asyncio.run(scene())


def test_the_sweeper_lets_go_by_itself(shelves):
    async def scene():
        async with shelves() as shop:
            await shop.reserve("r1", **{NAME: 1})
            await run_statement(shop.settings, sa.update(RESERVATIONS).values(expires_ms=1))

            async def free():
                return (await shop.account(THING))["reserved"] == 0

            await until(free)
            assert (await shop.reserve("r1", **{NAME: 1})).json()["code"] == "ended"

    asyncio.run(scene())


def test_what_was_counted_and_what_came_is_in_the_books(both):
    async def scene():
        async with both() as shop:
            await shop.reserve("r1", **{NAME: 3})
            assert (await shop.set_stock(THING, set=10)).json()["available"] == 7
            assert (await shop.set_stock(THING, add=5)).json()["available"] == 12
            assert (await shop.set_stock(THING, add=-12)).json()["available"] == 0
            less = await shop.set_stock(THING, add=-1)
            assert less.status_code == 409 and less.json()["code"] == "short"
            assert (await shop.set_stock(THING, set=2)).status_code == 409
            both_said = await shop.set_stock(THING, set=2, add=1)
            assert both_said.status_code == 422
            assert (await shop.account(THING))["received"] == 3

    asyncio.run(scene())


def test_scarcity_is_told_when_it_begins_and_not_again(shelves):
    async def scene():
        async with shelves() as shop, hearing(shop.settings, events.STOCK_LOW) as heard:
            await shop.set_stock(THING, set=6)
            for number in range(3):
                await shop.reserve(f"r{number}", **{NAME: 1})
                await shop.commit(f"r{number}")
            await until(lambda: bool(heard))
            await shop.set_stock(OTHER, set=0)
            await until(lambda: len(heard) == 2)
            assert [one.data["product_id"] for one in heard] == [THING, OTHER]
            assert heard[0].data["available"] == 4 and heard[0].data["name"] == ITEMS[THING].name

    asyncio.run(scene())


def test_bad_reservations_are_refused(shelves):
    async def scene():
        async with shelves() as shop:
            line = {"product_id": THING, "quantity": 1}
            bad: tuple[object, ...] = (
                {},
                {"reservation_id": "r", "lines": []},
                {"reservation_id": "a b", "lines": [line]},
                {"reservation_id": "r", "lines": [{**line, "quantity": 0}]},
                {"reservation_id": "r", "lines": [{**line, "quantity": 10**30}]},
                {"reservation_id": "r", "lines": [{**line, "quantity": "2"}]},
                {"reservation_id": "r", "lines": [{**line, "product_id": "../x"}]},
                {"reservation_id": "r", "lines": [line] * 101},
                {"reservation_id": "r", "lines": [line], "ttl_s": 0},
                {"reservation_id": "r", "lines": [line], "other": 1},
                [],
                None,
            )
            for body in bad:
                answer = await shop.client.post("/internal/reservations", json=body)
                assert answer.status_code == 422, body
                assert answer.headers["content-type"] == "application/problem+json"
            # A product in two lines is one wish.
            twice = {"reservation_id": "r", "lines": [line, line]}
            made = await shop.client.post("/internal/reservations", json=twice)
            assert made.json()["lines"][0]["quantity"] == 2

    asyncio.run(scene())


def test_whatever_happens_at_once_the_books_balance(both):
    """Many at once reserve few things, commit, let go, count and let time run out."""

    async def customer(shop, rng, mine):
        for number in range(6):
            name = f"{mine}-{rng.randint(0, 3)}"
            wanted = {
                one.replace("-", "_"): rng.randint(1, 3)
                for one in rng.sample(things, rng.randint(1, len(things)))
            }
            chance = rng.random()
            if chance < 0.5:
                answer = await shop.reserve(name, **wanted)
                assert answer.status_code in (201, 409), answer.text
            elif chance < 0.75:
                answer = await shop.commit(name)
                assert answer.status_code in (200, 409), answer.text
            elif chance < 0.9:
                answer = await shop.end(name)
                assert answer.status_code == 200, answer.text
            elif chance < 0.95:
                await shop.set_stock(rng.choice(things), add=rng.randint(1, 3))
            else:
                late = sa.update(RESERVATIONS).where(RESERVATIONS.c.state == "held")
                await run_statement(shop.settings, late.values(expires_ms=number))

    things = list(ITEMS)[:4]

    async def scene():
        async with both() as shop:
            for one in things:
                await shop.set_stock(one, set=9)
            async with asyncio.TaskGroup() as group:
                for mine in range(8):
                    rng = random.Random(mine)
                    group.create_task(customer(shop, rng, mine))
            for one in things:
                account = await shop.account(one)
                assert account["available"] >= 0
                assert account["received"] == (
                    account["sold"] + account["reserved"] + account["available"]
                )

    asyncio.run(scene())


def test_a_hundred_customers_cannot_buy_more_than_there_is(both):
    async def scene():
        async with both() as shop:
            await shop.set_stock(THING, set=7)
            answers = await asyncio.gather(
                *(shop.reserve(f"r{number}", **{NAME: 1}) for number in range(24))
            )
            assert sorted(one.status_code for one in answers) == [201] * 7 + [409] * 17
            again = await asyncio.gather(
                *(shop.commit(f"r{number}") for number in range(24) for _ in range(2))
            )
            assert sorted(one.status_code for one in again) == [200] * 14 + [409] * 34
            account = await shop.account(THING)
            assert (account["sold"], account["available"]) == (7, 0)

    asyncio.run(scene())


def test_the_database_itself_sells_nothing_that_is_not_there(shelves):
    async def scene():
        async with shelves() as shop:
            with pytest.raises(sa.exc.IntegrityError, match="never_oversold"):
                await run_statement(shop.settings, sa.update(STOCK).values(sold=100_000))
            with pytest.raises(sa.exc.IntegrityError, match="never_negative"):
                await run_statement(shop.settings, sa.update(STOCK).values(sold=STOCK.c.sold - 1))

    asyncio.run(scene())


def test_books_that_were_cooked_do_not_balance(shelves):
    async def scene():
        async with shelves() as shop:
            await shop.reserve("r1", **{NAME: 1})
            for cooked, again in (
                (
                    sa.update(STOCK).where(STOCK.c.product_id == THING).values(reserved=0),
                    sa.update(STOCK).where(STOCK.c.product_id == THING).values(reserved=1),
                ),
                (
                    sa.update(RESERVED).values(quantity=2),
                    sa.update(RESERVED).values(quantity=1),
                ),
                (
                    sa.update(MOVEMENTS).where(MOVEMENTS.c.kind == "reserved").values(quantity=2),
                    sa.update(MOVEMENTS).where(MOVEMENTS.c.kind == "reserved").values(quantity=1),
                ),
            ):
                await run_statement(shop.settings, cooked)
                found = await shop.get("/internal/books")
                wrong = [one["product_id"] for one in found["items"] if not one["balanced"]]
                assert not found["balanced"] and wrong == [THING]
                await run_statement(shop.settings, again)
                assert (await shop.get("/internal/books"))["balanced"]

    asyncio.run(scene())


BUYER = textwrap.dedent(
    """
    import asyncio, pathlib, random, sys, time
    from headgate_shop.base.database import Database
    from headgate_shop.base.settings import Settings
    from headgate_shop.products.stock import Ended, Gone, Line, Short, Stock
    from headgate_shop.queue import Outbox, open_queue

    folder, database, seed = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    settings = Settings("products", folder, database=database)
    store = Database(settings)
    stock = Stock(store, Outbox(store, open_queue(settings.queue_url(), service="products")))
    rng = random.Random(seed)
    things = ["p-00001", "p-00002", "p-00003"]

    async def buy(number):
        name = f"{seed}-{number}"
        now = int(time.time() * 1000)
        try:
            await stock.reserve(name, [Line(one, 1) for one in things], 900, now)
            if rng.random() < 0.7:
                await stock.commit(name, now)
            else:
                await stock.end(name, now)
        except (Short, Ended):
            pass

    async def main():
        print("ready", flush=True)
        number = 0
        while True:
            await asyncio.gather(*(buy(number + k) for k in range(3)))
            number += 3

    asyncio.run(main())
    """
)


@pytest.mark.integration
def test_a_process_that_is_killed_leaves_books_that_balance(both):
    async def scene():
        async with both() as shop:
            for one in ("p-00001", "p-00002", "p-00003"):
                await shop.set_stock(one, set=100_000)
            where = [str(shop.settings.folder), shop.settings.database]
            buyer = subprocess.Popen(
                [sys.executable, "-c", BUYER, *where, "1"],
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": "src"},
            )
            try:
                assert buyer.stdout is not None
                assert await asyncio.to_thread(buyer.stdout.readline) == b"ready\n"
                sold = (await shop.account("p-00001"))["sold"]

                async def moved():
                    return (await shop.account("p-00001"))["sold"] > sold

                await until(moved)
                await asyncio.sleep(random.Random().random() * 0.05)
                buyer.send_signal(signal.SIGKILL)  # at any moment
                buyer.wait(30)
                assert (await shop.get("/internal/books"))["balanced"]
            finally:
                buyer.kill()
                buyer.wait(30)
                assert buyer.stdout is not None
                buyer.stdout.close()
            # What they held is not lost: its time runs out.
            await run_statement(
                shop.settings,
                sa.update(RESERVATIONS).where(RESERVATIONS.c.state == "held").values(expires_ms=1),
            )

            async def free():
                return (await shop.account("p-00001"))["reserved"] == 0

            await until(free)

    asyncio.run(scene())


def test_books_of_a_fresh_shop_balance(shelves):
    async def scene():
        async with shelves() as shop:
            database = Database(shop.settings)
            try:
                found = await books(database)
            finally:
                await database.close()
            assert all(one.balanced for one in found) and len(found) == 60

    asyncio.run(scene())


def test_what_is_settled_for_long_is_forgotten_and_the_books_balance(both):
    async def scene():
        async with both() as shop:
            before = (await shop.account(THING))["received"]
            for number in range(6):
                assert (await shop.reserve(f"sold-{number}", **{NAME: 1})).status_code == 201
                assert (await shop.commit(f"sold-{number}")).status_code == 200
            await shop.end("sold-5")  # and came back
            for number in range(3):
                await shop.reserve(f"gone-{number}", **{NAME: 1})
                await shop.end(f"gone-{number}")
            await shop.reserve("held", **{NAME: 1})
            database = Database(shop.settings)
            try:
                day = 86_400_000
                now = int(time.time() * 1000)
                assert await forgetting.forget(database, now) == 0
                # After a month what was let go is gone, after a year what was sold is in one.
                assert await forgetting.forget(database, now + 40 * day) == 4
                await balances(shop)
                assert await forgetting.forget(database, now + 500 * day) == 5
                await balances(shop)
                assert (await shop.reserve("more", **{NAME: 1})).status_code == 201
                assert (await shop.commit("more")).status_code == 200
                assert await forgetting.forget(database, now + 1000 * day) == 1
                async with database.reading() as connection:
                    left = await connection.execute(sa.select(RESERVATIONS.c.id))
                    assert sorted(left.scalars()) == ["carried forward", "held"]
                    moved = sa.select(MOVEMENTS.c.kind, MOVEMENTS.c.quantity).where(
                        MOVEMENTS.c.reservation_id == "carried forward"
                    )
                    found = (await connection.execute(moved)).all()
                    assert sorted(map(tuple, found)) == [("reserved", 6), ("sold", 6)]
            finally:
                await database.close()
            account = await shop.account(THING)
            assert (account["received"], account["sold"], account["reserved"]) == (before, 6, 1)
            assert (await shop.end("carried forward")).status_code == 422
            assert (await shop.end("held")).status_code == 200
            await balances(shop)

    asyncio.run(scene())


def test_many_small_deliveries_become_one(shelves):
    async def scene():
        async with shelves() as shop:
            database = Database(shop.settings)
            try:
                rows = [
                    {"product_id": THING, "kind": kind, "quantity": quantity, "at_ms": 1}
                    for kind, quantity in [("received", 3), ("counted", -1)] * 150
                ]
                async with database.writing() as connection:
                    await connection.execute(sa.insert(MOVEMENTS), rows)
                    await connection.execute(
                        sa.update(STOCK)
                        .where(STOCK.c.product_id == THING)
                        .values(received=STOCK.c.received + 300)
                    )
                await balances(shop)
                while await forgetting.forget(database, 1):
                    pass  # the service itself is at it as well
                small = sa.select(sa.func.count()).select_from(MOVEMENTS)
                small = small.where(MOVEMENTS.c.product_id == THING)
                async with database.reading() as connection:
                    assert (await connection.execute(small)).scalar_one() <= 200
                await balances(shop)
            finally:
                await database.close()

    asyncio.run(scene())


async def balances(shop):
    books = (await shop.client.get("/internal/books")).json()
    assert books["balanced"], [one for one in books["items"] if not one["balanced"]]
