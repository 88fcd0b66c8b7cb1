"""The breaker around a service's own calls."""

from __future__ import annotations

import asyncio
import functools
import random
import threading

import pytest

from headgate.policy.breaker import BreakerRules
from headgate.resilience import BREAKERS, BreakerOpen, BulkheadFull, CallTimedOut, Registry, breaker
from tests.resilience.virtual import cancel_at_each_step


@pytest.fixture
def users(time, events):
    return breaker(
        "users",
        window=4,
        trial_calls=2,
        reset_after="10s",
        slow="2s",
        slow_rate="50%",
        jitter=0,
        on_event=events.append,
        registry=None,
        clock=time.clock,
    )


class Callee:
    """A service that can be broken."""

    def __init__(self, time):
        self.time = time
        self.error = None
        self.takes_s = 0.0
        self.calls = 0

    def get(self, number=1, *, plus=0):
        self.calls += 1
        self.time.now += self.takes_s
        if self.error is not None:
            raise self.error
        return number + plus

    async def get_async(self, number=1, *, plus=0):
        self.calls += 1
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return number + plus


@pytest.fixture
def callee(time):
    return Callee(time)


# Each way to make a call, all as async functions of the breaker and the callee.
async def decorated(users, callee):
    return users(callee.get)(2, plus=3)


async def called(users, callee):
    return users.call(callee.get, 2, plus=3)


async def entered(users, callee):
    with users:
        return callee.get(2, plus=3)


async def decorated_async(users, callee):
    return await users(callee.get_async)(2, plus=3)


async def called_async(users, callee):
    return await users.call_async(callee.get_async, 2, plus=3)


async def entered_async(users, callee):
    async with users:
        return await callee.get_async(2, plus=3)


every_way = pytest.mark.parametrize(
    "way", [decorated, called, entered, decorated_async, called_async, entered_async]
)


@every_way
def test_every_way_to_call_is_judged_alike(way, users, callee, time):
    async def main():
        assert await way(users, callee) == 5
        callee.error = OSError("down")
        for _ in range(2):
            with pytest.raises(OSError):
                await way(users, callee)
        callee.error = None
        await way(users, callee)
        assert users.state == "open"
        with pytest.raises(BreakerOpen) as refused:
            await way(users, callee)
        assert refused.value.retry_after_s == 10.0
        assert str(refused.value) == "users: open; come back in 10s"
        assert callee.calls == 4
        time.now += 10.0
        assert await way(users, callee) == 5
        assert users.state == "half_open"
        assert await way(users, callee) == 5
        assert users.state == "closed"

    time.run(main())


@every_way
def test_every_way_measures_how_long_it_took(way, users, callee, time):
    async def main():
        callee.takes_s = 2.5
        for _ in range(4):
            await way(users, callee)
        assert users.state == "open"
        assert users.snapshot().slow == 4

    time.run(main())


@every_way
@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()])
def test_what_says_nothing_of_the_callee_leaves_no_trace(way, users, callee, time, error):
    async def main():
        with pytest.raises(type(error)):
            await way(users, callee)
        found = users.snapshot()
        assert (found.calls, found.trials_out) == (0, 0)

    callee.error = error
    time.run(main())
    users.force_open()
    users.force_close()
    users.trip(5.0, "a peer")
    time.now += 5.0
    for _ in range(10):  # more than there are places for trials
        time.run(main())
    assert users.state == "half_open"


@every_way
def test_a_call_refused_further_in_does_not_count(way, users, callee, time):
    async def main():
        for _ in range(10):
            with pytest.raises(BulkheadFull):
                await way(users, callee)
        assert users.snapshot().calls == 0

    callee.error = BulkheadFull("reports", "full", 0.0)
    time.run(main())


def test_a_cancelled_call_that_was_slow_already_counts_as_slow(users, callee, time):
    async def main():
        callee.takes_s = 60.0
        for _ in range(4):
            task = asyncio.get_running_loop().create_task(users(callee.get_async)())
            await asyncio.sleep(5.0)
            task.cancel()
            await asyncio.wait((task,))
        assert users.state == "open"
        assert users.snapshot().history[-1].why == "4 of 4 calls were slow"

    time.run(main())


def test_a_time_out_further_in_is_a_failure(users, callee, time):
    callee.error = CallTimedOut("get", 1.0)
    for _ in range(4):
        with pytest.raises(TimeoutError):
            users.call(callee.get)
    assert users.state == "open"


def test_only_the_exceptions_named_are_failures(callee, time):
    guard = breaker(
        "a",
        window=4,
        failures=(OSError, ValueError),
        ignore=FileNotFoundError,
        registry=None,
        clock=time.clock,
    )
    for error, counts in (
        (KeyError("an answer"), (1, 0)),
        (ValueError(), (2, 1)),
        (FileNotFoundError(), (2, 1)),
        (ConnectionError(), (3, 2)),
    ):
        callee.error = error
        with pytest.raises(type(error)):
            guard.call(callee.get)
        found = guard.snapshot()
        assert (found.calls, found.failed) == counts


def test_a_function_may_say_which_exceptions_are_failures(callee, time):
    guard = breaker(
        "a",
        window=4,
        failures=lambda error: "5" in str(error),
        ignore=lambda error: "429" in str(error),
        registry=None,
        clock=time.clock,
    )
    for error, counts in (("404", (1, 0)), ("503", (2, 1)), ("429 5", (2, 1))):
        callee.error = RuntimeError(error)
        with pytest.raises(RuntimeError):
            guard.call(callee.get)
        found = guard.snapshot()
        assert (found.calls, found.failed) == counts


@every_way
def test_a_broken_judge_of_exceptions_leaks_no_place(way, callee, time):
    def broken(error):
        raise ZeroDivisionError

    guard = breaker(
        "a", window=4, trial_calls=1, failures=broken, jitter=0, registry=None, clock=time.clock
    )
    callee.error = OSError()

    async def main():
        guard.trip(5.0, "a peer")
        time.now += 5.0
        with pytest.raises(ZeroDivisionError):
            await way(guard, callee)
        assert guard.snapshot().trials_out == 0

    time.run(main())


def test_ignored_errors_give_back_the_place_of_their_trial(callee, time):
    guard = breaker(
        "a", window=4, trial_calls=1, ignore=KeyError, jitter=0, registry=None, clock=time.clock
    )
    guard.trip(5.0, "a peer")
    time.now += 5.0
    callee.error = KeyError()
    for _ in range(20):
        with pytest.raises(KeyError):
            guard.call(callee.get)
    callee.error = None
    guard.call(callee.get)
    assert guard.state == "closed"


@pytest.mark.parametrize("way", [decorated, called, decorated_async, called_async])
def test_a_result_may_be_a_failure(way, callee, time):
    guard = breaker(
        "a", window=4, failed_result=lambda got: got == 5, registry=None, clock=time.clock
    )

    async def main():
        for _ in range(4):
            assert await way(guard, callee) == 5
        assert guard.state == "open"

    time.run(main())


@pytest.mark.parametrize("way", [decorated, called, decorated_async, called_async])
def test_a_broken_judge_leaks_no_place(way, callee, time):
    def broken(got):
        raise ZeroDivisionError

    guard = breaker(
        "a",
        window=4,
        trial_calls=1,
        failed_result=broken,
        jitter=0,
        registry=None,
        clock=time.clock,
    )

    async def main():
        guard.trip(5.0, "a peer")
        time.now += 5.0
        with pytest.raises(ZeroDivisionError):
            await way(guard, callee)
        assert guard.snapshot().trials_out == 0

    time.run(main())


def test_the_decorator_keeps_the_name_and_knows_what_is_async(users, callee):
    assert users(callee.get).__name__ == "get"
    assert asyncio.iscoroutinefunction(users(callee.get_async))
    assert asyncio.iscoroutinefunction(users(functools.partial(callee.get_async, 3)))

    class Callable:
        async def __call__(self):
            return 1

    assert asyncio.iscoroutinefunction(users(Callable()))


def test_generators_are_refused(users):
    def some():
        yield 1

    async def some_async():
        yield 1

    for function in (some, some_async):
        with pytest.raises(TypeError, match="it returns before it runs"):
            users(function)


def test_a_coroutine_from_a_plain_call_is_refused_and_closed(users, callee):
    with pytest.raises(TypeError, match="use call_async"):
        users.call(callee.get_async)


@pytest.mark.parametrize("decorate", [False, True])
def test_a_trial_is_given_back_wherever_it_is_cancelled(users, callee, time, decorate):
    async def work():
        async with users:
            await asyncio.sleep(1.0)
            await (users(callee.get_async)() if decorate else users.call_async(asyncio.sleep, 1.0))

    def after():
        assert users.snapshot().trials_out == 0
        users.force_close()
        users.trip(5.0, "a peer")
        time.now += 5.0

    async def main():
        after()
        assert await cancel_at_each_step(work, after) == 2

    callee.takes_s = 1.0
    time.run(main())


def test_tasks_that_share_one_breaker_do_not_mix_up_their_durations(users, time):
    async def one(seconds):
        async with users:
            await asyncio.sleep(seconds)

    async def main():
        async with asyncio.TaskGroup() as group:
            for seconds in (10.0, 0.1, 0.2, 0.3):
                group.create_task(one(seconds))
        assert users.snapshot().slow == 1

    time.run(main())


def test_entering_twice_in_one_task_leaves_in_reverse(users, time):
    users.force_close()
    with users:
        time.now += 3.0
        with users:
            time.now += 0.1
        assert users.snapshot().slow == 0
    assert users.snapshot().slow == 1


def test_a_generator_that_is_closed_elsewhere_still_gives_its_permit_back(users, time):
    async def steps():
        async with users:
            yield 1
            yield 2

    async def main():
        users.trip(5.0, "a peer")
        time.now += 5.0
        generator = steps()
        await generator.__anext__()
        assert users.snapshot().trials_out == 1
        # Another task has another context: it does not see what was entered here.
        await asyncio.get_running_loop().create_task(generator.aclose())
        assert users.snapshot().trials_out == 0
        with users:
            pass

    time.run(main())


def test_threads_share_a_breaker(users):
    users.take_rules(BreakerRules(window_calls=1000, minimum_calls=1000, failure_rate=1.0))
    ready = threading.Barrier(4)

    def work(seed):
        rng = random.Random(seed)
        ready.wait()
        for _ in range(2000):
            try:
                with users:
                    if rng.random() < 0.5:
                        raise OSError
            except OSError:
                pass

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = users.snapshot()
    assert found.calls == 1000
    assert found.ok_total + found.failed_total == 8000
    for _ in range(1000):
        users.call(int)
    assert users.snapshot().failed == 0  # no count has drifted


def test_events_tell_of_changes_and_refusals_only(users, callee, events, time):
    users.call(callee.get)
    assert events == []
    callee.error = OSError()
    for _ in range(3):
        with pytest.raises(OSError):
            users.call(callee.get)
    with pytest.raises(BreakerOpen):
        users.call(callee.get)
    assert [(e.policy, e.name, e.what, e.why, e.after_s) for e in events] == [
        ("breaker", "users", "opened", "3 of 4 calls failed", 10.0),
        ("breaker", "users", "rejected", "open", 10.0),
    ]


def test_an_event_may_ask_for_a_snapshot(time):
    seen = []
    guard = breaker("a", window=1, registry=None, clock=time.clock)
    guard.on_event = lambda event: seen.append(guard.snapshot().state)
    with pytest.raises(OSError), guard:
        raise OSError
    assert seen == ["open"]


def test_check_raises_without_taking_a_trial(users, time):
    users.check()
    users.trip(5.0, "a peer")
    with pytest.raises(BreakerOpen):
        users.check()
    time.now += 5.0
    for _ in range(5):
        users.check()
    with users, users, pytest.raises(BreakerOpen):
        users.check()
    users.force_open()
    with pytest.raises(BreakerOpen):
        users.check()


@pytest.mark.parametrize("state", ["disabled", "metrics_only"])
def test_by_hand_it_lets_everything_through(users, callee, state):
    {"disabled": users.disable, "metrics_only": users.metrics_only}[state]()
    callee.error = OSError()
    for _ in range(20):
        with pytest.raises(OSError):
            users.call(callee.get)
    assert users.state == state
    users.automatic()
    assert users.state == "closed"


# ---- settings and the registry


def test_settings_may_be_written_as_in_the_file():
    made = breaker(
        "a",
        failure_rate="25%",
        slow_rate=0.5,
        slow="250ms",
        window="30s",
        minimum_calls=20,
        trial_calls=3,
        trial_wait="1min",
        reset_after=5,
        reset_growth=3,
        reset_max="1h",
        jitter="5%",
        mode="metrics_only",
        registry=None,
    )
    assert made.rules == BreakerRules(
        failure_rate=0.25,
        slow_rate=0.5,
        slow_s=0.25,
        window_s=30.0,
        minimum_calls=20,
        trial_calls=3,
        trial_wait_s=60.0,
        reset_s=5.0,
        reset_growth=3,
        reset_max_s=3600.0,
        jitter=0.05,
        mode="metrics_only",
    )


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ({}, BreakerRules()),
        ({"window": 20}, BreakerRules(window_calls=20)),
        ({"window": "20 calls"}, BreakerRules(window_calls=20)),
        ({"window": "20"}, BreakerRules(window_calls=20)),
        ({"window": 5}, BreakerRules(window_calls=5, minimum_calls=5)),
        ({"reset_after": "1h"}, BreakerRules(reset_s=3600.0, reset_max_s=3600.0)),
        ({"rules": BreakerRules(trial_calls=1)}, BreakerRules(trial_calls=1)),
    ],
)
def test_defaults_give_way_to_what_is_said(settings, rules):
    assert breaker("a", registry=None, **settings).rules == rules


def test_the_reset_time_may_be_a_function(time):
    made = breaker("a", window=1, reset_after=lambda row: row * 7.0, jitter=0, registry=None)
    assert made.rules.reset_of is not None
    with pytest.raises(OSError), made:
        raise OSError
    assert 6.0 < made.snapshot().retry_after_s <= 7.0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"failure_rate": "150%"}, "failure_rate: "),
        ({"slow": "2 parsecs"}, 'slow: "2 parsecs" is not a duration'),
        ({"window": 20.0}, "window=20.0: write a whole number"),
        ({"window": 10, "minimum_calls": 20}, "can never hold minimum_calls=20"),
        ({"window": 0}, "window_calls=0"),
    ],
)
def test_senseless_settings_are_refused_in_words(settings, says):
    with pytest.raises(ValueError) as refused:
        breaker("a", registry=None, **settings)
    assert says in str(refused.value)


def test_rules_and_settings_do_not_go_together():
    with pytest.raises(TypeError, match="breaker a: give rules or settings, not both: slow_s"):
        breaker("a", registry=None, rules=BreakerRules(), slow="1s")


def test_a_name_stands_for_one_breaker():
    registry = Registry()
    made = breaker("users", window=20, registry=registry)
    assert breaker("users", window="20 calls", registry=registry) is made
    with pytest.raises(ValueError, match="with other settings"):
        breaker("users", window=30, registry=registry)
    assert registry["users"] is made
    assert "users" in registry
    assert [one.name for one in registry] == ["users"]
    registry.remove("users")
    assert len(registry) == 0
    assert breaker("users", window=30, registry=registry) is not made


def test_the_registry_moves_breakers_by_name():
    registry = Registry()
    for name in ("users", "orders"):
        breaker(name, registry=registry)
    registry.force_open("users", "by ada")
    states = {name: one.state for name, one in registry.snapshot().items()}
    assert states == {"users": "forced_open", "orders": "closed"}
    assert registry.snapshot()["users"].history[-1].why == "by ada"
    registry.automatic("users")
    assert registry["users"].state == "closed"
    registry.force_open("users")
    registry.force_close("users")
    assert registry["users"].state == "closed"
    with pytest.raises(KeyError, match='no breaker named "usres"; there are: orders, users'):
        registry.force_open("usres")


def test_breakers_are_registered_unless_told_otherwise():
    made = breaker("only for this test")
    assert BREAKERS["only for this test"] is made
    BREAKERS.remove("only for this test")
    breaker("another", registry=None)
    assert "another" not in BREAKERS
