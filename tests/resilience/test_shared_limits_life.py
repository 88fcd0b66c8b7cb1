"""Shared limits: started, closed, forked, in threads; and what is refused when it is written."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from headgate.policy.limiter import LimitRules
from headgate.resilience import RateLimited, limit, policies, retry
from headgate.resilience.shared import Shared
from tests.resilience.shared_limits_distant import LONG_S, Distant, allowed
from tests.resilience.virtual import Time


@pytest.fixture
def distant(time: Time) -> Distant:
    return Distant(time)


@pytest.fixture
def home(time: Time, distant: Distant) -> Shared:
    return Shared(distant, clock=time.clock)


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


def test_it_is_started_and_closed_in_one_place():
    home = Shared("redis://127.0.0.1:1/0")  # nobody is there

    async def starts():
        got = await asyncio.gather(home.start(), home.start(), return_exceptions=True)
        assert [str(one).count("started already") for one in got] == [0, 1]
        assert home.is_started
        assert home.is_away
        await home.close()
        task = asyncio.get_running_loop().create_task(home.start())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert not home.is_started
        assert len(asyncio.all_tasks()) == 1
        await home.start()

    async def closes():
        await home.close()  # it ended with its loop
        with Shared.memory() as other, pytest.raises(RuntimeError, match="another event loop"):
            await other.close()

    asyncio.run(starts())
    asyncio.run(closes())


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
            limiting: Any = bound
            together = policies(retry=retry(attempts=2, on=OSError), limit=limiting)
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
    ):
        with pytest.raises(ValueError, match="limit|rule"):
            wrong()
    untyped: Any = limit
    with pytest.raises(TypeError, match="give home=Shared"):
        untyped("1/s", rule="r", shadow=True)
    with pytest.raises(ValueError, match="when_away='close': write one of open, closed, local"):
        untyped("1/s", home=home, rule="x", when_away="close")
    with pytest.raises(ValueError, match="deadline"):
        Shared("redis://localhost", deadline=0)


def test_a_loop_that_was_closed_over_its_head_is_told_of(time):
    home = Shared.memory()
    bound = limit("1/s", home=home, rule="r")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(home.start())
    task: Any = home._task
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
    taken: list[bool] = []

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
