"""Processes that die, stop, end or are cancelled, wherever the queue is kept."""

from __future__ import annotations

import asyncio
import random

from headgate_shop.queue.home import Again, Bury, Done, Taken
from tests.shop.queue.hearing import Heard, figures, in_loop, queue_at, until


@in_loop
async def test_a_lease_is_renewed_while_a_handler_works(url, monkeypatch):
    release, renewed = asyncio.Event(), asyncio.Event()
    count = 0

    async def act(message):
        await release.wait()

    queue = queue_at(url, lease_s=0.3)
    heard = Heard(act)
    queue.subscribe("sent", heard)
    renew = queue._home.renew

    async def watched(taken, lease_s):
        nonlocal count
        lost = await renew(taken, lease_s)
        assert not lost
        count += 1
        if count == 4:  # more than its first lease was long
            renewed.set()
        return lost

    monkeypatch.setattr(queue._home, "renew", watched)
    async with queue:
        await queue.publish("sent", {})
        await renewed.wait()
        release.set()
        await heard.until(1)
    assert len(heard.tries) == 1


@in_loop
async def test_a_lease_that_was_renewed_keeps_others_away_until_it_ends(url):
    async with queue_at(url) as queue:
        home = queue._home
        await queue.publish("sent", {})
        (taken,) = (await home.take("kitchen", ("sent",), 5, 0.05)).taken
        assert await home.renew((taken,), 600.0) == frozenset()
        await asyncio.sleep(0.1)
        found = await home.take("kitchen", ("sent",), 5, 600.0)
        assert found.taken == ()
        assert found.next_s is not None and found.next_s > 300


@in_loop
async def test_a_handler_whose_lease_is_lost_is_ended(url):
    async def act(message):
        if message.attempt == 1:
            taken = next(iter(queue._consumers[0]._working.values()))
            queue._consumers[0]._lost.add(taken.claim)
            next(iter(queue._consumers[0]._working)).cancel()
            await asyncio.Event().wait()

    heard = Heard(act)
    queue = queue_at(url, lease_s=0.3)
    queue.subscribe("sent", heard)
    async with queue:
        await queue.publish("sent", {})
        await heard.until(1)  # it says nothing of the message, whose lease ends
    assert [message.attempt for message in heard.tries] == [1, 2]


@in_loop
async def test_a_message_whose_taker_died_is_taken_over_and_the_late_word_refused(url):
    heard = Heard()
    queue = queue_at(url, lease_s=0.2)
    queue.subscribe("sent", heard)
    dying = queue_at(url)
    async with dying:
        await dying.publish("sent", {}, id="m")
        take = await dying._home.take("kitchen", ("sent",), 1, 0.2)  # and dies
        assert [one.id for one in take.taken] == ["m"]
        async with queue:
            await heard.until(1)
            assert heard.messages[0].attempt == 2
            await until(queue, in_flight=0)
        assert await dying._home.finish(take.taken[0], Done()) is False
        assert await dying._home.finish(take.taken[0], Again(0.0, "x")) is False
        assert await dying._home.renew(take.taken, 5.0) == {take.taken[0].claim}


@in_loop
async def test_who_has_lost_a_message_to_another_decides_nothing_about_it(url):
    async with queue_at(url) as queue:
        home = queue._home
        await queue.publish("sent", {})
        (old,) = (await home.take("kitchen", ("sent",), 1, 0.001)).taken
        taken: tuple[Taken, ...] = ()
        while not taken:
            await asyncio.sleep(0.005)
            taken = (await home.take("kitchen", ("sent",), 1, 600.0)).taken
        (new,) = taken
        for verdict in (Done(), Again(0.0), Bury("no")):
            assert await home.finish(old, verdict) is False
        assert await home.renew((old, new), 600.0) == {old.claim}
        assert (await figures(queue))["in_flight"] == 1
        assert await home.finish(new, Done()) is True
        found = await figures(queue)
    assert (found["ready"], found["in_flight"], found["dead"]) == (0, 0, 0)


@in_loop
async def test_a_message_that_ends_every_process_becomes_a_dead_letter(url):
    heard = Heard()
    async with queue_at(url) as dying:
        await dying.publish("sent", {}, id="poison")
        for _ in range(3):
            take = await dying._home.take("kitchen", ("sent",), 1, 0.001)
            while not take.taken:
                await asyncio.sleep(0.01)
                take = await dying._home.take("kitchen", ("sent",), 1, 0.001)
    queue = queue_at(url)
    queue.subscribe("sent", heard, attempts=3)
    async with queue:
        await until(queue, dead=1)
        (letter,) = await queue.dead("kitchen")
    assert heard.tries == []
    assert "taken 3 times" in letter.error


@in_loop
async def test_a_handler_that_never_ends_is_ended_and_has_failed(url):
    async def stuck(message):
        await asyncio.Event().wait()

    queue = queue_at(url)
    queue.subscribe("sent", Heard(stuck), attempts=1, timeout_s=0.05)
    async with queue:
        await queue.publish("sent", {})
        await until(queue, dead=1)
        assert (await queue.dead("kitchen"))[0].error.startswith("TimeoutError")


@in_loop
async def test_a_handler_that_cancels_itself_has_failed(url):
    async def act(message):
        raise asyncio.CancelledError

    queue = queue_at(url)
    queue.subscribe("sent", Heard(act), attempts=1)
    async with queue:
        await queue.publish("sent", {})
        await until(queue, dead=1)


@in_loop
async def test_at_the_end_handlers_finish(url):
    async def act(message):
        await asyncio.sleep(0.05)

    heard = Heard(act)
    queue = queue_at(url, grace_s=20)
    queue.subscribe("sent", heard)
    async with queue:
        await queue.publish("sent", {})
        await heard.until_tried(1)
    assert len(heard.messages) == 1
    async with queue_at(url) as after:
        found = await figures(after)
    assert (found["ready"], found["in_flight"]) == (0, 0)


@in_loop
async def test_at_the_end_what_cannot_finish_is_given_back_uncounted(url):
    async def act(message):
        await asyncio.Event().wait()

    heard = Heard(act)
    queue = queue_at(url, grace_s=1.0, lease_s=600)
    queue.subscribe("sent", heard)
    async with queue:
        await queue.publish("sent", {})
        await heard.until_tried(1)
        queue._grace_s = 0.3
    again = Heard()
    queue = queue_at(url)
    queue.subscribe("sent", again)
    async with queue:
        await again.until(1)
    assert again.messages[0].attempt == 1


@in_loop
async def test_cancelled_at_any_moment_nothing_is_lost(url):
    """Whoever is cancelled between two steps leaves messages that the next one handles."""
    rng = random.Random(5)
    published: set[str] = set()
    done: set[str] = set()

    async def act(message):
        await asyncio.sleep(0)
        done.add(message.id)

    async def life(turn: int) -> None:
        queue = queue_at(url, lease_s=0.3, grace_s=0.2)
        queue.subscribe("sent", act, attempts=1000)
        async with queue:
            for n in range(4):
                message_id = f"{turn}.{n}"
                await queue.publish("sent", {}, id=message_id)
                published.add(message_id)

    for turn in range(18):
        task = asyncio.get_running_loop().create_task(life(turn))
        await asyncio.sleep(rng.random() * 0.012)
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    queue = queue_at(url)
    queue.subscribe("sent", act, attempts=1000)
    async with queue:
        await until(queue, ready=0, delayed=0, in_flight=0, dead=0)
    assert published <= done
