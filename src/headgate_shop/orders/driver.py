"""Drives open sagas to their ends: those of this process at once, and what others have left.

Theory of operation
-------------------
A checkout runs in a task that belongs to the driver and not to the request that began it: a
customer who leaves, or whose time is over, harms nothing. The request waits beside it, for as long
as it may, and otherwise tells that the order is pending.

A step whose outcome is not known is let go and taken up again when it is due, by a task without
the deadline of any request. The same look finds what a killed process has left, once its lease is
over. A process that starts sees at once which of this machine's have ended: `leases`.

While an action takes long its lease is renewed. When that fails, or the machine stood still,
another process may do the same action at the same time, which the ids of actions make harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, TypeVar

from headgate_shop.base.background import Background
from headgate_shop.base.database import Database
from headgate_shop.orders import housekeeping, order_store
from headgate_shop.orders.leases import exists
from headgate_shop.orders.order_store import Order
from headgate_shop.orders.saga_store import LEASE_MS, SagaStore, Work
from headgate_shop.orders.steps import Outside

__all__ = ["Driver", "now_ms"]

T = TypeVar("T")

LOOK_S: Final = 0.5
AT_ONCE: Final = 16
CLEAN_S: Final = 600.0

log = logging.getLogger("headgate_shop.orders")


def now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - other processes go by it, and the next one


class Driver(Background):
    """Works while it is entered. What is under way at the end may end; what does not is taken up
    after the next start.
    """

    task_name = "orders: open sagas"

    def __init__(
        self,
        database: Database,
        store: SagaStore,
        outside: Outside,
        *,
        rng: random.Random,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._database = database
        self._store = store
        self._outside = outside
        self._rng = rng
        self._clock = clock
        self._driven: dict[str, asyncio.Task[None]] = {}
        self._owned: set[asyncio.Task[Any]] = set()
        self._moved: dict[str, set[asyncio.Event]] = {}

    def _others(self) -> Collection[asyncio.Task[Any]]:
        return {*self._owned, *self._driven.values()}

    # ---- for requests

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Await what must come to its end also when whoever waits for it goes away."""
        task = asyncio.get_running_loop().create_task(work, name="orders: a request's work")
        self._owned.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._owned.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it is told; if nobody does, nobody need be

    def start(self, order_id: str) -> None:
        """Drive this saga, which is ours or free."""
        if order_id in self._driven or self.is_ending():
            return
        task = asyncio.get_running_loop().create_task(
            self._drive(order_id), name=f"orders: saga of {order_id}"
        )
        self._driven[order_id] = task
        task.add_done_callback(lambda _: self._driven.pop(order_id, None))

    async def decided(self, order_id: str, wait_s: float) -> Order | None:
        """The order, once it is not pending any more, or when the time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        moved = asyncio.Event()
        self._moved.setdefault(order_id, set()).add(moved)
        try:
            while True:
                moved.clear()
                async with self._database.reading() as connection:
                    order = await order_store.find(connection, order_id)
                left_s = until - loop.time()
                if order is None or order.status != "pending" or left_s <= 0:
                    return order
                try:
                    # Another process may have it: then nothing here hears of it.
                    async with asyncio.timeout(min(left_s, LOOK_S)):
                        await moved.wait()
                except TimeoutError:
                    pass
        finally:
            waiting = self._moved[order_id]
            waiting.discard(moved)
            if not waiting:
                del self._moved[order_id]

    # ---- inside

    async def _run(self) -> None:
        failures = 0
        clean_at = 0.0
        is_first = True
        loop = asyncio.get_running_loop()
        while not self.is_ending():
            try:
                if is_first:
                    await self._store.free_those_of_the_dead(exists)
                    is_first = False
                room = AT_ONCE - len(self._driven)
                if room > 0:
                    for order_id in await self._store.due(self._clock(), room):
                        self.start(order_id)
                if loop.time() >= clean_at:
                    clean_at = loop.time() + CLEAN_S
                    await housekeeping.clean(self._database, self._clock())
                failures = 0
            except Exception:
                failures += 1
                if failures == 1:
                    log.warning("open sagas cannot be looked for", exc_info=True)
            await self.rest(LOOK_S * 2 ** min(failures, 4))

    async def _drive(self, order_id: str) -> None:
        try:
            work = await self._store.claim(order_id, self._clock())
            while work is not None:
                work = await self._one_step(work)
        except Exception:
            # The database, most likely. The lease ends, and somebody goes on.
            log.warning("the saga of %s is left for later", order_id, exc_info=True)
        finally:
            self._tell(order_id)

    async def _one_step(self, work: Work) -> Work | None:
        order_id, step = work.order.id, work.saga.step
        is_over = asyncio.Event()
        # It is told to end, not cancelled: it may be in the middle of a transaction.
        renewing = asyncio.get_running_loop().create_task(
            self._renew(order_id, is_over), name=f"orders: lease of {order_id}"
        )
        try:
            found = await self._outside.carry_out(work)
        finally:
            is_over.set()
            await renewing
        after = await self._store.settle(order_id, step, found, self._clock())
        self._tell(order_id)
        log.debug("%s of order %s, try %d: %s", step, order_id, work.tries, found.outcome.kind)
        return after

    async def _renew(self, order_id: str, is_over: asyncio.Event) -> None:
        while True:
            try:
                async with asyncio.timeout(LEASE_MS / 3000):
                    await is_over.wait()
                return
            except TimeoutError:
                pass
            try:
                await self._store.renew(order_id, self._clock())
            except Exception:
                log.warning("the lease of %s is not renewed", order_id, exc_info=True)

    def _tell(self, order_id: str) -> None:
        for moved in self._moved.get(order_id, ()):
            moved.set()
