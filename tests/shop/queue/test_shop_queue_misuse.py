"""What is refused, and what only looks as if it should be, wherever the queue is kept."""

from __future__ import annotations

import random
from typing import Any

import pytest

from headgate.observe import tracing
from headgate_shop.queue import Backoff, MessageInvalid, open_queue
from tests.shop.queue.hearing import GROUPS, Heard, figures, in_loop, queue_at


@in_loop
async def test_hostile_names_and_texts_pass_unchanged(url):
    heard = Heard()
    queue = queue_at(url)
    queue.subscribe("sent", heard)
    ids = ["a|b", "x:y:z", "'; DROP TABLE message; --", "{shop-queue}:held:kitchen", "*", "ü/%00"]
    async with queue:
        for one in ids:
            await queue.publish(
                "sent", {"text": "\x00\r\n\u2028" + one, "deep": [[[1e300, -0.0]]]}, id=one
            )
        await heard.until(len(ids))
    assert sorted(heard.ids) == sorted(ids)
    assert {message.data["text"][4:] for message in heard.messages} == set(ids)


@in_loop
async def test_what_can_never_be_delivered_is_refused_when_it_is_published(url):
    async with queue_at(url) as queue:
        cases: list[tuple[str, Any, dict[str, Any], str]] = [
            ("unheard", {}, {}, "no group hears 'unheard'"),
            ("sent", [1], {}, "data is a list"),
            ("sent", {"x": object()}, {}, "not JSON"),
            ("sent", {"x": float("nan")}, {}, "not JSON"),
            ("sent", {"x": "\ud800"}, {}, "not JSON"),
            ("sent", {"x": "y" * 300_000}, {}, "262144 at most"),
            ("sent", {}, {"id": ""}, "the id ''"),
            ("sent", {}, {"id": "a\nb"}, "printable"),
            ("sent", {}, {"delay_s": -1}, "delay_s is -1"),
            ("sent", {}, {"delay_s": float("nan")}, "delay_s is nan"),
            ("sent", {}, {"priority": 10}, "priority is 10"),
            ("sent", {}, {"priority": 1.5}, "priority is 1.5"),
        ]
        for topic, data, options, why in cases:
            with pytest.raises(MessageInvalid, match=why):
                await queue.publish(topic, data, **options)
        assert (await figures(queue))["ready"] == 0


@in_loop
async def test_subscriptions_that_could_hear_nothing_are_refused(url):
    queue = queue_at(url)
    with pytest.raises(ValueError, match="'kitchen' is not a group of 'unheard'"):
        queue.subscribe("unheard", Heard())
    with pytest.raises(ValueError, match="not a group"):
        queue.subscribe("sent", Heard(), group="books")
    queue.subscribe("sent", Heard())
    with pytest.raises(ValueError, match="has a handler for sent already"):
        queue.subscribe(["lost", "sent"], Heard())
    with pytest.raises(ValueError, match="more than none"):
        queue.subscribe("lost", Heard(), attempts=0)
    async with queue:
        with pytest.raises(RuntimeError, match="before the queue is opened"):
            queue.subscribe("lost", Heard())


def test_a_canary_works_for_the_group_of_its_room_and_other_urls_are_refused():
    queue = open_queue("sqlite:///x.db", service="kitchen-next", groups=GROUPS)
    queue.subscribe("sent", Heard())
    assert queue._subscriptions[0].group == "kitchen"
    for wrong in ("postgresql://x", "amqp://x", "sqlite://", "nonsense"):
        with pytest.raises(ValueError, match="write sqlite:///path"):
            open_queue(wrong, service="kitchen")


def test_waits_double_up_to_the_longest_and_are_never_less_than_half():
    rng = random.Random(1)
    backoff = Backoff(1.0, 60.0)
    for attempt, whole_s in [(1, 1), (2, 2), (3, 4), (7, 60), (500, 60)]:
        waits = [backoff.delay_s(attempt, rng) for _ in range(50)]
        assert whole_s / 2 <= min(waits) and max(waits) <= whole_s
        assert len(set(waits)) > 40


@in_loop
async def test_a_handler_goes_on_with_the_trace_of_who_published(url):
    tracing.setup("tests")
    try:
        seen = []

        async def act(message):
            seen.append(dict(tracing.trace.inject())["traceparent"].split("-")[1])

        heard = Heard(act)
        queue = queue_at(url)
        queue.subscribe("sent", heard)
        async with queue:
            with tracing.trace.span("publish"):
                mine = dict(tracing.trace.inject())["traceparent"].split("-")[1]
                await queue.publish("sent", {})
            await heard.until(1)
            await queue.publish("sent", {})
            await heard.until(2)
    finally:
        tracing.shutdown()
    assert seen[0] == mine
    assert seen[1] != mine
