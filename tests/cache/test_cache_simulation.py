"""Seeded runs of several processes that load, set, invalidate and are cancelled at random.

What must hold: whoever asks after an invalidation (or a set) of his key has returned gets nothing
that was read from the source before it.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.cache.object_cache import Place, PlaceLayer, memory_cache

KEYS = ("a", "b", "c")


class LateLayer(PlaceLayer):
    """Each command takes some turns of the loop, before and after it works."""

    rng = random.Random(0)

    async def _step(self, name):
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        await super()._step(name)


def caches(kind, rng):
    place = Place(lambda: 1000.0)
    settings = {"wall": lambda: 1000.0, "ttl": 60, "rng": rng, "lease_wait": "50ms"}
    if kind == "memory":
        return [memory_cache(**settings)]
    LateLayer.rng = rng
    return [memory_cache(layer=lambda: LateLayer(place), **settings) for _ in range(3)]


@pytest.mark.parametrize("kind", ["memory", "layer"])
@pytest.mark.parametrize("seed", range(25))
def test_nobody_is_given_what_was_read_before_an_invalidation_that_had_returned(kind, seed):
    rng = random.Random(seed)
    made = caches(kind, rng)
    source = dict.fromkeys(KEYS, 0)
    returned = dict.fromkeys(KEYS, 0)
    """What the source held when the last invalidation that has returned was begun."""
    checked = 0

    async def load(key, entry):
        value = source[key]
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        entry.tags = [f"tag:{key}"]
        return value

    async def reader(cache):
        nonlocal checked
        for _ in range(40):
            key = rng.choice(KEYS)
            least = returned[key]
            got = await cache.get_or_set(key, lambda entry, key=key: load(key, entry))
            assert got >= least, f"{key} is {got}, but {least} had been made known"
            checked += 1
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)

    async def writer(cache):
        for _ in range(25):
            key = rng.choice(KEYS)
            source[key] += 1
            now = source[key]
            how = rng.randrange(4)
            if how == 0:
                await cache.invalidate(tags=[f"tag:{key}"])
            elif how == 1:
                await cache.invalidate(keys=[key])
            elif how == 2:
                await cache.delete(key)
            else:
                await cache.invalidate(patterns=[f"{key}*"])
            returned[key] = max(returned[key], now)
            for _ in range(rng.randrange(8)):
                await asyncio.sleep(0)

    async def canceller(cache):
        for _ in range(20):
            key = rng.choice(KEYS)
            task = asyncio.create_task(
                cache.get_or_set(key, lambda entry, key=key: load(key, entry))
            )
            for _ in range(rng.randrange(8)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def main():
        for cache in made:
            await cache.start()
        work = [reader(cache) for cache in made for _ in range(3)]
        work += [writer(cache) for cache in made]
        work += [canceller(cache) for cache in made]
        await asyncio.gather(*work)
        for cache in made:
            await cache.close()
            assert cache.snapshot().loading == 0

    asyncio.run(asyncio.wait_for(main(), 60))
    assert checked
