"""Lending resources: bounded, in order, and none is ever lost."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from random import Random

import pytest

from headgate.resilience import CallTimedOut, DeadlineExceeded, deadline
from headgate.resilience.pool import (
    Pool,
    PoolClosed,
    PoolFull,
    PoolOpenFailed,
    PoolRules,
    PoolTimedOut,
)
from tests.resilience.virtual import cancel_at_each_step


class Thing:
    def __init__(self, number: int) -> None:
        self.number = number
        self.is_open = True
        self.is_lent = False


class World:
    """What a pool opens, checks and closes; it fails where it is told to."""

    def __init__(self, time, events=None, **settings) -> None:
        self.time = time
        self.things: list[Thing] = []
        self.checked: list[int] = []
        self.open_s = 1.0
        self.check_s = 0.5
        self.close_s = 0.25
        self.gate: asyncio.Event | None = None
        """Opening and checking wait for it in place of the clock."""
        self.fail_open: BaseException | None = None
        self.broken: set[int] = set()
        self.at_once = 0
        self.most_at_once = 0
        settings.setdefault("lifetime_jitter", 0.0)
        settings.setdefault("acquire_timeout_s", 60.0)
        self.pool = Pool(
            self.open,
            close=self.close,
            check=self.check,
            name="db",
            rng=Random(1),
            on_event=None if events is None else events.append,
            clock=time.clock,
            **settings,
        )

    async def open(self) -> Thing:
        await (self.gate.wait() if self.gate else asyncio.sleep(self.open_s))
        if self.fail_open is not None:
            raise self.fail_open
        thing = Thing(len(self.things))
        self.things.append(thing)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        return thing

    async def check(self, thing: Thing) -> bool:
        assert thing.is_open
        assert not thing.is_lent
        self.checked.append(thing.number)
        await (self.gate.wait() if self.gate else asyncio.sleep(self.check_s))
        return thing.number not in self.broken

    async def close(self, thing: Thing) -> None:
        assert thing.is_open
        thing.is_open = False
        self.at_once -= 1
        await asyncio.sleep(self.close_s)

    async def use(self, seconds: float = 1.0, error: BaseException | None = None) -> int:
        async with self.pool.lend() as thing:
            assert thing.is_open
            assert not thing.is_lent
            thing.is_lent = True
            try:
                await asyncio.sleep(seconds)
            finally:
                thing.is_lent = False
            if error is not None:
                raise error
            return thing.number

    def start(self, *seconds: float) -> list[asyncio.Task[int]]:
        loop = asyncio.get_running_loop()
        return [loop.create_task(self.use(each)) for each in seconds]

    def counts(self) -> tuple[int, int, int]:
        """Idle, lent, waiting, with nothing in between."""
        seen = self.pool.snapshot()
        assert seen.opening == seen.checking == seen.closing == 0
        assert seen.size == seen.idle + seen.lent == self.at_once
        return seen.idle, seen.lent, seen.waiting


async def results(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


# ---- lending


def test_a_resource_is_opened_once_and_lent_again(time):
    async def main():
        world = World(time)
        assert [await world.use() for _ in range(3)] == [0, 0, 0]
        assert world.counts() == (1, 0, 0)
        seen = world.pool.snapshot()
        assert (seen.opened, seen.reused) == (1, 2)

    time.run(main())


def test_there_are_never_more_than_the_most(time):
    async def main():
        world = World(time, max_size=3)
        await results(world.start(*[1.0] * 10))
        assert world.most_at_once == 3
        assert world.counts() == (3, 0, 0)

    time.run(main())


def test_the_newest_is_lent_first_so_the_others_grow_old(time):
    async def main():
        world = World(time, max_size=3)
        await results(world.start(1.0, 2.0, 3.0))
        assert [await world.use() for _ in range(3)] == [2, 2, 2]

    time.run(main())


def test_the_line_is_served_in_order(time):
    async def main():
        world = World(time, max_size=1)
        order: list[int] = []

        async def caller(number):
            async with world.pool.lend():
                order.append(number)
                await asyncio.sleep(1.0)

        await asyncio.gather(*(caller(number) for number in range(6)))
        assert order == list(range(6))

    time.run(main())


def test_a_newcomer_does_not_pass_the_line(time):
    async def main():
        world = World(time, max_size=1)
        held = await world.pool.acquire()
        waiting = world.start(1.0)
        await turns()
        world.pool.release(held)
        newcomer = world.start(1.0)
        begun = time.now
        await results(waiting)
        assert time.now == begun + 1.0
        await results(newcomer)
        assert time.now == begun + 2.0

    time.run(main())


def test_what_becomes_free_first_serves_the_first_in_line(time):
    """Not the one for whom it is being opened."""

    async def main():
        world = World(time, max_size=2, open_timeout_s=60.0)
        world.open_s = 10.0
        first = world.start(1.0)
        await asyncio.sleep(9.5)
        second = world.start(1.0)  # its own will be there at 19.5
        await results(first + second)
        assert [task.result() for task in first + second] == [0, 0]
        assert time.now == 1000.0 + 12.0
        await asyncio.sleep(10.0)
        assert world.counts() == (2, 0, 0)

    time.run(main())


def test_a_lease_is_given_back_once(time):
    async def main():
        world = World(time, max_size=2)
        lease = await world.pool.acquire()
        other = await world.pool.acquire()
        world.pool.release(lease)
        world.pool.release(lease)
        assert world.counts() == (1, 1, 0)
        assert world.pool.snapshot().late == 1
        world.pool.release(other)
        assert world.counts() == (2, 0, 0)

    time.run(main())


def test_a_loan_is_entered_once(time):
    async def main():
        loan = World(time).pool.lend()
        async with loan:
            with pytest.raises(RuntimeError, match="entered once"):
                async with loan:
                    pass

    time.run(main())


def test_how_long_the_longest_is_lent_shows(time):
    async def main():
        world = World(time)
        await world.pool.acquire()
        await asyncio.sleep(3.0)
        await world.pool.acquire()
        assert world.pool.snapshot().lent_longest_s == 4.0

    time.run(main())


# ---- bounds on waiting


def test_the_line_has_an_end(time, events):
    async def main():
        world = World(time, events, max_size=2, max_waiting=3)
        found = await results(world.start(*[1.0] * 7))
        assert [type(one) for one in found] == [int] * 5 + [PoolFull] * 2
        assert "3 wait already" in str(found[-1])
        assert world.pool.snapshot().rejected == 2
        assert {(event.name, event.what) for event in events} == {("db", "rejected")}

    time.run(main())


def test_without_a_line_there_is_still_what_can_be_opened(time):
    async def main():
        world = World(time, max_size=3, max_waiting=0)
        found = await results(world.start(*[1.0] * 5))
        assert [type(one) for one in found] == [int] * 3 + [PoolFull] * 2

    time.run(main())


def test_waiting_ends_with_its_time(time, events):
    async def main():
        world = World(time, events, max_size=1, acquire_timeout_s=5.0)
        await world.pool.acquire()
        begun = time.now
        with pytest.raises(PoolTimedOut, match=r"db: nothing .* within 5s \(1 of 1 lent") as caught:
            await world.pool.acquire()
        assert isinstance(caught.value, TimeoutError)
        assert time.now == begun + 5.0
        with pytest.raises(PoolTimedOut):
            await world.pool.acquire(timeout="2s")
        assert time.now == begun + 7.0
        assert world.counts() == (0, 1, 0)
        assert [event.what for event in events] == ["timed_out"] * 2

    time.run(main())


@pytest.mark.parametrize("is_cancelling", [False, True])
def test_waiting_ends_with_the_deadline_if_that_is_sooner(time, is_cancelling):
    async def main():
        world = World(time, max_size=1)
        await world.pool.acquire()
        begun = time.now
        with pytest.raises(DeadlineExceeded):
            if is_cancelling:
                async with deadline("2s", clock=time.clock):
                    await world.pool.acquire()
            else:  # nobody cancels; the pool looks itself
                with deadline("2s", clock=time.clock):
                    await world.pool.acquire()
        assert time.now == begun + 2.0
        assert world.counts() == (0, 1, 0)

    time.run(main())


# ---- opening


def test_what_opening_raises_reaches_the_caller(time, events):
    async def main():
        world = World(time, events)
        world.fail_open = ConnectionRefusedError("no")
        with pytest.raises(ConnectionRefusedError):
            await world.use()
        assert world.counts() == (0, 0, 0)
        assert world.pool.snapshot().open_failed == 1
        assert [event.what for event in events] == ["open_failed"]
        world.fail_open = None
        assert await world.use() == 0

    time.run(main())


def test_with_nothing_else_open_a_failure_is_news_for_all_in_line(time):
    async def main():
        world = World(time, max_size=1)
        world.fail_open = OSError("no")
        found = await results(world.start(*[1.0] * 5))
        assert [type(one) for one in found] == [OSError] * 5
        assert world.pool.snapshot().open_failed == 1

    time.run(main())


def test_with_another_open_a_failure_is_the_bad_luck_of_the_first(time):
    async def main():
        world = World(time, max_size=2)
        held = await world.pool.acquire()
        world.fail_open = OSError("no")
        one, two = world.start(1.0, 1.0)
        await asyncio.wait((one,))
        assert isinstance(one.exception(), OSError)
        world.pool.release(held)
        assert await two == 0

    time.run(main())


def test_opening_has_its_time(time):
    async def main():
        world = World(time, open_timeout_s=3.0)
        world.open_s = 60.0
        with pytest.raises(CallTimedOut, match="db: opening: no answer within 3s"):
            await world.use()
        assert world.counts() == (0, 0, 0)

    time.run(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_callable_that_cancels_itself_does_not_cancel_the_caller(time, is_async):
    async def opens():
        raise asyncio.CancelledError

    def plain():
        raise asyncio.CancelledError

    async def main():
        pool = Pool(opens if is_async else plain, clock=time.clock)
        with pytest.raises(PoolOpenFailed):
            await pool.acquire()
        assert pool.snapshot().size == 0

    time.run(main())


def test_a_callable_that_fails_before_it_is_awaited_leaks_no_place(time):
    def opens():
        raise ValueError("not even a coroutine")

    async def main():
        pool = Pool(opens, max_size=1, clock=time.clock)
        for _ in range(3):
            with pytest.raises(ValueError, match="not even"):
                await pool.acquire()
        assert pool.snapshot().size == 0

    time.run(main())


def test_what_is_opened_does_not_carry_the_callers_context(time):
    who: ContextVar[str] = ContextVar("who", default="nobody")

    async def opens():
        return who.get()

    async def main():
        who.set("caller")
        async with Pool(opens, clock=time.clock).lend() as found:
            assert found == "nobody"

    time.run(main())


# ---- coming back


def test_after_an_exception_a_resource_is_checked_before_it_is_lent(time):
    async def main():
        world = World(time)
        with pytest.raises(ValueError, match="mine"):
            await world.use(error=ValueError("mine"))
        assert world.counts() == (1, 0, 0)
        assert world.checked == []
        assert await world.use() == 0
        assert world.checked == [0]
        assert await world.use() == 0
        assert world.checked == [0]

    time.run(main())


def test_one_in_doubt_is_lent_only_when_there_is_no_other(time):
    async def main():
        world = World(time, max_size=2)
        await results(world.start(1.0, 1.0))
        with pytest.raises(ValueError, match="mine"):
            await world.use(error=ValueError("mine"))
        assert await world.use() == 0
        assert world.checked == []

    time.run(main())


def test_a_waiter_gets_one_in_doubt_after_its_check(time):
    async def main():
        world = World(time, max_size=1)
        lease = await world.pool.acquire()
        (waiting,) = world.start(1.0)
        await turns()
        world.pool.release(lease, in_doubt=True)
        assert await waiting == 0
        assert world.checked == [0]

    time.run(main())


def test_one_that_fails_its_check_is_replaced(time, events):
    async def main():
        world = World(time, events, max_size=1)
        await world.use()
        world.broken.add(0)
        await asyncio.sleep(40.0)
        assert await world.use() == 1
        assert not world.things[0].is_open
        assert world.counts() == (1, 0, 0)
        assert world.most_at_once == 1
        assert world.pool.snapshot().check_failed == 1
        assert [(event.what, event.why) for event in events] == [
            ("check_failed", "the check said no")
        ]

    time.run(main())


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_check_that_raises_or_hangs_has_failed(time, how):
    async def check(thing):
        if how == "raises":
            raise OSError
        await asyncio.sleep(999.0)

    async def opens():
        return object()

    async def main():
        pool = Pool(opens, check=check, max_size=1, check_after_s=0.0, clock=time.clock)
        first = await pool.acquire()
        pool.release(first)
        second = await pool.acquire()
        assert first.resource is not second.resource
        assert pool.snapshot().check_failed == 1

    time.run(main())


def test_only_long_idleness_is_checked(time):
    async def main():
        world = World(time, check_after_s=30.0)
        await world.use()
        await asyncio.sleep(29.0)
        await world.use()
        assert world.checked == []
        await asyncio.sleep(30.0)
        await world.use()
        assert world.checked == [0]

    time.run(main())


def test_without_a_check_one_in_doubt_is_closed(time):
    async def opens():
        return object()

    closed: list[object] = []

    async def main():
        pool = Pool(opens, close=closed.append, clock=time.clock)
        with pytest.raises(ValueError, match="mine"):
            async with pool.lend():
                raise ValueError("mine")
        assert len(closed) == 1
        assert pool.snapshot().size == 0

    time.run(main())


def test_one_whose_user_was_cancelled_is_closed(time):
    async def main():
        world = World(time)
        (task,) = world.start(60.0)
        await asyncio.sleep(5.0)
        task.cancel()
        await asyncio.wait((task,))
        await asyncio.sleep(1.0)
        assert world.counts() == (0, 0, 0)
        assert not world.things[0].is_open

    time.run(main())


def test_one_that_is_said_to_be_broken_is_closed_and_its_place_used_when_it_is_gone(time):
    async def main():
        world = World(time, max_size=1)
        world.close_s = 2.0
        lease = await world.pool.acquire()
        (waiting,) = world.start(1.0)
        await turns()
        begun = time.now
        world.pool.release(lease, broken=True)
        assert world.pool.snapshot().closing == 1
        assert await waiting == 1
        assert time.now == begun + 2.0 + world.open_s + 1.0

    time.run(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_failing_close_frees_the_place_all_the_same(time, is_async):
    async def opens():
        return object()

    def fails(thing):
        raise OSError

    async def fails_later(thing):
        await asyncio.sleep(1.0)
        raise OSError

    async def main():
        close = fails_later if is_async else fails
        pool = Pool(opens, close=close, max_size=1, clock=time.clock)
        for _ in range(3):
            pool.release(await pool.acquire(), broken=True)
        await asyncio.sleep(2.0)
        seen = pool.snapshot()
        assert (seen.size, seen.closed, seen.close_failed) == (0, 3, 3)

    time.run(main())


def test_a_close_that_hangs_is_given_up(time):
    async def main():
        world = World(time, max_size=1, close_timeout_s=5.0)
        world.close_s = 1e6
        world.pool.release(await world.pool.acquire(), broken=True)
        begun = time.now
        assert await world.use() == 1
        assert time.now == begun + 5.0 + 1.0 + 1.0
        assert world.pool.snapshot().close_failed == 1

    time.run(main())


def test_many_that_are_over_at_once_are_closed_without_depth(time):
    """A sync close frees its place at once; that must not go down a level for each."""

    async def opens():
        return object()

    async def main():
        pool = Pool(opens, close=lambda thing: None, max_size=5000, clock=time.clock)
        leases = [await pool.acquire() for _ in range(3000)]
        for lease in leases:
            pool.release(lease)
        time.now += 4000.0  # no sweep has come in between
        await pool.acquire()
        assert pool.snapshot().size == 1

    time.run(main())


# ---- growing old


def test_a_lifetime_ends_when_it_is_given_back_when_idle_and_before_it_is_lent(time):
    async def main():
        world = World(time, max_lifetime_s=100.0, max_idle_s=1e6, check_after_s=1e6)
        lease = await world.pool.acquire()
        await asyncio.sleep(100.0)
        world.pool.release(lease)
        await asyncio.sleep(1.0)
        assert world.counts() == (0, 0, 0)
        assert await world.use() == 1
        await asyncio.sleep(130.0)
        assert world.counts() == (0, 0, 0)
        assert await world.use() == 2
        time.now += 100.0  # before any sweep
        assert await world.use() == 3
        await asyncio.sleep(1.0)
        assert world.counts() == (1, 0, 0)

    time.run(main())


def test_lifetimes_are_spread(time):
    async def main():
        world = World(time, max_size=50, max_lifetime_s=100.0, lifetime_jitter=0.5, max_idle_s=1e6)
        await results(world.start(*[1.0] * 50))
        sizes = []
        for _ in range(12):
            await asyncio.sleep(10.0)
            sizes.append(world.pool.snapshot().size)
        assert sizes[3] == 50
        assert 10 < sizes[7] < 40
        assert sizes[-1] == 0

    time.run(main())


def test_the_long_idle_are_closed_down_to_the_least(time):
    async def main():
        world = World(time, max_size=5, min_idle=2, max_idle_s=100.0)
        await results(world.start(*[1.0] * 5))
        await asyncio.sleep(99.0)
        assert world.pool.snapshot().idle == 5
        await asyncio.sleep(30.0)
        assert world.counts() == (2, 0, 0)
        await asyncio.sleep(1000.0)
        assert world.counts() == (2, 0, 0)
        assert world.pool.snapshot().closed == 3

    time.run(main())


def test_the_least_are_opened_when_the_pool_is_entered_and_replaced_when_they_go(time):
    async def main():
        world = World(time, max_size=3, min_idle=2, max_lifetime_s=100.0)
        async with world.pool:
            await asyncio.sleep(1.5)
            assert world.counts() == (2, 0, 0)
            begun = time.now
            await results(world.start(1.0, 1.0))
            assert time.now == begun + 1.0
            await asyncio.sleep(300.0)
            assert world.counts() == (2, 0, 0)
            assert world.most_at_once <= 3
        assert world.at_once == 0

    time.run(main())


def test_opening_for_the_least_that_fails_is_tried_again_later(time):
    async def main():
        world = World(time, max_size=3, min_idle=2, max_idle_s=40.0)
        world.fail_open = OSError()
        async with world.pool:
            await asyncio.sleep(35.0)
            failed = world.pool.snapshot().open_failed
            assert 2 <= failed <= 10
            world.fail_open = None
            await asyncio.sleep(20.0)
            assert world.counts() == (2, 0, 0)

    time.run(main())


# ---- cancellation


def test_a_waiter_that_is_cancelled_at_any_await_loses_nothing(time):
    async def main():
        world = World(time, max_size=2)
        await world.use(0.0)

        async def twice():
            # The one waits for what is being opened, the other for what is being given back.
            held = await world.pool.acquire()
            also = None
            try:
                also = await world.pool.acquire()
                await asyncio.sleep(0.1)
            finally:
                world.pool.release(held)
                if also is not None:
                    world.pool.release(also)

        def after():
            seen = world.pool.snapshot()
            assert (seen.lent, seen.waiting) == (0, 0)

        await cancel_at_each_step(twice, after)
        await asyncio.sleep(5.0)
        assert world.counts()[1:] == (0, 0)
        assert 1 <= world.counts()[0] <= 2

    time.run(main())


@pytest.mark.parametrize("how", ["opened", "checked", "released"])
def test_cancelled_just_when_served_the_resource_goes_on(time, how):
    async def main():
        world = World(time, max_size=1)
        if how == "checked":
            await world.use()
            await asyncio.sleep(50.0)
        held = await world.pool.acquire() if how == "released" else None
        world.gate = asyncio.Event()
        task = asyncio.get_running_loop().create_task(world.pool.acquire())
        await turns()
        if held is not None:
            world.pool.release(held)
        world.gate.set()
        while not world.pool.snapshot().lent:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert world.counts() == (1, 0, 0)
        assert await world.use() == 0

    time.run(main())


def test_who_leaves_while_a_resource_is_opened_for_him_leaves_it_to_the_next(time):
    async def main():
        world = World(time, max_size=1)
        (gone,) = world.start(1.0)
        await asyncio.sleep(0.5)
        gone.cancel()
        begun = time.now
        assert await world.use(0.0) == 0
        assert time.now == begun + 0.5
        assert len(world.things) == 1

    time.run(main())


def test_who_has_left_is_not_served(time):
    async def main():
        world = World(time, max_size=1)
        held = await world.pool.acquire()
        gone, stays = world.start(1.0, 1.0)
        await turns()
        gone.cancel()
        await turns()
        assert world.counts() == (0, 1, 1)
        also_gone, *_ = world.start(1.0)
        await turns()
        also_gone.cancel()  # its task has not come to run yet
        world.pool.release(held)
        assert await stays == 0
        assert world.counts() == (1, 0, 0)

    time.run(main())


def test_a_storm_of_use_and_abuse_loses_nothing(time):
    rng = Random(5)

    async def main():
        unseen: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        world = World(
            time,
            max_size=4,
            max_waiting=20,
            acquire_timeout_s=0.3,
            check_after_s=0.5,
            max_idle_s=3.0,
            max_lifetime_s=20.0,
            lifetime_jitter=0.5,
        )
        world.open_s = world.check_s = 0.05
        tasks: list[asyncio.Task[int]] = []
        loop = asyncio.get_running_loop()
        for number in range(3000):
            world.fail_open = OSError() if rng.random() < 0.2 else None
            if rng.random() < 0.05:
                world.broken.add(rng.randrange(len(world.things) + 1))
            error = ValueError() if rng.random() < 0.1 else None
            tasks.append(loop.create_task(world.use(rng.choice((0.0, 0.01, 0.2)), error)))
            if rng.random() < 0.3:
                rng.choice(tasks[-30:]).cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(rng.choice((0.0, 0.0, 0.02, 0.1)))
            seen = world.pool.snapshot()
            assert seen.size <= 4
            assert world.at_once <= 4
            assert seen.idle == 0 or seen.waiting <= seen.opening + seen.checking
            if number % 500 == 499:
                await asyncio.sleep(30.0)
        found = await results(tasks)
        kinds = {type(one) for one in found}
        assert kinds == {int, OSError, ValueError, PoolFull, asyncio.CancelledError, PoolTimedOut}
        await asyncio.sleep(60.0)
        assert world.counts() == (0, 0, 0)
        seen = world.pool.snapshot()
        assert seen.opened == seen.closed == len(world.things)
        assert seen.late == 0
        assert unseen == []
        assert len(asyncio.all_tasks()) == 1

    time.run(main())


# ---- closing


def test_closing_waits_for_what_is_lent_and_refuses_who_waits(time):
    async def main():
        world = World(time, max_size=1)
        (holds,) = world.start(10.0)
        await asyncio.sleep(2.0)
        (waits,) = world.start(1.0)
        await turns()
        begun = time.now
        await world.pool.close()
        assert time.now == begun + 9.0 + world.close_s
        assert await holds == 0
        assert isinstance(waits.exception(), PoolClosed)
        with pytest.raises(PoolClosed):
            await world.pool.acquire()
        assert world.counts() == (0, 0, 0)
        await world.pool.close()

    time.run(main())


def test_what_is_not_given_back_in_time_is_closed(time):
    async def main():
        world = World(time)
        lease = await world.pool.acquire()
        begun = time.now
        await world.pool.close(timeout="5s")
        assert time.now == begun + 5.0 + world.close_s
        assert not world.things[0].is_open
        world.pool.release(lease)
        assert world.pool.snapshot().late == 1
        assert world.counts() == (0, 0, 0)

    time.run(main())


def test_closing_ends_what_is_being_opened_and_checked(time):
    async def main():
        world = World(time, max_size=3)
        await world.use()
        await asyncio.sleep(50.0)
        tasks = world.start(1.0, 1.0)
        await turns()
        seen = world.pool.snapshot()
        assert (seen.opening, seen.checking) == (1, 1)
        begun = time.now
        await world.pool.close()
        assert time.now == begun + world.close_s
        assert [type(one) for one in await results(tasks)] == [PoolClosed] * 2
        assert world.counts() == (0, 0, 0)
        assert len(asyncio.all_tasks()) == 1

    time.run(main())


def test_closing_twice_at_once_and_after_being_cancelled(time):
    async def main():
        world = World(time)
        lease = await world.pool.acquire()
        loop = asyncio.get_running_loop()
        one, two, three = (loop.create_task(world.pool.close()) for _ in range(3))
        await asyncio.sleep(1.0)
        one.cancel()
        await asyncio.sleep(1.0)
        world.pool.release(lease)
        begun = time.now
        await asyncio.wait((one, two, three))
        assert time.now == begun + world.close_s
        assert one.cancelled()
        assert two.exception() is three.exception() is None
        assert world.counts() == (0, 0, 0)

    time.run(main())


def test_a_pool_that_was_never_used_closes_at_once(time):
    async def main():
        world = World(time)
        await world.pool.close()
        assert world.pool.snapshot().size == 0

    time.run(main())


# ---- loops


def test_a_pool_serves_one_event_loop_after_the_other(time):
    world = World(time)

    async def left_behind():
        await world.pool.acquire()

    async def main():
        return await world.use()

    time.run(left_behind())
    assert time.run(main()) == 1
    assert world.pool.snapshot().size == 1


@pytest.mark.parametrize("is_used_again", [False, True])
def test_what_is_collected_after_its_loop_was_closed_does_no_harm(time, is_used_again):
    world = World(time, max_size=1)
    world.open_s = 0.0
    left: list[asyncio.Task] = []

    async def left_behind():
        left.extend(world.start(1e6, 1e6))  # one that holds and one that waits
        await turns(10)
        assert world.pool.snapshot().lent == world.pool.snapshot().waiting == 1

    loop = asyncio.new_event_loop()
    loop.run_until_complete(left_behind())
    loop.close()
    if is_used_again:
        assert time.run(world.use()) == 1
    for task in left:
        task.get_coro().close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    if not is_used_again:
        assert time.run(world.use()) == 1
    seen = world.pool.snapshot()
    assert (seen.size, seen.idle, seen.waiting) == (1, 1, 0)


def test_two_event_loops_at_once_are_refused(time):
    world = World(time)
    world.open_s = 0.0

    async def inner():
        await world.pool.acquire()

    async def main():
        await world.pool.acquire()
        with pytest.raises(RuntimeError, match="pool db is in use by another event loop"):
            await asyncio.to_thread(asyncio.run, inner())

    asyncio.run(asyncio.wait_for(main(), 30))


# ---- rules


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"max_size": 0}, "max_size=0 could lend nothing"),
        ({"min_idle": 11}, "min_idle=11"),
        ({"max_waiting": -1}, "max_waiting=-1"),
        ({"acquire_timeout_s": 0.0}, "acquire_timeout_s=0"),
        ({"open_timeout_s": 0.0}, "open_timeout_s=0"),
        ({"check_timeout_s": 0.0}, "check_timeout_s=0"),
        ({"close_timeout_s": 0.0}, "close_timeout_s=0"),
        ({"check_after_s": -1.0}, "check_after_s=-1"),
        ({"max_idle_s": 0.0}, "max_idle_s=0"),
        ({"max_lifetime_s": 0.0}, "max_lifetime_s=0"),
        ({"lifetime_jitter": 1.0}, "lifetime_jitter=1"),
    ],
)
def test_senseless_rules_are_refused_in_words(time, rules, problem):
    with pytest.raises(ValueError, match=f"pool db: {problem}"):
        World(time, **rules)


def test_rules_come_whole_or_one_by_one(time):
    rules = PoolRules(max_size=3)
    assert Pool(object, rules=rules).rules is rules  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not both"):
        Pool(object, rules=rules, max_size=3)  # type: ignore[arg-type]
