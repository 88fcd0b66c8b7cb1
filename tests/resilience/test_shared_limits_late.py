"""Shared limits whose callers leave and whose ledger is late or away: nothing is taken for nobody."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.policy.limiter import LeaseRules, LimitRules
from headgate.resilience import DeadlineExceeded, RateLimited, deadline, limit
from headgate.resilience.shared import Shared
from headgate.resilience.shared_talk import TICK_S
from tests.resilience.shared_limits_distant import LONG_S, RATES, Distant, allowed
from tests.resilience.virtual import Time, cancelled_at


@pytest.fixture
def distant(time: Time) -> Distant:
    return Distant(time)


@pytest.fixture
def home(time: Time, distant: Distant) -> Shared:
    return Shared(distant, clock=time.clock)


# ---- cancelled, late


@pytest.mark.parametrize("is_slow", [False, True], ids=["prompt", "slow"])
@pytest.mark.parametrize("way", ["hit", "call", "hold", "wait"])
@pytest.mark.parametrize("algorithm", [*RATES, "concurrency"])
def test_wherever_it_is_cancelled_nothing_is_taken(time, distant, algorithm, way, is_slow):
    home = Shared(distant, clock=time.clock, deadline="10s")
    bound = limit("5/h", algorithm=algorithm, home=home, rule="r")
    held = []

    async def work():
        held.append(1)

    async def once():
        if way == "hit":
            await bound.hit("", 3)
        elif way == "call":
            await limit("5/h", algorithm=algorithm, home=home, rule="r", cost=3)(work)()
        elif way == "wait":
            await bound.wait("", 3)
        else:
            async with bound.hold("", 3):
                held.append(1)

    async def main():
        async with home:
            step = 1
            while True:
                if is_slow:
                    distant.go.clear()
                task = asyncio.get_running_loop().create_task(cancelled_at(step, once()))
                await asyncio.sleep(TICK_S / 2)
                distant.go.set()
                await asyncio.wait((task,))
                if not task.cancelled():
                    task.result()
                    break
                assert not held
                await asyncio.sleep(LONG_S)
                assert await distant.left("r", bound.rules[0]) == 5
                step += 1
            assert step > 1

    time.run(main())


def test_who_is_cancelled_when_the_answer_is_there_has_taken_nothing(time, home, distant):
    bound = limit("5/h", home=home, rule="r")

    async def main():
        async with home:
            for turns in range(12):
                task = asyncio.get_running_loop().create_task(bound.hit("ann", 5))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
                if not task.cancelled():
                    bound.refund("ann", 5)
                await asyncio.sleep(LONG_S)
                assert await distant.left("r", bound.rules[0], "ann") == 5, turns

    time.run(main())


def test_the_cancelled_harm_nobody_else(time, home, distant):
    bound = limit("5/h", home=home, rule="r")

    async def main():
        loop = asyncio.get_running_loop()
        async with home:
            distant.go.clear()
            tasks = [loop.create_task(bound.try_hit("ann")) for _ in range(10)]
            await asyncio.sleep(0.01)
            for task in tasks[::2]:
                task.cancel()
            distant.go.set()
            await asyncio.wait(tasks)
            assert sum(task.result().allowed for task in tasks[1::2]) >= 2
            await asyncio.sleep(LONG_S)
            assert len([1 for _ in range(5) if (await bound.try_hit("ann")).allowed]) <= 3

    time.run(main())


def test_an_answer_that_comes_too_late_goes_back(time, home, distant):
    bound = limit("10/h", home=home, rule="r", when_away="closed")

    async def main():
        async with home:
            distant.go.clear()
            began = time.now
            assert not (await bound.try_hit("ann", 4)).allowed
            assert time.now - began == pytest.approx(2 * home.deadline_s + 0.05)
            distant.go.set()
            await asyncio.sleep(2 * TICK_S)
            assert [back.n for _, back in distant.returned] == [4]
            assert await distant.left("r", bound.rules[0], "ann") == 10
            assert (await bound.try_hit("ann")).allowed

    time.run(main())


def test_a_late_answer_gives_nothing_twice(time, home, distant):
    bound = limit("1000/h", home=home, rule="r", when_away="closed", algorithm="fixed_window")

    async def main():
        async with home:
            for _ in range(10):
                await bound.hit("ann")
                await asyncio.sleep(0.05)
            held = bound.snapshot().leased[0].unspent
            assert held > 0
            distant.go.clear()
            assert not (await bound.try_hit("ann", held + 3)).allowed
            distant.go.set()
            await asyncio.sleep(LONG_S)
            assert await distant.left("r", bound.rules[0], "ann") == 990

    time.run(main())


def test_a_seat_that_comes_too_late_is_free_again(time, home, distant):
    rules = LimitRules(limit=3, algorithm="concurrency")
    bound = limit(rules=rules, home=home, rule="r", when_away="closed")

    async def main():
        async with home:
            for _ in range(2):
                distant.go.clear()
                assert not (await bound.try_hit("ann")).allowed
                distant.go.set()
                await asyncio.sleep(LONG_S)
                assert await distant.left("r", rules, "ann") == 3

    time.run(main())


def test_who_leaves_before_it_was_asked_is_not_asked_for(time, home, distant):
    bound = limit("10/h", home=home, rule="r")

    async def main():
        loop = asyncio.get_running_loop()
        async with home:
            distant.go.clear()
            first = loop.create_task(bound.try_hit("ann"))
            await asyncio.sleep(0.01)
            second = loop.create_task(bound.try_hit("bob"))
            await asyncio.sleep(0.01)
            second.cancel()
            distant.go.set()
            await asyncio.wait((first, second))
            await asyncio.sleep(TICK_S)
            assert [one.ask.key for one in distant.asked] == ["ann"]

    time.run(main())


def test_a_hit_waits_no_longer_than_the_deadline(time, home, distant):
    bound = limit("10/h", home=home, rule="r", when_away="open")

    async def main():
        async with home:
            distant.go.clear()
            began = time.now
            with deadline("20ms", clock=time.clock), pytest.raises(DeadlineExceeded):
                await bound.hit("ann")
            assert time.now - began == pytest.approx(0.02)
            distant.go.set()
            await asyncio.sleep(LONG_S)
            assert await distant.left("r", bound.rules[0], "ann") == 10

    time.run(main())


# ---- whatever happens

STEP = st.tuples(
    st.sampled_from(["hit", "hit", "cancel", "fail", "refund", "pause", "slow", "prompt"]),
    st.integers(0, 1),  # which process
    st.sampled_from(["ann", "bob"]),
    st.integers(1, 4),  # cost, or loop turns, or tenths of a second
)


@given(steps=st.lists(STEP, max_size=60), share=st.sampled_from([0.0, 0.1, 0.5]))
@settings(max_examples=150, deadline=None)
def test_what_the_ledger_counts_is_what_was_told(steps, share):
    """Of two processes, once both have closed; and no more passes than the limit on the way."""
    time = Time()
    distant = Distant(time)
    homes = [Shared(each, clock=time.clock, deadline="30s") for each in (distant, distant.far)]
    rules = LimitRules(limit=24, period_s=1e6, algorithm="fixed_window")
    lease = LeaseRules(share=share, ttl_s=0.5)
    both = [limit(rules=rules, home=home, rule="r", lease=lease) for home in homes]
    failing = [
        limit(rules=rules, home=home, rule="r", lease=lease, refund_on=OSError) for home in homes
    ]
    taken = {"ann": 0, "bob": 0}

    async def hit(who, key, cost):
        if (await both[who].try_hit(key, cost)).allowed:
            taken[key] += cost
            assert taken[key] <= 24

    async def fail(who, key, cost):
        with contextlib.suppress(OSError, RateLimited):
            async with failing[who].hold(key, cost):
                raise OSError

    async def main():
        loop = asyncio.get_running_loop()
        tasks = []
        distant.holders = 2
        async with homes[0], homes[1]:
            for do, who, key, number in steps:
                if do == "hit":
                    tasks.append(loop.create_task(hit(who, key, number)))
                elif do == "fail":
                    tasks.append(loop.create_task(fail(who, key, number)))
                elif do == "cancel":
                    task = loop.create_task(hit(who, key, number))
                    for _ in range(2 * number):
                        await asyncio.sleep(0)
                    task.cancel()
                    tasks.append(task)
                elif do == "refund" and taken[key]:
                    taken[key] -= 1
                    both[who].refund(key)
                elif do == "pause":
                    await asyncio.sleep(number / 10)
                elif do == "slow":
                    distant.go.clear()
                elif do == "prompt":
                    distant.go.set()
            distant.go.set()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)
        for key, used in taken.items():
            assert await distant.left("r", rules, key) == 24 - used

    time.run(main())


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 1), st.integers(1, 3), st.integers(0, 30), st.booleans(), st.booleans()
        ),
        max_size=30,
    ),
    share=st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=100, deadline=None)
def test_no_more_than_the_limit_are_seated_and_all_leave(steps, share):
    time = Time()
    distant = Distant(time)
    homes = [Shared(each, clock=time.clock, deadline="30s") for each in (distant, distant.far)]
    rules = LimitRules(limit=6, algorithm="concurrency")
    lease = LeaseRules(share=share, ttl_s=0.5)
    both = [limit(rules=rules, home=home, rule="r", lease=lease) for home in homes]
    seated = 0

    async def visit(who, cost, tenths):
        nonlocal seated
        with contextlib.suppress(RateLimited):
            async with both[who].hold("", cost):
                seated += cost
                try:
                    assert seated <= 6
                    await asyncio.sleep(tenths / 10)
                finally:
                    seated -= cost

    async def main():
        loop = asyncio.get_running_loop()
        tasks = []
        distant.holders = 2
        async with homes[0], homes[1]:
            for who, cost, tenths, is_cancelled, is_slow in steps:
                if is_slow:
                    distant.go.clear()
                else:
                    distant.go.set()
                task = loop.create_task(visit(who, cost, tenths))
                tasks.append(task)
                await asyncio.sleep(0.07 if tenths % 2 else 0)
                if is_cancelled:
                    task.cancel()
            distant.go.set()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)
        assert await distant.left("r", rules) == 6

    time.run(main())


# ---- away


@pytest.mark.parametrize(
    ("mode", "passed"), [("open", [12, 12, 12]), ("closed", [0, 0, 0]), ("local", [5, 0, 0])]
)
def test_away_the_rule_decides(time, home, distant, mode, passed):
    bound = limit("10/h", home=home, rule="r", when_away=mode)
    distant.holders = 2

    async def main():
        distant.is_away = True
        async with home:
            found = []
            for _ in range(3):
                found.append(sum(allowed([await bound.try_hit("ann") for _ in range(12)])))
                await asyncio.sleep(2 * TICK_S)
            assert found == passed
            assert home.is_away
            assert not distant.asked

    time.run(main())


@pytest.mark.parametrize("mode", ["open", "closed", "local"])
def test_seats_away_are_as_the_rule_says_and_come_back(time, home, distant, mode):
    bound = limit(
        rules=LimitRules(limit=4, algorithm="concurrency"),
        home=home,
        rule="r",
        when_away=mode,
    )
    distant.holders = 2

    async def main():
        async with home:
            distant.is_away = True
            seated = 0
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(9):
                    with contextlib.suppress(RateLimited):
                        await stack.enter_async_context(bound.hold())
                        seated += 1
            assert seated == {"open": 9, "closed": 0, "local": 2}[mode]
            distant.is_away = False
            await asyncio.sleep(LONG_S)
            assert await distant.left("r", bound.rules[0]) == 4

    time.run(main())


def test_a_refund_of_what_was_allowed_alone_gives_nothing_away(time, home, distant):
    bound = limit("10/h", home=home, rule="r", when_away="open", lease=LeaseRules(share=0.0))

    async def main():
        async with home:
            await bound.hit("ann", 5)
            await asyncio.sleep(1.51 * TICK_S)
            distant.is_away = True
            await bound.hit("ann")
            bound.refund("ann")
            distant.is_away = False
            await asyncio.sleep(LONG_S)
            assert await distant.left("r", bound.rules[0], "ann") == 5

    time.run(main())


def test_a_failure_gives_back_nothing_that_was_let_through_for_want_of_an_answer(
    time, home, distant
):
    bound = limit("10/h", home=home, rule="r", when_away="open", refund_on=OSError)

    async def main():
        async with home:
            await bound.hit("ann", 5)
            distant.go.clear()
            with contextlib.suppress(OSError):
                async with bound.hold("ann", 2):
                    raise OSError
            distant.go.set()
            await asyncio.sleep(LONG_S)
            assert await distant.left("r", bound.rules[0], "ann") == 5

    time.run(main())


def test_back_home_what_was_spent_alone_is_told_first(time, home, distant):
    bound = limit("10/h", home=home, rule="r")

    async def main():
        async with home:
            distant.is_away = True
            assert sum(allowed([await bound.try_hit("ann") for _ in range(12)])) == 10
            distant.is_away = False
            await asyncio.sleep(2 * TICK_S)
            assert await distant.left("r", bound.rules[0], "ann") == 0
            await asyncio.sleep(2.0)
            assert sum(allowed([await bound.try_hit("ann") for _ in range(12)])) == 0

    time.run(main())


def test_a_home_lost_while_it_is_asked_is_away(time, home, distant):
    bound = limit("10/h", home=home, rule="r", when_away="closed")

    async def main():
        async with home:
            distant.go.clear()
            task = asyncio.get_running_loop().create_task(bound.try_hit("ann"))
            await asyncio.sleep(0.01)
            distant.is_away = True
            distant.go.set()
            assert not (await task).allowed
            assert bound.snapshot().leased[0].is_away

    time.run(main())


def test_a_home_that_breaks_is_logged_and_decided_without(time, home, distant, caplog):
    bound = limit("10/h", home=home, rule="r", when_away="open")

    async def main():
        async with home:
            distant.is_broken = True
            assert (await bound.try_hit("ann")).allowed
            distant.is_broken = False
            assert (await bound.try_hit("ann")).remaining == 9

    time.run(main())
    assert "home of shared limits failed" in caplog.text


@pytest.mark.parametrize("mode", ["open", "local", "closed"])
@pytest.mark.parametrize("rates", [("10/h",), ("10/h", "20/h")], ids=["one", "two"])
def test_who_is_cancelled_as_the_home_is_lost_leaves_the_limit_as_it_was(
    time, home, distant, mode, rates
):
    bound = limit(*rates, home=home, rule="r", when_away=mode)

    async def main():
        async with home:
            await bound.hit("ann", 9)
            for is_away in (True, False, True):
                distant.go.clear()
                task = asyncio.get_running_loop().create_task(bound.hit("ann"))
                await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.sleep(0.01)
                distant.is_away = is_away
                distant.go.set()
                await asyncio.sleep(0.01)
                distant.is_away = False
                await asyncio.sleep(LONG_S)
            for one, name in zip(bound.rules, ("r", "r-2"), strict=False):
                # A grant that was lost stays charged; nothing is ever there twice.
                assert one.limit - 12 <= await distant.left(name, one, "ann") <= one.limit - 9

    time.run(main())


def test_no_more_wait_for_the_ledger_than_it_can_hold(time, home, distant, monkeypatch):
    monkeypatch.setattr("headgate.resilience.shared_talk.MOST_SAID", 3)
    bound = limit("100/h", home=home, rule="r", when_away="closed")

    async def main():
        loop = asyncio.get_running_loop()
        async with home:
            distant.go.clear()
            first = loop.create_task(bound.try_hit("z"))
            await asyncio.sleep(0.01)
            tasks = [loop.create_task(bound.try_hit(f"k{n}")) for n in range(5)]
            await asyncio.sleep(0.01)
            assert [task.done() for task in tasks] == [False] * 3 + [True] * 2
            distant.go.set()
            await asyncio.wait([first, *tasks])
            assert sum(task.result().allowed for task in tasks) == 3

    time.run(main())
