from __future__ import annotations

import asyncio
import functools
import random
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings
from headgate_shop.orders import cart_store, order_store
from headgate_shop.orders.ids import new_order_id
from headgate_shop.orders.leases import is_over, new_lease
from headgate_shop.orders.saga import GIVE_UP_MS, Outcome, Step
from headgate_shop.orders.saga_store import LEASE_MS, Found, SagaStore
from headgate_shop.orders.tables import OUTBOX, SAGAS
from headgate_shop.queue import Outbox, open_queue

DONE = Found(Outcome("done"))
UNKNOWN = Found(Outcome("unknown"))
T = 1_800_000_000_000


class Desk:
    """One database, and processes that share it by their leases."""

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings)
        queue = open_queue(settings.queue_url(), service="orders")
        outbox = self.outbox = Outbox(self.database, queue)
        self.one = SagaStore(self.database, outbox, "one", random.Random(1))
        self.two = SagaStore(self.database, outbox, "two", random.Random(2))

    async def begin(self, step: Step = Step.RESERVE) -> str:
        order_id = new_order_id(random.Random(5))
        values = {
            "id": order_id,
            "user_id": "ada",
            "email": "",
            "status": "pending",
            "reason": "",
            "refusal": {},
            "lines": [{"product_id": "cup", "quantity": 2, "price": None, "name": "Cup"}],
            "total": 0,
            "currency": "EUR",
            "address": {},
            "tracking": "",
            "created_ms": T,
            "history": [],
        }
        async with self.database.writing() as connection:
            await order_store.insert(connection, values, T, random.Random(6))
            row = self.one.first_row(order_id, T, step=step, cart_id="user:ada")
            await connection.execute(SAGAS.insert().values(**row))
        return order_id

    async def count(self, table: sa.Table) -> int:
        async with self.database.reading() as connection:
            return await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


@asynccontextmanager
async def open_desk(folder):
    desk = Desk(Settings("orders", folder))
    await desk.database.start()
    try:
        yield desk
    finally:
        await desk.database.close()


def at_a_desk(test):
    @functools.wraps(test)
    def run(*, tmp_path):
        async def main():
            async with open_desk(tmp_path) as desk:
                await test(desk)

        asyncio.run(main())

    del run.__wrapped__  # pytest would ask it for its arguments
    return run


@at_a_desk
async def test_a_saga_is_one_process_own_until_its_lease_is_over(desk):
    order_id = await desk.begin()
    assert await desk.two.due(T, 9) == []
    assert await desk.two.claim(order_id, T) is None
    work = await desk.one.claim(order_id, T)
    assert work is not None and work.tries == 1
    assert await desk.two.claim(order_id, T + LEASE_MS - 1) is None
    await desk.one.renew(order_id, T + LEASE_MS - 1)
    late = T + 2 * LEASE_MS
    assert await desk.two.due(T + LEASE_MS, 9) == [] and await desk.two.due(late, 9) == [order_id]
    taken = await desk.two.claim(order_id, late)
    assert taken is not None and taken.tries == 2


@at_a_desk
async def test_who_has_lost_its_lease_writes_nothing(desk):
    order_id = await desk.begin()
    await desk.one.claim(order_id, T)
    await desk.two.claim(order_id, T + LEASE_MS)
    refused = Found(Outcome("refused", "out_of_stock"))
    assert await desk.one.settle(order_id, Step.RESERVE, refused, T + LEASE_MS) is None
    found = Found(Outcome("done"), [{"product_id": "cup", "quantity": 2, "price": 5}], 10)
    work = await desk.two.settle(order_id, Step.RESERVE, found, T + LEASE_MS)
    assert work is not None and (work.saga.step, work.order.total) == (Step.PAY, 10)
    # Nor does an answer to a step that is over.
    assert await desk.two.settle(order_id, Step.RESERVE, refused, T + LEASE_MS) is None
    assert await desk.count(OUTBOX) == 1


@pytest.mark.parametrize(
    "lease, is_there, expected",
    [
        ("here:7:aa", False, True),
        ("here:7:aa", True, False),  # it lives, or its number is another's by now: wait
        ("here:1:aa", True, True),  # it had our number, so it is not there any more
        ("here:1:bb", True, False),  # that is we
        ("there:7:aa", False, False),  # on another machine: nobody here can tell
        ("", False, False),
        ("here", False, False),
        ("here:x:aa", False, False),
    ],
    ids=range(8),
)
def test_a_process_that_has_ended_is_known_to_have(lease, is_there, expected):
    assert is_over(lease, "here:1:bb", lambda pid: is_there) is expected


@at_a_desk
async def test_sagas_of_the_dead_are_free_at_once(desk):
    order_id = await desk.begin()
    await desk.one.claim(order_id, T)
    dead = new_lease().rpartition(":")[0] + ":before-us"
    for lease, freed in (("elsewhere:1:x", 0), (dead, 1)):
        async with desk.database.writing() as connection:
            await connection.execute(SAGAS.update().values(lease=lease))
        three = SagaStore(desk.database, desk.outbox, new_lease(), random.Random(3))
        assert await three.free_those_of_the_dead(lambda pid: True) == freed
        assert await three.due(T, 9) == [order_id] * freed


@at_a_desk
async def test_what_is_not_known_waits_and_is_anybodys(desk):
    order_id = await desk.begin()
    await desk.one.claim(order_id, T)
    assert await desk.one.settle(order_id, Step.RESERVE, UNKNOWN, T) is None
    assert await desk.two.claim(order_id, T) is None
    (due,) = await desk.two.due(T + 10_000, 9)
    assert due == order_id
    work = await desk.two.claim(order_id, T + 10_000)
    assert work is not None and (work.saga.step, work.tries) == (Step.RESERVE, 2)


@at_a_desk
async def test_of_many_who_claim_at_once_one_gets_it(desk):
    order_id = await desk.begin()
    async with desk.database.writing() as connection:
        await connection.execute(SAGAS.update().values(lease_ms=0, lease=""))
    stores = [desk.one, desk.two] * 4
    got = await asyncio.gather(*(store.claim(order_id, T) for store in stores))
    names = {type(work).__name__ for work in got}
    assert names == {"Work", "NoneType"}
    async with desk.database.reading() as connection:
        winner = await connection.scalar(sa.select(SAGAS.c.lease))
    losers = [work for store, work in zip(stores, got, strict=True) if store._lease != winner]
    assert losers == [None] * 4


@at_a_desk
async def test_what_is_given_up_goes_back_into_the_cart(desk):
    order_id = await desk.begin()
    await desk.one.claim(order_id, T)
    late = T + GIVE_UP_MS + 1
    work = await desk.one.settle(order_id, Step.RESERVE, UNKNOWN, late)
    assert work is not None and work.saga.step is Step.RELEASE
    assert (work.order.status, work.order.reason) == ("refused", "unavailable")
    async with desk.database.reading() as connection:
        (line,) = await cart_store.read(connection, "user:ada")
    assert (line.product_id, line.quantity) == ("cup", 2)
    assert await desk.one.settle(order_id, Step.RELEASE, DONE, late) is None
    assert await desk.count(SAGAS) == 0 and await desk.count(OUTBOX) == 0
