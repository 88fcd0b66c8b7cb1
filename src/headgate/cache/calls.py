"""The calls of the object cache besides `obtain`, written once for loops and threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from headgate.cache.core import Core, Worth, bare
from headgate.cache.entry import Entry
from headgate.cache.errors import CacheClosed
from headgate.cache.events import family_of
from headgate.cache.held import Held
from headgate.cache.invalidation import Invalidation
from headgate.cache.keys import KEY_MAX, check_key
from headgate.cache.layer import Invalidated, Layer, LayerAway
from headgate.cache.options import Options, checked_tags, positive
from headgate.cache.ports import Ports
from headgate.units import parse_size

_REDIS: Final = (
    "redis://",
    "rediss://",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "unix://",
)


def layer_of(url: Any, settings: dict[str, Any]) -> Callable[[], Layer]:
    """How the second layer of a URL is opened. What is wrong with it is said at the first time."""
    if not isinstance(url, str):
        raise TypeError(f"Cache({url!r}): write a URL, or nothing for memory")
    if url.startswith(_REDIS):
        from headgate.cache.redis import open_layer as open_redis

        return lambda: open_redis(url, **settings)
    if url.startswith("file:"):
        from headgate.cache.file import open_layer as open_file

        path = url.removeprefix("file:")
        path = path.removeprefix("//")
        if not path:
            raise ValueError('Cache("file:"): write the path as well, such as file:/var/cache/app')
        return lambda: open_file(path, **settings)
    scheme = url.partition(":")[0] if ":" in url else url
    raise ValueError(
        f"Cache: nothing is known of {scheme[:40]!r}; write redis://host:6379/0, rediss://, "
        "redis+sentinel://, redis+cluster:// or file:/path, or nothing for memory"
    )


def memory_of(items: int, bytes_: int | str, sizing: Any) -> Any:
    from headgate.cache.memory import Memory

    if type(items) is not int or items < 1:
        raise ValueError(f"items={items!r}: write a whole number of 1 or more")
    size = parse_size(bytes_)
    if size < 1:
        raise ValueError(f"bytes={bytes_!r}: write a size such as 100MB")
    # Copies are handed out here, where what is known of an entry is kept beside it.
    return Memory(items, size, copying="shared", sizing=sizing)


def prefix_of(before: str, name: str) -> str:
    check_key(name)
    if "*" in name or name.endswith(":"):
        raise ValueError(f"namespace {name!r}: it may not hold * or end with a colon")
    found = f"{before}{name}:"
    if len(found) > KEY_MAX // 2:
        raise ValueError(f"namespace {found[:60]!r}...: more than {KEY_MAX // 2} characters")
    return found


def unwrap(held: Held) -> Any:
    if held.error is not None:
        raise bare(held.error)
    return held.given()


async def get(
    core: Core,
    ports: Ports,
    key: str,
    held: Held | None,
    wall: float,
    options: Options,
    default: Any,
) -> Any:
    check_key(key)
    if core.is_closed:
        raise CacheClosed
    if held is not None and core.worth(key, held, wall, options) <= Worth.EARLY:
        if core.listeners.is_heard:
            core.tell("hit", key, family_of(key), "memory")
        return default if held.error is not None else held.given()
    if core.listeners.is_heard:
        core.tell("miss", key, family_of(key), "memory")
    if core.home is None:
        return default
    found = await core.from_layer(key, ports)
    if found is None:
        return default
    core.keep(key, found, options)
    is_fresh = core.worth(key, found, core.wall(), options) <= Worth.EARLY
    return found.given() if is_fresh else default


async def get_many(
    core: Core, ports: Ports, keys: Mapping[str, str], options: Options
) -> dict[str, Any]:
    if core.is_closed:
        raise CacheClosed
    found: dict[str, Any] = {}
    missed: list[str] = []
    wall = core.wall()
    for full, key in keys.items():
        held = core.memory.get(full, wall)
        if held is not None and core.worth(full, held, wall, options) <= Worth.EARLY:
            if held.error is None:
                found[key] = held.given()
        else:
            missed.append(full)
    if not missed or core.home is None:
        return found
    taken = await core.all_from_layer(missed, ports)
    wall = core.wall()
    for full, each in zip(missed, taken, strict=True):
        if each is None:
            continue
        core.keep(full, each, options)
        if core.worth(full, each, wall, options) <= Worth.EARLY:
            found[keys[full]] = each.given()
    return found


async def set_many(core: Core, ports: Ports, values: Mapping[str, Any], options: Options) -> None:
    if core.is_closed:
        raise CacheClosed
    made: dict[str, Held] = {}
    for full, value in values.items():
        tags = options.tags
        if options.tags_of is not None:
            tags = checked_tags((*tags, *options.tags_of(value)))
        held = core.made(value, options, tags, is_nothing=value is None)
        core.flights.supersede(full)
        core.memory.delete(full)
        if held is not None:
            made[full] = held
    stamp = core.barriers.stamp
    if core.home is not None and values:
        done = await tell_layer(core, ports, Invalidation(keys=tuple(values)))
        stamp = max(stamp, done.stamp)
    for full, held in made.items():
        held.stamp = stamp
        core.flights.supersede(full)
        core.keep(full, held, options)
        if core.listeners.is_heard:
            core.tell("set", full, family_of(full), tags=held.tags)
    if core.home is not None and made:
        await put(core, ports, made)


async def put(core: Core, ports: Ports, made: Mapping[str, Entry]) -> None:
    try:
        await ports.layer(core.second, lambda layer: layer.put(made))
    except LayerAway as away:
        if core.listeners.is_heard:
            core.tell("layer_away", why=str(away))


async def delete(core: Core, ports: Ports, keys: list[str]) -> None:
    if not keys:
        return
    for full in keys:
        core.flights.supersede(full)
        core.memory.delete(full)
    if core.home is not None:
        await tell_layer(core, ports, Invalidation(keys=tuple(keys)))
    if core.listeners.is_heard:
        for full in keys:
            core.tell("deleted", full, family_of(full))


async def tell_layer(core: Core, ports: Ports, news: Invalidation) -> Invalidated:
    try:
        done = await ports.layer(core.second, lambda layer: layer.invalidate(news))
    except LayerAway:
        # Not even queued, as where its loop cannot be reached: it holds here, and is told behind.
        struck = strike_beside(core, news)
        core.second.spawn(lambda layer: layer.invalidate(news))
        return Invalidated(struck.stamp, is_queued=True)
    core.let_go(news)
    return done


def strike_beside(core: Core, news: Invalidation) -> Invalidation:
    """Raise barriers here, one tick beyond what the layer's clock is known to have reached."""
    with core.lock:
        struck = news.at(core.barriers.stamp + 1)
        core.barriers.raise_for(struck)
    core.let_go(struck)
    return struck


async def touch(core: Core, ports: Ports, key: str, options: Options) -> bool:
    if core.is_closed:
        raise CacheClosed
    wall = core.wall()
    held = core.memory.get(key, wall)
    is_there = held is not None and core.worth(key, held, wall, options) <= Worth.EARLY
    made = core.made(None, options, ())
    if made is None:
        return is_there
    if is_there and held is not None:
        moved = Held.of(held)
        moved.fresh_until, moved.usable_until = made.fresh_until, made.usable_until
        moved.gap = held.gap
        core.keep(key, moved, options)
    if core.home is not None:
        moved_there = await core.ask_layer(
            ports, lambda layer: layer.touch((key,), made.usable_until, made.fresh_until), 0
        )
        is_there = is_there or moved_there > 0
    return is_there


async def increment(core: Core, ports: Ports, key: str, amount: int, ttl: Any) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise TypeError(f"increment: {amount!r} is not a whole number")
    if core.is_closed:
        raise CacheClosed
    ttl_s = None if ttl is None else positive("ttl", ttl)
    if core.home is not None:
        missing: int | None = None

        async def add(layer: Layer) -> int | None:
            return await layer.add(key, amount, ttl_s)

        counted = await core.ask_layer(ports, add, missing)
        if counted is not None:
            return counted
    return _count_here(core, key, amount, ttl_s)


def _count_here(core: Core, key: str, amount: int, ttl_s: float | None) -> int:
    with core.lock:
        wall = core.wall()
        held = core.memory.get(key, wall)
        if held is not None and (not core.is_alive(key, held) or wall >= held.fresh_until):
            held = None
        before = 0 if held is None else held.value
        if isinstance(before, bool) or not isinstance(before, int):
            raise TypeError(f"increment: what is under {key[:100]!r} is not a whole number")
        until = float("inf") if ttl_s is None else wall + ttl_s
        if held is not None:
            until = held.fresh_until
        counted = Held(before + amount, wall, until, until, stamp=core.barriers.stamp)
        counted.gap = core.gap
        counted.version = core.barriers.version
        counted.settle(0.0, 0.0)
        core.memory.put(key, counted)
        return before + amount


def news_of(
    prefix: str,
    tags: Iterable[str],
    keys: Iterable[str],
    patterns: Iterable[str],
    everything: bool,
    soft: bool,
) -> Invalidation:
    for name, value in (("tags", tags), ("keys", keys), ("patterns", patterns)):
        if isinstance(value, (str, bytes)):
            raise TypeError(f"{name}={value!r}: write a list, as in {name}=[{value!r}]")
    said: dict[str, Any] = {
        "tags": list(tags),
        "keys": [prefix + check_and_give(key) for key in keys],
        "patterns": [prefix + check_and_give(pattern) for pattern in patterns],
        "soft": soft,
    }
    if everything and prefix:
        said["patterns"].append(f"{prefix}*")
    elif everything:
        said["everything"] = "objects"
    news = Invalidation.from_json(said)
    if news.is_empty:
        raise ValueError("invalidate(): name tags=, keys= or patterns=, or say everything=True")
    return news


def check_and_give(key: str) -> str:
    check_key(key)
    return key


async def invalidate(core: Core, ports: Ports, news: Invalidation) -> Invalidated:
    if core.is_closed:
        raise CacheClosed
    if core.home is None:
        return Invalidated(core.strike(news).stamp)
    done = await tell_layer(core, ports, news)
    core.told_invalidated(news, "here")
    return done


def heard_of_link(core: Core, news: Invalidation) -> None:
    """A link says that something is to be forgotten; its clock is not ours."""
    if not (news.tags or news.keys or news.patterns or news.everything in ("objects", "all")):
        return
    if core.home is None:
        core.strike(news)
        return
    strike_beside(core, news)
    core.told_invalidated(news, "a link")
    core.home.spawn(lambda layer: layer.invalidate(news.at(0)))


def gap_of_link(core: Core) -> None:
    """A link may have missed news. What a second layer holds is not struck: whenever any process
    starts that would empty it for all.
    """
    if core.home is None:
        with core.lock:
            core.barriers.raise_floor(core.barriers.stamp + 1)
    core.memory.clear()
    if core.listeners.is_heard:
        core.tell("gap", why="a link may have missed news")


async def end_loads(core: Core) -> None:
    core.break_off()
    here = asyncio.get_running_loop()
    mine = {task for task in list(core.tasks) if task.get_loop() is here}
    mine -= {asyncio.current_task()}
    if mine:
        await asyncio.wait(mine, timeout=1.0)
