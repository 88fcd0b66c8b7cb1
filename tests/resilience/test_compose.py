"""Fallbacks, and several policies around one call."""

from __future__ import annotations

import asyncio
import sys

import pytest

from headgate.resilience import (
    BreakerOpen,
    Budget,
    BulkheadFull,
    CallTimedOut,
    DeadlineExceeded,
    RateLimited,
    breaker,
    bulkhead,
    deadline,
    fallback,
    hedge,
    limit,
    policies,
    retry,
    timeout,
)
from tests.resilience.virtual import cancel_at_each_step


def test_a_value_stands_in_for_a_failure(events):
    @fallback(value=(), on_event=events.append)
    def fails():
        raise OSError

    assert fails() == ()
    assert [(event.what, event.why) for event in events] == [("fell_back", "OSError")]


def test_a_function_of_the_same_arguments_stands_in_and_sees_the_error(time):
    seen = []

    def instead(number, *, plus):
        seen.append(sys.exc_info()[1])
        return number + plus

    async def instead_async(number, *, plus):
        return instead(number, plus=plus) * 100

    error = OSError()

    def fails(number, *, plus):
        raise error

    async def fails_async(number, *, plus):
        raise error

    assert fallback(to=instead)(fails)(1, plus=2) == 3
    assert time.run(fallback(to=instead)(fails_async)(1, plus=2)) == 3
    assert time.run(fallback(to=instead_async)(fails_async)(1, plus=2)) == 300
    assert seen == [error] * 3


@pytest.mark.parametrize("on", [OSError, (OSError, KeyError), lambda error: "x" in str(error)])
def test_only_what_is_named_falls_back(time, on):
    def fails(error):
        raise error

    async def fails_async(error):
        raise error

    guarded = fallback(value="else", on=on)
    assert guarded(fails)(OSError("x")) == "else"
    assert time.run(guarded(fails_async)(OSError("x"))) == "else"
    with pytest.raises(ValueError):
        guarded(fails)(ValueError("y"))
    with pytest.raises(ValueError):
        time.run(guarded(fails_async)(ValueError("y")))
    with pytest.raises(asyncio.CancelledError):
        time.run(guarded(fails_async)(asyncio.CancelledError("x")))


def test_a_success_needs_no_fallback():
    assert fallback(value="else")(int)("3") == 3


def test_a_fallback_has_one_way_and_a_possible_one():
    async def later():
        return 1

    with pytest.raises(TypeError, match="takes one of"):
        fallback()
    with pytest.raises(TypeError, match="takes one of"):
        fallback(to=int, value=3)
    with pytest.raises(TypeError, match="cannot fall back to the async"):
        fallback(to=later)(int)


# ---- together


def everything(time):
    return {
        "fallback": fallback(value="else", on=DeadlineExceeded),
        "deadline": deadline("60s", clock=time.clock),
        "retry": retry(
            jitter="none",
            wait="1s",
            on=(OSError, RateLimited),
            clock=time.clock,
            sleep=time.sleep,
            sleep_async=time.sleep_async,
        ),
        "hedge": hedge(after="20s", clock=time.clock),
        "breaker": breaker("users", window=4, jitter=0, registry=None, clock=time.clock),
        "limit": limit("100/s", clock=time.clock),
        "bulkhead": bulkhead("users", limit=10, clock=time.clock),
        "timeout": timeout("5s"),
    }


def test_they_nest_in_the_order_that_is_written():
    parts = policies(timeout="5s", retry=retry(), deadline="60s", fallback=fallback(value=1)).parts
    assert [name for name, _ in parts] == ["fallback", "deadline", "retry", "timeout"]
    assert policies().parts == ()
    assert policies()(int) is int


def test_a_call_passes_all_of_them(time):
    parts = everything(time)
    users = policies(**parts)
    tries = []

    @users
    async def fetch(number):
        tries.append(number)
        await asyncio.sleep(1.0)
        if len(tries) < 3:
            raise OSError
        return number

    assert time.run(fetch(7)) == 7
    assert tries == [7, 7, 7]
    found = users.snapshot()
    assert set(found) == {"retry", "hedge", "breaker", "limit", "bulkhead"}
    assert found["retry"].retries_total == 2
    assert (found["breaker"].calls, found["breaker"].failed) == (3, 2)
    assert found["bulkhead"].admitted == 3


def test_each_time_out_of_a_try_counts_in_the_breaker(time):
    parts = everything(time)
    parts["retry"] = None
    users = policies(**parts)

    async def hangs():
        await asyncio.sleep(60.0)

    async def main():
        for _ in range(4):
            with pytest.raises(CallTimedOut):
                await users.call_async(hangs)
        with pytest.raises(BreakerOpen):
            await users.call_async(hangs)

    time.run(main())


def test_a_refusal_says_nothing_to_the_breaker_and_is_waited_for(time):
    parts = everything(time)
    parts["limit"] = limit("1/3s", clock=time.clock)
    users = policies(**parts)
    start = time.now

    async def get():
        return time.now - start

    async def main():
        assert await users.call_async(get) == 0.0
        assert await users.call_async(get) == pytest.approx(3.0)
        assert parts["breaker"].snapshot().calls == 2

    time.run(main())


def test_a_full_bulkhead_leaves_the_breaker_closed(time):
    parts = everything(time)
    parts["bulkhead"] = bulkhead("users", limit=1, clock=time.clock)

    async def get():
        await asyncio.sleep(1.0)

    async def main():
        guarded = policies(**parts)(get)
        got = await asyncio.gather(*(guarded() for _ in range(9)), return_exceptions=True)
        assert sum(isinstance(one, BulkheadFull) for one in got) == 8

    time.run(main())
    assert parts["breaker"].state == "closed"


def test_the_deadline_bounds_all_tries(time):
    parts = everything(time)
    parts["deadline"] = deadline("3500ms", clock=time.clock)
    parts["hedge"] = None

    async def fails():
        await asyncio.sleep(1.0)
        raise OSError

    async def hangs():
        await asyncio.sleep(60.0)

    async def main():
        start = time.now
        with pytest.raises(OSError):  # the second wait would go beyond the deadline
            await policies(**parts).call_async(fails)
        assert time.now - start == pytest.approx(3.0)
        start = time.now
        assert await policies(**parts).call_async(hangs) == "else"
        assert time.now - start == pytest.approx(3.5)

    time.run(main())


def test_a_hedge_draws_on_the_budget_of_the_retry(time):
    parts = everything(time)
    users = policies(**parts)
    shared = dict(users.parts)["hedge"]
    assert shared.budget is parts["retry"].budget
    own = Budget(clock=time.clock)
    parts["hedge"] = hedge(budget=own)
    assert dict(policies(**parts).parts)["hedge"].budget is own
    parts["retry"] = retry(budget=False)
    parts["hedge"] = hedge()
    assert dict(policies(**parts).parts)["hedge"] is parts["hedge"]


def test_plain_functions_take_what_suits_them(time):
    parts = everything(time)
    del parts["hedge"], parts["timeout"]
    users = policies(**parts)
    tries = []

    def get(number):
        tries.append(number)
        if len(tries) < 2:
            raise OSError
        return number

    assert users.call(get, 7) == 7
    assert users(get)(8) == 8
    assert parts["breaker"].snapshot().calls == 3
    for stops in (policies(hedge=hedge()), policies(timeout="1s")):
        with pytest.raises(TypeError, match="cannot stop the plain function"):
            stops(get)

    async def later():
        return 1

    with pytest.raises(TypeError, match="use call_async"):
        users.call(later)  # type: ignore[unused-coroutine]


def test_keys_of_a_limit_inside_see_the_arguments(time):
    @policies(retry=retry(), limit=limit("1/min", key="{user}", clock=time.clock))
    def search(user):
        return user

    assert search("ada") == "ada"
    assert search("bob") == "bob"
    with pytest.raises(RateLimited):
        search("ada")


def test_nothing_leaks_wherever_all_of_it_is_cancelled(time):
    parts = everything(time)
    parts["bulkhead"] = bulkhead("users", limit=1, clock=time.clock)
    users = policies(**parts)

    async def main():
        fails: list[int] = []

        @users
        async def work():
            await asyncio.sleep(1.0)
            if not fails:
                fails.append(1)
                raise OSError
            await asyncio.sleep(1.0)

        def after():
            fails.clear()
            guard = parts["breaker"]
            assert parts["bulkhead"].snapshot().in_flight == 0
            assert guard.snapshot().trials_out == 0
            assert len([task for task in asyncio.all_tasks() if not task.done()]) == 1
            guard.force_close()
            guard.trip(5.0, "a peer")
            time.now += 5.0

        after()
        # The first try, the wait, the second try.
        assert await cancel_at_each_step(work, after) == 3

    time.run(main())
