"""How what goes on beside the requests ends, and that a service always does."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
import sqlalchemy as sa

from headgate_shop.base import background
from headgate_shop.base.background import Background, Every, let_end
from headgate_shop.base.database import Database
from headgate_shop.base.settings import Settings

PATIENCE_S = 20.0


class Counting(Background):
    task_name = "counting"

    def __init__(self, every_s: float | None, *, is_deaf: bool = False) -> None:
        self.every_s = every_s
        self.is_deaf = is_deaf
        self.turns = 0
        self.is_done = asyncio.Event()

    async def _run(self) -> None:
        while not self.is_ending():
            await self.rest(self.every_s, is_deaf=self.is_deaf)
            self.turns += 1
        await asyncio.sleep(0)  # what is under way comes to its end
        self.is_done.set()


def rest_a_little() -> int:
    time.sleep(0.1)
    return 0


def test_it_is_told_to_end_and_not_cancelled():
    async def main():
        async with Counting(None) as one:
            await asyncio.sleep(0)
            assert one.turns == 0
        assert one.is_done.is_set() and one.turns == 1

    asyncio.run(main())


def test_a_waking_is_never_lost():
    async def main():
        one = Counting(None)
        one.wake()  # before it begins there is nothing to wake
        async with asyncio.timeout(PATIENCE_S), one:
            for turns in range(1, 4):
                one.wake()
                one.wake()
                while one.turns < turns:
                    await asyncio.sleep(0)
            assert one.turns == 3
        async with asyncio.timeout(PATIENCE_S), one:  # and once more
            one.wake()
            while one.turns < 5:
                await asyncio.sleep(0)

    asyncio.run(main())


def test_the_deaf_hear_the_end_alone():
    async def main():
        async with Counting(60.0, is_deaf=True) as one:
            one.wake()
            for _ in range(5):
                await asyncio.sleep(0)
            assert one.turns == 0
        assert one.is_done.is_set()

    asyncio.run(main())


def test_what_does_not_end_is_cancelled_and_what_resists_is_left(monkeypatch, caplog):
    monkeypatch.setattr(background, "CUT_S", 0.05)

    async def main():
        free = asyncio.Event()

        async def stubborn():
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue

        loop = asyncio.get_running_loop()
        slow = loop.create_task(asyncio.sleep(3600), name="slow")
        bad = loop.create_task(stubborn(), name="stubborn")
        with caplog.at_level(logging.ERROR):
            await let_end([slow, bad], 0.01)
        assert slow.cancelled() and not bad.done()
        assert [record.getMessage() for record in caplog.records] == [
            "stubborn does not end; it is left behind"
        ]
        free.set()
        await bad

    asyncio.run(main())


def test_its_end_is_whole_also_when_whoever_ends_it_is_cancelled():
    async def main():
        one = Counting(None)

        async def live():
            async with one:
                await asyncio.sleep(0)

        task = asyncio.get_running_loop().create_task(live())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert one.is_done.is_set()

    asyncio.run(main())


def test_what_is_done_every_so_often_survives_its_failures(caplog):
    async def main():
        turns = 0
        enough = asyncio.Event()

        async def act():
            nonlocal turns
            turns += 1
            if turns >= 5:
                enough.set()
            if turns in (2, 3):
                raise OSError("away")

        async with asyncio.timeout(PATIENCE_S), Every("figures", 0.001, act):
            await enough.wait()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == ["figures: not done this time"]


@pytest.mark.parametrize("pauses", [(0,), (0, 0), (0, 1), (1, 0), (1, 1, 1), (2, 0), (0, 3, 0)])
def test_a_database_closes_whoever_is_cancelled_how_often_in_the_middle(tmp_path, pauses):
    """`pauses` are turns of the loop between one cancellation and the next. The last one comes as
    it comes from a loop that ends: to all tasks that there are.
    """
    done = False

    async def main():
        nonlocal done
        database = Database(Settings("orders", tmp_path))
        began = asyncio.Event()

        async def slow():
            async with database.writing() as connection:
                raw = await connection.get_raw_connection()
                driver = raw.driver_connection
                assert driver is not None
                await driver.create_function("rest_a_little", 0, rest_a_little)
                began.set()
                await connection.execute(sa.text("SELECT rest_a_little()"))

        task = asyncio.get_running_loop().create_task(slow(), name="slow")
        await began.wait()
        await asyncio.sleep(0.01)
        for turns in pauses:
            task.cancel()
            for _ in range(turns + 1):
                await asyncio.sleep(0)
        ours = asyncio.current_task()
        others = [one for one in asyncio.all_tasks() if one is not ours]
        for one in others:
            one.cancel()
        _, left = await asyncio.wait(others, timeout=PATIENCE_S / 4)
        assert not left, [one.get_stack() for one in left]
        async with asyncio.timeout(PATIENCE_S):
            await database.close()
            others = [one for one in asyncio.all_tasks() if one is not ours]
            if others:
                _, left = await asyncio.wait(others, timeout=PATIENCE_S / 4)
        assert not left, [one.get_stack() for one in left]
        done = True

    asyncio.run(main())
    assert done
