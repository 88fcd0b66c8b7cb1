"""Values, loaders and counts as nobody should write them, and somebody will."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import threading
import time
import warnings
from typing import Any

import pytest

from headgate.cache import (
    Cache,
    KeyUnusable,
    LoadAbandoned,
    Unencodable,
    ValueUnusable,
)
from tests.cache.object_cache import Place, layered


def run(main, patience_s=30):
    async def bounded():
        async with asyncio.timeout(patience_s):
            return await main()

    return asyncio.run(bounded())


async def one():
    return 1


async def several():
    yield 1


# ---- values that can be read once only


@pytest.mark.parametrize("copying", ["copy", "frozen", "shared"])
@pytest.mark.parametrize(
    "make,way",
    [
        (lambda: (n for n in range(3)), "list"),
        (several, "list"),
        (one, "await"),
    ],
    ids=["generator", "async-generator", "coroutine"],
)
def test_what_can_be_read_once_only_is_refused_and_told_apart(copying, make, way):
    async def main():
        cache = Cache(copying=copying)

        async def load():
            return make()

        with pytest.raises(ValueUnusable, match=way):
            await cache.get_or_set("k", load)
        with pytest.raises(ValueUnusable, match=way):
            await cache.set("k", make())
        assert await cache.get("k") is None

    run(main)
    gc.collect()  # a coroutine that was never awaited would say so now


def test_a_refused_value_of_many_leaves_all_as_it_was():
    async def main():
        cache = Cache()
        await cache.set("a", 1)
        with pytest.raises(ValueUnusable):
            await cache.set_many({"a": 2, "b": (n for n in range(3))})
        assert await cache.get("a") == 1

    run(main)


def test_many_values_are_a_mapping():
    async def main():
        with pytest.raises(TypeError, match="mapping"):
            await Cache().set_many([("a", 1)])  # type: ignore[arg-type]  # what it is about

    run(main)


# ---- loaders


class Failed(BaseException):
    """As test frameworks have it."""


@pytest.mark.parametrize("is_plain", [True, False], ids=["plain", "async"])
def test_an_odd_exception_goes_to_who_waits_and_the_loader_runs_once(is_plain):
    async def main():
        cache, calls = Cache(stale_if_error=60), []

        def plain():
            calls.append(1)
            raise Failed("odd")

        async def loader():
            await asyncio.sleep(0)
            plain()

        asked = [cache.get_or_set("k", plain if is_plain else loader) for _ in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, Failed) for each in found)
        assert len(calls) == 1
        assert not cache.snapshot().loading

    run(main)


def test_a_loader_that_cancels_its_task_is_not_run_for_ever():
    async def main():
        cache, calls = Cache(), []

        async def load():
            calls.append(1)
            if (task := asyncio.current_task()) is not None:
                task.cancel()
            await asyncio.sleep(1)

        with pytest.raises(LoadAbandoned, match="cancelled 3 times"):
            await cache.get_or_set("k", load)
        assert len(calls) == 3

    run(main)


def test_a_hundred_thousand_keys_leave_nothing_behind():
    async def main():
        cache = Cache(items=1000)

        async def load():
            await asyncio.sleep(0)
            return 1

        for start in range(0, 20_000, 5000):
            keys = range(start, start + 5000)
            await asyncio.gather(*(cache.get_or_set(f"k{n}", load) for n in keys))
        assert cache.snapshot().loading == 0
        assert not cache.core.tasks
        assert cache.memory.items <= 1000
        await cache.close()

    run(main)
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, asyncio.Task)]


# ---- counts


def test_counts_are_of_64_bits_in_every_layer(place):
    async def main():
        for cache in (Cache(), layered(place)[0]):
            await cache.increment("n", 2**62)
            with pytest.raises(OverflowError, match="64 bits"):
                await cache.increment("n", 2**63)
        cache = Cache()
        await cache.increment("n", 2**62)
        with pytest.raises(OverflowError, match="64 bits"):
            await cache.increment("n", 2**62)
        assert await cache.increment("n", 0) == 2**62

    run(main)


@pytest.mark.parametrize("error", [OverflowError, TypeError])
def test_a_count_that_the_layer_refuses_is_the_callers_error(place, error):
    async def main():
        cache, (layer,) = layered(place)

        async def add(key, amount, ttl_s):
            raise error("no")

        layer.add = add
        with pytest.raises(error):
            await cache.increment("n")

    run(main)


@pytest.fixture
def place():
    return Place(time.time)


# ---- what the second layer's codec cannot keep


def unencodable(layer):
    async def put(items, lease=None):
        await layer._step("put")
        raise Unencodable("a Shop cannot be kept exactly")

    layer.put = put


def test_a_value_that_cannot_be_encoded_is_kept_in_memory_and_said_once(place, caplog):
    async def main():
        cache, (layer,) = layered(place)
        unencodable(layer)
        events, calls = [], []
        cache.on_event(lambda event: events.append((event.what, event.key)))

        @cache.cached("shop:{n}", tags=["shops"])
        async def shop(n):
            calls.append(n)
            return {"shop": n}

        with caplog.at_level(logging.WARNING, "headgate.cache"):
            for _ in range(3):
                for n in range(3):
                    assert await shop(n) == {"shop": n}
        assert calls == [0, 1, 2]
        while place.leases:
            await asyncio.sleep(0)
        assert [key for what, key in events if what == "unencodable"] == [
            "shop:0",
            "shop:1",
            "shop:2",
        ]
        assert len(caplog.records) == 1
        assert "a Shop cannot be kept exactly" in caplog.text
        await cache.invalidate(tags=["shops"])
        await shop(1)
        assert calls == [0, 1, 2, 1]
        while place.leases:
            await asyncio.sleep(0)
        await cache.close()

    run(main)


def test_setting_a_value_that_cannot_be_encoded_is_an_error_and_nothing_stays(place):
    async def main():
        cache, (layer,) = layered(place)
        await cache.set("shop", "old")
        unencodable(layer)
        with pytest.raises(Unencodable, match="Shop") as caught:
            await cache.set("shop", "new")
        assert "'shop'" in caught.value.__notes__[0]
        assert await cache.get("shop") is None

    run(main)


# ---- names


def test_odd_keys_tags_patterns_and_namespaces_mean_themselves():
    async def main():
        cache = Cache()
        for key in ("a\0b", "[a]*?", "%41", "\U0001f600" * 100, "x" * 2048):
            await cache.set(key, 1, tags=[f"tag {key}"[:2048]])
            assert await cache.get(key) == 1
            await cache.invalidate(tags=[f"tag {key}"[:2048]])
            assert await cache.get(key) is None
        wrong: tuple[Any, ...] = ("", "x" * 100_000, "\ud800", 5, None, b"k")
        for each in wrong:
            with pytest.raises(KeyUnusable):
                await cache.set(each, 1)
        await cache.set_many({"[a]1": 1, "a1": 1, "a?": 1})
        await cache.invalidate(patterns=["a?"])
        assert sorted(await cache.get_many(["[a]1", "a1", "a?"])) == ["[a]1", "a1"]
        inner = cache.namespace("a:b").namespace("%")
        await inner.set("k", 1)
        await cache.set("a:b", 2)
        await inner.invalidate(everything=True)
        assert (await inner.get("k"), await cache.get("a:b")) == (None, 2)
        with pytest.raises(ValueError, match="the most is 100"):
            await cache.set("k", 1, tags=[f"t{n}" for n in range(10_000)])

    run(main)


@pytest.mark.parametrize("ttl", [0, -1, math.inf, math.nan, 1e300, 10**400, True, b"5", "0s"])
def test_a_time_that_cannot_be_is_an_error_that_names_it(ttl):
    async def main():
        cache = Cache()
        for call in (
            lambda: cache.set("k", 1, ttl=ttl),
            lambda: cache.touch("k", ttl),
            lambda: cache.increment("k", ttl=ttl),
            lambda: cache.get_or_set("k", one, ttl=ttl),
        ):
            with pytest.raises(ValueError, match="^ttl"):
                await call()

    run(main)


# ---- the clock of the machine is set


@pytest.mark.parametrize("by_s", [-3600.0, 86400.0 * 365], ids=["back", "ahead"])
def test_setting_the_clock_moves_no_end_of_what_is_in_memory(place, by_s):
    async def main():
        cache, _ = layered(place, jitter=0, early=0)
        await cache.set("long", 1, ttl=60)
        await cache.set("short", 1, ttl=0.02)
        shared = place.entries["long"]
        assert abs(shared.fresh_until - time.time() - 60) < 30, "others go by the wall clock"
        cache.core.wall = lambda: time.time() + by_s
        place.entries.clear()
        assert await cache.get("long") == 1
        while await cache.get("short") is not None:
            await asyncio.sleep(0.005)
        assert cache.sync.get("short") is None
        await cache.set("new", 1, ttl=60)
        assert abs(place.entries["new"].fresh_until - time.time() - by_s - 60) < 30
        place.wall = cache.core.wall
        cache.core.memory.clear()
        assert await cache.get("new") == 1
        assert await cache.touch("new", 600)
        assert place.entries["new"].fresh_until > time.time() + by_s + 300

    run(main)


# ---- forks while others hold locks


def test_a_thread_that_holds_the_memorys_lock_at_a_fork_blocks_no_child():
    import os

    cache = Cache()
    cache.sync.set("k", 1)
    held, go = threading.Event(), threading.Event()

    def hold():
        with cache.memory._lock:
            held.set()
            go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        worked = threading.Event()

        def work():
            cache.sync.set("k", 2)
            cache.sync.invalidate(keys=["j"])
            worked.set()

        threading.Thread(target=work, daemon=True).start()
        os._exit(0 if worked.wait(5) else 1)
    go.set()
    thread.join(10)
    _, status = os.waitpid(child, 0)
    assert status == 0


@pytest.mark.parametrize(
    "url,settings",
    [("redis://localhost", {"deadlin_s": 1}), ("file:/nowhere/c.db", {"sise": 1})],
    ids=["redis", "file"],
)
def test_a_setting_of_a_layer_that_there_is_not_is_said_with_those_there_are(url, settings):
    with pytest.raises(TypeError, match=r"layer_settings: no setting is named '\w+'; there is \w+"):
        Cache(url, layer_settings=settings)


def test_locks_of_the_process_that_were_held_at_a_fork_block_no_child():
    import os

    from headgate.cache import decorate, flight

    with warnings.catch_warnings(), decorate.DEFAULT._lock, flight._GRAPH.lock:
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            is_free = decorate.DEFAULT._lock.acquire(timeout=5)
            os._exit(0 if is_free and flight._GRAPH.lock.acquire(timeout=5) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
