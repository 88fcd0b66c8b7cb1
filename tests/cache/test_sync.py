"""Plain code, threads, forks: and the loop in the background where the second layer lives then."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from headgate.cache import Cache, LoadReentered, LoadTimedOut, cached
from headgate.cache.ports import THREADS_MAX
from tests.cache.object_cache import Clock, Place, layered, memory_cache


def in_threads(number, work):
    answers: list = [None] * number
    barrier = threading.Barrier(number)

    def one(at):
        barrier.wait(10)
        try:
            answers[at] = work(at)
        except Exception as error:
            answers[at] = error

    threads = [threading.Thread(target=one, args=(at,)) for at in range(number)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert not any(each.is_alive() for each in threads)
    return answers


@pytest.mark.parametrize("place", ["memory", "layer"])
def test_of_many_threads_one_loads(place):
    cache = Cache() if place == "memory" else layered(Place(time.time))[0]
    calls = []

    @cache.cached("k")
    def load():
        calls.append(1)
        time.sleep(0.05)
        return 42

    assert in_threads(20, lambda at: load()) == [42] * 20
    assert len(calls) == 1
    cache.sync.close()


def test_all_threads_get_the_exception_and_the_next_one_tries_again():
    cache, calls = memory_cache(), []

    @cache.cached("k")
    def load():
        calls.append(1)
        time.sleep(0.05)
        raise KeyError("gone")

    assert [type(each) for each in in_threads(10, lambda at: load())] == [KeyError] * 10
    assert len(calls) == 1
    with pytest.raises(KeyError):
        load()


def test_the_calls_for_plain_code():
    with memory_cache(namespace="n").sync as cache:
        cache.set("a", [1], tags=["t"])
        cache.set_many({"b": 2})
        assert cache.get("a") == [1] and cache.get("x", 7) == 7
        assert cache.get_many(["a", "b", "c"]) == {"a": [1], "b": 2}
        assert cache.get_or_set("c", lambda: 3) == cache.get_or_set("c", lambda: 4) == 3
        assert cache.touch("b", "1h") is True
        assert cache.increment("n", 2) == 2
        cache.delete("b")
        assert cache.invalidate(tags=["t"]).stamp > 0
        assert cache.get_many(["a", "b"]) == {}

        async def load(): ...

        with pytest.raises(TypeError, match="cannot await what its loader answers"):
            cache.get_or_set("d", load)


def test_plain_code_over_a_second_layer_uses_a_loop_in_the_background():
    place = Place(time.time)
    cache, made = layered(place)
    plain = cache.sync
    plain.set("k", 1)
    cache.core.memory.clear()
    assert plain.get("k") == 1
    assert plain.get_or_set("l", lambda: 2) == 2
    assert plain.increment("n") == 1
    until = time.monotonic() + 5
    while "l" not in place.entries and time.monotonic() < until:
        time.sleep(0.002)
    assert place.entries["l"].value == 2
    names = [each.name for each in threading.enumerate()]
    assert names.count("headgate cache") == 1
    plain.close()
    assert made[0].closed == 1
    assert "headgate cache" not in [each.name for each in threading.enumerate()]


def test_in_the_thread_of_the_layers_own_loop_plain_calls_go_on_without_it():
    place = Place(time.time)
    cache, made = layered(place)

    async def main():
        await cache.start()
        assert cache.sync.get("k") is None
        assert cache.sync.get_or_set("k", lambda: 1) == 1
        assert cache.sync.invalidate(keys=["k"]).is_queued is True
        assert cache.sync.get("k") is None
        for _ in range(30):
            await asyncio.sleep(0)
        assert "invalidate" in made[0].calls  # told behind
        await cache.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_thread_and_a_loop_share_a_load():
    cache, calls = memory_cache(), []
    begun, gate = threading.Event(), threading.Event()

    def load():
        calls.append(1)
        begun.set()
        gate.wait(10)
        return 42

    async def other():
        waiting = asyncio.create_task(cache.get_or_set("k", lambda: 0))
        while not cache.snapshot().joined:
            await asyncio.sleep(0.001)
        gate.set()
        return await waiting

    answers = []
    thread = threading.Thread(target=lambda: answers.append(cache.sync.get_or_set("k", load)))
    thread.start()
    assert begun.wait(10)
    answers.append(asyncio.run(asyncio.wait_for(other(), 20)))
    thread.join(10)
    assert answers == [42, 42] and len(calls) == 1


def test_a_plain_call_in_the_midst_of_a_load_of_its_own_loop_does_not_wait_for_it():
    cache = memory_cache()

    async def main():
        gate = asyncio.Event()
        loading = asyncio.create_task(cache.get_or_set("k", gate.wait))
        await asyncio.sleep(0)
        assert cache.sync.get_or_set("k", lambda: "plain") == "plain"
        gate.set()
        await loading

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_bounded_plain_load_runs_apart_and_is_given_up():
    cache = memory_cache(hard_timeout="50ms")
    gate = threading.Event()
    began = time.monotonic()
    answers = in_threads(3, lambda at: cache.sync.get_or_set("k", lambda: gate.wait(20)))
    assert all(isinstance(each, LoadTimedOut) for each in answers)
    assert time.monotonic() - began < 10
    gate.set()
    assert cache.sync.get_or_set("k", lambda: 1) == 1


def test_plain_functions_serve_what_is_stale_while_a_thread_makes_it_anew():
    wall = Clock()
    cache = memory_cache(wall=wall, ttl=10, jitter=0, early=0, stale_while_revalidate=100)
    calls = []

    @cache.cached("k")
    def load():
        calls.append(threading.current_thread().name)
        return len(calls)

    assert load() == 1
    wall.move(11)
    assert load() == 1
    until = time.monotonic() + 5
    while load() != 2 and time.monotonic() < until:
        time.sleep(0.002)
    assert load() == 2
    assert calls == [threading.current_thread().name, "headgate cache load"]


def test_threads_for_what_is_made_anew_are_bounded():
    wall = Clock()
    cache = memory_cache(wall=wall, ttl=10, jitter=0, early=0, stale_while_revalidate=1000)
    gate, lock, running, most = threading.Event(), threading.Lock(), [0], [0]

    def slow():
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait(10)
        with lock:
            running[0] -= 1
        return 2

    keys = [f"k{number}" for number in range(THREADS_MAX + 20)]
    for key in keys:
        cache.sync.set(key, 1)
    wall.move(11)
    assert [cache.sync.get_or_set(key, slow) for key in keys] == [1] * len(keys)
    gate.set()
    until = time.monotonic() + 5
    while (running[0] or cache.snapshot().loading) and time.monotonic() < until:
        time.sleep(0.002)
    assert most[0] <= THREADS_MAX
    assert cache.core._threads == 0


def test_a_plain_load_that_asks_for_itself_is_told_so():
    cache = memory_cache()

    @cache.cached("k:{n}")
    def load(n):
        return load(n)

    with pytest.raises(LoadReentered):
        load(1)


def test_threads_that_would_wait_for_each_other_are_told_so():
    cache, both = memory_cache(), threading.Barrier(2)

    def load(other):
        both.wait(10)
        return cache.sync.get_or_set(other, lambda: "inner")

    answers = in_threads(2, lambda at: cache.sync.get_or_set("ab"[at], lambda: load("ba"[at])))
    assert sum(isinstance(each, LoadReentered) for each in answers) >= 1
    assert all(isinstance(each, LoadReentered) or each == "inner" for each in answers)


def test_an_interrupt_of_the_leader_harms_only_the_leader():
    cache = memory_cache()
    begun, gate = threading.Event(), threading.Event()

    def interrupted():
        begun.set()
        gate.wait(10)
        raise SystemExit

    def lead():
        with pytest.raises(SystemExit):
            cache.sync.get_or_set("k", interrupted)

    answers = []
    leader = threading.Thread(target=lead)
    leader.start()
    assert begun.wait(10)
    follower = threading.Thread(
        target=lambda: answers.append(cache.sync.get_or_set("k", lambda: 42))
    )
    follower.start()
    while not cache.snapshot().joined:
        time.sleep(0.001)
    gate.set()
    leader.join(10)
    follower.join(10)
    assert answers == [42]


def test_many_threads_on_many_keys_never_see_a_value_older_than_an_invalidation():
    cache = Cache()
    truth = dict.fromkeys("abc", 0)
    lock = threading.Lock()

    def work(at):
        for number in range(300):
            key = "abc"[(number + at) % 3]
            if number % 5 == 0:
                with lock:
                    truth[key] += 1
                cache.sync.invalidate(tags=[key])
            else:
                before = truth[key] - 0
                got = cache.sync.get_or_set(key, lambda: truth[key], tags=[key])
                if got < before - 4:  # those of the 4 threads whose invalidation has not returned
                    return (key, got, before)
        return None

    assert in_threads(4, work) == [None] * 4
    for key, value in truth.items():
        cache.sync.invalidate(tags=[key])
        assert cache.sync.get_or_set(key, lambda: value, tags=[key]) == value


CHILD = """
import os, sys, threading, time
sys.path[:0] = [{root!r}]
from tests.cache.object_cache import Place, layered
place = Place(time.time)
cache, made = layered(place)
cache.sync.set("k", 1)
gate = threading.Event()
hung = threading.Thread(target=lambda: cache.sync.get_or_set("hung", lambda: gate.wait(20)), daemon=True)
hung.start()
while not cache.snapshot().loading:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    assert cache.snapshot().loading == 0
    assert cache.sync.get_or_set("hung", lambda: 7) == 7
    assert cache.sync.get("k") == 1
    assert len(made) == 2
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
gate.set()
assert cache.sync.get("k") == 1
assert len(made) == 1
print("well")
"""


@pytest.mark.integration
def test_the_child_of_a_fork_starts_anew():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(root=root)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "well\n", done.stderr


def test_a_function_of_the_default_cache_may_be_called_from_threads():
    calls = []

    @cached("threads:{n}")
    def load(n):
        calls.append(n)
        time.sleep(0.01)
        return n

    assert in_threads(8, lambda at: load(at % 2)) == [0, 1] * 4
    assert sorted(calls) == [0, 1]
