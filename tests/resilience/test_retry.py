"""Trying again around a service's own calls."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref

import pytest

from headgate.errors import UpstreamFailed
from headgate.policy.bulkhead import BulkheadRules
from headgate.policy.hedge import HedgeRules
from headgate.policy.retry import RetryRules, wait_before
from headgate.resilience import (
    Attempts,
    BreakerOpen,
    Budget,
    CallTimedOut,
    DeadlineExceeded,
    RateLimited,
    breaker,
    bulkhead,
    deadline,
    hedge,
    hop_headers,
    retry,
    retrying,
)
from headgate.resilience.hop import HOP, Hop
from tests.resilience.virtual import cancel_at_each_step


class Callee:
    """Fails as often as it is told to."""

    def __init__(self, time, errors=()):
        self.time = time
        self.errors = list(errors)
        self.calls = 0
        self.takes_s = 0.0
        self.attempts = []

    def _answer(self, number):
        self.calls += 1
        self.attempts.append(hop_headers().get("x-headgate-attempt"))
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
        return number

    def get(self, number=1):
        return self._answer(number)

    async def get_async(self, number=1):
        await asyncio.sleep(self.takes_s)
        return self._answer(number)


def make(time, **settings):
    settings = {
        "jitter": "none",
        "wait": 0.1,
        "clock": time.clock,
        "sleep": time.sleep,
        "sleep_async": time.sleep_async,
        **settings,
    }
    return retry(**settings)


# Each way to try again, all as async functions.
async def decorated(policy, callee):
    return policy(callee.get)(7)


async def called(policy, callee):
    return policy.call(callee.get, 7)


async def looped(policy, callee):
    for attempt in policy.attempts():
        with attempt:
            return callee.get(7)
    raise AssertionError("the loop ended without a result")


async def decorated_async(policy, callee):
    return await policy(callee.get_async)(7)


async def called_async(policy, callee):
    return await policy.call_async(callee.get_async, 7)


async def looped_async(policy, callee):
    async for attempt in policy.attempts():
        async with attempt:
            return await callee.get_async(7)
    raise AssertionError("the loop ended without a result")


async def looped_async_around_plain(policy, callee):
    async for attempt in policy.attempts():
        with attempt:
            return await callee.get_async(7)
    raise AssertionError("the loop ended without a result")


WAYS = [
    decorated,
    called,
    looped,
    decorated_async,
    called_async,
    looped_async,
    looped_async_around_plain,
]
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
def test_a_success_is_not_repeated(way, time):
    callee = Callee(time)
    assert time.run(way(make(time), callee)) == 7
    assert (callee.calls, time.slept) == (1, [])


@every_way
def test_it_tries_again_until_it_succeeds(way, time):
    callee = Callee(time, [ConnectionError(), TimeoutError()])
    policy = make(time)
    assert time.run(way(policy, callee)) == 7
    assert time.slept == [0.1, 0.2]
    assert policy.snapshot().retries_total == 2
    assert callee.attempts == ["1/3", "2/3", "3/3"]
    assert hop_headers() == {}


@every_way
def test_the_last_error_is_raised_as_it_is(way, time):
    errors = [ConnectionError(1), ConnectionError(2), ConnectionError(3)]
    callee = Callee(time, errors)
    policy = make(time)
    with pytest.raises(ConnectionError) as raised:
        time.run(way(policy, callee))
    assert raised.value is errors[2]
    assert callee.calls == 3
    found = policy.snapshot()
    assert (found.retries_total, found.gave_up_total) == (2, 1)
    assert hop_headers() == {}


@every_way
def test_what_does_not_ask_for_it_is_not_tried_again(way, time):
    callee = Callee(time, [KeyError("answer")])
    with pytest.raises(KeyError):
        time.run(way(make(time), callee))
    assert callee.calls == 1


@every_way
@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_nothing_but_an_exception_is_ever_tried_again(way, time, error):
    callee = Callee(time, [error()])
    with pytest.raises(error):
        time.run(way(make(time, on=BaseException), callee))
    assert callee.calls == 1


class Response:
    def __init__(self, status_code=200, **headers):
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): text for name, text in headers.items()}


class StatusError(Exception):
    def __init__(self, response):
        self.response = response


class FlatStatusError(Exception):
    def __init__(self, status):
        self.status = status


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (CallTimedOut("get", 1.0), True),
        (UpstreamFailed("connect"), True),
        (UpstreamFailed("protocol"), False),
        (StatusError(Response(503)), True),
        (StatusError(Response(500)), False),
        (FlatStatusError(502), True),
        (FlatStatusError(404), False),
        (OSError(), False),
        (FileNotFoundError(), False),
        (ValueError(), False),
    ],
)
def test_by_default_what_passes_by_itself_is_tried_again(time, error, again):
    callee = Callee(time, [error])
    policy = make(time, attempts=2)
    if again:
        assert policy.call(callee.get, 7) == 7
    else:
        with pytest.raises(type(error)):
            policy.call(callee.get)


@pytest.mark.parametrize("on", [KeyError, (OSError, LookupError), lambda error: "me" in str(error)])
def test_a_class_several_or_a_function_say_what_asks_for_it(time, on):
    callee = Callee(time, [KeyError("me")])
    assert make(time, on=on).call(callee.get, 7) == 7
    callee = Callee(time, [ConnectionError("you")])
    with pytest.raises(ConnectionError):
        make(time, on=KeyError).call(callee.get)


@pytest.mark.parametrize("way", [decorated, called, decorated_async, called_async])
def test_a_result_may_ask_for_it_and_the_last_one_is_returned(way, time):
    callee = Callee(time)
    policy = make(time, on_result=lambda got: got == 7)
    assert time.run(way(policy, callee)) == 7
    assert callee.calls == 3
    callee = Callee(time)
    policy = make(time, on_result=lambda got: got == 7 and callee.calls < 2)
    assert time.run(way(policy, callee)) == 7
    assert callee.calls == 2


@pytest.mark.parametrize("way", [decorated, decorated_async])
def test_a_broken_judge_of_results_is_seen(way, time):
    def broken(got):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        time.run(way(make(time, on_result=broken), Callee(time)))


# ---- what ends it


@every_way
def test_a_refusal_that_says_when_is_waited_for(way, time):
    callee = Callee(time, [RateLimited("search", "limit reached", 2.5)])
    assert time.run(way(make(time, on=RateLimited), callee)) == 7
    assert time.slept == [2.5]


@every_way
def test_a_wait_beyond_retry_after_max_ends_it(way, time, events):
    callee = Callee(time, [BreakerOpen("users", "open", 60.0)])
    policy = make(time, on=Exception, on_event=events.append)
    with pytest.raises(BreakerOpen):
        time.run(way(policy, callee))
    assert time.slept == []
    assert events[-1].why == "asked to wait for too long"


@pytest.mark.parametrize("name", ["retry-after", "Retry-After"])
def test_the_retry_after_of_a_response_is_waited_for(time, name):
    response = Response(503)
    response.headers = {name: "4"}
    callee = Callee(time, [StatusError(response)])
    assert make(time).call(callee.get, 7) == 7
    assert time.slept == [4.0]
    callee = Callee(time, [StatusError(response)])
    assert make(time, retry_after=False).call(callee.get, 7) == 7
    assert time.slept == [4.0, 0.1]


def test_a_layer_below_may_say_that_it_is_of_no_use(time, events):
    callee = Callee(time, [StatusError(Response(503, x_headgate_no_retry="1"))])
    with pytest.raises(StatusError):
        make(time, on_event=events.append).call(callee.get)
    assert events[-1].why == "a layer below has no budget"


@every_way
def test_only_one_layer_retries(way, time, events):
    async def main():
        HOP.set(Hop(may_retry=False))
        await way(make(time, on_event=events.append), callee)

    callee = Callee(time, [ConnectionError()])
    with pytest.raises(ConnectionError):
        time.run(main())
    assert callee.calls == 1
    assert events[-1].why == "the layer above retries"


@every_way
def test_no_wait_goes_beyond_the_deadline(way, time, events):
    async def main():
        with deadline(0.15, clock=time.clock):
            await way(make(time, on_event=events.append), callee)

    callee = Callee(time, [ConnectionError(1), ConnectionError(2), ConnectionError(3)])
    with pytest.raises(ConnectionError, match="2"):
        time.run(main())
    assert time.slept == [0.1]
    assert [(event.what, event.why, event.after_s) for event in events] == [
        ("retried", "ConnectionError", 0.1),
        ("gave_up", "the deadline comes sooner", 0.0),
    ]


def test_a_wait_of_just_the_time_left_is_not_begun(time):
    callee = Callee(time, [ConnectionError()])
    policy = make(time, wait=0.25)  # exact in floats
    with deadline(0.25, clock=time.clock), pytest.raises(ConnectionError):
        policy.call(callee.get)
    assert time.slept == []


def test_a_deadline_further_in_may_be_tried_again(time):
    callee = Callee(time, [DeadlineExceeded()])
    assert make(time).call(callee.get, 7) == 7


# ---- the budget


def test_by_default_retries_are_a_share_of_the_calls(time):
    policy = make(time, budget="10%")
    tried = policy(Callee(time, [ConnectionError() for _ in range(10_000)]).get)
    for _ in range(1000):
        with pytest.raises(ConnectionError):
            tried()
        time.now += 0.001
    found = policy.snapshot()
    assert found.budget is not None
    assert found.budget.refused_total > 0
    assert 100 <= found.retries_total <= 10 + 0.1 * 1000 + 20


def test_a_budget_may_be_shared_or_left_out(time, events):
    shared = Budget(0.0, floor="1/10s", clock=time.clock)
    first = make(time, budget=shared)
    second = make(time, budget=shared, on_event=events.append)
    assert first.call(Callee(time, [ConnectionError()]).get, 7) == 7
    with pytest.raises(ConnectionError):
        second.call(Callee(time, [ConnectionError()]).get)
    assert events[-1].why == "no budget"
    assert shared.snapshot().firsts == 2

    free = make(time, budget=False)
    assert free.snapshot().budget is None
    for _ in range(1000):
        free.call(Callee(time, [ConnectionError(), ConnectionError()]).get)


def test_a_spent_budget_is_told_to_the_request_being_served(time):
    hop = Hop(may_retry=True)

    async def main():
        HOP.set(hop)
        policy = make(time, budget=Budget(0.0, floor="1/10s", clock=time.clock))
        for errors in ([ConnectionError()], [ConnectionError()]):
            assert not hop.budget_spent
            await policy.call_async(Callee(time, errors).get_async)

    with pytest.raises(ConnectionError):
        time.run(main())
    assert hop.budget_spent


def test_loops_without_a_budget_share_one(time):
    settings = {"sleep": time.sleep, "on": ConnectionError}
    tries = 0
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            for attempt in retrying(attempts=2, **settings):
                with attempt:
                    tries += 1
                    if attempt.number == 1:
                        raise ConnectionError
    assert tries < 1500


# ---- time-outs of a try


@pytest.mark.parametrize("way", [decorated_async, called_async, looped_async])
def test_a_try_that_takes_too_long_is_tried_again(way, time):
    class Slow(Callee):
        async def get_async(self, number=1):
            self.takes_s = 10.0 if self.calls == 0 else 0.5
            self.calls += 1
            await asyncio.sleep(self.takes_s)
            return number

    callee = Slow(time)
    start = time.now
    # KeyError alone is asked for: a try that is stopped here counts whatever is.
    policy = make(time, per_try="2s", on=KeyError)
    assert time.run(way(policy, callee)) == 7
    assert time.now - start == pytest.approx(2.0 + 0.1 + 0.5)


@pytest.mark.parametrize("way", [decorated_async, called_async, looped_async])
def test_the_last_try_that_takes_too_long_says_so(way, time):
    callee = Callee(time)
    callee.takes_s = 10.0
    with pytest.raises(CallTimedOut) as raised:
        time.run(way(make(time, per_try="2s"), callee))
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.after_s == 2.0


@pytest.mark.parametrize("way", [decorated_async, looped_async])
def test_a_time_out_of_the_callee_is_not_taken_for_ours(way, time):
    callee = Callee(time, [TimeoutError("theirs")])
    with pytest.raises(TimeoutError, match="theirs"):
        time.run(way(make(time, per_try="2s", on=KeyError), callee))


@pytest.mark.parametrize("way", [decorated, called, looped, looped_async_around_plain])
def test_plain_code_cannot_be_stopped(way, time):
    with pytest.raises(TypeError, match="per_try cannot stop"):
        time.run(way(make(time, per_try="2s"), Callee(time)))


# ---- cancellation


@pytest.mark.parametrize("way", [decorated_async, called_async, looped_async])
@pytest.mark.parametrize("per_try", [None, "5s"])
def test_it_can_be_cancelled_at_each_await(way, time, per_try):
    callee = Callee(time)
    callee.takes_s = 1.0

    async def work():
        callee.errors = [ConnectionError(), ConnectionError()]
        await way(make(time, per_try=per_try), callee)

    def after():
        assert hop_headers() == {}

    async def main():
        # Three tries and two waits.
        assert await cancel_at_each_step(work, after) == 5

    time.run(main())


def test_a_breaker_inside_gets_its_permits_back_when_a_retry_is_cancelled(time):
    guard = breaker("a", window=4, jitter=0, registry=None, clock=time.clock)
    callee = Callee(time)
    callee.takes_s = 1.0

    async def work():
        callee.errors = [ConnectionError()]
        await make(time)(guard(callee.get_async))()

    def after():
        assert guard.snapshot().trials_out == 0
        guard.force_close()
        guard.trip(5.0, "a peer")
        time.now += 5.0

    async def main():
        after()
        assert await cancel_at_each_step(work, after) == 3

    time.run(main())


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_failure_leaves_no_cycle_behind(time, failures):
    seen: list[weakref.ref[BaseException]] = []

    class Marked(ConnectionError):
        def __init__(self):
            seen.append(weakref.ref(self))

    @make(time)
    def get():
        if len(seen) < failures:
            raise Marked

    gc.collect()
    gc.disable()
    try:
        try:
            get()
        except Marked:
            pass
        assert [error() for error in seen] == [None] * failures
    finally:
        gc.enable()


# ---- loops


def test_a_loop_counts_its_attempts(time):
    seen = []
    for attempt in make(time, attempts=4).attempts():
        with attempt:
            seen.append((attempt.number, attempt.of))
            if attempt.number < 3:
                raise ConnectionError
    assert seen == [(1, 4), (2, 4), (3, 4)]


def test_a_loop_whose_body_does_not_enter_its_attempt_ends(time):
    assert sum(1 for _ in make(time).attempts()) == 1


def test_a_loop_takes_a_policy_or_settings(time):
    policy = make(time)
    assert isinstance(retrying(policy), Attempts)
    with pytest.raises(TypeError, match="not both"):
        retrying(policy, attempts=3)


# ---- settings


def test_settings_may_be_written_as_in_the_file():
    made = retry(
        attempts=5,
        wait="50ms",
        wait_max="2s",
        jitter="decorrelated",
        per_try="1s",
        retry_after=False,
        retry_after_max="1min",
    )
    assert made.rules == RetryRules(
        attempts=5,
        wait_s=0.05,
        wait_max_s=2.0,
        jitter="decorrelated",
        per_try_s=1.0,
        retry_after=False,
        retry_after_max_s=60.0,
    )
    assert retry().rules == RetryRules()
    assert retry(wait="5s").rules.wait_max_s == 5.0
    assert retry(rules=RetryRules(attempts=9)).rules.attempts == 9


def test_rules_and_settings_do_not_go_together():
    with pytest.raises(TypeError, match="give rules or settings"):
        retry(rules=RetryRules(), attempts=3)
    with pytest.raises(TypeError, match="give rules or settings"):
        hedge(rules=HedgeRules(), after="p95")
    with pytest.raises(TypeError, match="give rules or settings"):
        bulkhead("a", rules=BulkheadRules(), limit=3)


def test_waits_are_jittered_by_default(time):
    policy = retry(
        attempts=50,
        wait="1s",
        budget=False,
        sleep=time.sleep,
        rng=random.Random(5),
    )
    with pytest.raises(ConnectionError):
        policy.call(Callee(time, [ConnectionError()] * 50).get)
    assert len(set(time.slept)) == 49
    assert max(time.slept) <= 1.0


def test_decorrelated_waits_go_on_from_the_wait_before(time):
    policy = retry(
        attempts=6,
        wait="100ms",
        wait_max="60s",
        jitter="decorrelated",
        budget=False,
        sleep=time.sleep,
        rng=random.Random(5),
    )
    with pytest.raises(ConnectionError):
        policy.call(Callee(time, [ConnectionError()] * 6).get)
    rng, previous_s = random.Random(5), 0.0
    for wait_s in time.slept:
        assert wait_s == wait_before(policy.rules, 1, previous_s, rng)
        previous_s = wait_s
    assert max(time.slept) > 0.3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"attempts": 0}, "attempts=0"),
        ({"wait": "soon"}, 'wait: "soon" is not a duration'),
        ({"wait": 2, "wait_max": 1}, "wait_max_s=1 is less"),
        ({"budget": "200%"}, "more than 100%"),
        ({"budget": 0.0, "attempts": 1}, None),
    ],
)
def test_senseless_settings_are_refused_in_words(settings, says):
    if says is None:
        retry(**settings)
        return
    with pytest.raises(ValueError) as refused:
        retry(**settings)
    assert says in str(refused.value)


def test_a_decorator_without_its_brackets_is_refused():
    with pytest.raises(TypeError):

        @retry  # type: ignore[arg-type, call-arg]
        def get():
            return 1


def test_generators_are_refused(time):
    def some():
        yield 1

    with pytest.raises(TypeError, match="it returns before it runs"):
        make(time)(some)


def test_a_coroutine_from_a_plain_call_is_refused_and_closed(time):
    with pytest.raises(TypeError, match="use call_async"):
        make(time).call(Callee(time).get_async)


def test_the_decorator_keeps_the_name_and_knows_what_is_async(time):
    callee = Callee(time)
    assert make(time)(callee.get).__name__ == "get"
    assert asyncio.iscoroutinefunction(make(time)(callee.get_async))
