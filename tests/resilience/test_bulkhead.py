"""A bound on calls at once, with a line of tasks and threads before it."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from headgate.policy.adaptive import AdaptiveRules
from headgate.policy.bulkhead import BulkheadRules
from headgate.resilience import BulkheadFull, CallTimedOut, bulkhead, deadline
from tests.resilience.virtual import cancel_at_each_step


def make(time, **settings):
    settings = {"limit": 2, "clock": time.clock, **settings}
    return bulkhead("reports", **settings)


async def work(seconds=1.0, error=None):
    await asyncio.sleep(seconds)
    if error is not None:
        raise error
    return seconds


async def decorated(bound, *args):
    return await bound(work)(*args)


async def called(bound, *args):
    return await bound.call_async(work, *args)


async def entered(bound, *args):
    async with bound:
        return await work(*args)


async def by_hand(bound, *args):
    seat = await bound.enter_async()
    try:
        return await work(*args)
    finally:
        bound.leave(seat)


every_way = pytest.mark.parametrize("way", [decorated, called, entered, by_hand])


@every_way
def test_no_more_than_the_limit_are_under_way(way, time, events):
    async def main():
        bound = make(time, on_event=events.append)
        got = await asyncio.gather(*(way(bound) for _ in range(4)), return_exceptions=True)
        assert [type(one) for one in got] == [float, float, BulkheadFull, BulkheadFull]
        assert bound.snapshot().in_flight == 0
        assert await way(bound) == 1.0

    time.run(main())
    assert [(event.what, event.why) for event in events] == [("rejected", "full")] * 2


@every_way
def test_who_is_in_line_is_served_in_order(way, time):
    async def main():
        bound = make(time, limit=1, queue=10, queue_timeout="60s")
        done = []

        async def one(number):
            await way(bound)
            done.append(number)

        start = time.now
        await asyncio.gather(*map(one, range(5)))
        assert done == list(range(5))
        assert time.now - start == pytest.approx(5.0)
        assert bound.snapshot().mean_s == pytest.approx(1.0)

    time.run(main())


@every_way
def test_a_wait_in_line_has_an_end(way, time):
    async def main():
        bound = make(time, limit=1, queue=5, queue_timeout="1500ms")
        got = await asyncio.gather(*(way(bound) for _ in range(4)), return_exceptions=True)
        refused = [one for one in got if isinstance(one, BulkheadFull)]
        assert [one.reason for one in refused] == ["queue_timeout"] * 2
        assert all(one.retry_after_s > 0.0 for one in refused)
        assert got[:2] == [1.0, 1.0]
        found = bound.snapshot()
        assert (found.waiting, found.in_flight, found.timed_out) == (0, 0, 2)

    time.run(main())


@every_way
def test_a_wait_in_line_is_bounded_by_the_deadline(way, time):
    async def main():
        bound = make(time, limit=1, queue=5, queue_timeout="60s")
        holder = asyncio.get_running_loop().create_task(way(bound, 10.0))
        await asyncio.sleep(0)
        with deadline("2s", clock=time.clock), pytest.raises(BulkheadFull, match="deadline"):
            await way(bound)
        assert bound.snapshot().waiting == 0
        await holder

    time.run(main())


@every_way
@pytest.mark.parametrize("error", [ValueError(), TimeoutError(), asyncio.CancelledError()])
def test_however_a_call_ends_its_seat_is_given_back(way, time, error):
    async def main():
        bound = make(time, limit=1)
        for _ in range(5):
            with pytest.raises(type(error)):
                await way(bound, 0.1, error)
        assert bound.snapshot().in_flight == 0

    time.run(main())


@every_way
def test_no_seat_is_lost_wherever_a_call_is_cancelled(way, time):
    async def main():
        bound = make(time, limit=1, queue=1, queue_timeout="60s")
        loop = asyncio.get_running_loop()
        holders: list[asyncio.Future[None]] = []

        async def waits_and_works():
            await way(bound)

        def after():
            found = bound.snapshot()
            assert found.waiting == 0
            assert found.in_flight == sum(not holder.done() for holder in holders)
            holders.clear()
            bound._core.reset(time.now)
            seat = bound.enter()  # so the next one has to wait in line
            loop.call_later(1.0, bound.leave, seat)
            holders.append(loop.create_future())
            loop.call_later(1.0, holders[0].set_result, None)

        after()
        assert await cancel_at_each_step(waits_and_works, after) == 2

    time.run(main())


def test_a_seat_given_to_one_who_is_cancelled_at_that_moment_goes_on(time):
    async def main():
        bound = make(time, limit=1, queue=5, queue_timeout="60s")
        loop = asyncio.get_running_loop()
        seat = bound.enter()
        first = loop.create_task(bound.enter_async())
        second = loop.create_task(bound.enter_async())
        await asyncio.sleep(0)
        bound.leave(seat)
        first.cancel()  # it has its seat and has not run yet
        assert (await second).in_flight == 1
        assert first.cancelled() or await asyncio.wait((first,))
        found = bound.snapshot()
        assert (found.in_flight, found.waiting, found.late) == (1, 0, 0)

    time.run(main())


def test_the_important_push_out_the_unimportant(time):
    async def main():
        bound = make(time, limit=1, queue=1, queue_timeout="60s")
        loop = asyncio.get_running_loop()
        seat = bound.enter()
        low = loop.create_task(bound.enter_async("low"))
        await asyncio.sleep(0)
        high = loop.create_task(bound.enter_async("high"))
        with pytest.raises(BulkheadFull, match="evicted"):
            await low
        bound.leave(seat)
        await high

    time.run(main())


def test_a_part_may_be_kept_for_the_important(time):
    bound = make(time, limit=2, shares=(1.0, 1.0, 0.5, 0.5, 0.5))
    bound.enter()
    with pytest.raises(BulkheadFull):
        bound.enter()
    bound.enter("critical")
    background = bulkhead("b", limit=2, priority="background", shares=(1.0, 1.0, 1.0, 1.0, 0.5))
    background.enter()
    with pytest.raises(BulkheadFull):
        background.enter()


def test_plain_functions_are_bounded_too(time):
    bound = make(time, limit=1)

    @bound
    def outer(deeper):
        if deeper:
            outer(False)
        return 3

    for _ in range(3):
        assert outer(False) == 3
        with pytest.raises(BulkheadFull):
            outer(True)
        with pytest.raises(BulkheadFull), bound, bound:
            raise AssertionError("not reached")
        assert bound.call(int, "3") == 3
    assert bound.snapshot().in_flight == 0


def test_threads_and_tasks_stand_in_one_line():
    bound = bulkhead("reports", limit=3, queue=100, queue_timeout="30s")
    most = [0]
    lock = threading.Lock()
    under_way = [0]

    def enter():
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])

    def leave():
        with lock:
            under_way[0] -= 1

    def thread(seed):
        rng = random.Random(seed)
        for _ in range(50):
            with bound:
                enter()
                for _ in range(rng.randrange(200)):
                    pass
                leave()

    async def task():
        for _ in range(50):
            async with bound:
                enter()
                await asyncio.sleep(0)
                leave()

    def loop():
        async def main():
            await asyncio.gather(*(task() for _ in range(5)))

        asyncio.run(main())

    threads = [threading.Thread(target=thread, args=(seed,)) for seed in range(4)]
    threads += [threading.Thread(target=loop) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = bound.snapshot()
    assert (found.in_flight, found.waiting, found.late) == (0, 0, 0)
    assert found.admitted == 4 * 50 + 2 * 5 * 50
    assert most[0] <= 3


def test_a_thread_hands_its_seat_to_a_task_of_another_threads_loop():
    bound = bulkhead("reports", limit=1, queue=1, queue_timeout="50s")
    seat = bound.enter()

    async def main():
        async with bound:
            return "seated"

    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(asyncio.run(main())))
    thread.start()
    while not bound.snapshot().waiting:
        pass
    bound.leave(seat)
    thread.join(10.0)
    assert got == ["seated"]


def test_a_task_hands_its_seat_to_a_thread():
    bound = bulkhead("reports", limit=1, queue=1, queue_timeout="50s")
    got: list[str] = []

    def work():
        with bound:
            got.append("seated")

    thread = threading.Thread(target=work)

    async def main():
        async with bound:
            thread.start()
            while not bound.snapshot().waiting:
                await asyncio.sleep(0)
            assert got == []

    asyncio.run(main())
    thread.join(10.0)
    assert got == ["seated"]


def test_a_waiter_whose_loop_is_closed_is_no_trouble():
    bound = bulkhead("reports", limit=1, queue=1, queue_timeout="50s")
    seat = bound.enter()
    waiting = bound.enter_async()

    def work():
        loop = asyncio.new_event_loop()
        task = loop.create_task(waiting)
        loop.call_soon(loop.call_soon, loop.stop)
        loop.run_forever()
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined] # on purpose

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10.0)
    assert bound.snapshot().waiting == 1
    bound.leave(seat)
    waiting.close()  # it has its seat and nobody to run it
    found = bound.snapshot()
    assert (found.in_flight, found.waiting) == (0, 0)


def test_a_thread_waits_for_no_longer_than_it_may():
    bound = bulkhead("reports", limit=1, queue=1, queue_timeout="20ms")
    with bound, pytest.raises(BulkheadFull, match="queue_timeout"):
        bound.enter()
    assert bound.snapshot().waiting == 0


def test_a_larger_limit_lets_in_who_waits(time):
    async def main():
        bound = make(time, limit=1, queue=5, queue_timeout="60s")
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(bound.enter_async()) for _ in range(3)]
        await asyncio.sleep(0)
        bound.set_limit(2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [task.done() for task in tasks] == [True, True, False]
        bound.take_rules(BulkheadRules(limit=3, queue=5, queue_timeout_s=60.0))
        await tasks[2]

    time.run(main())


def test_the_limit_may_be_learnt(time):
    rules = AdaptiveRules(algorithm="aimd", start=10, target_s=0.5, window_s=1.0)
    bound = make(time, adaptive=rules)
    assert bound.snapshot().limit == 10

    async def main():
        for _ in range(10):
            await asyncio.gather(
                *(decorated(bound, 1.0) for _ in range(10)), return_exceptions=True
            )

    time.run(main())
    assert bound.snapshot().limit < 10
    assert make(time, adaptive=True).snapshot().limit == AdaptiveRules().start


@pytest.mark.parametrize(
    ("error", "learns"),
    [
        (None, True),
        (ValueError(), True),
        (CallTimedOut("a", 1.0), True),
        (BulkheadFull("b", "full", 0.0), False),
    ],
)
def test_a_call_refused_further_in_says_nothing_of_the_latency(time, error, learns):
    bound = make(time)

    async def main():
        try:
            await decorated(bound, 1.0, error)
        except Exception:
            pass

    time.run(main())
    assert (bound.snapshot().mean_s > 0.0) is learns


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"limit": 0}, "bulkhead reports: limit=0"),
        ({"queue": -1}, "queue=-1"),
        ({"queue": 1, "queue_timeout": 0}, "queue_timeout_s=0"),
        ({"queue_timeout": "soon"}, "queue_timeout: "),
    ],
)
def test_senseless_settings_are_refused_in_words(time, settings, says):
    with pytest.raises(ValueError) as refused:
        make(time, **settings)
    assert says in str(refused.value)


def test_what_is_no_call_is_refused(time):
    def some():
        yield 1

    with pytest.raises(TypeError, match="it returns before it runs"):
        make(time)(some)
    with pytest.raises(TypeError, match="use call_async"):
        make(time).call(work)
