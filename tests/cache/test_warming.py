from __future__ import annotations

import asyncio
import functools

import pytest

from tests.cache.object_cache import memory_cache


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


def test_keys_are_loaded_ahead_and_counted():
    async def main():
        cache = memory_cache()
        seen: list = []
        await cache.set("k1", 1)

        async def load(key):
            if key == "k2":
                raise OSError("down")
            return key.upper()

        done = await cache.warm([f"k{n}" for n in range(5)], load, rate=None, progress=seen.append)
        assert (done.done, done.loaded, done.held, done.failed) == (5, 3, 1, 1)
        assert done.errors == (("k2", "OSError: down"),)
        assert await cache.get("k4") == "K4" and await cache.get("k1") == 1
        assert [each.done for each in seen] == [1, 2, 3, 4, 5]
        assert seen[-1].total == 5
        plain = await cache.warm((f"p{n}" for n in range(3)), lambda key: key, rate=None, ttl=5)
        assert plain.loaded == 3

    run(main())


def test_calls_of_decorated_functions_are_warmed():
    async def main():
        cache, calls = memory_cache(), []

        @cache.cached("n:{n}")
        async def fetch(n):
            calls.append(n)
            return n

        async def several():
            for n in range(4):
                yield functools.partial(fetch, n)

        done = await cache.warm(several(), rate=None, concurrency=1)
        assert (done.loaded, done.failed, calls) == (4, 0, [0, 1, 2, 3])
        again = await cache.warm([functools.partial(fetch, n) for n in range(4)], rate=None)
        assert (again.loaded, again.held) == (0, 4)

    run(main())


def test_no_more_are_on_their_way_than_is_said():
    async def main():
        cache, running, most = memory_cache(), 0, 0

        async def load(key):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        await cache.warm([str(n) for n in range(50)], load, rate=None, concurrency=4)
        assert most == 4

    run(main())


def test_the_rate_is_kept(monkeypatch):
    async def main():
        now = [0.0]
        cache = memory_cache(clock=lambda: now[0])
        begun = []
        plain = asyncio.sleep

        async def sleep(for_s):
            now[0] += for_s
            await plain(0)

        monkeypatch.setattr(asyncio, "sleep", sleep)

        async def load(key):
            begun.append(now[0])

        await cache.warm([str(n) for n in range(6)], load, rate="10/s", concurrency=1)
        assert begun == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])

    run(main())


def test_cancelled_it_begins_nothing_more():
    async def main():
        cache, begun, gate = memory_cache(), [], asyncio.Event()

        async def load(key):
            begun.append(key)
            await gate.wait()
            return key

        warming = asyncio.create_task(
            cache.warm([str(n) for n in range(50)], load, rate=None, concurrency=2)
        )
        while len(begun) < 2:
            await asyncio.sleep(0)
        warming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await warming
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert begun == ["0", "1"]
        assert await cache.get("0") == "0"  # what was on its way has filled the cache

    run(main())


@pytest.mark.parametrize(
    "arguments, says",
    [
        pytest.param({"what": "abc"}, "write a list of keys or of calls", id="text"),
        pytest.param({"what": [], "rate": "fast"}, "rate: .fast. is not a rate", id="rate"),
        pytest.param({"what": [], "rate": "0/s"}, "would never begin", id="zero"),
        pytest.param(
            {"what": [], "concurrency": 0}, "concurrency=0: write 1 to 1000", id="concurrency"
        ),
    ],
)
def test_what_is_wrong_is_said(arguments, says):
    async def main():
        with pytest.raises((TypeError, ValueError), match=says):
            await memory_cache().warm(**arguments)

    run(main())


def test_a_key_without_a_loader_is_a_failure_that_is_named():
    async def main():
        done = await memory_cache().warm(["a", 5], rate=None)
        assert [name for name, _ in done.errors] == ["a", "5"]

    run(main())
