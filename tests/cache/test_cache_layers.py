"""The object cache over a second layer: several processes, a layer that is away, gaps in the news."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from headgate.cache import CacheClosed
from headgate.cache.layer import Lease
from tests.cache.object_cache import Clock, Place, layered, memory_cache


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


async def steps(number=30):
    for _ in range(number):
        await asyncio.sleep(0)


def two(**settings):
    wall = Clock()
    place = Place(wall)
    settings = {"wall": wall, "jitter": 0, "early": 0} | settings
    one, made = layered(place, **settings)
    other, _ = layered(place, **settings)
    return one, other, made[0], wall, place


def test_what_one_process_makes_the_other_finds():
    async def main():
        one, other, _layer, _wall, _ = two()
        assert await one.get_or_set("k", lambda: [1], tags=["t"]) == [1]
        await steps()
        assert await other.get_or_set("k", lambda: [2]) == [1]
        assert await other.get_many(["k", "x"]) == {"k": [1]}
        assert other.core.memory.held["k"].tags == ("t",)
        await one.close()
        await other.close()

    run(main())


def test_set_delete_and_invalidate_are_seen_by_the_other():
    async def main():
        one, other, *_ = two()
        await one.set("k", 1, tags=["t"])
        assert await other.get("k") == 1
        await one.set("k", 2, tags=["t"])
        assert await other.get("k") == 2
        await one.delete("k")
        assert await other.get("k") is None
        await one.set("k", 3, tags=["t"])
        assert await other.get("k") == 3
        done = await other.invalidate(tags=["t"])
        assert done.stamp > 0 and not done.is_queued
        assert await one.get("k") is None
        assert await one.increment("n") == 1
        assert await other.increment("n", 4) == 5
        await one.set("k", 4, ttl=10)
        assert await other.touch("k", 100) is True

    run(main())


def test_a_value_read_before_an_invalidation_elsewhere_is_not_written_back():
    async def main():
        one, other, _layer, _wall, place = two()
        gate = asyncio.Event()

        async def slow():
            await gate.wait()
            return "old"

        early = asyncio.create_task(one.get_or_set("k", slow, tags=["t"]))
        await steps()
        await other.invalidate(tags=["t"])
        gate.set()
        assert await early == "old"
        await steps()
        assert place.entries == {}
        assert await one.get("k") is None
        assert await one.get_or_set("k", lambda: "new") == "new"

    run(main())


def test_of_two_processes_one_loads():
    async def main():
        one, other, _layer, _wall, place = two()
        gate, calls = asyncio.Event(), []

        async def load(name):
            calls.append(name)
            await gate.wait()
            return name

        first = asyncio.create_task(one.get_or_set("k", lambda: load("one")))
        await steps()
        callers = [
            asyncio.create_task(other.get_or_set("k", lambda: load("other"))) for _ in range(3)
        ]
        await asyncio.sleep(0.05)
        gate.set()
        assert await first == "one"
        assert await asyncio.gather(*callers) == ["one"] * 3
        assert calls == ["one"]
        await steps()
        assert place.leases == {}

    run(main())


def test_who_waits_for_a_lease_in_vain_loads_for_himself():
    async def main():
        one, _, layer, _wall, place = two(lease_wait="50ms")
        place.leases["k"] = Lease("k", 1, 0.0)  # of a process that was killed
        assert await one.get_or_set("k", lambda: 1) == 1
        assert await one.get_or_set("free", lambda: 1, lease=False) == 1
        assert layer.calls.count("lease") > 1

    run(main())


def test_a_lease_is_given_back_when_the_load_fails_or_is_too_slow():
    async def main():
        one, _, _layer, _wall, place = two()

        async def failing():
            raise OSError("down")

        with pytest.raises(OSError, match="down"):
            await one.get_or_set("k", failing)
        with pytest.raises(TimeoutError):
            await one.get_or_set("slow", asyncio.Event().wait, hard_timeout="20ms")
        await steps()
        assert place.leases == {}

    run(main())


def test_what_is_stale_in_the_second_layer_stands_in_for_a_load_that_fails():
    async def main():
        one, other, _layer, wall, _place = two(ttl=10, stale_if_error=100)
        await one.get_or_set("k", lambda: 1)
        await steps()
        wall.move(11)

        async def failing():
            raise OSError("down")

        assert await other.get_or_set("k", failing) == 1
        assert other.snapshot().stale == 1

    run(main())


def test_what_is_stale_in_the_second_layer_is_served_while_it_is_made_anew():
    async def main():
        one, other, _layer, wall, _place = two(ttl=10, stale_while_revalidate=100)
        await one.get_or_set("k", lambda: 1)
        await steps()
        wall.move(11)
        assert await other.get_or_set("k", lambda: 2) == 1
        await steps()
        assert await other.get_or_set("k", lambda: 3) == 2

    run(main())


def test_a_layer_that_is_away_is_gone_without():
    async def main():
        one, _other, layer, _wall, _place = two()
        layer.is_away = True
        calls = 0

        async def load():
            nonlocal calls
            calls += 1
            return calls

        assert await one.get("k") is None
        assert await one.get_or_set("k", load) == 1
        assert await one.get_or_set("k", load) == 1
        await one.set("s", 1)
        assert await one.get("s") == 1
        assert await one.get_many(["s", "t"]) == {"s": 1}
        assert await one.increment("n") == 1
        assert await one.increment("n") == 2
        await one.delete("s")
        assert await one.get("s") is None
        assert await one.touch("k") is True
        await one.set("t", 1, tags=["t"])
        assert (await one.invalidate(tags=["t"])).is_queued is True
        assert await one.get("t") is None
        assert one.health().is_away is True

    run(main())


def test_while_news_is_not_heard_what_was_kept_is_not_served_and_what_is_new_only_shortly():
    async def main():
        one, _other, layer, wall, _place = two(ttl=100, away_ttl=1)
        await one.get_or_set("k", lambda: "before")
        layer.is_away = True
        assert one.health().is_coherent is False
        assert await one.get("k") is None
        assert await one.get_or_set("k", lambda: "meanwhile") == "meanwhile"
        assert await one.get_or_set("k", lambda: "again") == "meanwhile"
        wall.move(1.1)
        assert await one.get_or_set("k", lambda: "again") == "again"

    run(main())


def test_while_news_is_not_heard_what_was_kept_may_stand_in_for_a_failed_load():
    async def main():
        one, _other, layer, _wall, _place = two(ttl=100, stale_if_error=100)
        await one.get_or_set("k", lambda: "before")
        layer.is_away = True
        layer.gap()

        async def failing():
            raise OSError("down")

        assert await one.get_or_set("k", failing) == "before"
        with pytest.raises(OSError):
            await one.get_or_set("other", failing)

    run(main())


def test_while_news_is_not_heard_what_was_kept_may_be_served_if_so_wished():
    async def main():
        one, _other, layer, wall, _place = two(ttl=100, when_away="stale")
        await one.get_or_set("k", lambda: "before")
        layer.is_away = True
        assert await one.get_or_set("k", lambda: "new") == "before"
        wall.move(101)
        assert await one.get_or_set("k", lambda: "new") == "new"

    run(main())


def test_after_a_gap_nothing_of_before_is_served():
    async def main():
        one, other, layer, _wall, _place = two(ttl=100, stale_if_error=100, when_away="stale")
        await one.get_or_set("k", lambda: "before")
        await steps()
        layer.is_silent = layer.is_away = True
        await other.invalidate(keys=["k"])  # which the first one does not hear
        layer.gap()
        layer.is_silent = layer.is_away = False

        async def failing():
            raise OSError("down")

        with pytest.raises(OSError):
            await one.get_or_set("k", failing)
        assert await one.get_or_set("k", lambda: "after") == "after"
        assert one.snapshot().gaps >= 1

    run(main())


def test_a_layer_that_fails_in_a_way_of_its_own_does_not_stop_a_call(caplog):
    async def main():
        one, _other, layer, _wall, _place = two()
        said = []
        one.on_event(lambda event: said.append(event.what))

        async def broken(*args):
            raise RuntimeError("a bug")

        layer.get = layer.put = layer.lease = broken
        assert await one.get_or_set("k", lambda: 1) == 1
        assert "layer_failed" in said

    run(main())
    assert "the place layer of the cache failed" in caplog.text


def test_a_program_that_runs_one_loop_after_another_opens_the_layer_anew():
    wall = time.time
    place = Place(wall)
    cache, made = layered(place, wall=wall)

    async def first():
        await cache.set("k", 1)
        assert await cache.get("k") == 1

    async def second():
        assert await cache.get("k") == 1

    run(first())
    run(second())
    run(second())
    assert len(made) == 3
    assert [layer.started for layer in made] == [1, 1, 1]


def test_another_loop_reaches_the_layer_through_its_home():
    cache, made = layered(Place(time.time))
    found = []

    async def main():
        await cache.start()
        await cache.set("k", 1)
        cache.core.memory.clear()

        async def elsewhere():
            found.append(await cache.get("k"))
            found.append(await cache.get_or_set("l", lambda: 2))

        thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.002)
        thread.join()
        await cache.close()

    run(main())
    assert found == [1, 2]
    assert len(made) == 1 and made[0].closed == 1


def test_callers_may_leave_while_the_layer_starts():
    async def main():
        cache, made = layered(Place(time.time))
        gate = asyncio.Event()
        layer = made[0]
        plain = layer.start

        async def slow():
            await gate.wait()
            await plain()

        layer.start = slow
        one = asyncio.create_task(cache.get("k"))
        two = asyncio.create_task(cache.get("k", 7))
        await steps()
        one.cancel()
        await steps()
        gate.set()
        assert await two == 7
        assert layer.started == 1
        await cache.close()
        with pytest.raises(CacheClosed):
            await cache.get("k")

    run(main())


def test_the_layer_is_asked_though_it_calls_itself_away_before_it_is_started():
    async def main():
        cache, made = layered(Place(time.time))
        made[0].is_away = True
        plain = made[0].start

        async def start():
            made[0].is_away = False
            await plain()

        made[0].start = start
        await cache.set("k", 1)
        assert "put" in made[0].calls

    run(main())


def test_memory_alone_is_coherent_and_well():
    health = memory_cache().health()
    assert (health.is_ok, health.is_away, health.is_coherent, health.why) == (True, False, True, "")


@pytest.mark.parametrize("what", ["load", "layer"])
def test_what_was_on_its_way_when_news_was_missed_is_of_before_the_gap(what):
    async def main():
        one, other, layer, _wall, _place = two(ttl=100)
        gate = asyncio.Event()

        async def slow():
            await gate.wait()
            return "old"

        if what == "load":
            asking = asyncio.create_task(one.get_or_set("k", slow))
        else:
            await other.set("k", "old")
            await one.start()
            plain = layer.get

            async def late(keys):
                found = await plain(keys)
                await gate.wait()
                return found

            layer.get = late
            asking = asyncio.create_task(one.get("k"))
        await steps()
        layer.gap()
        gate.set()
        assert await asking == "old"
        await steps()
        if what == "load":
            layer.place.entries.clear()  # which the layer would have judged by what it missed
        if what == "layer":
            assert layer.calls.count("get") == 2  # it was asked again
        else:
            held = one.core.memory.held.get("k")
            assert held is None or not one.core.is_plain(held, one.core.wall())
        assert await one.get_or_set("k", lambda: "new", lease=False) == (
            "new" if what == "load" else "old"
        )

    run(main())


def test_who_knows_what_a_load_takes_does_not_wait_long_for_a_lease_of_the_dead():
    async def main():
        place = Place(time.time)
        cache, _ = layered(place)

        async def load():
            return "mine"

        assert await cache.get_or_set("f:1", load) == "mine"
        place.leases["f:2"] = Lease("f:2", 99, 0.0)  # nobody will ever give it back
        async with asyncio.timeout(5):  # lease_wait is 10 s
            assert await cache.get_or_set("f:2", load) == "mine"
        await cache.close()

    run(main())
