"""Shared limits over a ledger in memory, in virtual time: what is taken, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.policy.limiter import Ask, Back, LeaseRules, LimitRules
from headgate.resilience import DeadlineExceeded, RateLimited, deadline, limit, policies, retry
from headgate.resilience.line import MOST_WAITING
from headgate.resilience.shared import Shared
from headgate.resilience.shared_talk import TICK_S
from headgate.state.home import HomeAway, LimitAsk, LimitGrant
from headgate.state.memory import MemoryShared
from tests.resilience.virtual import Time, cancelled_at

LONG_S = 5.0  # all leases have run out by then
RATES = ["gcra", "token_bucket", "sliding_window", "sliding_log", "fixed_window"]


class Distant:
    """A home that can be slow, away, or broken; `far` is another member of the same ledger."""

    def __init__(self, time: Time) -> None:
        self.far = MemoryShared(time.clock)
        self.near = self.far.join()
        self.is_away = False
        self.is_broken = False
        self.go = asyncio.Event()
        self.go.set()
        self.asked: list[LimitAsk] = []
        self.returned: list[tuple[str, Back]] = []
        self.holders = 1

    async def take(self, asks: Sequence[LimitAsk]) -> list[LimitGrant]:
        if self.is_away:
            raise HomeAway("told so")
        if self.is_broken:
            raise ValueError("broken")
        self.asked += asks
        grants = await self.near.take(asks)
        await self.go.wait()
        if self.is_away:
            raise HomeAway("told so meanwhile")
        return grants

    def give_back(self, backs: Sequence[tuple[str, Back]]) -> None:
        self.returned += backs
        self.near.give_back(backs)

    async def left(self, rule: str, rules: LimitRules, key: str = "") -> int:
        """What the ledger has left."""
        (grant,) = await self.far.take([LimitAsk(rule, rules, Ask(key, 0, 0))])
        return grant.remaining

    def waiting(self) -> int:
        """Hits that have been asked for."""
        return sum(one.ask.least > 0 for one in self.asked)


@pytest.fixture
def distant(time: Time) -> Distant:
    return Distant(time)


@pytest.fixture
def home(time: Time, distant: Distant) -> Shared:
    return Shared(distant, clock=time.clock)


def allowed(verdicts):
    return [one.allowed for one in verdicts]


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


# ---- life


def test_a_limit_that_nobody_started_says_so(time, home):
    bound = limit("1/s", home=home, rule="r")

    async def main():
        with pytest.raises(RuntimeError, match="async with home"):
            await bound.hit()
        async with home:
            await bound.hit("ann")
            with pytest.raises(RuntimeError, match="started already"):
                await home.start()
        with pytest.raises(RuntimeError, match="not started"):
            await bound.hit("bob")
        async with home:  # and again
            await bound.hit("bob")
            assert not home.is_away
        await home.close()
        assert home.is_away

    time.run(main())


def test_seats_asked_for_too_early_are_forgotten(time, home, distant):
    bound = limit(rules=LimitRules(limit=3, algorithm="concurrency"), home=home, rule="r")

    async def main():
        with pytest.raises(RuntimeError):
            await bound.hit()
        async with home:
            await asyncio.sleep(LONG_S)
            assert bound.snapshot().leased[0].keys == 0

    time.run(main())


def test_the_task_ends_with_it_and_nobody_is_left_waiting(time, home, distant):
    bound = limit("10/h", home=home, rule="r", when_away="closed")

    async def main():
        loop = asyncio.get_running_loop()
        await home.start()
        distant.go.clear()
        waiting = loop.create_task(bound.try_hit("ann"))
        await asyncio.sleep(0.01)
        closing = loop.create_task(home.close())
        await asyncio.sleep(0)
        closing.cancel()  # whoever closes it
        distant.go.set()
        await asyncio.wait((closing, waiting))
        assert closing.cancelled()
        await home.close()
        assert len(asyncio.all_tasks()) == 1

    time.run(main())


def test_if_it_is_ended_by_force_nobody_is_left_waiting(time, home, distant, monkeypatch):
    monkeypatch.setattr("headgate.resilience.shared_talk._ASKS_AT_ONCE", 1)
    bound = limit("10/h", home=home, rule="r", when_away="closed")

    async def main():
        loop = asyncio.get_running_loop()
        await home.start()
        distant.go.clear()
        waiting = [loop.create_task(bound.try_hit("ann"))]
        await asyncio.sleep(0.01)
        waiting += [loop.create_task(bound.try_hit(who)) for who in ("bob", "eve")]
        began = time.now
        for _ in range(2):
            await asyncio.sleep(0.001)
            home._task.cancel()
        await asyncio.wait(waiting)
        assert time.now - began < 0.01
        assert allowed([one.result() for one in waiting]) == [False] * 3

    time.run(main())


def test_a_loop_that_ends_takes_it_along(time, home, distant):
    bound = limit("100000/h", home=home, rule="r")

    async def main():
        await home.start()
        for _ in range(50):
            await bound.hit("ann")
            await asyncio.sleep(0.01)

    time.run(main())  # cancels what is left
    assert not home.is_started
    assert asyncio.run(distant.left("r", bound.rules[0], "ann")) >= 100000 - 50


def test_a_forked_process_starts_its_own_and_spends_nothing_of_its_parents(
    time, home, distant, monkeypatch
):
    bound = limit("100000/h", home=home, rule="r")

    async def main():
        async with home:
            for _ in range(20):
                for _ in range(10):
                    await bound.hit("ann")
                await asyncio.sleep(0.01)
            assert bound.snapshot().leased[0].unspent > 0
            with monkeypatch.context() as forked:
                forked.setattr("headgate.resilience.shared.os.getpid", lambda: -1)
                assert not home.is_started
                with pytest.raises(RuntimeError, match="in each process"):
                    await bound.hit("bob")
                await home.close()  # the parent's: left alone
                child = Shared(distant, clock=time.clock)
                child._rules, child._pid = home._rules, 1
                async with child:
                    assert bound.snapshot().leased[0].unspent == 0

    time.run(main())


def test_it_stands_among_other_policies(time, home):
    bound = limit("1/h", home=home, rule="r", by="user", key="{user}")

    async def work(user):
        return user

    async def main():
        async with home:
            together = policies(retry=retry(attempts=2, on=OSError), limit=bound)
            assert await together(work)("ann") == "ann"
            with pytest.raises(RateLimited):
                await together(work)("ann")
            assert together.snapshot()["limit"].refused_total == 1

    time.run(main())


def test_what_is_said_otherwise_is_refused_when_it_is_written(home):
    limit("1/s", home=home, rule="r")
    for wrong in (
        lambda: limit("1/s", home=home),
        lambda: limit("2/s", home=home, rule="r"),
        lambda: limit("1/s", home=home, rule="r", when_away="open"),
        lambda: limit("1/s", "2/s", home=home, rule=["a"]),
        lambda: limit("1/s", "2/s", home=home, rule=["a", "a"]),
        lambda: limit("1/s", home=home, rule="two words"),
        lambda: limit("1/s", home=home, rule=""),
        lambda: limit(home=home, rule="x"),
        lambda: limit("1/s", "2/s", algorithm="concurrency", home=home, rule="x"),
        lambda: limit("1/s", algorithm="concurrency", home=home, rule="x", wait=True),
        lambda: limit("1/s", algorithm="concurrency", home=home, rule="x", refund_on=OSError),
        lambda: limit("1/s", home=home, rule="x", by="users"),
        lambda: limit("1/s", home=home, rule="x", by="user")(str),
        lambda: limit("1/s", home=home, rule="x", when_away="maybe"),
    ):
        with pytest.raises(ValueError, match="limit|rule"):
            wrong()
    with pytest.raises(TypeError, match="give home=Shared"):
        limit("1/s", rule="r", shadow=True)
    with pytest.raises(ValueError, match="deadline"):
        Shared("redis://localhost", deadline=0)


def test_a_loop_that_was_closed_over_its_head_is_told_of(time):
    home = Shared.memory()
    bound = limit("1/s", home=home, rule="r")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(home.start())
    task = home._task
    loop.close()

    async def main():
        with pytest.raises(RuntimeError, match="not started"):
            await bound.hit()

    asyncio.run(main())
    task.get_coro().close()
    task._log_destroy_pending = False


@pytest.mark.parametrize("cost", [2.5, "2", None], ids=["float", "text", "none"])
def test_a_cost_that_is_no_whole_number_is_refused_here(time, home, distant, cost):
    bound = limit("10/h", home=home, rule="r")

    async def main():
        async with home:
            with pytest.raises(TypeError):
                await bound.hit("ann", cost)
            with pytest.raises(ValueError, match="negative"):
                await bound.hit("ann", -1)
            assert (await bound.hit("ann", 0)).allowed
            assert (await bound.hit("ann")).remaining == 9

    time.run(main())


def test_an_object_is_no_key(time, home):
    bound = limit("1/s", home=home, rule="r")

    async def main():
        async with home:
            await bound.hit(7)
            with pytest.raises(TypeError, match="leaves this process"):
                await bound.hit(object())

    time.run(main())


# ---- plain code


def test_plain_code_has_a_thread_of_its_own_to_talk():
    home = Shared.memory()
    bound = limit("3/h", home=home, rule="r", key="{user}", refund_on=OSError)
    seats = limit("1/s", algorithm="concurrency", home=home, rule="seats")

    @bound
    def work(user):
        if user == "eve":
            raise OSError
        return user

    before = threading.active_count()
    with home:
        assert [work("ada") for _ in range(3)] == ["ada"] * 3
        with pytest.raises(RateLimited):
            work("ada")
        for _ in range(5):
            with pytest.raises(OSError, match="^$"):
                work("eve")
        assert bound.try_hit_blocking("bob").remaining == 2
        assert bound.wait_blocking("bob").remaining == 1
        with seats.hold():
            assert not seats.try_hit_blocking().allowed
        with seats.hold():
            pass
        with pytest.raises(RuntimeError, match="started already"):
            home.start_thread()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="not started"):
        bound.hit_blocking("new")
    home.stop_thread()


def test_plain_code_where_a_loop_runs_is_told_the_way_out():
    home = Shared.memory()
    bound = limit("3/h", home=home, rule="r")
    work = bound(int)

    async def main():
        async with home:
            with pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
                work()
            assert await asyncio.to_thread(work) == 0
            with pytest.raises(RuntimeError, match="thread"):
                bound.hold().__enter__()

    asyncio.run(main())


def test_many_threads_and_another_loop_share_one_limit():
    home = Shared.memory()
    bound = limit("100/h", home=home, rule="r", algorithm="fixed_window")
    taken = []

    def plain():
        taken.extend(bound.try_hit_blocking("k").allowed for _ in range(40))

    async def hits():
        got = await asyncio.gather(*(bound.try_hit("k") for _ in range(40)))
        taken.extend(allowed(got))

    with home:
        threads = [threading.Thread(target=plain) for _ in range(3)]
        threads += [threading.Thread(target=lambda: asyncio.run(hits())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(taken) == 200
    assert sum(taken) == 100
