"""Rate limits in a service: by key, several at once, in turn."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from headgate.policy.limiter import LimitRules
from headgate.resilience import RateLimited, deadline, limit
from headgate.resilience.keys import key_of
from headgate.resilience.limit import _SWEEP_EVERY, MOST_WAITING
from tests.resilience.virtual import cancel_at_each_step


def make(time, *rates, **settings):
    settings = {
        "clock": time.clock,
        "sleep": time.sleep,
        "sleep_async": time.sleep_async,
        **settings,
    }
    return limit(*rates, **settings)


def test_what_is_over_the_limit_is_refused_and_told_when(time, events):
    bound = make(time, "2/10s", name="search", on_event=events.append)
    assert bound.hit().remaining == 1
    assert bound.hit().remaining == 0
    with pytest.raises(RateLimited) as refused:
        bound.hit()
    assert refused.value.retry_after_s == pytest.approx(5.0)
    assert str(refused.value) == "search: limit reached; come back in 5s"
    assert bound.refused_total == 1
    assert [(event.what, event.after_s) for event in events] == [("rejected", pytest.approx(5.0))]
    time.now += 5.0
    bound.hit()


def test_a_verdict_can_be_had_without_an_exception(time):
    bound = make(time, "1/10s")
    assert bound.peek().allowed
    assert bound.try_hit().allowed
    assert not bound.peek().allowed
    assert not bound.try_hit().allowed
    bound.refund()
    assert bound.try_hit().allowed
    bound.clear()
    assert bound.try_hit().allowed
    assert bound.snapshot()[0].keys == 1


def test_keys_and_costs_are_apart(time):
    bound = make(time, "10/10s")
    bound.hit("ada", 10)
    bound.hit("bob", 9)
    with pytest.raises(RateLimited):
        bound.hit("ada")
    bound.hit("bob")


def test_all_rates_hold_or_nothing_is_taken(time):
    bound = make(time, "2/s", "3/min")
    assert [bound.try_hit().allowed for _ in range(3)] == [True, True, False]
    time.now += 1.0
    assert bound.try_hit().allowed
    time.now += 1.0
    assert not bound.try_hit().allowed
    assert bound.peek().retry_after_s == pytest.approx(18.0)
    # What the minute refused has not been taken from the second.
    assert bound._limiters[0].peek("", time.now).remaining == 2


@pytest.mark.parametrize(
    "algorithm", ["gcra", "token_bucket", "sliding_window", "sliding_log", "fixed_window"]
)
def test_every_algorithm_can_be_had_by_name(time, algorithm):
    bound = make(time, "3/10s", algorithm=algorithm)
    assert [bound.try_hit().allowed for _ in range(4)] == [True, True, True, False]


def test_concurrency_gives_its_seats_back(time):
    bound = make(time, "1/s", algorithm="concurrency", key="{user}")

    @bound
    def work(user, deeper=False):
        if deeper:
            work(user)
        return user

    @bound
    async def work_async(user, deeper=False):
        if deeper:
            await work_async(user)
        return user

    async def main():
        for _ in range(3):
            assert work("ada") == "ada"
            assert await work_async("ada") == "ada"
            with pytest.raises(RateLimited):
                work("ada", deeper=True)
            with pytest.raises(RateLimited):
                await work_async("ada", deeper=True)

    time.run(main())
    assert len(bound._first) == 0


def test_a_concurrency_seat_is_given_back_wherever_it_is_cancelled(time):
    bound = make(time, "1/s", algorithm="concurrency")

    async def main():
        steps = await cancel_at_each_step(
            lambda: bound(asyncio.sleep)(1.0), lambda: bound.peek().allowed
        )
        assert steps == 1
        assert bound.peek().remaining == 1

    time.run(main())


# ---- keys from arguments


def call(key, function, *args, **kwargs):
    return key_of(key, function)(args, kwargs)


def plain(user, query="all", *more, page=1, **options):
    return None


USER = SimpleNamespace(id=7, team=SimpleNamespace(name="red"))


@pytest.mark.parametrize(
    ("key", "args", "kwargs", "made"),
    [
        (None, ("ada",), {}, ""),
        ("all", ("ada",), {}, "all"),
        ("{user}", ("ada",), {}, "ada"),
        ("{user}", (), {"user": "ada"}, "ada"),
        ("{user}", (7,), {}, 7),
        ("{user}", (2.5,), {}, "2.5"),
        ("{query}", ("ada",), {}, "all"),
        ("{query}", ("ada", "some"), {}, "some"),
        ("{page}", ("ada", "x", "y", "z"), {"page": 3}, 3),
        ("{user.id}", (USER,), {}, 7),
        ("{user.team.name}", (USER,), {}, "red"),
        ("user:{user}", ("ada",), {}, "user:ada"),
        ("{user}:{page}!", ("ada",), {}, "ada:1!"),
        ("{{{user}}}", ("ada",), {}, "{ada}"),
        (lambda user, **rest: (user, rest), ("ada",), {"page": 2}, ("ada", {"page": 2})),
    ],
)
def test_keys_are_made_from_arguments(key, args, kwargs, made):
    assert call(key, plain, *args, **kwargs) == made


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("{usr}", "plain has no parameter usr; it has: user, query, page"),
        ("{more}", "has no parameter more"),
        ("{user!r}", "plain fields"),
        ("{user:>5}", "plain fields"),
        ("{user[0]}", "plain fields"),
        ("{user.x[0]}", "plain fields"),
        ("{}", "plain fields"),
        ("{0}", "plain fields"),
    ],
)
def test_a_key_that_cannot_be_made_is_refused_when_decorating(key, says):
    with pytest.raises(ValueError) as refused:
        limit("1/s", key=key)(plain)
    assert says in str(refused.value)


def test_a_method_has_its_self_as_a_parameter_too(time):
    class Mailer:
        @make(time, "1/min", key="{to}")
        def send(self, to):
            return to

    mailer = Mailer()
    mailer.send("ada")
    mailer.send("bob")
    with pytest.raises(RateLimited):
        mailer.send("ada")


def test_costs_are_made_from_arguments_too(time):
    @make(time, "10/min", key="{user}", cost=lambda user, many: many)
    def fetch(user, many):
        return many

    assert fetch("ada", 7) == 7
    with pytest.raises(RateLimited):
        fetch("ada", 7)
    assert fetch("bob", 7) == 7


def test_both_kinds_of_function_are_limited(time):
    bound = make(time, "2/min")

    @bound
    def work():
        return 1

    @bound
    async def work_async():
        return 2

    async def main():
        assert work() == 1
        assert await work_async() == 2
        with pytest.raises(RateLimited):
            work()
        with pytest.raises(RateLimited):
            await work_async()

    time.run(main())
    assert asyncio.iscoroutinefunction(work_async)


# ---- waiting


def test_plain_code_waits_for_its_turn(time):
    bound = make(time, "1/s", wait=True)

    @bound
    def work():
        return time.now

    start = time.now
    assert [work() - start for _ in range(4)] == pytest.approx([0.0, 1.0, 2.0, 3.0])


def test_tasks_wait_in_the_order_in_which_they_came(time):
    bound = make(time, "2/s", burst=1, wait=True)
    done = []

    @bound
    async def work(number):
        done.append((number, time.now))

    async def main():
        start = time.now
        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(work(number))
        assert [number for number, _ in done] == list(range(6))
        assert [at - start for _, at in done] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
        # Only the first in line sleeps.
        assert len(time.slept) == 5

    time.run(main())
    assert not bound._lines


def test_who_comes_while_others_wait_goes_to_the_end(time):
    bound = make(time, "1/s", wait=True)
    done = []

    async def work(number):
        await bound.wait_async()
        done.append(number)

    async def main():
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(work(number))
            await asyncio.sleep(1.0)
            group.create_task(work(3))

    time.run(main())
    assert done == [0, 1, 2, 3]


def test_keys_wait_apart(time):
    bound = make(time, "1/s", wait=True)

    async def main():
        start = time.now
        await asyncio.gather(*(bound.wait_async(key) for key in ("a", "a", "b", "b", "c")))
        assert time.now - start == pytest.approx(1.0)

    time.run(main())


def test_a_wait_has_a_longest_time(time):
    bound = make(time, "1/s", wait="2500ms")

    async def main():
        got = await asyncio.gather(*(bound.wait_async() for _ in range(6)), return_exceptions=True)
        assert [isinstance(one, RateLimited) for one in got] == [False] * 3 + [True] * 3
        assert not bound._lines

    time.run(main())
    with pytest.raises(RateLimited):
        bound.wait(most="500ms")
    bound.wait(most="1s")


def test_who_cannot_be_in_time_is_told_at_once(time):
    bound = make(time, "1/min", wait="10s")
    bound.hit()
    start = time.now
    with pytest.raises(RateLimited) as refused:
        bound.wait()
    assert refused.value.retry_after_s == pytest.approx(60.0)

    async def main():
        with pytest.raises(RateLimited):
            await bound.wait_async()

    time.run(main())
    assert time.now == start


def test_a_wait_of_no_time_is_none(time):
    bound = make(time, "1/min", wait="0s")
    work = bound(int)
    work()
    with pytest.raises(RateLimited):
        work()
    assert time.slept == []


def test_a_wait_is_bounded_by_the_deadline(time):
    bound = make(time, "1/min", wait=True)
    bound.hit()
    with deadline("5s", clock=time.clock), pytest.raises(RateLimited):
        bound.wait()
    assert time.slept == []


def test_what_never_fits_is_refused_at_once(time):
    bound = make(time, "5/s", wait=True)
    with pytest.raises(RateLimited):
        bound.wait("", 6)


def test_a_line_has_an_end(time):
    bound = make(time, "1/s", wait=True)

    async def main():
        bound.hit()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(bound.wait_async()) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited, match="too many wait"):
            await bound.wait_async()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert not bound._lines

    time.run(main())


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_whoever_is_cancelled_in_line_holds_nobody_up(time, cancelled):
    bound = make(time, "1/s", wait=True)

    async def main():
        loop = asyncio.get_running_loop()
        bound.hit()
        start = time.now
        tasks = [loop.create_task(bound.wait_async()) for _ in range(3)]
        await asyncio.sleep(0.5)
        tasks[cancelled].cancel()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [at == cancelled for at in range(3)]
        assert time.now - start == pytest.approx(2.0)
        assert not bound._lines

    time.run(main())


def test_a_wait_can_be_cancelled_at_each_await(time):
    bound = make(time, "1/s", wait=True)

    def after():
        assert not bound._lines
        bound.try_hit()

    async def main():
        bound.hit()
        assert await cancel_at_each_step(bound.wait_async, after) == 1

    time.run(main())


def test_threads_wait_in_a_line_too():
    bound = limit("200/s", burst=1, wait=True)
    done = []

    def work():
        bound.wait()
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert not bound._lines


# ---- the rest


@pytest.mark.parametrize("how", ["try_hit", "hit", "decorated", "decorated with a cost"])
def test_idle_keys_are_swept_while_others_are_hit(time, how):
    cost = (lambda number: 1) if how.endswith("cost") else 1
    bound = make(time, "1/s", key="{number}", cost=cost)
    hit = {"try_hit": bound.try_hit, "hit": bound.hit}.get(how) or bound(lambda number: None)
    for number in range(20 * _SWEEP_EVERY):
        hit(number)
        time.now += 0.01  # so a hundred keys count at any time
    assert bound.snapshot()[0].keys < 4 * _SWEEP_EVERY


def test_settings_may_be_written_as_in_the_file():
    bound = limit("1000/15min", burst=20, algorithm="token_bucket", max_keys=10)
    assert bound.rules == (
        LimitRules(limit=1000, period_s=900.0, burst=20, algorithm="token_bucket", max_keys=10),
    )
    rules = LimitRules(limit=5)
    assert limit(rules=rules).rules == (rules,)


@pytest.mark.parametrize(
    ("rates", "settings", "says"),
    [
        ((), {}, "no rate is given"),
        (("often",), {}, "is not a rate"),
        (("0.5/s",), {}, "write 1/2s"),
        (("0/s",), {}, "limit=0"),
        (("1/s",), {"algorithm": "fixed_window", "burst": 5}, "burst=5 has no meaning"),
        (("1/s", "2/s"), {"algorithm": "concurrency"}, "stands alone"),
        (("1/s",), {"algorithm": "concurrency", "wait": True}, "wait in a bulkhead"),
        (("1/s",), {"wait": "soon"}, "wait: "),
    ],
)
def test_senseless_settings_are_refused_in_words(rates, settings, says):
    with pytest.raises(ValueError) as refused:
        limit(*rates, **settings)
    assert says in str(refused.value)


def test_generators_are_refused():
    def some():
        yield 1

    with pytest.raises(TypeError, match="it returns before it runs"):
        limit("1/s")(some)
