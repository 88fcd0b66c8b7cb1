"""Deadlines: how they nest, what they stop, and what crosses hops."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from headgate.resilience import (
    DeadlineExceeded,
    WsgiDeadline,
    check,
    deadline,
    hop_headers,
    remaining,
    retry,
)
from headgate.resilience.hop import HOP, Hop
from tests.resilience.virtual import cancel_at_each_step


def test_without_a_deadline_there_is_no_end(time):
    assert remaining() is None
    assert remaining("5s") == 5.0
    check()
    assert hop_headers() == {}


def test_the_time_left_shrinks_and_is_never_negative(time):
    with deadline("5s", clock=time.clock):
        assert remaining() == 5.0
        time.now += 2.0
        assert remaining() == 3.0
        assert remaining("1s") == 1.0
        assert remaining("1min") == 3.0
        check()
        time.now += 4.0
        assert remaining() == 0.0
        assert remaining("1s") == 0.0
        with pytest.raises(DeadlineExceeded) as over:
            check()
        assert over.value.over_s == 1.0
    assert remaining() is None


def test_of_two_deadlines_the_sooner_counts(time):
    with deadline("5s", clock=time.clock):
        with deadline("10s", clock=time.clock):
            assert remaining() == 5.0
        with deadline("2s", clock=time.clock):
            assert remaining() == 2.0
        assert remaining() == 5.0


def test_nothing_begins_under_a_deadline_that_is_over(time):
    with deadline("5s", clock=time.clock):
        time.now += 5.0
        with pytest.raises(DeadlineExceeded), deadline("1s", clock=time.clock):
            raise AssertionError("not reached")
        assert remaining() == 0.0
    with pytest.raises(DeadlineExceeded), deadline(0):
        raise AssertionError("not reached")


def test_one_deadline_may_be_entered_many_times(time):
    bound = deadline("5s", clock=time.clock)
    with bound:
        time.now += 1.0
        with bound:
            assert remaining() == 4.0
        assert remaining() == 4.0
    with bound:
        assert remaining() == 5.0


def test_it_decorates_plain_functions(time):
    @deadline("5s", clock=time.clock)
    def work(number):
        return number, remaining()

    assert work(3) == (3, 5.0)
    assert remaining() is None
    assert work.__name__ == "work"


def test_it_stops_what_is_awaited(time):
    async def main():
        start = time.now
        with pytest.raises(DeadlineExceeded) as over:
            async with deadline("5s", clock=time.clock):
                await asyncio.sleep(60.0)
        assert time.now - start == pytest.approx(5.0)
        assert isinstance(over.value, TimeoutError)
        assert remaining() is None
        await asyncio.sleep(60.0)  # nothing is left of it

    time.run(main())


def test_it_decorates_async_functions(time):
    @deadline("5s", clock=time.clock)
    async def work(seconds):
        await asyncio.sleep(seconds)
        return remaining()

    async def main():
        assert await work(1.0) == 4.0
        with pytest.raises(DeadlineExceeded):
            await work(6.0)

    time.run(main())


def test_tasks_under_it_have_it_too(time):
    async def part():
        await asyncio.sleep(1.0)
        return remaining()

    async def main():
        async with deadline("5s", clock=time.clock):
            return await asyncio.gather(part(), asyncio.to_thread(remaining))

    assert time.run(main()) == [4.0, 5.0]


def test_tasks_do_not_see_each_others(time):
    async def part(seconds):
        async with deadline(seconds, clock=time.clock):
            await asyncio.sleep(0.5)
            return remaining()

    async def main():
        return await asyncio.gather(part(1.0), part(2.0), part(3.0))

    assert time.run(main()) == [0.5, 1.5, 2.5]


def test_a_time_out_inside_is_not_taken_for_the_deadline(time):
    async def main():
        async with deadline("5s", clock=time.clock):
            raise TimeoutError("theirs")

    with pytest.raises(TimeoutError, match="theirs"):
        time.run(main())


def test_it_can_be_cancelled_at_each_await(time):
    async def work():
        async with deadline("5s", clock=time.clock), deadline("3s", clock=time.clock):
            await asyncio.sleep(1.0)
            await asyncio.sleep(1.0)

    async def main():
        assert await cancel_at_each_step(work, lambda: remaining() is None) == 2
        assert remaining() is None

    time.run(main())


def test_generators_are_refused():
    async def some():
        yield 1

    with pytest.raises(TypeError, match="it returns before it runs"):
        deadline("1s")(some)


# ---- what crosses hops


def test_outgoing_calls_carry_the_time_left_and_the_try(time):
    with deadline("5s", clock=time.clock):
        time.now += 1.5
        assert hop_headers() == {"x-headgate-deadline": "3500"}

        @retry(attempts=4)
        def call():
            return hop_headers()

        assert call() == {"x-headgate-deadline": "3500", "x-headgate-attempt": "1/4"}


def test_below_a_layer_that_retries_nobody_is_to_retry():
    token = HOP.set(Hop(may_retry=False))
    try:
        assert hop_headers() == {"x-headgate-attempt": "1/2"}
    finally:
        HOP.reset(token)
    token = HOP.set(Hop(may_retry=True))
    try:
        assert hop_headers() == {}
    finally:
        HOP.reset(token)


# ---- WSGI


def serve(environ, **settings) -> dict[str, Any]:
    told: dict[str, Any] = {}

    def app(environ, start_response):
        told.update(remaining=remaining(), headers=hop_headers())
        return [b"body"]

    def start_response(status, headers):
        told["status"] = status

    def work():
        told["body"] = b"".join(WsgiDeadline(app, **settings)(environ, start_response))

    thread = threading.Thread(target=work)  # a context of its own
    thread.start()
    thread.join()
    return told


@pytest.mark.parametrize(
    ("environ", "settings", "left"),
    [
        ({}, {}, None),
        ({}, {"longest": "3s"}, 3.0),
        ({"HTTP_X_HEADGATE_DEADLINE": "2500"}, {}, 2.5),
        ({"HTTP_X_HEADGATE_DEADLINE": "2500"}, {"longest": "1s"}, 1.0),
        ({"HTTP_X_HEADGATE_DEADLINE": "rubbish"}, {"longest": "1s"}, 1.0),
        ({"HTTP_GRPC_TIMEOUT": "2S", "HTTP_X_HEADGATE_DEADLINE": "2500"}, {}, 2.0),
    ],
)
def test_a_wsgi_handler_can_ask_for_the_time_left(time, environ, settings, left):
    told = serve(environ, clock=time.clock, **settings)
    assert told["remaining"] == left
    assert told["body"] == b"body"


def test_a_wsgi_handler_is_not_called_when_the_time_is_over(time):
    told = serve({"HTTP_X_HEADGATE_DEADLINE": "0"}, clock=time.clock)
    assert told["status"] == "504 Gateway Timeout"
    assert b'"status":504' in told["body"]
    assert "remaining" not in told


def test_a_wsgi_handler_below_a_layer_that_retries_does_not(time):
    told = serve({"HTTP_X_HEADGATE_ATTEMPT": "1/3"}, clock=time.clock)
    assert told["headers"] == {"x-headgate-attempt": "1/2"}
