"""Caches in memory and cached functions, for `make bench-toolkit`: who is compared.

A thousand places, of which a quarter is asked for in turn, so that nobody lives from a single key.
Making the next key is in the plain call as well, so it is in no row. Where a library has a time to
live, it is set: five minutes. Headgate's own clock is read at each look, as its callers do.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from itertools import count, cycle
from typing import Any, Final

from benchmarks.toolkit_measure import HEADGATE, Primitive, of

PLACES: Final = 1000
HERE: Final = tuple(f"user-{number}" for number in range(PLACES))
ASKED: Final = HERE[PLACES // 4 : PLACES // 2]
AWAY: Final = tuple(f"away-{number}" for number in range(PLACES))
TTL_S: Final = 300
VALUE: Final = "a value of some forty characters, or so"
DATA: Final = {"id": 7, "name": "Ada", "roles": ["admin", "author"], "address": {"city": "London"}}

Call = Callable[[], Any]


def plain_of(keys: tuple[str, ...]) -> Call:
    """The next key and one call."""
    turn = cycle(keys).__next__

    def work(key: str) -> str:
        return key

    return lambda: work(turn())


def plain_async() -> Call:
    turn = cycle(ASKED).__next__

    async def work(key: str) -> str:
        return key

    return lambda: work(turn())


def on(call: Callable[[str], Any], keys: tuple[str, ...] = ASKED) -> Call:
    turn = cycle(keys).__next__
    return lambda: call(turn())


def on_new(call: Callable[[str], Any]) -> Call:
    """With a key that was never there."""
    number = count().__next__
    return lambda: call(f"new-{number()}")


Keyed = Callable[[Callable[[str], Any]], Call]


# ---- the first layer by itself


def ours(keyed: Keyed, asked: tuple[str, ...], *, is_put: bool = False) -> Call:
    from headgate.cache.entry import Entry
    from headgate.cache.memory import Memory

    memory = Memory(PLACES)
    wall = time.time

    def put(key: str) -> bool:
        now = wall()
        return memory.put(key, Entry(VALUE, now, now + TTL_S, now + TTL_S))

    for key in HERE:
        put(key)
    if is_put:
        return keyed(put)
    turn, get = cycle(asked).__next__, memory.get
    return lambda: get(turn(), wall())


def cachetools(name: str, keyed: Keyed, *, is_put: bool = False) -> Call:
    import cachetools as module

    kept: Any = (
        module.TTLCache(PLACES, TTL_S) if name == "TTLCache" else getattr(module, name)(PLACES)
    )
    for key in HERE:
        kept[key] = VALUE
    return keyed((lambda key: kept.__setitem__(key, VALUE)) if is_put else kept.get)


def theine(keyed: Keyed, *, is_put: bool = False) -> Call:
    from theine import Cache

    kept: Any = Cache(PLACES)
    ttl = timedelta(seconds=TTL_S)
    for key in HERE:
        kept.set(key, VALUE, ttl)
    return keyed((lambda key: kept.set(key, VALUE, ttl)) if is_put else kept.get)


def dogpile(keyed: Keyed, *, is_put: bool = False) -> Call:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL_S)
    for key in HERE:
        region.set(key, VALUE)
    return keyed((lambda key: region.set(key, VALUE)) if is_put else region.get)


def lru(keyed: Keyed) -> Call:
    kept = lru_cache(PLACES)(lambda key: VALUE)
    for key in HERE:
        kept(key)
    return keyed(kept)


def in_memory(
    name: str,
    keyed: Keyed,
    plain: Call,
    asked: tuple[str, ...] = ASKED,
    *,
    is_put: bool = False,
    has_lru: bool = False,
) -> Primitive:
    others: list[tuple[str, Callable[[], Any]]] = [
        (HEADGATE, lambda: ours(keyed, asked, is_put=is_put)),
        ("cachetools, LRU without times", lambda: cachetools("LRUCache", keyed, is_put=is_put)),
        ("cachetools, TTL", lambda: cachetools("TTLCache", keyed, is_put=is_put)),
        ("theine", lambda: theine(keyed, is_put=is_put)),
    ]
    if not name.endswith("full"):
        # It has no bound, so it is never full.
        others.append(("dogpile.cache, memory", lambda: dogpile(keyed, is_put=is_put)))
    if has_lru:
        others.append(("functools.lru_cache, without times", lambda: lru(keyed)))
    return Primitive(name, False, of(plain, *others))


# ---- the cache as services see it


async def our_cache(*, is_set: bool = False, value: Any = VALUE, **settings: Any) -> Call:
    from headgate.cache import Cache

    cache = Cache(items=PLACES, **settings)
    for key in HERE:
        await cache.set(key, value)
    return on((lambda key: cache.set(key, value)) if is_set else cache.get)


async def cashews(*, is_set: bool = False, value: Any = VALUE) -> Call:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=PLACES)
    for key in HERE:
        await cache.set(key, value, expire=TTL_S)
    return on((lambda key: cache.set(key, value, expire=TTL_S)) if is_set else cache.get)


async def aiocache(*, is_set: bool = False, value: Any = VALUE) -> Call:
    from aiocache import SimpleMemoryCache  # type: ignore[import-untyped]  # it has no types

    cache: Any = SimpleMemoryCache()
    for key in HERE:
        # Its times are timers of the loop; a thousand of them are no more than it would have.
        await cache.set(key, value, ttl=TTL_S)
    return on((lambda key: cache.set(key, value, ttl=TTL_S)) if is_set else cache.get)


def cachetools_copied() -> Call:
    from cachetools import TTLCache

    kept: Any = TTLCache(PLACES, TTL_S)
    for key in HERE:
        kept[key] = DATA

    async def get(key: str) -> Any:
        return copy.deepcopy(kept.get(key))

    return on(get)


# ---- cached functions


async def load(user: str) -> str:
    return VALUE


def load_sync(user: str) -> str:
    return VALUE


def ours_cached(function: Callable[[str], Any], *template: str) -> Call:
    from headgate.cache import Cache

    return on(Cache(items=PLACES).cached(*template, ttl=TTL_S)(function))


def cashews_cached(key: str | None = None, *, is_protected: bool = True) -> Call:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=PLACES)
    return on(cache(ttl=TTL_S, key=key, protected=is_protected)(load))


def aiocache_cached(builder: Callable[..., str] | None = None) -> Call:
    from aiocache import cached

    return on(cached(ttl=TTL_S, key_builder=builder)(load))


def theine_cached(function: Any, *, has_key: bool) -> Call:
    from theine import Memoize

    made: Any = Memoize(PLACES, timedelta(seconds=TTL_S))(function)
    if has_key:
        made.key(lambda user: f"user:{user}")
    if function is load_sync:
        return on(made)

    async def call(user: str) -> Any:
        return await made(user)  # what it answers is awaitable, but not a coroutine

    return on(call)


def cachetools_cached() -> Call:
    from threading import Lock

    from cachetools import TTLCache, cached

    return on(cached(TTLCache(PLACES, TTL_S), lock=Lock())(load_sync))


def dogpile_cached() -> Call:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL_S)
    return on(region.cache_on_arguments()(load_sync))


def plain_load() -> Call:
    return on(load)


PRIMITIVES: Final = (
    in_memory("cache in memory, hit", on, plain_of(ASKED), has_lru=True),
    in_memory("cache in memory, miss", lambda call: on(call, AWAY), plain_of(AWAY), AWAY),
    in_memory("cache in memory, set", on, plain_of(ASKED), is_put=True),
    in_memory("cache in memory, set while full", on_new, on_new(lambda key: key), is_put=True),
    Primitive(
        "await cache.get, hit",
        True,
        of(plain_async(), (HEADGATE, our_cache), ("cashews", cashews), ("aiocache", aiocache)),
    ),
    Primitive(
        "await cache.set",
        True,
        of(
            plain_async(),
            (HEADGATE, lambda: our_cache(is_set=True)),
            ("cashews", lambda: cashews(is_set=True)),
            ("aiocache", lambda: aiocache(is_set=True)),
        ),
    ),
    Primitive(
        "await cache.get, dict of dicts, hit",
        True,
        of(
            plain_async(),
            (HEADGATE, lambda: our_cache(value=DATA)),
            ("headgate, frozen", lambda: our_cache(value=DATA, copying="frozen")),
            ("headgate, shared", lambda: our_cache(value=DATA, copying="shared")),
            ("cashews, shared by callers", lambda: cashews(value=DATA)),
            ("aiocache, shared by callers", lambda: aiocache(value=DATA)),
            ("cachetools, TTL, and deepcopy", cachetools_copied),
        ),
    ),
    Primitive(
        "cached async function with a key, hit",
        True,
        of(
            plain_load(),
            (HEADGATE, lambda: ours_cached(load, "user:{user}")),
            ("cashews", lambda: cashews_cached("user:{user}")),
            (
                "cashews, without its stampede lock",
                lambda: cashews_cached("user:{user}", is_protected=False),
            ),
            ("aiocache", lambda: aiocache_cached(lambda function, user: f"user:{user}")),
            ("theine", lambda: theine_cached(load, has_key=True)),
        ),
    ),
    Primitive(
        "cached async function, default key, hit",
        True,
        of(
            plain_load(),
            (HEADGATE, lambda: ours_cached(load)),
            ("cashews", cashews_cached),
            ("aiocache", aiocache_cached),
            ("theine", lambda: theine_cached(load, has_key=False)),
        ),
    ),
    Primitive(
        "cached function with a key, hit",
        False,
        of(
            on(load_sync),
            (HEADGATE, lambda: ours_cached(load_sync, "user:{user}")),
            ("headgate, default key", lambda: ours_cached(load_sync)),
            ("cachetools, TTL, default key", cachetools_cached),
            ("theine", lambda: theine_cached(load_sync, has_key=True)),
            ("dogpile.cache, default key", dogpile_cached),
            ("functools.lru_cache, without times", lambda: on(lru_cache(PLACES)(load_sync))),
        ),
    ),
)
