"""Single flight: what the leader, the waiters and the load may do to each other."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time

import pytest

from headgate.cache import (
    CacheClosed,
    LoadAbandoned,
    LoadReentered,
    LoadTimedOut,
)
from tests.cache.object_cache import PlainMemory, memory_cache


class Source:
    """A loader that waits for a gate and counts."""

    def __init__(self, value=42):
        self.calls = 0
        self.value = value
        self.gate = asyncio.Event()
        self.error = None
        self.cancelled = 0

    async def __call__(self):
        self.calls += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self.value


async def steps(number=5):
    for _ in range(number):
        await asyncio.sleep(0)


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


@pytest.mark.parametrize("who", ["first", "middle", "last"])
def test_a_hundred_cold_callers_lose_nothing_when_one_is_cancelled(who):
    async def main():
        cache, source = memory_cache(), Source()
        callers = [asyncio.create_task(cache.get_or_set("k", source)) for _ in range(100)]
        await steps()
        victim = callers[{"first": 0, "middle": 50, "last": 99}[who]]
        victim.cancel()
        await steps()
        source.gate.set()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert [each for each in answers if each == 42] == [42] * 99
        assert victim.cancelled()
        assert source.calls == 1
        assert cache.snapshot().loading == 0

    run(main())


def test_half_of_the_callers_may_leave_in_any_order():
    async def main():
        cache, source = memory_cache(), Source()
        callers = [asyncio.create_task(cache.get_or_set("k", source)) for _ in range(100)]
        await steps()
        for caller in callers[::2]:
            caller.cancel()
            await asyncio.sleep(0)
        source.gate.set()
        assert await asyncio.gather(*callers[1::2]) == [42] * 50
        assert source.calls == 1

    run(main())


@pytest.mark.parametrize("layered", [False, True], ids=["memory", "layer"])
def test_the_leader_may_be_cancelled_at_each_await(layered):
    from tests.cache.object_cache import Place
    from tests.cache.object_cache import layered as over

    async def one(at):
        calls = 0

        async def load():
            nonlocal calls
            calls += 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return calls

        cache = over(Place(time.time))[0] if layered else memory_cache()
        leader = asyncio.create_task(cache.get_or_set("k", load))
        follower = asyncio.create_task(cache.get_or_set("k", load))
        for _ in range(at):
            await asyncio.sleep(0)
        was_done = leader.done()
        leader.cancel()
        assert await asyncio.wait_for(follower, 5) == 1
        assert await cache.get_or_set("k", load) == 1
        assert calls == 1
        await cache.close()
        assert not cache.core.tasks
        return was_done

    async def main():
        for at in range(60):
            if await one(at):
                return
        raise AssertionError("the leader was never done")

    run(main())


@pytest.mark.parametrize("layered", [False, True], ids=["memory", "layer"])
def test_the_load_itself_may_be_cancelled_at_each_await(layered):
    """As when its loop goes down: those who wait elsewhere are not harmed, they ask again."""
    from tests.cache.object_cache import Place
    from tests.cache.object_cache import layered as over

    async def one(at):
        async def load():
            await asyncio.sleep(0)
            return 1

        cache = over(Place(time.time))[0] if layered else memory_cache()
        caller = asyncio.create_task(cache.get_or_set("k", load))
        for _ in range(at):
            await asyncio.sleep(0)
        tasks = list(cache.core.tasks)
        was_done = caller.done() and not tasks
        for task in tasks:
            task.cancel()
        assert await asyncio.wait_for(caller, 5) == 1
        for _ in range(20):
            await asyncio.sleep(0)
        assert await cache.get_or_set("k", load) == 1
        await cache.close()
        assert cache.snapshot().loading == 0
        return was_done

    async def main():
        for at in range(60):
            if await one(at):
                return
        raise AssertionError("the load was never done")

    run(main())


def test_when_all_have_left_the_load_goes_on_and_fills():
    async def main():
        cache, source = memory_cache(), Source()
        callers = [asyncio.create_task(cache.get_or_set("k", source)) for _ in range(3)]
        await steps()
        for caller in callers:
            caller.cancel()
        await steps()
        source.gate.set()
        await steps()
        assert await cache.get("k") == 42
        assert (source.calls, source.cancelled) == (1, 0)

    run(main())


def test_when_all_have_left_the_load_is_cancelled_if_so_wished():
    async def main():
        cache, source = memory_cache(when_alone="cancel"), Source()
        callers = [asyncio.create_task(cache.get_or_set("k", source)) for _ in range(3)]
        await steps()
        callers[0].cancel()
        callers[1].cancel()
        await steps()
        assert source.cancelled == 0
        callers[2].cancel()
        await steps()
        assert source.cancelled == 1
        source.gate.set()
        assert await cache.get_or_set("k", source) == 42
        assert source.calls == 2

    run(main())


def test_no_waiter_is_left_behind_by_those_who_leave():
    async def main():
        cache, source = memory_cache(), Source()
        keeper = asyncio.create_task(cache.get_or_set("k", source))
        await steps()
        flight = cache.core.flights.get("k")
        for _ in range(200):
            caller = asyncio.create_task(cache.get_or_set("k", source))
            await asyncio.sleep(0)
            caller.cancel()
            await asyncio.sleep(0)
        await steps()
        assert flight.waiting == 1
        source.gate.set()
        assert await keeper == 42
        assert flight.waiting == 0

    run(main())


def test_all_who_wait_get_the_exception_and_nothing_is_reported_as_unretrieved():
    async def main():
        said = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
        cache, source = memory_cache(), Source()
        source.error = KeyError("gone")
        callers = [asyncio.create_task(cache.get_or_set("k", source)) for _ in range(10)]
        await steps()
        callers[0].cancel()
        source.gate.set()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(each) for each in answers[1:]] == [KeyError] * 9
        # The next one asks again.
        with pytest.raises(KeyError):
            await cache.get_or_set("k", source)
        assert source.calls == 2
        # And where nobody waits any more.
        source.gate.clear()
        lonely = asyncio.create_task(cache.get_or_set("k", source))
        await steps()
        lonely.cancel()
        await steps()
        source.gate.set()
        await steps()
        del callers, answers, lonely
        gc.collect()
        await steps()
        assert said == []

    run(main())


def test_the_traceback_of_a_shared_exception_does_not_grow():
    async def main():
        cache, source = memory_cache(), Source()
        source.error = KeyError("gone")
        callers = [asyncio.create_task(cache.get_or_set("k", source)) for _ in range(50)]
        await steps()
        source.gate.set()
        await asyncio.gather(*callers, return_exceptions=True)
        depth, at = 0, source.error.__traceback__
        while at is not None:
            depth, at = depth + 1, at.tb_next
        assert depth < 15

    run(main())


def test_the_load_sees_the_context_of_who_began_it():
    user = contextvars.ContextVar("user", default="nobody")

    async def main():
        cache = memory_cache()
        user.set("ada")

        async def load():
            await asyncio.sleep(0)
            seen = user.get()
            user.set("changed")
            return seen

        assert await cache.get_or_set("k", load) == "ada"
        assert user.get() == "ada"

    run(main())


def test_a_load_that_asks_for_itself_is_told_so():
    async def main():
        cache = memory_cache()

        async def load():
            return await cache.get_or_set("k", load)

        with pytest.raises(LoadReentered, match="loading 'k' waits for itself: 'k' -> 'k'"):
            await cache.get_or_set("k", load)

    run(main())


def test_loads_of_other_keys_may_be_nested_and_circles_are_found():
    async def main():
        cache = memory_cache()

        async def fib(n):
            if n < 2:
                return n
            one, two = await asyncio.gather(ask(n - 1), ask(n - 2))
            return one + two

        async def ask(n):
            return await cache.get_or_set(f"fib:{n}", lambda: fib(n))

        assert await ask(30) == 832040
        assert cache.snapshot().loads == 31

        async def a():
            return await cache.get_or_set("b", b)

        async def b():
            return await cache.get_or_set("a", a)

        with pytest.raises(LoadReentered, match="'a' -> 'b' -> 'a'"):
            await cache.get_or_set("a", a)

    run(main())


def test_two_callers_who_would_wait_for_each_other_are_told_so():
    async def main():
        cache = memory_cache()
        both = asyncio.Event()
        begun = 0

        async def load(other):
            nonlocal begun
            begun += 1
            if begun == 2:
                both.set()
            await both.wait()
            return await cache.get_or_set(other, lambda: load("none"))

        one = asyncio.create_task(cache.get_or_set("a", lambda: load("b")))
        two = asyncio.create_task(cache.get_or_set("b", lambda: load("a")))
        answers = await asyncio.wait_for(asyncio.gather(one, two, return_exceptions=True), 10)
        assert all(isinstance(each, LoadReentered) for each in answers)

    run(main())


def test_a_load_that_takes_too_long_is_an_error_for_all():
    async def main():
        cache, source = memory_cache(hard_timeout="50ms"), Source()
        callers = [asyncio.create_task(cache.get_or_set("k", source)) for _ in range(3)]
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(each, LoadTimedOut) for each in answers)
        assert isinstance(answers[0], TimeoutError)
        assert str(answers[0]) == "loading 'k' took longer than hard_timeout=50ms"
        await steps()
        assert source.cancelled == 1
        assert not cache.core.tasks

    run(main())


def test_a_loader_that_does_not_let_itself_be_cancelled_keeps_nobody():
    async def main():
        cache = memory_cache(hard_timeout="30ms")
        over = asyncio.Event()

        async def stubborn():
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    continue
            return "late"

        with pytest.raises(LoadTimedOut):
            await cache.get_or_set("k", stubborn)
        over.set()
        await steps()
        assert await cache.get("k") is None

    run(main())


def test_a_loader_that_cancels_itself_is_a_failure_and_no_cancellation():
    async def main():
        cache = memory_cache()

        async def load():
            raise asyncio.CancelledError

        with pytest.raises(LoadAbandoned, match="cancelled itself"):
            await cache.get_or_set("k", load)

    run(main())


def test_close_lets_go_of_all_who_wait():
    async def main():
        cache, source = memory_cache(), Source()
        caller = asyncio.create_task(cache.get_or_set("k", source))
        await steps()
        await cache.close()
        with pytest.raises(CacheClosed):
            await caller
        assert source.cancelled == 1
        with pytest.raises(CacheClosed):
            await cache.get_or_set("k", source)
        await cache.start()
        source.gate.set()
        assert await cache.get_or_set("k", source) == 42

    run(main())


def test_what_began_before_an_invalidation_is_not_kept_and_not_given_to_later_callers():
    async def main():
        cache, old, new = memory_cache(), Source("old"), Source("new")
        early = asyncio.create_task(cache.get_or_set("k", old))
        await steps()
        await cache.invalidate(keys=["k"])
        late = asyncio.create_task(cache.get_or_set("k", new))
        await steps()
        assert (old.calls, new.calls) == (1, 1)
        old.gate.set()
        assert await early == "old"
        assert await cache.get("k") is None
        new.gate.set()
        assert await late == "new"
        assert await cache.get("k") == "new"

    run(main())


def test_the_same_holds_for_tags_that_only_the_value_tells():
    async def main():
        cache, gate = memory_cache(), asyncio.Event()
        calls = 0

        async def load(entry):
            nonlocal calls
            calls += 1
            mine = calls
            if mine == 1:
                await gate.wait()
            entry.tags = ["product:42"]
            return mine

        early = asyncio.create_task(cache.get_or_set("k", load))
        await steps()
        await cache.invalidate(tags=["product:42"])
        late = asyncio.create_task(cache.get_or_set("k", load))
        unharmed = asyncio.create_task(cache.get_or_set("k", load, tags=["other"]))
        await steps()
        gate.set()
        assert await early == 1
        assert await late == await unharmed == 2
        assert await cache.get("k") == 2
        assert cache.snapshot().dropped == 1

    run(main())


@pytest.mark.parametrize("how", ["set", "delete"])
def test_what_was_on_its_way_when_a_key_was_set_or_deleted_is_not_kept(how):
    async def main():
        cache, source = memory_cache(), Source("old")
        early = asyncio.create_task(cache.get_or_set("k", source))
        await steps()
        if how == "set":
            await cache.set("k", "set")
        else:
            await cache.delete("k")
        source.gate.set()
        assert await early == "old"
        assert await cache.get("k") == ("set" if how == "set" else None)

    run(main())


def test_callers_in_several_event_loops_share_a_load():
    cache = memory_cache(memory=PlainMemory())
    calls = []
    begun, gate = threading.Event(), threading.Event()
    answers = []

    async def load():
        calls.append(1)
        begun.set()
        while not gate.is_set():
            await asyncio.sleep(0.001)
        return 42

    def work():
        answers.append(asyncio.run(asyncio.wait_for(cache.get_or_set("k", load), 20)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    threads[0].start()
    assert begun.wait(10)
    for each in threads[1:]:
        each.start()
    until = time.monotonic() + 10
    while cache.snapshot().joined < 3 and time.monotonic() < until:
        time.sleep(0.001)
    gate.set()
    for each in threads:
        each.join(20)
    assert answers == [42] * 4
    assert len(calls) == 1


def test_a_loop_that_ended_in_the_midst_of_a_load_blocks_nobody():
    cache = memory_cache()
    hung = []

    async def leave():
        hung.append(asyncio.create_task(cache.get_or_set("k", asyncio.Event().wait)))
        await steps()

    asyncio.run(leave())
    stopped = asyncio.new_event_loop()
    stopped.run_until_complete(leave())  # its load is never ended nor cancelled

    async def main():
        assert await cache.get_or_set("k", lambda: 42) == 42

    run(main())
    for task in asyncio.all_tasks(stopped):
        task.cancel()
    stopped.run_until_complete(steps())
    stopped.close()
