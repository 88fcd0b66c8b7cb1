"""Messages that are handled several at a time."""

from __future__ import annotations

import asyncio

import pytest

from headgate_shop.queue import Message, Reject, Together

PATIENCE_S = 20.0


def message(number: int, **data) -> Message:
    return Message(f"m-{number}", "order.paid", {"number": number, **data}, 1, 0.0)


def test_what_comes_within_a_moment_is_one_batch_and_each_waits_for_it():
    async def main():
        batches: list[list[str]] = []
        free = asyncio.Event()

        async def handle(messages):
            batches.append([one.id for one in messages])
            await free.wait()

        async with asyncio.timeout(PATIENCE_S), Together("some", 0.02, handle) as together:
            adding = [asyncio.ensure_future(together.add(message(n))) for n in range(5)]
            while not batches:
                await asyncio.sleep(0.005)
            late = asyncio.ensure_future(together.add(message(9)))
            await asyncio.sleep(0.05)
            assert not any(one.done() for one in (*adding, late))
            free.set()
            await asyncio.gather(*adding, late)
        assert batches == [["m-0", "m-1", "m-2", "m-3", "m-4"], ["m-9"]]

    asyncio.run(main())


def test_what_is_wrong_with_one_is_told_of_it_alone():
    async def main():
        done: list[int] = []

        async def handle(messages):
            # As in a transaction: of a batch with a bad one in it nothing is kept.
            if any(one.data.get("bad") for one in messages):
                raise Reject("it lacks something")
            done.extend(one.data["number"] for one in messages)

        async with asyncio.timeout(PATIENCE_S), Together("some", 0.01, handle) as together:
            found = await asyncio.gather(
                *(together.add(message(n, bad=n == 2)) for n in range(4)), return_exceptions=True
            )
        assert [type(one) for one in found] == [type(None), type(None), Reject, type(None)]
        assert sorted(done) == [0, 1, 3]

    asyncio.run(main())


def test_who_has_gone_away_is_left_out_and_harms_nobody():
    async def main():
        done: list[str] = []

        async def handle(messages):
            done.extend(one.id for one in messages)

        async with asyncio.timeout(PATIENCE_S), Together("some", 0.05, handle) as together:
            gone = asyncio.ensure_future(together.add(message(1)))
            stays = asyncio.ensure_future(together.add(message(2)))
            await asyncio.sleep(0)
            gone.cancel()
            await stays
            with pytest.raises(asyncio.CancelledError):
                await gone
        assert done == ["m-2"]

    asyncio.run(main())


def test_a_crowd_is_handled_in_batches_that_have_a_bound():
    async def main():
        sizes: list[int] = []

        async def handle(messages):
            sizes.append(len(messages))

        async with asyncio.timeout(PATIENCE_S), Together("some", 0.01, handle) as together:
            await asyncio.gather(*(together.add(message(n)) for n in range(150)))
        assert sum(sizes) == 150 and max(sizes) == 64

    asyncio.run(main())
