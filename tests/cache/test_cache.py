"""What callers of the object cache see: in memory, and over a second layer."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from headgate.cache import (
    NOT_MODIFIED,
    Cache,
    CacheClosed,
    KeyUnusable,
    LoadAbandoned,
    LoadTimedOut,
)
from headgate.cache.invalidation import Invalidation
from headgate.cache.memory import Memory
from headgate.cache.sizing import Size, SizingRules
from tests.cache.object_cache import Clock, Place, layered, memory_cache


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


async def steps(number=10):
    for _ in range(number):
        await asyncio.sleep(0)


class Counter:
    """A loader that answers 1, 2, 3..., or fails when told to."""

    def __init__(self):
        self.calls = 0
        self.error = None

    async def __call__(self):
        self.calls += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.calls


def clocked(**settings):
    wall = Clock()
    settings = {"jitter": 0, "early": 0} | settings
    return memory_cache(wall=wall, clock=Clock(0.0), **settings), wall


# ---- values


def test_get_set_delete():
    async def main():
        async with Cache() as cache:
            assert await cache.get("k") is None
            assert await cache.get("k", "default") == "default"
            await cache.set("k", 1)
            assert await cache.get("k") == 1
            await cache.set("none", None)
            assert await cache.get("none", "default") is None
            await cache.delete("k", "missing")
            assert await cache.get("k") is None
        with pytest.raises(CacheClosed):
            await cache.get("k")

    run(main())


def test_many_at_once():
    async def main():
        cache = Cache(namespace="n")
        await cache.set_many({"a": 1, "b": 2})
        assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        with pytest.raises(TypeError, match="write a list of keys"):
            await cache.get_many("abc")

    run(main())


@pytest.mark.parametrize(
    "key", [1, None, "", b"k", "x" * 5000], ids=["int", "none", "empty", "bytes", "long"]
)
def test_what_is_no_key_is_refused_by_every_call(key):
    async def main():
        for cache in (Cache(), Cache(namespace="n")):
            for call in (
                lambda: cache.get(key),
                lambda: cache.set(key, 1),
                lambda: cache.get_or_set(key, lambda: 1),
                lambda: cache.delete(key),
                lambda: cache.touch(key),
                lambda: cache.increment(key),
                lambda: cache.get_many([key]),
                lambda: cache.invalidate(keys=[key]),
            ):
                with pytest.raises(KeyUnusable):
                    await call()

    run(main())


def test_values_are_fresh_for_their_time():
    async def main():
        cache, wall = clocked()
        await cache.set("k", 1, ttl="10s")
        wall.move(9.99)
        assert await cache.get("k") == 1
        wall.move(0.02)
        assert await cache.get("k") is None

    run(main())


def test_jitter_only_shortens():
    async def main():
        cache, wall = clocked(jitter="50%", rng=random.Random(1))
        for number in range(200):
            await cache.set(f"k{number}", number, ttl=100)
        ends = [held.fresh_until - wall.at for held in cache.core.memory.held.values()]
        assert 50 <= min(ends) < 60 and 90 < max(ends) <= 100

    run(main())


def test_touch_moves_the_end():
    async def main():
        cache, wall = clocked(ttl=10)
        await cache.set("k", [1])
        wall.move(9)
        assert await cache.touch("k", 5) is True
        wall.move(4)
        assert await cache.get("k") == [1]
        wall.move(2)
        assert await cache.get("k") is None
        assert await cache.touch("k") is False

    run(main())


def test_increment_counts_and_keeps_its_first_end():
    async def main():
        cache, wall = clocked()
        assert await cache.increment("n", ttl=10) == 1
        wall.move(6)
        assert await cache.increment("n", 5, ttl=10) == 6
        assert await cache.get("n") == 6
        wall.move(6)
        assert await cache.increment("n") == 1
        await cache.set("text", "a")
        with pytest.raises(TypeError, match="not a whole number"):
            await cache.increment("text")
        with pytest.raises(TypeError, match="1.5 is not a whole number"):
            await cache.increment("n", 1.5)

    run(main())


def test_callers_cannot_spoil_what_is_kept():
    async def main():
        cache = Cache()
        mine = {"a": [1]}
        await cache.set("k", mine)
        mine["a"].append(2)
        (await cache.get("k"))["a"].append(3)
        (await cache.get_many(["k"]))["k"]["a"].append(4)
        assert await cache.get("k") == {"a": [1]}
        one, two = await asyncio.gather(*[cache.get_or_set("l", lambda: [1]) for _ in range(2)])
        one.append(2)
        assert two == [1] == await cache.get_or_set("l", list)
        shared = Cache(copying="shared")
        await shared.set("k", mine)
        assert await shared.get("k") is mine

    run(main())


def test_the_memory_is_bounded():
    async def main():
        cache = Cache(items=100)
        for number in range(1000):
            await cache.set(f"k{number}", number)
        snapshot = cache.snapshot()
        assert snapshot.memory.items <= 100
        assert isinstance(cache.core.memory, Memory)

    run(main())


# ---- loads


def test_get_or_set_loads_once_and_takes_plain_loaders():
    async def main():
        cache, load = memory_cache(), Counter()
        assert [await cache.get_or_set("k", load) for _ in range(3)] == [1, 1, 1]
        assert await cache.get_or_set("plain", lambda: 7) == 7
        with pytest.raises(TypeError, match="cannot be called; to keep a value, use set"):
            await cache.get_or_set("value", 7)
        with pytest.raises(TypeError, match="takes nothing, or one parameter"):
            await cache.get_or_set("two", lambda a, b: 7)

    run(main())


def test_stale_while_revalidate_serves_at_once_and_loads_behind():
    async def main():
        cache, wall = clocked(ttl=10, stale_while_revalidate=60)
        load = Counter()
        await cache.get_or_set("k", load)
        wall.move(11)
        assert [await cache.get_or_set("k", load) for _ in range(5)] == [1] * 5
        await steps()
        assert load.calls == 2
        assert await cache.get_or_set("k", load) == 2
        wall.move(71)
        assert await cache.get_or_set("k", load) == 3

    run(main())


def test_stale_if_error_serves_when_the_load_fails_and_then_pauses():
    async def main():
        cache, wall = clocked(ttl=10, stale_if_error=60, pause=5)
        load = Counter()
        await cache.get_or_set("k", load)
        wall.move(11)
        load.error = OSError("down")
        assert [await cache.get_or_set("k", load) for _ in range(5)] == [1] * 5
        assert load.calls == 2
        wall.move(6)
        assert await cache.get_or_set("k", load) == 1
        assert load.calls == 3
        wall.move(60)
        with pytest.raises(OSError, match="down"):
            await cache.get_or_set("k", load)
        load.error = None
        assert await cache.get_or_set("k", load) == 5

    run(main())


def test_soft_timeout_serves_what_is_stale_while_the_load_goes_on():
    async def main():
        cache, wall = clocked(ttl=10, stale_if_error=60, soft_timeout="20ms")
        gate = asyncio.Event()

        async def slow():
            await gate.wait()
            return "new"

        assert await cache.get_or_set("k", lambda: "old") == "old"
        wall.move(11)
        assert await cache.get_or_set("k", slow) == "old"
        gate.set()
        await steps()
        assert await cache.get("k") == "new"
        # With nothing to serve one waits, up to the hard one.
        with pytest.raises(LoadTimedOut):
            await cache.get_or_set("n", asyncio.Event().wait, hard_timeout="60ms")

    run(main())


def test_hard_timeout_serves_what_is_stale_if_it_may():
    async def main():
        cache, wall = clocked(ttl=10, stale_if_error=60)
        await cache.get_or_set("k", lambda: "old")
        wall.move(11)
        hung = asyncio.Event().wait
        assert await cache.get_or_set("k", hung, hard_timeout="20ms") == "old"

    run(main())


def test_what_is_dear_is_made_anew_before_its_end():
    async def main():
        wall, now = Clock(), Clock(0.0)
        cache = memory_cache(wall=wall, clock=now, ttl=100, jitter=0, rng=random.Random(5))
        calls = 0

        async def load():
            nonlocal calls
            calls += 1
            now.move(2.0)
            return calls

        await cache.get_or_set("k", load)
        wall.move(50)
        for _ in range(100):
            assert await cache.get_or_set("k", load) == 1
        await steps()
        assert calls == 1
        wall.move(48)
        for _ in range(100):
            await cache.get_or_set("k", load)
            await steps(2)
        assert calls == 2
        assert cache.snapshot().early >= 1
        assert cache.snapshot().costs_s == {"k": 2.0}

    run(main())


@pytest.mark.parametrize(
    "negative_ttl, again", [(0, True), (5, True), (None, False)], ids=["never", "short", "as_any"]
)
def test_none_is_remembered_as_long_as_is_said(negative_ttl, again):
    async def main():
        cache, wall = clocked(ttl=100, negative_ttl=negative_ttl)
        calls = 0

        async def load():
            nonlocal calls
            calls += 1

        assert await cache.get_or_set("k", load) is None
        wall.move(6)
        assert await cache.get_or_set("k", load) is None
        assert (calls == 2) == again

    run(main())


def test_chosen_exceptions_are_remembered_and_raised_without_their_frames():
    class NotFound(Exception):
        pass

    async def main():
        cache, wall = clocked(negative=NotFound, negative_ttl=5)
        load = Counter()
        load.error = NotFound("no such user")
        for _ in range(3):
            with pytest.raises(NotFound, match="no such user") as caught:
                await cache.get_or_set("k", load)
        assert load.calls == 1
        assert caught.value is not load.error
        assert await cache.get("k", "default") == "default"
        wall.move(6)
        with pytest.raises(NotFound):
            await cache.get_or_set("k", load)
        assert load.calls == 2
        load.error = OSError()
        for _ in range(2):
            with pytest.raises(OSError):
                await cache.get_or_set("other", load)
        assert load.calls == 4

    run(main())


def test_ttl_and_tags_may_come_from_the_value():
    async def main():
        cache, wall = clocked()
        value = {"id": 7, "max_age": 5}
        made = {"ttl": lambda each: each["max_age"], "tags": lambda each: [f"product:{each['id']}"]}
        await cache.get_or_set("k", lambda: value, **made)
        await cache.set("s", value, **made)
        assert (
            cache.core.memory.held["k"].tags == cache.core.memory.held["s"].tags == ("product:7",)
        )
        await cache.invalidate(tags=["product:7"])
        assert await cache.get("k") is None and await cache.get("s") is None
        await cache.get_or_set("k", lambda: value, **made)
        wall.move(6)
        assert await cache.get("k") is None

    run(main())


def test_the_loader_may_say_ttl_tags_and_that_it_is_not_to_be_kept():
    async def main():
        cache, wall = clocked()

        async def load(entry):
            assert entry.key == "k" and not entry.has_old
            entry.ttl = "2s"
            entry.tags = [*entry.tags, "b"]
            return 1

        await cache.get_or_set("k", load, tags=["a"])
        assert cache.core.memory.held["k"].tags == ("a", "b")
        wall.move(3)
        assert await cache.get("k") is None

        def forget(entry):
            entry.keep = False
            return 1

        assert await cache.get_or_set("f", forget) == 1
        assert await cache.get("f") is None

        def wrong(entry):
            entry.ttl = "soon"

        with pytest.raises(ValueError, match='ttl: "soon" is not a duration'):
            await cache.get_or_set("w", wrong)

    run(main())


def test_conditional_refresh_keeps_the_old_value_if_the_source_says_so():
    async def main():
        cache, wall = clocked(ttl=10, retain=100)
        seen = []

        async def load(entry):
            seen.append((entry.has_old, entry.old, entry.old_validator))
            if entry.old_validator == "v1":
                return NOT_MODIFIED
            entry.validator = "v1"
            entry.tags = ["t"]
            return {"big": "value"}

        assert await cache.get_or_set("k", load) == {"big": "value"}
        wall.move(11)
        assert await cache.get("k") is None
        assert await cache.get_or_set("k", load) == {"big": "value"}
        wall.move(9)
        assert await cache.get("k") == {"big": "value"}
        wall.move(2)
        assert await cache.get_or_set("k", load) == {"big": "value"}
        assert seen == [(False, None, "")] + [(True, {"big": "value"}, "v1")] * 2
        await cache.invalidate(tags=["t"])
        assert await cache.get_or_set("k", load) == {"big": "value"}
        assert seen[-1] == (False, None, "")
        with pytest.raises(LoadAbandoned, match="without an old value"):
            await cache.get_or_set("n", lambda: NOT_MODIFIED)

    run(main())


# ---- invalidation


@pytest.mark.parametrize(
    "what, gone",
    [
        pytest.param({"tags": ["even"]}, {"a:2", "b:2"}, id="tag"),
        pytest.param({"keys": ["a:1", "zz"]}, {"a:1"}, id="key"),
        pytest.param({"patterns": ["a:*"]}, {"a:1", "a:2"}, id="pattern"),
        pytest.param({"patterns": ["*:2"], "keys": ["b:1"]}, {"a:2", "b:1", "b:2"}, id="both"),
        pytest.param({"everything": True}, {"a:1", "a:2", "b:1", "b:2"}, id="everything"),
        pytest.param({"tags": ["zz"]}, set(), id="none"),
    ],
)
@pytest.mark.parametrize("place", ["memory", "layer"])
def test_what_is_named_is_forgotten(what, gone, place):
    async def main():
        wall = Clock()
        cache = memory_cache(wall=wall) if place == "memory" else layered(Place(wall), wall=wall)[0]
        for key in ("a:1", "a:2", "b:1", "b:2"):
            await cache.set(key, key, tags=["even"] if key.endswith("2") else [])
        await cache.invalidate(**what)
        left = await cache.get_many(["a:1", "a:2", "b:1", "b:2"])
        assert {"a:1", "a:2", "b:1", "b:2"} - set(left) == gone

    run(main())


def test_what_is_softly_invalidated_is_served_while_it_is_made_anew():
    async def main():
        cache, load = memory_cache(), Counter()
        await cache.get_or_set("k", load, tags=["t"])
        await cache.invalidate(tags=["t"], soft=True)
        assert await cache.get("k") is None
        assert await cache.get_or_set("k", load, tags=["t"]) == 1
        await steps()
        assert await cache.get_or_set("k", load, tags=["t"]) == 2
        # A hard one leaves nothing to serve.
        await cache.invalidate(tags=["t"])
        assert await cache.get_or_set("k", load, tags=["t"]) == 3

    run(main())


@pytest.mark.parametrize(
    "what, says",
    [
        pytest.param({}, "name tags=, keys= or patterns=", id="nothing"),
        pytest.param({"tags": "t"}, r"write a list, as in tags=\['t'\]", id="text"),
        pytest.param({"tags": [""]}, "not a text", id="empty"),
        pytest.param({"tags": [str(n) for n in range(1001)]}, "more than 1000 names", id="many"),
    ],
)
def test_an_invalidation_that_cannot_be_says_why(what, says):
    async def main():
        with pytest.raises((TypeError, ValueError), match=says):
            await memory_cache().invalidate(**what)

    run(main())


def test_namespaces_are_prefixes_with_settings_of_their_own():
    async def main():
        cache, wall = clocked(ttl=100)
        users = cache.namespace("users", ttl=10)
        eu = users.namespace("eu")
        for each in (cache, users, eu):
            await each.set("1", repr(each), tags=["all"])
        assert set(cache.core.memory.held) == {"1", "users:1", "users:eu:1"}
        assert await cache.get("users:1") == "<Cache 'users:' in memory>"
        wall.move(11)
        assert await users.get("1") is None and await eu.get("1") is None
        assert await cache.get("1")
        for each in (cache, users, eu):
            await each.set("1", 1)
        await users.invalidate(everything=True)
        assert await cache.get("1") == 1
        assert await users.get("1") is None and await eu.get("1") is None
        await eu.set("1", 1)
        await users.invalidate(keys=["1"], patterns=["e*"])
        assert await eu.get("1") is None
        await users.set("1", 1, tags=["all"])
        await cache.invalidate(tags=["all"])
        assert await users.get("1") is None

    run(main())


# ---- events, links


def test_what_happens_is_told_and_a_failing_listener_harms_nobody(caplog):
    async def main():
        said: list = []
        cache = memory_cache(on_event=lambda event: said.append(event.what))
        cache.on_event(lambda event: 1 / 0)
        await cache.get_or_set("user:1", lambda: 1)
        await cache.get("user:1")
        await cache.get("user:2")
        await cache.set("user:2", 2)
        await cache.delete("user:2")
        await cache.invalidate(tags=["t"])
        with pytest.raises(OSError):
            await cache.get_or_set("user:3", failing)
        assert said == [
            "miss",
            "load",
            "hit",
            "miss",
            "set",
            "deleted",
            "invalidated",
            "miss",
            "load_failed",
        ]

    async def failing():
        raise OSError

    run(main())
    assert "a listener of the cache failed" in caplog.text


def test_a_listener_may_leave():
    async def main():
        said: list = []
        cache = memory_cache()
        end = cache.on_event(said.append)
        await cache.get("a")
        end()
        end()
        await cache.get("a")
        assert [event.what for event in said] == ["miss"]
        assert cache.core.listeners.is_heard is False

    run(main())


class Gateway:
    """A link that notes what it is told."""

    def __init__(self, answer=True):
        self.told = []
        self.answer = answer
        self.hear: Any = None
        self.gap: Any = None
        self.is_closed = False

    async def start(self, hear, on_gap):
        self.hear, self.gap = hear, on_gap

    async def tell(self, invalidation):
        self.told.append(invalidation)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self):
        self.is_closed = True


@pytest.mark.parametrize(
    "answer, is_queued",
    [(True, False), (False, True), (OSError(), True)],
    ids=["told", "queued", "failed"],
)
def test_links_are_told_what_is_invalidated(answer, is_queued):
    async def main():
        link = Gateway(answer)
        async with memory_cache(links=[link]) as cache:
            done = await cache.namespace("n").invalidate(tags=["t"], keys=["k"])
            assert done.is_queued is is_queued
            assert link.told == [Invalidation(tags=("t",), keys=("n:k",), stamp=done.stamp)]
        assert link.is_closed

    run(main())


@pytest.mark.parametrize("place", ["memory", "layer"])
def test_news_of_a_link_strikes_what_was_loaded_before_it(place):
    async def main():
        link, wall = Gateway(), Clock()
        cache = memory_cache(links=[link], wall=wall)
        other = None
        if place == "layer":
            shared = Place(wall)
            cache, _ = layered(shared, links=[link], wall=wall)
            other, _ = layered(shared, wall=wall)
        await cache.start()
        await cache.set("k", 1, tags=["t"])
        if other is not None:
            assert await other.get("k") == 1
        gate = asyncio.Event()

        async def slow(entry):
            await gate.wait()
            entry.tags = ["t"]
            return "old"

        loading = asyncio.create_task(cache.get_or_set("slow", slow))
        await steps()
        link.hear(Invalidation(tags=("t",), stamp=1))
        if place == "memory":
            assert await cache.get("k") is None
        gate.set()
        assert await loading == "old"
        await steps(30)
        assert await cache.get("k") is None and await cache.get("slow") is None
        if other is not None:
            assert await other.get("k") is None
        assert link.told == []
        await cache.set("k", 2, tags=["t"])
        link.gap()
        assert await cache.get("k") == (None if place == "memory" else 2)

    run(main())


def test_the_memory_may_find_its_own_size_and_be_resized():
    async def main():
        cache = Cache(items=100, sizing=SizingRules(Size(10, 10_000), Size(1000, 10_000_000)))
        for number in range(100):
            await cache.set(f"k{number}", number)
        cache.memory.resize(10, 1_000_000)
        assert cache.snapshot().memory.items <= 10
        assert cache.memory.advice() is not None

    run(main())


def test_threads_and_loops_may_raise_barriers_while_others_judge():
    """Patterns are gone through one by one, which another thread may be adding to."""
    cache = memory_cache()
    cache.sync.set("k", 1)
    over = threading.Event()

    def invalidate():
        for number in range(3000):
            cache.sync.invalidate(patterns=[f"other{number % 900}*"])
        over.set()

    async def main():
        while not over.is_set():
            for _ in range(200):
                assert await cache.get("k") == 1
            await asyncio.sleep(0)

    thread = threading.Thread(target=invalidate)
    thread.start()
    run(main())
    thread.join(20)
