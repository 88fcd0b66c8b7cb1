"""Shared limits over a ledger in memory, in virtual time: hits, calls, turns."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from headgate.policy.limiter import LeaseRules, LimitRules
from headgate.resilience import RateLimited, limit
from headgate.resilience.line import MOST_WAITING
from headgate.resilience.shared import Shared
from headgate.resilience.shared_talk import TICK_S
from headgate.state.memory import MemoryShared
from tests.resilience.shared_limits_distant import LONG_S, RATES, Distant, allowed
from tests.resilience.virtual import Time


@pytest.fixture
def distant(time: Time) -> Distant:
    return Distant(time)


@pytest.fixture
def home(time: Time, distant: Distant) -> Shared:
    return Shared(distant, clock=time.clock)


# ---- hits


@pytest.mark.parametrize("algorithm", RATES)
def test_what_is_over_the_limit_is_refused_whoever_took_it(time, algorithm):
    ledger = MemoryShared(time.clock)
    homes = [Shared(ledger, clock=time.clock), Shared(ledger.join(), clock=time.clock)]
    both = [limit("5/h", algorithm=algorithm, home=one, rule="r") for one in homes]

    async def main():
        async with homes[0], homes[1]:
            got = [await both[n % 2].try_hit("ann") for n in range(7)]
            assert allowed(got) == [True] * 5 + [False] * 2
            assert (await both[0].try_hit("bob")).allowed
            with pytest.raises(RateLimited) as refused:
                await both[1].hit("ann")
            assert refused.value.retry_after_s > 1.0

    time.run(main())


def test_who_is_refused_is_told_when_and_counted(time, home, events):
    bound = limit("2/10s", home=home, rule="orders", on_event=events.append)

    async def main():
        async with home:
            assert (await bound.hit()).remaining == 1
            await bound.hit()
            with pytest.raises(RateLimited, match="orders: limit reached; come back in"):
                await bound.hit()
            with pytest.raises(RateLimited):  # without asking again
                await bound.hit()
            await asyncio.sleep(5.0)
            await bound.hit()

    time.run(main())
    assert bound.refused_total == 2
    assert [event.what for event in events] == ["rejected", "rejected"]


def test_most_hits_are_answered_from_the_lease(time, home, distant):
    bound = limit("100000/h", home=home, rule="r")

    async def main():
        async with home:
            for _ in range(200):
                for _ in range(10):
                    await bound.hit("ann")
                await asyncio.sleep(0.02)

    time.run(main())
    assert len(distant.asked) < 60
    assert distant.waiting() < 20


def test_a_steady_load_never_waits_once_it_is_known(time, home, distant):
    bound = limit("100000/h", home=home, rule="r")

    async def main():
        async with home:
            before = 0
            for number in range(600):
                await bound.hit("ann")
                await asyncio.sleep(0.01)
                if number == 200:
                    before = distant.waiting()
            assert distant.waiting() == before
            assert before < 20

    time.run(main())


@pytest.mark.parametrize("algorithm", RATES)
def test_what_is_leased_and_not_spent_goes_back_at_the_end(time, home, distant, algorithm):
    bound = limit("100000/h", home=home, rule="r", algorithm=algorithm)

    async def main():
        async with home:
            for _ in range(50):
                for _ in range(20):
                    await bound.hit("ann")
                await asyncio.sleep(0.01)
            assert bound.snapshot().leased[0].unspent > 0
        assert distant.returned
        left = await distant.left("r", bound.rules[0], "ann")
        assert 100000 - 1000 <= left <= 100000 - 980  # gcra has refilled a little

    time.run(main())


def test_costs_and_keys_are_apart(time, home):
    bound = limit("10/h", home=home, rule="r", by="user")

    async def main():
        async with home:
            await bound.hit("ada", 10)
            await bound.hit("bob", 9)
            await bound.hit("bob")
            for who in ("ada", "bob"):
                with pytest.raises(RateLimited):
                    await bound.hit(who)
            with pytest.raises(RateLimited) as refused:
                await bound.hit("eve", 11)
            assert refused.value.retry_after_s == float("inf")

    time.run(main())


def test_all_rates_hold_or_nothing_is_taken(time, home, distant):
    bound = limit("2/s", "3/h", home=home, rule="r")

    async def main():
        async with home:
            assert allowed([await bound.try_hit() for _ in range(3)]) == [True, True, False]
            await asyncio.sleep(1.0)
            assert (await bound.try_hit()).allowed
            await asyncio.sleep(1.5)
            assert not (await bound.try_hit()).allowed
        assert await distant.left("r", bound.rules[0]) == 2
        assert await distant.left("r-2", bound.rules[1]) == 0

    time.run(main())


def test_two_limits_of_one_rule_are_one(time, home):
    one, two = (limit("3/h", home=home, rule="r") for _ in range(2))

    async def main():
        async with home:
            assert allowed([await each.try_hit() for each in (one, two, one, two)]) == [
                True,
                True,
                True,
                False,
            ]

    time.run(main())


def test_a_refund_gives_it_back(time, home, distant):
    bound = limit("3/h", home=home, rule="r")

    async def main():
        async with home:
            await bound.hit("ann", 3)
            assert not (await bound.try_hit("ann")).allowed
            bound.refund("ann", 3)
            await asyncio.sleep(2 * TICK_S)
            assert allowed([await bound.try_hit("ann") for _ in range(4)]) == [True] * 3 + [False]

    time.run(main())


# ---- around calls


@pytest.mark.parametrize("rates", [("2/h",), ("2/h", "3/h")], ids=["one", "two"])
def test_functions_are_decorated(time, home, rates):
    @limit(*rates, home=home, rule="r", by="user", key="{user}")
    async def work(user, much=1):
        return user

    async def main():
        async with home:
            assert await work("ada") == "ada"
            assert await work("ada") == "ada"
            assert await work("bob") == "bob"
            with pytest.raises(RateLimited):
                await work("ada")

    time.run(main())


def test_a_cost_is_made_from_the_arguments(time, home):
    @limit("10/h", home=home, rule="r", cost=len)
    async def order(items):
        return len(items)

    async def main():
        async with home:
            assert await order("abcdefgh") == 8
            with pytest.raises(RateLimited):
                await order("abc")

    time.run(main())


@pytest.mark.parametrize("is_decorated", [True, False], ids=["decorated", "held"])
def test_a_failure_gives_back_what_it_cost_if_it_is_named(time, home, distant, is_decorated):
    bound = limit("10/h", home=home, rule="r", cost=2, refund_on=OSError)

    async def fail(error):
        raise error

    async def call(error):
        if is_decorated:
            await bound(fail)(error)
        else:
            async with bound.hold(cost=2):
                await fail(error)

    async def main():
        async with home:
            for error in (ConnectionResetError("away"), ValueError("no"), OSError("full")):
                with pytest.raises(type(error)):
                    await call(error)
        assert await distant.left("r", bound.rules[0]) == 8

    time.run(main())


def test_one_hold_is_for_one_call(time, home):
    bound = limit("10/h", home=home, rule="r")

    async def main():
        async with home:
            hold = bound.hold()
            async with hold as verdict:
                assert verdict.remaining == 9
                with pytest.raises(RuntimeError, match="make another"):
                    async with hold:
                        pass
            async with hold:
                pass

    time.run(main())


def test_seats_are_given_back_however_the_call_ends(time, home, distant):
    bound = limit("2/s", algorithm="concurrency", home=home, rule="seats")

    async def sleep(for_s):
        await asyncio.sleep(for_s)
        raise ValueError

    async def main():
        loop = asyncio.get_running_loop()
        async with home:
            one = loop.create_task(bound(sleep)(1.0))
            two = loop.create_task(bound(sleep)(100.0))
            await asyncio.sleep(0.5)
            with pytest.raises(RateLimited):
                async with bound.hold():
                    pass
            two.cancel()
            await asyncio.wait((one, two))
            assert two.cancelled()
            async with bound.hold(), bound.hold():
                assert bound.peek().remaining == 0
            await asyncio.sleep(LONG_S)
            assert await distant.left("seats", bound.rules[0]) == 2

    time.run(main())


def test_a_shadow_refuses_nobody_and_says_what_it_would_have(time, home, distant, events):
    bound = limit(
        "2/h", home=home, rule="r", shadow=True, refund_on=OSError, on_event=events.append
    )

    @bound
    async def work():
        raise OSError

    async def main():
        async with home:
            got = [await bound.try_hit() for _ in range(3)]
            assert [one.retry_after_s > 0 for one in got] == [False, False, True]
            assert allowed(got) == [True] * 3
            await bound.hit()
            with contextlib.suppress(OSError):
                await work()
            async with bound.hold():
                pass
        # What was not taken has not been given back either.
        assert await distant.left("r", bound.rules[0]) == 0

    time.run(main())
    assert bound.shadowed_total == 4
    assert bound.refused_total == 0
    assert {event.what for event in events} == {"shadowed"}


def test_a_shadow_of_seats_frees_no_others_seat(time, home):
    bound = limit("1/s", algorithm="concurrency", home=home, rule="seats", shadow=True)

    async def main():
        async with home, bound.hold():
            async with bound.hold() as second:
                assert second.retry_after_s > 0
            assert bound.peek().remaining == 0

    time.run(main())


def test_a_shadow_of_several_rates_gives_back_only_what_was_taken(time, home, distant):
    bound = limit("9/h", "2/h", home=home, rule="r", shadow=True, refund_on=OSError)

    @bound
    async def work():
        raise OSError

    async def main():
        async with home:
            await bound.hit("", 2)
            with contextlib.suppress(OSError):
                await work()
        assert await distant.left("r", bound.rules[0]) == 7
        assert await distant.left("r-2", bound.rules[1]) == 0

    time.run(main())


def test_empty_seats_go_back_at_the_end(time, home, distant):
    rules = LimitRules(limit=40, algorithm="concurrency")
    bound = limit(rules=rules, home=home, rule="r", lease=LeaseRules(share=0.5))

    async def main():
        async with home:
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(8):
                    await stack.enter_async_context(bound.hold())
            assert bound.snapshot().leased[0].unspent > 0
        assert await distant.left("r", rules) == 40

    time.run(main())


def test_the_ledger_knows_of_each_seat_that_is_used(time, home, distant):
    """What is given back is said before what is held, or it would be taken off twice."""
    rules = LimitRules(limit=10, algorithm="concurrency")
    bound = limit(rules=rules, home=home, rule="r", lease=LeaseRules(share=0.0))

    async def main():
        async with home, bound.hold():
            async with bound.hold(), bound.hold():
                await asyncio.sleep(3.32)  # just before it says again what it holds
            await asyncio.sleep(2 * TICK_S)
            assert await distant.left("r", rules) == 9

    time.run(main())


# ---- in turn


def test_those_who_wait_go_in_turn(time, home):
    bound = limit("2/s", home=home, rule="r", wait=True, lease=LeaseRules(share=0.0))
    done = []

    @bound
    async def work(number):
        done.append((number, round(time.now - start, 1)))

    async def main():
        async with home, asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(work(number))

    start = time.now
    time.run(main())
    assert [number for number, _ in done] == list(range(6))
    assert done[-1][1] == pytest.approx(2.0, abs=0.15)
    assert not bound._lines


def test_a_wait_has_a_longest_time_and_a_line_an_end(time, home):
    bound = limit("1/min", home=home, rule="r", wait="10s")

    async def main():
        async with home:
            await bound.wait()
            began = time.now
            with pytest.raises(RateLimited):
                await bound.wait()
            assert time.now == began
            tasks = [
                asyncio.get_running_loop().create_task(bound.wait(most="5min"))
                for _ in range(MOST_WAITING)
            ]
            await asyncio.sleep(0.01)
            with pytest.raises(RateLimited, match="too many wait"):
                await bound.wait()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert not bound._lines

    time.run(main())
