"""The calls of the object cache besides `obtain`, written once for loops and threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from headgate.cache.core import Core, bare
from headgate.cache.entry import Entry
from headgate.cache.errors import CacheClosed, Unencodable
from headgate.cache.events import family_of
from headgate.cache.held import Held, Worth
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
        from headgate.cache.redis import RedisLayer
        from headgate.cache.redis import open_layer as open_redis

        _check_names(settings, open_redis, RedisLayer)
        _check_packing(settings)
        return lambda: open_redis(url, **settings)
    if url.startswith("file:"):
        from headgate.cache.file import open_layer as open_file

        _check_names(settings, open_file)
        _check_packing(settings)
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


def _check_names(settings: dict[str, Any], *made_by: Callable[..., Layer]) -> None:
    names = [
        each.name
        for one in made_by
        for each in inspect.signature(one).parameters.values()
        if each.kind is each.KEYWORD_ONLY and each.name != "packer"  # `codec` and its kin say it
    ]
    for name in settings:
        if name not in names:
            raise TypeError(
                f"layer_settings: no setting is named {name!r}; there is {', '.join(names)}"
            )


def _check_packing(settings: dict[str, Any]) -> None:
    """What is wrong with a codec is said when the cache is made, and not by the first call."""
    said = {name: settings[name] for name in ("codec", "version", "zstd_above") if name in settings}
    if said:
        from headgate.cache.codecs import Packer

        Packer(**said)


def _evicted(key: str, entry: Entry, why: str) -> None:
    if why == "evicted" and isinstance(entry, Held):
        entry.family.evictions += 1


def memory_of(items: int, bytes_: int | str, sizing: Any) -> Any:
    from headgate.cache.memory import Memory

    if type(items) is not int or items < 1:
        raise ValueError(f"items={items!r}: write a whole number of 1 or more")
    size = parse_size(bytes_)
    if size < 1:
        raise ValueError(f"bytes={bytes_!r}: write a size such as 100MB")
    # Copies are handed out here, where what is known of an entry is kept beside it.
    return Memory(items, size, copying="shared", sizing=sizing, on_drop=_evicted)


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
    time_s: float,
    options: Options,
    prefix: str,
    default: Any,
) -> Any:
    check_key(key)
    if core.is_closed:
        raise CacheClosed
    family = family_of(key.removeprefix(prefix))
    if held is not None and core.worth(key, held, time_s, options) <= Worth.EARLY:
        core.tell("hit", key, family, "memory")
        return default if held.error is not None else held.given()
    core.tell("miss", key, family, "memory")
    if core.home is None:
        return default
    (found,) = await core.from_layer((key,), (family,), ports)
    if found is None:
        return default
    core.keep(key, family, found, options)
    time_s = core.clock()
    is_fresh = (
        core.is_plain(found, time_s) or core.worth(key, found, time_s, options) <= Worth.EARLY
    )
    return found.given() if is_fresh else default


async def get_many(
    core: Core, ports: Ports, keys: Mapping[str, str], options: Options
) -> dict[str, Any]:
    if core.is_closed:
        raise CacheClosed
    found: dict[str, Any] = {}
    missed: list[str] = []
    time_s = core.clock()
    for full, key in keys.items():
        held = core.memory.get(full, time_s)
        if held is not None and core.worth(full, held, time_s, options) <= Worth.EARLY:
            core.tell("hit", full, family_of(key), "memory")
            if held.error is None:
                found[key] = held.given()
        else:
            core.tell("miss", full, family_of(key), "memory")
            missed.append(full)
    if not missed or core.home is None:
        return found
    families = [family_of(keys[full]) for full in missed]
    taken = await core.from_layer(missed, families, ports)
    time_s = core.clock()
    for full, family, each in zip(missed, families, taken, strict=True):
        if each is None:
            continue
        core.keep(full, family, each, options)
        if core.worth(full, each, time_s, options) <= Worth.EARLY:
            found[keys[full]] = each.given()
    return found


def pairs(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        raise TypeError(f"set_many({str(values)[:60]}): give a mapping of keys to values")
    return values.items()


async def set_many(
    core: Core, ports: Ports, values: Mapping[str, Any], options: Options, prefix: str
) -> None:
    """If the second layer cannot keep a value, none stays under its key, here or elsewhere."""
    if core.is_closed:
        raise CacheClosed
    made: dict[str, Held | None] = {}
    for full, value in values.items():
        tags = options.tags
        if options.tags_of is not None:
            tags = checked_tags((*tags, *options.tags_of(value)))
        made[full] = core.made(value, options, tags, is_nothing=value is None)
    # Only now, as any of them may be refused.
    for full in made:
        core.flights.supersede(full)
        core.memory.delete(full)
    stamp = core.barriers.stamp
    if core.home is not None and values:
        done = await tell_layer(core, ports, Invalidation(keys=tuple(values)))
        stamp = max(stamp, done.stamp)
    kept = {full: held for full, held in made.items() if held is not None}
    for full, held in kept.items():
        held.stamp = stamp
        core.flights.supersede(full)
        family = family_of(full.removeprefix(prefix))
        core.keep(full, family, held, options)
        core.tell("set", full, family, tags=held.tags)
    if core.home is not None and kept:
        await put(core, ports, kept)


async def put(core: Core, ports: Ports, made: Mapping[str, Held]) -> None:
    kind = core.second.layer.kind
    sent = {full: core.outgoing(held) for full, held in made.items()}
    try:
        await ports.layer(core.second, lambda layer: layer.put(sent))
    except LayerAway as away:
        core.tell("layer_away", layer=kind, why=str(away))
    except Unencodable as error:
        for full in made:
            core.memory.delete(full)
        which = next(iter(made)) if len(made) == 1 else f"one of {len(made)} values"
        error.add_note(f"{which[:100]!r} was to be kept in the {kind} layer")
        raise


async def delete(core: Core, ports: Ports, keys: list[str], prefix: str) -> None:
    if not keys:
        return
    for full in keys:
        core.flights.supersede(full)
        core.memory.delete(full)
    if core.home is not None:
        await tell_layer(core, ports, Invalidation(keys=tuple(keys)))
    for full in keys:
        core.tell("deleted", full, family_of(full.removeprefix(prefix)))


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
    time_s = core.clock()
    held = core.memory.get(key, time_s)
    is_there = held is not None and core.worth(key, held, time_s, options) <= Worth.EARLY
    made = core.made(None, options, ())
    if made is None:
        return is_there
    if is_there and held is not None:
        moved = Held.of(held)
        moved.fresh_until, moved.usable_until = made.fresh_until, made.usable_until
        moved.gap = held.gap
        core.keep(key, held.family.name, moved, options)
    if core.home is not None:
        ends = core.outgoing(made)
        moved_there = await core.ask_layer(
            ports, lambda layer: layer.touch((key,), ends.usable_until, ends.fresh_until), 0
        )
        is_there = is_there or moved_there > 0
    return is_there


async def increment(core: Core, ports: Ports, key: str, amount: int, ttl: Any) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise TypeError(f"increment: {amount!r} is not a whole number")
    _check_count(key, amount)
    if core.is_closed:
        raise CacheClosed
    ttl_s = None if ttl is None else positive("ttl", ttl)
    if core.home is not None:
        missing: int | Exception | None = None

        async def add(layer: Layer) -> int | Exception | None:
            try:
                return await layer.add(key, amount, ttl_s)
            except (OverflowError, TypeError) as error:
                return error  # the caller's, and not a layer that fails

        counted = await core.ask_layer(ports, add, missing)
        if isinstance(counted, Exception):
            raise counted
        if counted is not None:
            core.memory.delete(key)
            return counted
    return _count_here(core, key, amount, ttl_s)


def _check_count(key: str, count: int) -> None:
    if not -(2**63) <= count < 2**63:
        raise OverflowError(f"{key[:100]!r}: {count} does not fit into 64 bits")


def _count_here(core: Core, key: str, amount: int, ttl_s: float | None) -> int:
    with core.lock:
        time_s = core.clock()
        held = core.memory.get(key, time_s)
        if held is not None and (not core.is_alive(key, held) or time_s >= held.fresh_until):
            held = None
        before = 0 if held is None else held.value
        if isinstance(before, bool) or not isinstance(before, int):
            raise TypeError(f"increment: what is under {key[:100]!r} is not a whole number")
        _check_count(key, before + amount)
        until = float("inf") if ttl_s is None else time_s + ttl_s
        if held is not None:
            until = held.fresh_until
        counted = Held(before + amount, time_s, until, until, stamp=core.barriers.stamp)
        counted.gap = core.gap
        counted.version = core.barriers.version
        counted.settle(0.0, 0.0)
        counted.family = core.stats.family_of_key(key)
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
    core.tell("gap", why="a link may have missed news")


async def end_loads(core: Core) -> None:
    core.break_off()
    here = asyncio.get_running_loop()
    mine = {task for task in list(core.tasks) if task.get_loop() is here}
    mine -= {asyncio.current_task()}
    if mine:
        await asyncio.wait(mine, timeout=1.0)
