"""Gathering calls: what goes together and when, and that nobody is hurt by another."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from random import Random

import pytest

from headgate.resilience import CallTimedOut, DeadlineExceeded, deadline
from headgate.resilience.batcher import (
    Batcher,
    BatcherClosed,
    BatcherFull,
    BatchFailed,
    BatchRules,
    BatchSize,
    batched,
)
from tests.resilience.virtual import cancel_at_each_step, cancelled_at


class Callee:
    """A handler that notes what it gets, and takes its time."""

    def __init__(self, takes_s: float = 1.0, answer=None) -> None:
        self.batches: list[list] = []
        self.cancelled = 0
        self.running = 0
        self.most = 0
        self.takes_s = takes_s
        self.answer = answer or (lambda keys: [key * 10 for key in keys])

    async def __call__(self, keys):
        self.batches.append(keys)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.takes_s:
                await asyncio.sleep(self.takes_s)
            return self.answer(keys)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def make(time, callee, *, name="users", coalesce=True, on_event=None, **rules) -> Batcher:
    return Batcher(
        callee,
        BatchRules(**rules),
        name=name,
        coalesce=coalesce,
        on_event=on_event,
        clock=time.clock,
    )


def loads(batcher, *keys) -> list[asyncio.Task]:
    loop = asyncio.get_running_loop()
    return [loop.create_task(batcher.load(key)) for key in keys]


async def results(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)


def is_empty(batcher) -> bool:
    seen = batcher.snapshot()
    return (seen.callers, seen.waiting, seen.running) == (0, 0, 0)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


# ---- what goes together


def test_what_is_asked_for_in_one_turn_goes_together(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee)
        assert await results(loads(batcher, 1, 2, 3)) == [10, 20, 30]
        assert callee.batches == [[1, 2, 3]]
        assert is_empty(batcher)

    time.run(main())


def test_a_single_caller_does_not_wait_for_others(time):
    async def main():
        batcher = make(time, Callee(takes_s=0.0), max_wait_s=60.0)
        before = time.now
        assert await batcher.load(1) == 10
        assert time.now == before

    time.run(main())


def test_the_same_key_is_asked_for_once_in_a_batch(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee)
        assert await results(loads(batcher, 1, 2, 1, 1)) == [10, 20, 10, 10]
        assert callee.batches == [[1, 2]]
        assert batcher.snapshot().coalesced == 2

    time.run(main())


def test_a_key_that_is_already_under_way_is_asked_for_again(time):
    """What was read before somebody asked may be out of date for him."""

    async def main():
        callee = Callee()
        batcher = make(time, callee, max_wait_s=0.0)
        first = loads(batcher, 1)
        await asyncio.sleep(0.5)
        await results(first + loads(batcher, 1))
        assert callee.batches == [[1], [1]]

    time.run(main())


def test_without_coalescing_each_call_counts_and_keys_need_no_hash(time):
    async def main():
        callee = Callee(answer=lambda keys: [len(key) for key in keys])
        batcher = make(time, callee, coalesce=False)
        assert await results(loads(batcher, [1], [1], [1, 2])) == [1, 1, 2]
        assert callee.batches == [[[1], [1], [1, 2]]]

    time.run(main())


def test_a_batch_holds_so_many_at_most(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee, max_size=3, max_batches=10)
        await results(loads(batcher, *range(8)))
        assert callee.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]

    time.run(main())


# ---- when


def test_a_full_batch_goes_at_once(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee, max_size=2, max_wait_s=60.0)
        first = loads(batcher, 1)
        await turns()
        rest = loads(batcher, 2, 3)
        await turns(1)
        assert callee.batches == [[1]]
        await turns(1)
        assert callee.batches == [[1], [2, 3]]
        await results(first + rest)

    time.run(main())


def test_beside_another_batch_items_wait_for_more_but_not_for_long(time):
    async def main():
        callee = Callee(takes_s=9.0)
        batcher = make(time, callee, max_wait_s=1.0)
        begun = time.now
        tasks = loads(batcher, 1)
        for key in range(2, 12):
            await asyncio.sleep(0.15)
            tasks += loads(batcher, key)
        assert callee.batches[:2] == [[1], [2, 3, 4, 5, 6, 7, 8]]
        await results(tasks)
        assert time.now == pytest.approx(begun + 0.15 + 1.0 + 1.05 + 9.0, abs=0.3)

    time.run(main())


def test_when_items_come_so_slowly_that_none_is_to_be_expected_nothing_waits(time):
    async def main():
        callee = Callee(takes_s=1000.0)
        batcher = make(time, callee, max_wait_s=1.0, max_batches=100)
        tasks = []
        for key in range(30):
            tasks += loads(batcher, key)
            await turns()
            if key > 20:
                assert callee.batches[-1] == [key]  # gone before the clock has moved
            await asyncio.sleep(5.0)
        await results(tasks)

    time.run(main())


def test_after_a_quiet_night_a_rush_is_gathered_again(time):
    async def main():
        callee = Callee(takes_s=60.0)
        batcher = make(time, callee, max_wait_s=1.0, max_batches=100)
        await results(loads(batcher, 0))
        await asyncio.sleep(40_000.0)
        tasks = []
        for key in range(1, 101):
            tasks += loads(batcher, key)
            await asyncio.sleep(0.01)
        assert len(callee.batches) < 30
        await results(tasks)

    time.run(main())


def test_so_many_batches_at_once_and_what_waits_goes_when_one_has_ended(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee, max_batches=2, max_size=10, max_wait_s=60.0)
        tasks = loads(batcher, 0)
        await turns()
        tasks += loads(batcher, *range(1, 11))
        await turns()
        tasks += loads(batcher, *range(11, 16))
        begun = time.now
        await results(tasks)
        assert callee.batches == [[0], list(range(1, 11)), list(range(11, 16))]
        assert callee.most == 2
        assert time.now == begun + 2.0

    time.run(main())


def test_what_waits_for_a_place_has_waited_enough(time):
    async def handler(keys):
        await asyncio.sleep(max(keys))
        return keys

    async def main():
        batcher = make(time, handler, max_batches=2, max_size=2, max_wait_s=60.0)
        begun = time.now
        long = loads(batcher, 50.0, 50.0)
        await turns()
        short = loads(batcher, 1.0, 2.0)  # full: goes beside it
        await turns()
        (waits,) = loads(batcher, 3.0)
        assert await waits == 3.0
        assert time.now == begun + 2.0 + 3.0
        await results(long + short)

    time.run(main())


def test_the_slower_the_handler_the_larger_the_batches(time):
    def mean_size(takes_s: float) -> float:
        async def main():
            callee = Callee(takes_s=takes_s)
            batcher = make(time, callee, max_batches=1, max_wait_s=0.01)
            tasks = []
            for key in range(300):
                tasks += loads(batcher, key)
                await asyncio.sleep(0.01)
            await results(tasks)
            return 300 / len(callee.batches)

        return time.run(main())

    assert mean_size(0.001) <= 1.1
    assert 8 <= mean_size(0.1) <= 12
    assert mean_size(0.5) > 30


def test_the_next_round_of_those_just_answered_goes_together(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee, max_batches=1)

        async def caller(key):
            await batcher.load(key)
            await batcher.load(key + 100)

        await asyncio.gather(*(caller(key) for key in range(5)))
        assert callee.batches == [[0, 1, 2, 3, 4], [100, 101, 102, 103, 104]]

    time.run(main())


# ---- the size


@pytest.mark.parametrize(
    ("steps", "limit"),
    [
        ([], 25),
        ([(25, 0.1)], 27),  # full and quick
        ([(10, 0.1)], 25),  # not full: it shows nothing
        ([(25, 0.9)], 20),
        ([(10, 0.9)], 8),  # ten were too many already
        ([(25, 0.9)] * 30, 1),
        ([(100, 0.1)] * 30, 100),
    ],
)
def test_the_size_follows_the_target(steps, limit):
    size = BatchSize(100, 0.5)
    for items, took_s in steps:
        size.took(items, took_s)
    assert size.limit == limit


def test_from_one_it_grows_again():
    size = BatchSize(100, 0.5)
    for _ in range(50):
        size.took(size.limit, 0.9)
    for _ in range(100):
        size.took(size.limit, 0.1)
    assert size.limit == 100


def test_without_a_target_the_size_stays():
    size = BatchSize(100, None)
    size.took(100, 1e9)
    assert size.limit == 100


def test_batches_become_as_large_as_the_target_allows(time):
    async def main():
        async def handler(keys):
            await asyncio.sleep(0.1 * len(keys))  # a tenth of a second each
            return keys

        batcher = make(time, handler, max_batches=1, target_s=1.0)
        tasks = loads(batcher, *range(600))
        await results(tasks)
        assert 6 <= batcher.snapshot().size <= 11

    time.run(main())


# ---- answers and errors


def test_answers_may_come_by_key(time):
    async def main():
        batcher = make(time, Callee(answer=lambda keys: {3: "c", 1: "a"}))
        one, two, three = await results(loads(batcher, 1, 2, 3))
        assert (one, three) == ("a", "c")
        assert isinstance(two, BatchFailed)
        assert str(two) == "users: no answer for 2"

    time.run(main())


@pytest.mark.parametrize("as_dict", [False, True])
def test_an_exception_among_the_answers_goes_to_its_callers_alone(time, as_dict):
    def answer(keys):
        found = [ValueError(key) if key == 2 else key for key in keys]
        return dict(zip(keys, found, strict=True)) if as_dict else found

    async def main():
        batcher = make(time, Callee(answer=answer))
        one, two, also_two, three = await results(loads(batcher, 1, 2, 2, 3))
        assert (one, three) == (1, 3)
        assert isinstance(two, ValueError)
        assert isinstance(also_two, ValueError)

    time.run(main())


def test_a_handler_that_fails_fails_for_all_of_its_batch_and_no_other(time, events):
    async def handler(keys):
        await asyncio.sleep(1.0)
        if 1 in keys:
            raise OSError("gone")
        return keys

    async def main():
        batcher = make(time, handler, max_size=2, on_event=events.append)
        found = await results(loads(batcher, 1, 2, 3, 4))
        assert [type(one) for one in found] == [OSError, OSError, int, int]
        assert [(event.name, event.what) for event in events] == [("users", "failed")]
        assert batcher.snapshot().failed == 1
        assert await batcher.load(5) == 5
        assert is_empty(batcher)

    time.run(main())


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([1], "1 answers for 2 items"),
        ([1, 2, 3], "3 answers for 2 items"),
        (None, "a NoneType, neither a list nor a dict"),
        ("ab", "a str, neither"),
        ({1, 2}, "a set, neither"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_an_error(time, answers, said):
    async def main():
        batcher = make(time, Callee(answer=lambda keys: answers))
        for error in await results(loads(batcher, 1, 2)):
            assert isinstance(error, BatchFailed)
            assert said in str(error)
        assert batcher.snapshot().failed == 1

    time.run(main())


@pytest.mark.parametrize("error", [StopIteration(), asyncio.CancelledError()])
def test_answers_that_would_mislead_a_task_are_wrapped(time, error):
    async def main():
        batcher = make(time, Callee(answer=lambda keys: [error]))
        (found,) = await results(loads(batcher, 1))
        assert isinstance(found, BatchFailed)

    time.run(main())


def test_a_handler_that_says_it_was_cancelled_does_not_cancel_its_callers(time):
    async def handler(keys):
        raise asyncio.CancelledError

    async def main():
        batcher = make(time, handler)
        for error in await results(loads(batcher, 1, 2)):
            assert isinstance(error, BatchFailed)
        assert is_empty(batcher)

    time.run(main())


def test_a_handler_has_its_time(time):
    async def main():
        batcher = make(time, Callee(takes_s=60.0), timeout_s=2.0)
        before = time.now
        for error in await results(loads(batcher, 1, 2)):
            assert isinstance(error, CallTimedOut)
        assert time.now == before + 2.0

    time.run(main())


def test_a_time_out_of_the_handlers_own_stays_what_it_is(time):
    async def handler(keys):
        raise TimeoutError("the database")

    async def main():
        batcher = make(time, handler, timeout_s=2.0)
        (error,) = await results(loads(batcher, 1))
        assert type(error) is TimeoutError

    time.run(main())


# ---- bounds


def test_as_many_callers_wait_as_may(time, events):
    async def main():
        batcher = make(time, Callee(), max_waiting=3, on_event=events.append)
        await batcher.load(0)
        tasks = loads(batcher, 1, 2, 3, 4)
        *answers, refused = await results(tasks)
        assert answers == [10, 20, 30]
        assert isinstance(refused, BatcherFull)
        assert refused.retry_after_s > 0.0
        assert "3 callers wait already" in str(refused)
        assert batcher.snapshot().rejected == 1
        assert [(event.what, event.why) for event in events] == [("rejected", "full")]
        assert await batcher.load(5) == 50

    time.run(main())


def test_callers_of_the_same_key_count_each(time):
    async def main():
        batcher = make(time, Callee(), max_waiting=2)
        found = await results(loads(batcher, 1, 1, 1))
        assert [type(one) for one in found] == [int, int, BatcherFull]

    time.run(main())


# ---- leaving


def test_cancelling_one_caller_at_any_await_hurts_no_other(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee)
        others: list[asyncio.Task] = []

        async def one_of_three():
            others[:] = loads(batcher, 1, 2)  # one of them for the same key
            return await batcher.load(1)

        def after():
            pass

        for step in (1, 2, 3):
            task = asyncio.get_running_loop().create_task(cancelled_at(step, one_of_three()))
            await asyncio.wait((task,))
            assert await results(others) == [10, 20]
            assert is_empty(batcher)
        assert await cancel_at_each_step(one_of_three, after) == 1
        await results(others)

    time.run(main())


@pytest.mark.parametrize("wait_s", [None, 0.0, 0.5])
def test_cancelled_before_it_is_sent_while_it_runs_or_not_at_all(time, wait_s):
    async def main():
        callee = Callee()
        batcher = make(time, callee)
        gone, stays, shares = loads(batcher, 1, 2, 2)
        if wait_s is None:
            await asyncio.sleep(0)  # it has joined and waits
        else:
            await asyncio.sleep(wait_s)
            await turns()
        gone.cancel()
        shares.cancel()
        assert await stays == 20
        assert gone.cancelled()
        assert shares.cancelled()
        assert callee.batches == ([[2]] if wait_s is None else [[1, 2]])
        assert callee.cancelled == 0
        assert is_empty(batcher)

    time.run(main())


def test_an_item_that_all_have_left_is_dropped_before_it_is_sent(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee)
        gone = loads(batcher, 1, 1)
        stays = loads(batcher, 2)
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        assert await results(stays) == [20]
        assert callee.batches == [[2]]
        assert batcher.snapshot().dropped == 1

    time.run(main())


def test_when_all_have_left_before_it_is_sent_no_call_is_made(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee)
        tasks = loads(batcher, 1, 2)
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(5.0)
        assert callee.batches == []
        assert is_empty(batcher)
        assert await batcher.load(3) == 30

    time.run(main())


def test_a_batch_that_all_have_left_is_cancelled(time, events):
    async def main():
        callee = Callee()
        batcher = make(time, callee, on_event=events.append)
        one, two = loads(batcher, 1, 2)
        await asyncio.sleep(0.5)
        one.cancel()
        await turns()
        assert callee.cancelled == 0
        two.cancel()
        await turns()
        assert callee.cancelled == 1
        assert is_empty(batcher)
        assert events == []
        assert await batcher.load(3) == 30

    time.run(main())


def test_cancelled_just_when_its_failure_came_nothing_is_reported_as_unseen(time):
    async def main():
        unseen: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        release = asyncio.Event()

        async def handler(keys):
            await release.wait()
            raise OSError("gone")

        batcher = make(time, handler)
        (task,) = loads(batcher, 1)
        await turns()
        release.set()
        while not batcher.snapshot().failed:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        del task
        await turns()
        assert unseen == []
        assert is_empty(batcher)

    time.run(main())


def test_a_deadline_of_one_caller_is_his_alone(time):
    async def main():
        callee = Callee(takes_s=10.0)
        batcher = make(time, callee)

        async def hurried():
            async with deadline("1s", clock=time.clock):
                return await batcher.load(1)

        found = await asyncio.gather(hurried(), batcher.load(2), return_exceptions=True)
        assert isinstance(found[0], DeadlineExceeded)
        assert found[1] == 20

    time.run(main())


def test_what_callers_carry_in_their_context_does_not_leak(time):
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen = []

    async def handler(keys):
        seen.append(who.get())
        who.set("the handler")
        return keys

    async def main():
        batcher = make(time, handler, max_size=2, max_batches=1)

        async def caller(key):
            who.set(f"caller {key}")
            await batcher.load(key)
            assert who.get() == f"caller {key}"

        await asyncio.gather(*(caller(key) for key in range(9)))
        assert seen == ["nobody"] * 5

    time.run(main())


def test_a_storm_of_callers_that_come_and_go_leaves_nothing_behind(time):
    rng = Random(11)

    async def handler(keys):
        await asyncio.sleep(rng.choice((0.0, 0.01, 0.3)))
        if rng.random() < 0.1:
            raise OSError
        return [OSError() if rng.random() < 0.1 else key for key in keys]

    async def main():
        unseen: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        batcher = make(time, handler, max_size=7, max_batches=3, max_waiting=60, max_wait_s=0.02)
        tasks = []
        for _ in range(2000):
            tasks += loads(batcher, rng.randrange(30))
            if rng.random() < 0.4:
                rng.choice(tasks[-40:]).cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(rng.choice((0.0, 0.0, 0.005)))
        found = await results(tasks)
        kinds = {type(one) for one in found}
        assert kinds == {int, OSError, BatcherFull, asyncio.CancelledError}
        await asyncio.sleep(1.0)
        assert is_empty(batcher)
        assert unseen == []

    time.run(main())


# ---- closing


def test_closing_sends_what_waits_and_waits_for_it(time):
    async def main():
        callee = Callee()
        batcher = make(time, callee, max_batches=1, max_size=2, max_wait_s=60.0)
        tasks = loads(batcher, 1, 2, 3, 4, 5)
        await asyncio.sleep(0)
        await batcher.close()
        assert [task.result() for task in tasks] == [10, 20, 30, 40, 50]
        assert is_empty(batcher)
        with pytest.raises(BatcherClosed, match="closed"):
            await batcher.load(6)
        await batcher.close()

    time.run(main())


def test_closing_can_be_cancelled_and_hurts_nobody(time):
    async def main():
        batcher = make(time, Callee())
        tasks = loads(batcher, 1)
        await turns()
        closing = asyncio.get_running_loop().create_task(batcher.close())
        await asyncio.sleep(0.5)
        closing.cancel()
        assert await results(tasks) == [10]

    time.run(main())


def test_it_can_be_a_context(time):
    async def main():
        async with make(time, Callee()) as batcher:
            tasks = loads(batcher, 1)
            await asyncio.sleep(0)
        assert tasks[0].result() == 10

    time.run(main())


# ---- loops


def test_it_serves_one_event_loop_after_the_other(time):
    callee = Callee(takes_s=100.0)
    batcher = make(time, callee)

    async def left_behind():
        loads(batcher, 1)
        await turns()

    async def main():
        callee.takes_s = 0.0
        return await batcher.load(2)

    time.run(left_behind())  # the runner cancels what is left
    assert time.run(main()) == 20


def test_what_was_left_in_a_loop_that_is_closed_is_forgotten(time):
    callee = Callee(takes_s=100.0)
    batcher = make(time, callee, max_size=1, max_batches=1)
    left: list[asyncio.Task] = []
    tasks: set[asyncio.Task] = set()

    async def left_behind():
        left.extend(loads(batcher, 1, 2))
        await turns()
        tasks.update(batcher._tasks)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(left_behind())
    loop.close()
    callee.takes_s = 0.0
    assert time.run(batcher.load(3)) == 30
    assert is_empty(batcher)
    assert callee.batches == [[1], [3]]
    for task in (*left, *tasks):
        task.get_coro().close()  # as when it is collected
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was meant
    assert is_empty(batcher)


def test_what_is_collected_after_its_loop_was_closed_does_no_harm(time):
    batcher = make(time, Callee())
    left: list[asyncio.Task] = []

    async def left_behind():
        left.extend(loads(batcher, 1))
        await turns()
        left.extend(batcher._tasks)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(left_behind())
    loop.close()
    for task in left:
        task.get_coro().close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert time.run(batcher.load(3)) == 30


def test_two_event_loops_at_once_are_refused(time):
    batcher = make(time, Callee())

    async def inner():
        return await batcher.load(2)

    async def main():
        tasks = loads(batcher, 1)
        await turns()
        with pytest.raises(RuntimeError, match="batcher users is in use by another event loop"):
            await asyncio.to_thread(asyncio.run, inner())
        await results(tasks)

    asyncio.run(asyncio.wait_for(main(), 30))


# ---- making one


def test_a_decorator_makes_one_with_settings_as_text(time):
    @batched(max_size=7, max_wait="20ms", target="1s", timeout="5s", clock=time.clock)
    async def users(ids: list[int]) -> dict[int, str]:
        return {number: f"user {number}" for number in ids}

    assert users.name == "users"
    assert users.rules == BatchRules(max_size=7, max_wait_s=0.02, target_s=1.0, timeout_s=5.0)
    assert time.run(users.load(3)) == "user 3"


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"max_size": 0}, "max_size=0"),
        ({"max_batches": 0}, "max_batches=0"),
        ({"max_waiting": 0}, "max_waiting=0"),
        ({"max_wait_s": -1.0}, "max_wait_s=-1"),
        ({"target_s": 0.0}, "target_s=0"),
        ({"timeout_s": 0.0}, "timeout_s=0"),
        ({"target_s": 5.0, "timeout_s": 5.0}, "target_s=5 is not below timeout_s=5"),
    ],
)
def test_senseless_rules_are_refused_in_words(time, rules, problem):
    with pytest.raises(ValueError, match=f"batcher users: {problem}"):
        make(time, Callee(), **rules)
