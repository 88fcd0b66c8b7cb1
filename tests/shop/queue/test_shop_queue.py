"""What holds wherever the queue is kept."""

from __future__ import annotations

import asyncio
import time

import pytest

from headgate_shop.queue import Later, QueueFull, Reject
from headgate_shop.queue.message import decode
from tests.shop.queue.hearing import Heard, figures, in_loop, queue_at, until


@in_loop
async def test_each_group_of_a_topic_hears_a_message_once(url):
    kitchen, books = Heard(), Heard()
    first, second = queue_at(url), queue_at(url, "books")
    first.subscribe("made", kitchen)
    second.subscribe("made", books)
    async with first, second:
        message_id = await first.publish("made", {"n": 1, "text": "Grüße \N{SNOWMAN}"})
        await kitchen.until(1)
        await books.until(1)
        await until(first, ready=0, in_flight=0)
    for heard in (kitchen, books):
        (message,) = heard.tries
        assert (message.id, message.topic, message.attempt) == (message_id, "made", 1)
        assert message.data == {"n": 1, "text": "Grüße \N{SNOWMAN}"}
        assert abs(time.time() - message.at) < 60


@in_loop
async def test_a_message_waits_for_a_group_that_does_not_run_yet(url):
    async with queue_at(url) as queue:
        await queue.publish("made", {}, id="early")
    books = Heard()
    later = queue_at(url, "books")
    later.subscribe("made", books)
    async with later:
        await books.until(1)
    assert books.ids == ["early"]


@in_loop
async def test_the_same_id_twice_is_one_message_also_after_it_is_done(url):
    heard = Heard()
    queue = queue_at(url)
    queue.subscribe("sent", heard)
    async with queue:
        for _ in range(3):
            assert await queue.publish("sent", {"n": 1}, id="one") == "one"
        await heard.until(1)
        await until(queue, ready=0, in_flight=0)
        await queue.publish("sent", {"n": 2}, id="one")
        await queue.publish("sent", {}, id="two")
        await heard.until(2)
    assert heard.ids == ["one", "two"]


@in_loop
async def test_the_highest_priority_is_next_and_of_those_the_oldest_over_all_topics(url):
    heard = Heard()
    queue = queue_at(url)
    queue.subscribe(("sent", "lost", "made"), heard, concurrency=1)
    publisher = queue_at(url)
    async with publisher:
        await publisher.publish("sent", {}, id="a")
        await publisher.publish("lost", {}, id="b")
        await publisher.publish("made", {}, id="c")
        await publisher.publish("lost", {}, id="high", priority=5)
        await publisher.publish("sent", {}, id="d")
        await publisher.publish("sent", {}, id="highest", priority=9)
        async with queue:
            await heard.until(6)
    assert heard.ids == ["highest", "high", "a", "b", "c", "d"]


@in_loop
async def test_each_subscription_of_a_group_gets_its_own_topics(url):
    sent, lost = Heard(), Heard()
    queue = queue_at(url)
    queue.subscribe("sent", sent)
    queue.subscribe("lost", lost)
    async with queue:
        await asyncio.gather(
            *(queue.publish(topic, {}) for topic in ("sent", "lost") for _ in range(5))
        )
        await sent.until(5)
        await lost.until(5)
    assert {message.topic for message in sent.tries} == {"sent"}
    assert {message.topic for message in lost.tries} == {"lost"}


@in_loop
async def test_a_delayed_message_comes_when_its_time_has_come(url):
    came = {}

    async def act(message):
        came[message.id] = time.time() - message.at

    heard = Heard(act)
    queue = queue_at(url)
    queue.subscribe("sent", heard)
    async with queue:
        await queue.publish("sent", {}, id="later", delay_s=0.3)
        await queue.publish("sent", {}, id="now")
        await heard.until(2)
    assert came["later"] >= 0.29


@in_loop
async def test_what_fails_comes_again_and_is_dead_when_its_attempts_are_used_up(url):
    async def fail(message):
        raise RuntimeError(f"attempt {message.attempt}")

    heard = Heard(fail)
    queue = queue_at(url)
    queue.subscribe("sent", heard, attempts=3)
    async with queue:
        await queue.publish("sent", {"n": 7}, id="bad")
        await until(queue, dead=1)
        (letter,) = await queue.dead("kitchen")
        found = await figures(queue)
    assert [message.attempt for message in heard.tries] == [1, 2, 3]
    assert (letter.id, letter.topic, letter.attempts) == ("bad", "sent", 3)
    assert letter.error == "RuntimeError: attempt 3"
    assert decode(letter.body)[0] == {"n": 7}
    assert (found["ready"], found["delayed"], found["in_flight"]) == (0, 0, 0)
    assert found["oldest_s"] is None


@in_loop
async def test_what_comes_again_is_before_what_was_published_after_it(url):
    tries = []

    async def fail_once(message):
        tries.append(message.id)
        if len(tries) == 1:
            await queue.publish("sent", {}, id="second")
            raise Later("at once", retry_after_s=0.0)

    heard = Heard(fail_once)
    queue = queue_at(url)
    queue.subscribe("sent", heard, concurrency=1)
    async with queue:
        await queue.publish("sent", {}, id="first")
        await heard.until(2)
    assert tries == ["first", "first", "second"]


@in_loop
async def test_a_rejected_message_is_dead_at_once_and_later_is_not_counted(url):
    async def act(message):
        if message.id == "no":
            raise Reject("never")
        if len([one for one in heard.tries if one.id == message.id]) < 4:
            raise Later("the server is down", retry_after_s=0.01)

    heard = Heard(act)
    queue = queue_at(url)
    queue.subscribe("sent", heard, attempts=2)
    async with queue:
        await queue.publish("sent", {}, id="no")
        await queue.publish("sent", {}, id="wait")
        await heard.until(1)
        await until(queue, dead=1, in_flight=0)
        (letter,) = await queue.dead("kitchen")
    assert (letter.id, letter.error, letter.attempts) == ("no", "never", 1)
    assert [one.attempt for one in heard.tries if one.id == "wait"] == [1, 1, 1, 1]


@in_loop
async def test_an_error_can_say_when_to_come_again(url):
    class Busy(Exception):
        retry_after_s = 0.4

    async def act(message):
        if message.attempt == 1:
            raise Busy

    heard = Heard(act)
    queue = queue_at(url)
    queue.subscribe("sent", heard)
    async with queue:
        await queue.publish("sent", {})
        begun = time.time()
        await heard.until(1)
    assert time.time() - begun >= 0.3


@in_loop
async def test_dead_letters_are_listed_by_page_redriven_and_dropped(url):
    is_broken = True

    async def act(message):
        if is_broken:
            raise Reject("broken")

    heard = Heard(act)
    queue = queue_at(url)
    queue.subscribe("sent", heard, concurrency=1)
    async with queue:
        for n in range(5):
            await queue.publish("sent", {"n": n}, id=f"m:{n}")
        await until(queue, dead=5)
        first = await queue.dead("kitchen", limit=2)
        second = await queue.dead("kitchen", limit=9, after=first[-1].id)
        assert [one.id for one in first + second] == [f"m:{n}" for n in range(5)]
        assert await queue.dead("books") == []
        is_broken = False
        assert await queue.redrive("kitchen", "m:3") == 1
        await heard.until(1)
        assert heard.messages[0].attempt == 1
        assert await queue.redrive("kitchen", "m:3") == 0
        assert await queue.redrive("kitchen", "unknown") == 0
        assert await queue.redrive("books") == 0
        assert await queue.drop("kitchen", "m:0") == 1
        assert await queue.drop("kitchen", "m:0") == 0
        assert await queue.redrive("kitchen") == 3
        await heard.until(4)
        await until(queue, dead=0, in_flight=0)
    assert sorted(heard.ids) == ["m:1", "m:2", "m:3", "m:4"]


@in_loop
async def test_a_full_group_refuses_precisely_and_no_group_gets_the_message(url):
    async with queue_at(url, limit=3) as queue:
        for n in range(3):
            await queue.publish("sent", {}, id=f"m{n}")
        with pytest.raises(QueueFull, match="'kitchen' is full: 3 messages"):
            await queue.publish("made", {}, id="over")
        assert (await figures(queue, "books"))["ready"] == 0
        batch = [queue.outgoing("sent", {}, id=f"x{n}") for n in range(2)]
        put = await queue.put([queue.outgoing("sent", {}, id="m1"), *batch])
        assert (put.accepted, put.full) == (1, "kitchen")  # one that is known needs no room
    heard = Heard()
    queue = queue_at(url, limit=3)
    queue.subscribe("sent", heard)
    async with queue:
        await heard.until(3)
        await until(queue, in_flight=0, ready=0)
        await queue.publish("made", {}, id="over")
        await until(queue, "books", ready=1)


@in_loop
async def test_the_dead_count_against_the_limit(url):
    async def no(message):
        raise Reject("no")

    queue = queue_at(url, limit=2)
    queue.subscribe("sent", Heard(no))
    async with queue:
        await queue.publish("sent", {})
        await queue.publish("sent", {})
        await until(queue, dead=2)
        with pytest.raises(QueueFull):
            await queue.publish("sent", {})
        await queue.drop("kitchen", (await queue.dead("kitchen"))[0].id)
        await queue.publish("sent", {})


@in_loop
async def test_no_more_hands_than_concurrency_work_at_once(url):
    now, most = 0, 0

    async def act(message):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1

    heard = Heard(act)
    queue = queue_at(url)
    queue.subscribe("sent", heard, concurrency=3)
    async with queue:
        await asyncio.gather(*(queue.publish("sent", {}) for _ in range(30)))
        await heard.until(30)
    assert most == 3


@in_loop
async def test_several_consumers_share_a_group_and_each_message_goes_to_one(url):
    heard = [Heard() for _ in range(3)]
    queues = [queue_at(url) for _ in heard]
    for queue, one in zip(queues, heard, strict=True):
        queue.subscribe("sent", one)
    async with queues[0], queues[1], queues[2]:
        await asyncio.gather(*(queues[n % 3].publish("sent", {}, id=str(n)) for n in range(60)))
        await until(queues[0], ready=0, in_flight=0)
    assert sorted(int(i) for one in heard for i in one.ids) == list(range(60))


@in_loop
async def test_stats_know_every_topic_of_every_group_and_the_age_of_the_oldest(url):
    async with queue_at(url) as queue:
        await queue.publish("made", {})
        await queue.publish("lost", {}, delay_s=50)
        document = (await queue.stats()).document()
    assert (document["ready"], document["delayed"], document["limit"]) == (2, 1, 100_000)
    by_group = {one["group"]: one for one in document["groups"]}
    assert by_group["books"]["ready"] == 1
    kitchen = {row["topic"]: row for row in by_group["kitchen"]["topics"]}
    assert sorted(kitchen) == ["lost", "made", "sent"]
    assert (kitchen["made"]["ready"], kitchen["lost"]["delayed"], kitchen["sent"]["ready"]) == (
        1,
        1,
        0,
    )
    assert 0 <= kitchen["made"]["oldest_s"] < 30
    assert kitchen["sent"]["oldest_s"] is None
    assert set(kitchen["sent"]) >= {"published_per_s", "done_per_s", "failed_per_s", "in_flight"}
