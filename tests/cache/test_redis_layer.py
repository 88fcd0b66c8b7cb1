"""The Redis layer on a Redis that is well: what is kept, struck, leased, counted and found."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.cache.entry import Entry
from headgate.cache.invalidation import Invalidation
from headgate.cache.redis import RedisLayer, open_layer
from headgate.state.home import StateUnusable
from tests.cache.redis_rig import (
    cluster_in,
    made,
    of_keys,
    of_tags,
    opened,
    run,
    server_in,
    settled,
    until,
    value_of,
)
from tests.state.redis_server import RedisServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["single", "cluster"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "single":
        with server_in(folder) as server:
            yield server.url
    else:
        with cluster_in(folder) as nodes:
            yield nodes[0].url


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with server_in(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.mark.parametrize(
    "key",
    ["user:1", "", "}", "{}", "a}b{c", "k*?[x]\\", "\ud800", "x" * 5000, "ключ\r\n\0"],
    ids=["plain", "empty", "brace", "pair", "braces", "glob", "surrogate", "long", "bytes"],
)
def test_what_is_put_is_read_by_another_and_found_and_struck(place: str, key: str):
    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            await one.put({key: made(one, {"n": 1})})
            assert await value_of(other, key) == {"n": 1}
            if "*" not in key and key:
                assert [found async for found in other.scan(key)] == [key]
            if key and len(key) < 2000:
                assert not (await other.invalidate(of_keys(key))).is_queued
                assert await value_of(one, key) is None
                assert key not in [found async for found in one.scan("*")]
            else:
                await one.invalidate(Invalidation(everything="all"))

    run(main)


def test_a_struck_tag_is_dead_to_all_and_to_those_who_come_later(place: str):
    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            await one.put({"a": made(one, 1, ("t", "x")), "b": made(one, 2, ("x",))})
            assert [e.value for e in await other.get(["a", "b"]) if e] == [1, 2]
            stale = made(one, "old", ("t",))
            await other.invalidate(of_tags("t"))
            assert await one.get(["a"]) == [None]
            await one.put({"a": stale})
            for layer in (one, other):
                assert await layer.get(["a"]) == [None]
            async with opened(place) as late:
                await settled(late)
                assert await value_of(late, "a") is None
                assert await value_of(late, "b") == 2

    run(main)


def test_barriers_from_before_the_read_end_of_the_stream_are_looked_up(
    place: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headgate.cache.redis.coherence.RECORDS", 2)

    async def main() -> None:
        async with opened(place) as one:
            await settled(one)
            await one.put({f"lk{n}": made(one, n, (f"lt{n}",)) for n in range(3)})
            await one.invalidate(of_tags("lt0"))
            await one.invalidate(Invalidation(tags=("lt1",), soft=True))
            for n in range(5):
                await one.invalidate(of_keys(f"none{n}"))
            async with opened(place) as late:
                await settled(late)
                dead, soft, alive = await late.get(["lk0", "lk1", "lk2"])
                assert dead is None
                assert soft is not None
                assert soft.fresh_until <= time.time()
                assert alive is not None
                assert alive.fresh_until > time.time()
                # A barrier that comes after it was looked up is heard of, not looked up.
                await one.invalidate(of_tags("lt2"))
                assert await late.get(["lk2"]) == [None]

    run(main)


@pytest.mark.parametrize(
    ("said", "dead"),
    [
        (Invalidation(patterns=("p:1*",)), {"p:1", "p:10"}),
        (Invalidation(patterns=("*0",)), {"p:10", "p:20"}),
        (Invalidation(everything="objects"), {"p:1", "p:10", "p:20"}),
        (Invalidation(everything="responses"), set()),
        (Invalidation(keys=("p:1",), tags=("t20",)), {"p:1", "p:20"}),
    ],
    ids=["prefix", "suffix", "all", "other-family", "both"],
)
def test_wide_barriers_hold_for_all(place: str, said: Invalidation, dead: set[str]):
    keys = ["p:1", "p:10", "p:20"]

    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            await one.put({key: made(one, key, ("t" + key[2:],)) for key in keys})
            await one.invalidate(said)
            async with opened(place) as late:
                await settled(late)
                for layer in (one, other, late):
                    found = await layer.get(keys)
                    assert {k for k, e in zip(keys, found, strict=True) if e is None} == dead
            await one.put({key: made(one, key) for key in keys})  # anew, it lives
            assert None not in await other.get(keys)

    run(main)


def test_a_slow_loader_does_not_write_back_over_a_struck_key(place: str):
    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            slow = made(one, "old")
            await other.invalidate(of_keys("slow"))
            one.barriers.__init__()  # type: ignore[misc]  # even one that has heard nothing
            await one.put({"slow": slow})
            assert one.counts["struck"] == 1
            assert await value_of(other, "slow") is None
            await other.put({"slow": made(other, "new")})
            assert await value_of(other, "slow") == "new"

    run(main)


def test_a_soft_barrier_on_a_key_makes_what_is_there_stale(place: str):
    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            await one.put({"soft": made(one, 1, usable_until=time.time() + 60)})
            await one.invalidate(Invalidation(keys=("soft",), soft=True))
            (entry,) = await other.get(["soft"])
            assert entry is not None
            assert entry.fresh_until <= time.time()
            await one.invalidate(of_keys("soft"))
            assert await other.get(["soft"]) == [None]

    run(main)


def test_others_hear_and_the_one_who_said_does_not(place: str):
    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            here: list[Invalidation] = []
            there: list[Invalidation] = []
            one.listen(here.append)
            end = other.listen(there.append)
            said = Invalidation(tags=("heard", "é"), by="me")
            got = await one.invalidate(said)
            await until(lambda: there)
            assert there == [said.at(got.stamp)]
            end()
            await one.invalidate(of_tags("unheard"))
            await until(lambda: other.barriers.stamp >= one.barriers.stamp)
            assert len(there) == 1
            assert here == []

    run(main)


def test_stamps_grow_whoever_asks(place: str):
    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            given = [(await layer.invalidate(of_tags("s"))).stamp for layer in (one, other) * 10]
            assert given == sorted(set(given))
            at_once = await asyncio.gather(*(one.invalidate(of_tags("s")) for _ in range(50)))
            assert len({each.stamp for each in at_once}) == 50

    run(main)


def test_what_is_over_is_not_served_and_does_not_stay(quiet: RedisServer):
    async def main() -> None:
        async with opened(quiet) as layer:
            now = time.time()
            await layer.put(
                {
                    "gone": Entry(1, now, now, now - 1, stamp=layer.barriers.stamp),
                    "short": Entry(1, now, now, now + 0.2, stamp=layer.barriers.stamp),
                }
            )
            assert await value_of(layer, "short") == 1
            while await value_of(layer, "short") is not None:
                await asyncio.sleep(0.01)
            assert time.time() - now < 10
            assert not [name for name in quiet.key_names() if "short" in name or "gone" in name]

    run(main)


def test_an_entry_of_no_known_stamp_or_of_long_ago_is_refused(quiet: RedisServer):
    async def main() -> None:
        async with opened(quiet) as layer:
            ago = layer.barriers.stamp - 7200 * 1_000_000
            layer.barriers.__init__()  # type: ignore[misc]
            await layer.put({"z": made(layer, 1, stamp=0), "y": made(layer, 1, stamp=ago)})
            assert await layer.get(["z", "y"]) == [None, None]
            assert layer.counts["struck"] == 2

    run(main)


def test_touch_moves_the_end_of_what_is_there(place: str):
    async def main() -> None:
        async with opened(place) as layer:
            await settled(layer)
            now = time.time()
            await layer.put({"t1": made(layer, 1, usable_until=now + 5), "t2": made(layer, 2)})
            await layer.invalidate(of_keys("t2"))
            assert await layer.touch(["t1", "t2", "t3"], now + 500, now + 400) == 1
            (entry,) = await layer.get(["t1"])
            assert entry is not None
            assert (entry.fresh_until, entry.usable_until) == (now + 400, now + 500)

    run(main)


def test_counting_is_atomic_and_holds_its_time_from_the_first(place: str):
    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            await asyncio.gather(
                *(each.add("n", 1, 60) for each in (one, other) for _ in range(50))
            )
            assert await one.add("n", -100, None) == 0
            assert await one.add("short", 5, 0.1) == 5
            await asyncio.sleep(0.15)
            assert await one.add("short", 1, None) == 1
            assert await one.add("n", 2**62, None) == 2**62
            with pytest.raises(OverflowError):
                await one.add("n", 2**62, None)
            await other.invalidate(of_keys("n"))
            assert await one.add("n", 1, None) == 1

    run(main)


def test_a_lease_is_one_holders_and_a_lost_one_writes_nothing(place: str):
    async def main() -> None:
        async with opened(place) as one, opened(place) as other:
            await settled(one)
            await settled(other)
            first = await one.lease("k", 0.15)
            assert first is not None
            assert await other.lease("k", 10) is None
            assert not await other.wait("k", 0.01)
            assert await other.wait("k", 10)
            second = await other.lease("k", 10)
            assert second is not None
            assert second.fence > first.fence
            await one.put({"k": made(one, "late")}, first)
            assert one.counts["lease_lost"] == 1
            await one.release(first)  # not ours any more
            assert await one.lease("k", 10) is None
            await other.put({"k": made(other, "right")}, second)
            assert await value_of(one, "k") == "right"
            await other.release(second)
            third = await one.lease("k", 10)
            assert third is not None
            assert third.fence > second.fence

    run(main)


def test_a_lease_that_ended_and_that_nobody_took_still_writes(place: str):
    async def main() -> None:
        async with opened(place) as layer:
            await settled(layer)
            lease = await layer.lease("own", 0.01)
            assert lease is not None
            assert await layer.wait("own", 10)
            await layer.put({"own": made(layer, 1)}, lease)
            assert await value_of(layer, "own") == 1

    run(main)


@pytest.mark.parametrize(
    "commands",
    [
        [("SET", "garbage")],
        [("SET", "E" + "1" * 47)],
        [("SET", "E" + "0" * 48 + "{}")],
        [("LPUSH", "x")],
        [("SET", "")],
    ],
    ids=["text", "short-head", "no-codec", "list", "empty"],
)
def test_what_stands_there_and_is_none_of_ours_is_a_miss(
    quiet: RedisServer, commands: list[tuple[str, str]]
):
    async def main() -> None:
        async with opened(quiet) as layer:
            for kind in "entlfu":
                for word, value in commands:
                    quiet.say(word, layer._names.of(kind, "odd").decode(), value)
            assert await layer.get(["odd", "other"]) == [None, None]
            is_text = commands[0][0] == "SET"  # what is no text reads as nothing
            assert layer.counts["undecodable"] == int(is_text)
            assert await layer.add("odd", 1, None) == 1
            lease = await layer.lease("odd", 1)
            if lease is None:  # a text there is a lease of somebody's
                assert commands[0][0] == "SET"
            await layer.put({"odd": made(layer, 1)})
            assert await value_of(layer, "odd") == 1
            await layer.invalidate(Invalidation(tags=("odd",), keys=("odd",)))
            assert await value_of(layer, "odd") is None
            quiet.say("FLUSHALL")

    run(main)


@pytest.mark.parametrize("part", ["clock", "stream", "wide", "nodes"])
@pytest.mark.parametrize("word", ["SET", "LPUSH"])
def test_spoilt_books_are_begun_anew(quiet: RedisServer, part: str, word: str):
    async def main() -> None:
        async with opened(quiet) as layer:
            await layer.put({"k": made(layer, 1, ("t",))})
            name = getattr(layer._names, part).decode()
            quiet.say("DEL", name)
            quiet.say(word, name, "spoilt")
            while (await layer.invalidate(of_tags("t"))).is_queued:
                await asyncio.sleep(0.01)
            await until(lambda: not layer.is_away)
            async with opened(quiet) as other:
                assert not other.is_away
                await other.put({"k": made(other, 2)})
                await until(lambda: layer.is_coherent(time.monotonic()))
                assert await value_of(layer, "k") == 2
            quiet.say("FLUSHALL")

    run(main)


def test_a_value_too_large_is_refused_and_counted(quiet: RedisServer):
    async def main() -> None:
        async with opened(quiet, value_bytes_max=2000) as layer:
            import secrets

            await layer.put({"big": made(layer, secrets.token_hex(8000)), "ok": made(layer, 1)})
            assert await layer.get(["big"]) == [None]
            assert await value_of(layer, "ok") == 1
            assert layer.counts["oversized"] == 1

    run(main)


def test_what_is_asked_in_one_turn_goes_in_one_batch(quiet: RedisServer):
    async def main() -> None:
        async with opened(quiet, lease_s=1000.0) as layer:
            before = layer.snapshot()
            await asyncio.gather(*(layer.get([f"b{n}"]) for n in range(100)))
            after = layer.snapshot()
            assert after.batches == before.batches + 1
            # An entry and a count for each, 128 names a command, and the clock.
            assert after.commands == before.commands + 3

    run(main)


@pytest.mark.parametrize("turns", range(0, 12, 2))
def test_a_cancelled_caller_harms_nobody(quiet: RedisServer, turns: int):
    async def main() -> None:
        async with opened(quiet) as layer:
            await layer.put({f"c{n}": made(layer, n, ("ct",)) for n in range(20)})
            tasks = [asyncio.ensure_future(value_of(layer, f"c{n}")) for n in range(20)]
            put = asyncio.ensure_future(layer.put({"c": made(layer, 1)}))
            said = asyncio.ensure_future(layer.invalidate(of_keys("c19")))
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in (*tasks[::2], put, said):
                task.cancel()
            found = await asyncio.gather(*tasks[1::2])
            assert found[:9] == [n for n in range(1, 18, 2)]
            assert [await value_of(layer, f"c{n}") for n in range(19)] == list(range(19))
            if turns:  # it had begun, so it is told to the end
                await until(lambda: not any("invalidation" in t.get_name() for t in layer._tasks))
                assert await value_of(layer, "c19") is None
            assert layer.snapshot().failures == 0

    run(main)


def test_nothing_is_read_while_something_is_still_to_be_told(quiet: RedisServer):
    from headgate.cache.layer import LayerAway

    async def main() -> None:
        async with opened(quiet) as layer:
            await layer.put({"w": made(layer, 1, ("wt",))})
            # As after an answer that was lost: Redis is well, and has not heard of it.
            layer._pending.invalidate(of_tags("wt").at(layer.barriers.stamp))
            with pytest.raises(LayerAway, match="not told yet"):
                await layer.get(["w"])
            layer._mend()
            await until(lambda: not layer.is_away)
            assert await value_of(layer, "w") is None

    run(main)


def test_a_layer_closed_in_use_tells_those_who_wait(quiet: RedisServer):
    from headgate.cache.layer import LayerAway

    async def main() -> None:
        layer = open_layer(quiet.url)
        await layer.start()
        tasks = [asyncio.ensure_future(layer.get([str(n)])) for n in range(10)]
        await asyncio.sleep(0)
        await layer.close()
        for got in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(got, LayerAway | list)
        with pytest.raises(LayerAway):
            await layer.get(["a"])
        assert not layer.is_coherent(time.monotonic())
        assert len(asyncio.all_tasks()) == 1
        await layer.start()
        assert await layer.get(["a"]) == [None]
        await layer.close()

    run(main)


def test_another_event_loop_begins_anew(quiet: RedisServer):
    layer = open_layer(quiet.url)

    async def put() -> None:
        await layer.start()
        await layer.put({"loop": made(layer, 1)})

    async def read() -> None:
        await layer.start()
        assert await value_of(layer, "loop") == 1
        await layer.close()

    import gc
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first loop ended without closing
        asyncio.run(put())
        asyncio.run(read())
        gc.collect()


def test_a_forked_process_begins_anew_and_the_parent_goes_on(quiet: RedisServer):
    async def child(layer: RedisLayer) -> int:
        await layer.start()
        found = await value_of(layer, "fork")
        await layer.put({"child": made(layer, 2)})
        await layer.close()
        return 0 if found == 1 else 4

    async def main() -> None:
        async with opened(quiet) as layer:
            await layer.put({"fork": made(layer, 1)})
            pid = os.fork()
            if pid == 0:
                code = 3
                try:
                    asyncio.events._set_running_loop(None)
                    code = asyncio.Runner().run(child(layer))
                finally:
                    os._exit(code)
            while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
                await asyncio.sleep(0.01)
            assert ended[1] == 0
            assert [await value_of(layer, key) for key in ("fork", "child")] == [1, 2]
            assert layer.snapshot().failures == 0

    run(main)


@pytest.mark.slow
def test_the_clock_follows_the_time_also_while_nothing_is_invalidated(
    quiet: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("headgate.cache.redis.coherence._TICK_S", 0.05)

    async def main() -> None:
        async with opened(quiet) as layer, opened(quiet) as other:
            gaps: list[None] = []
            other.on_gap(lambda: gaps.append(None))
            before = layer.barriers.stamp
            # A tick waits until the clock is ten seconds old.
            await until(lambda: layer.barriers.stamp > before and not layer.is_away)
            assert other.barriers.stamp >= before
            await until(lambda: other.barriers.stamp > before)
            assert gaps == []

    run(main)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"deadline_s": 0.0}, "deadline_s is 0"),
        ({"lease_s": float("inf")}, "lease_s is inf"),
        ({"keep_s": 1.0}, "keep_s is 1"),
        ({"prefix": "a{b"}, "without braces"),
        ({"value_bytes_max": 0}, "value_bytes_max"),
    ],
    ids=["deadline", "lease", "keep", "prefix", "value"],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], match: str):
    with pytest.raises(ValueError, match=match):
        open_layer("redis://localhost", **settings)


def test_a_url_that_is_none_is_refused_without_its_password():
    with pytest.raises(StateUnusable) as caught:
        open_layer("http://user:secret@host")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(open_layer("redis://user:secret@host").snapshot())
