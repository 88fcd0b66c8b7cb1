"""A bound on one await."""

from __future__ import annotations

import asyncio

import pytest

from headgate.resilience import CallTimedOut, timeout
from tests.resilience.virtual import cancel_at_each_step


async def work(seconds):
    await asyncio.sleep(seconds)
    return seconds


async def decorated(bound, seconds):
    return await bound(work)(seconds)


async def called(bound, seconds):
    return await bound.call_async(work, seconds)


async def entered(bound, seconds):
    async with bound:
        return await work(seconds)


every_way = pytest.mark.parametrize("way", [decorated, called, entered])


@every_way
def test_what_takes_too_long_is_stopped(way, time, events):
    async def main():
        bound = timeout("2s", name="users", on_event=events.append)
        assert await way(bound, 1.0) == 1.0
        start = time.now
        with pytest.raises(CallTimedOut) as raised:
            await way(bound, 60.0)
        assert time.now - start == pytest.approx(2.0)
        assert str(raised.value) == "users: no answer within 2s"
        assert isinstance(raised.value, TimeoutError)
        await asyncio.sleep(60.0)

    time.run(main())
    assert [(event.what, event.after_s) for event in events] == [("timed_out", 2.0)]


@every_way
def test_a_time_out_inside_is_not_taken_for_ours(way, time, monkeypatch):
    async def fails(seconds):
        raise TimeoutError("theirs")

    monkeypatch.setitem(globals(), "work", fails)
    with pytest.raises(TimeoutError, match="theirs"):
        time.run(way(timeout("2s"), 1.0))


@every_way
def test_it_can_be_cancelled_at_each_await(way, time):
    async def main():
        bound = timeout("2s")
        assert await cancel_at_each_step(lambda: way(bound, 1.0), lambda: None) == 1

    time.run(main())


def test_many_tasks_enter_the_same_one(time):
    bound = timeout("2s")

    async def one(seconds):
        async with bound:
            await asyncio.sleep(seconds)
        return "done"

    async def main():
        return await asyncio.gather(*map(one, (1.0, 3.0, 1.5, 5.0)), return_exceptions=True)

    got = time.run(main())
    assert [type(one) for one in got] == [str, CallTimedOut, str, CallTimedOut]


def test_an_unnamed_one_is_named_for_the_function(time):
    with pytest.raises(CallTimedOut, match="work: no answer within 500ms"):
        time.run(timeout(0.5)(work)(1.0))


def test_plain_functions_cannot_be_stopped():
    with pytest.raises(TypeError, match=r"remaining\(\)"):
        timeout("1s")(len)  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [0, "0s", "soon", -1])
def test_senseless_times_are_refused(after):
    with pytest.raises(ValueError):
        timeout(after)
