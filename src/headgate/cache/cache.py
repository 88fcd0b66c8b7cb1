"""The object cache of a service.

    cache = Cache()                        # in memory
    cache = Cache("redis://localhost/0")   # memory before Redis, coherent over all processes
    cache = Cache("file:/var/cache/shop")  # memory before a file that processes of a machine share

    user = await cache.get_or_set("user:42", load_user, ttl="5min", tags=["users"])
    await cache.invalidate(tags=["users"])

Theory of operation. `core` says how a value is found, made and kept; here is what callers see. A
namespace is a view of the same cache: a prefix before its keys and patterns, and settings of its
own. Tags are not prefixed, as they are one space for all caches, this one's and a gateway's.

`set` and `delete` are final: what was on its way when they were called is not kept, and the other
processes that share a second layer drop theirs. What a loader brings says nothing to others.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack, overload

from headgate.cache import calls
from headgate.cache.copying import Copying
from headgate.cache.core import Core
from headgate.cache.events import Hear, family_of
from headgate.cache.exposition import rows_of, stats_of, text_of
from headgate.cache.invalidation import Invalidation
from headgate.cache.keys import check_key
from headgate.cache.layer import Invalidated, Layer
from headgate.cache.links import Link, Links
from headgate.cache.loading import Ask, AsyncLoader, PlainLoader, wants_loading
from headgate.cache.options import DEFAULTS, Duration, Options, Settings, options
from headgate.cache.ports import LOOP
from headgate.cache.snapshots import CacheSnapshot, Health, health_of, snapshot_of
from headgate.cache.stats import Row

if TYPE_CHECKING:
    from headgate.cache.codecs import Codec
    from headgate.cache.sizing import Advice, SizingRules
    from headgate.cache.threads import SyncCache
    from headgate.cache.warming import Progress, WarmSummary

__all__ = ["Cache"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_MEMO_MAX: Final = 500


class Cache:
    """`items` and `bytes` bound the memory; `sizing` lets it move them by what it would win.
    `copying` says how the cache keeps callers from changing what it holds: by copies of what can
    be changed, by freezing it, or not at all. `layer` may be given instead of a URL;
    `layer_settings` go to the layer as they are. `codec` ("json", "msgpack" or one of
    `headgate.cache.codecs`) and `version` say how values are written there: what another codec or
    version wrote is not read, so that a release which changes its values changes its version.
    What else may be set is in `Settings`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "",
        items: int = 10_000,
        bytes: int | str = "100MB",  # noqa: A002 - the word of the settings
        copying: Copying = "copy",
        sizing: SizingRules | None = None,
        layer: Callable[[], Layer] | None = None,
        layer_settings: Mapping[str, Any] | None = None,
        codec: Codec | str | None = None,
        version: str | None = None,
        links: Iterable[Link] = (),
        on_event: Hear | None = None,
        memory: Any = None,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] | None = None,
        rng: Any = None,
        **settings: Unpack[Settings],
    ) -> None:
        if url is not None and layer is not None:
            raise TypeError("Cache: give a URL or layer=, not both")
        made = options(DEFAULTS, settings)
        packing = {name: value for name, value in (("codec", codec), ("version", version)) if value}
        if url is not None:
            layer = calls.layer_of(url, {**(layer_settings or {}), **packing})
        elif layer_settings or packing:
            said = next(iter(packing), "layer_settings")
            raise TypeError(f"Cache: {said} without a URL")
        clocks = {name: value for name, value in (("now", clock), ("wall", wall)) if value}
        first = calls.memory_of(items, bytes, sizing) if memory is None else memory
        core = Core(first, layer, rng=rng, copying=copying, **clocks)
        links = tuple(links)
        # What follows is for the other modules of this package.
        self.core = core
        self.links = Links(links, self._heard_of_link, self._gap_of_link)
        core.links = self.links
        self.prefix = calls.prefix_of("", namespace) if namespace else ""
        self.options = made
        self._memo: dict[Any, Options] = {}
        if on_event is not None:
            core.listeners.add(on_event)

    def namespace(self, name: str, **settings: Unpack[Settings]) -> Cache:
        """The keys that begin with this name; settings are inherited and may be set anew."""
        view = Cache.__new__(type(self))
        view.core = self.core
        view.links = self.links
        view.prefix = calls.prefix_of(self.prefix, name)
        view.options = options(self.options, settings)
        view._memo = {}  # noqa: SLF001 - its own
        return view

    def __repr__(self) -> str:
        home = self.core.home
        where = "memory" if home is None else f"memory and {home.layer.kind}"
        return f"<Cache {self.prefix!r} in {where}>" if self.prefix else f"<Cache in {where}>"

    # ---- its life

    async def start(self) -> Self:
        """Reach the second layer and the links; both are reached on first use otherwise."""
        self.core.is_closed = False
        if self.core.home is not None:
            await self.core.home.start()
        if self.links:
            await self.links.start()
        return self

    async def close(self) -> None:
        """End loads (who waits gets CacheClosed) and connections. What is in memory stays."""
        self.core.is_closed = True
        await calls.end_loads(self.core)
        await self.links.close()
        if self.core.home is not None:
            await self.core.home.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def sync(self) -> SyncCache:
        """The same cache for plain code, in any thread."""
        from headgate.cache.threads import SyncCache

        return SyncCache(self)

    # ---- values

    async def get(self, key: str, default: Any = None) -> Any:
        """What is under this key and fresh, or the default. A None that is kept is None."""
        core = self.core
        full = self.prefix + key if self.prefix and key and key.__class__ is str else key
        time_s = core.clock()
        held = core.memory.get(full, time_s)
        if (
            held is not None
            and time_s < held.plain_until
            and held.version == core.barriers.version
            and (core.home is None or core.is_plain(held, time_s))
        ):
            if core.listeners.is_heard:
                core.tell("hit", full, held.family.name, "memory")
            else:
                held.family.hits += 1
            return held.value if held.copier is None else held.copier(held.value)
        return await calls.get(core, LOOP, full, held, time_s, self.options, self.prefix, default)

    @overload
    async def get_or_set(
        self, key: str, loader: AsyncLoader[T], **settings: Unpack[Settings]
    ) -> T: ...

    @overload
    async def get_or_set(
        self, key: str, loader: PlainLoader[T], **settings: Unpack[Settings]
    ) -> T: ...

    async def get_or_set(
        self, key: str, loader: Callable[..., Any], **settings: Unpack[Settings]
    ) -> Any:
        """What is under this key; if nothing is, what the loader makes, once for all who ask.

        The loader may be a plain function, which runs in the loop as it stands, or a coroutine
        function. If it takes a parameter it is given the `Loading`.
        """
        core = self.core
        full = self.prefix + key if self.prefix and key and key.__class__ is str else key
        time_s = core.clock()
        held = core.memory.get(full, time_s)
        if (
            held is not None
            and time_s < held.plain_until
            and held.version == core.barriers.version
            and (core.home is None or core.is_plain(held, time_s))
        ):
            if core.listeners.is_heard:
                core.tell("hit", full, held.family.name, "memory")
            else:
                held.family.hits += 1
            return held.value if held.copier is None else held.copier(held.value)
        ask = self.ask_for(full, family_of(str(key)), loader, settings)
        return calls.unwrap(await core.obtain(ask, LOOP, held, time_s))

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """What is there of these, by key: one look at the second layer for all."""
        return await calls.get_many(self.core, LOOP, self.full_keys(keys), self.options)

    async def set(self, key: str, value: Any, **settings: Unpack[Settings]) -> None:
        """Keep a value under this key, and have every other process drop its own."""
        await self.set_many({key: value}, **settings)

    async def set_many(self, values: Mapping[str, Any], **settings: Unpack[Settings]) -> None:
        full = {self.full_key(key): value for key, value in calls.pairs(values)}
        await calls.set_many(self.core, LOOP, full, self.merged(settings), self.prefix)

    async def delete(self, *keys: str) -> None:
        await calls.delete(self.core, LOOP, [self.full_key(key) for key in keys], self.prefix)

    async def touch(self, key: str, ttl: Duration | None = None) -> bool:
        """Let what is there live for `ttl` from now; whether it was there."""
        made = self.options if ttl is None else self.merged({"ttl": ttl})
        return await calls.touch(self.core, LOOP, self.full_key(key), made)

    async def increment(self, key: str, amount: int = 1, ttl: Duration | None = None) -> int:
        """Count. Over all processes with a second layer; while that is away, in this one. `ttl`
        runs from the first.
        """
        return await calls.increment(self.core, LOOP, self.full_key(key), amount, ttl)

    async def invalidate(
        self,
        *,
        tags: Iterable[str] = (),
        keys: Iterable[str] = (),
        patterns: Iterable[str] = (),
        everything: bool = False,
        soft: bool = False,
    ) -> Invalidated:
        """Forget whatever these name, here and wherever else it is kept. When it has returned, it
        is served here no more, and by others, unless `is_queued`, 100 ms later at most.
        `everything` is all of the namespace.
        """
        news = self.news_of(tags, keys, patterns, everything=everything, soft=soft)
        done = await calls.invalidate(self.core, LOOP, news)
        if self.links and not await self.links.tell(news.at(done.stamp)):
            return Invalidated(done.stamp, is_queued=True)
        return done

    # ---- functions

    @overload
    def cached(self, function: F, /) -> F: ...

    @overload
    def cached(
        self,
        function: str | None = None,
        /,
        *,
        key: str | Callable[..., str] | None = None,
        **settings: Unpack[Settings],
    ) -> Callable[[F], F]: ...

    def cached(
        self,
        function: Any = None,
        /,
        *,
        key: str | Callable[..., str] | None = None,
        **settings: Unpack[Settings],
    ) -> Any:
        """Keep what a function answers here; see `headgate.cache.cached`."""
        from headgate.cache.decorate import cached

        return cached(function, key=key, cache=self, **settings)

    async def warm(
        self,
        what: Iterable[Any] | AsyncIterable[Any],
        loader: Callable[[str], Any] | None = None,
        *,
        rate: str | None = "100/s",
        concurrency: int = 10,
        progress: Callable[[Progress], None] | None = None,
        **settings: Unpack[Settings],
    ) -> WarmSummary:
        """Load ahead: keys with a loader that is given each, or calls of decorated functions."""
        from headgate.cache.warming import warm

        return await warm(self, what, loader, rate, concurrency, progress, settings)

    # ---- what an operator asks

    def on_event(self, hear: Hear) -> Callable[[], None]:
        """Hear what happens (`events`); the answer ends it."""
        return self.core.listeners.add(hear)

    @property
    def memory(self) -> Any:
        """The first layer: its `curve()` of hit ratio by size, `resize()`."""
        return self.core.memory

    def advice(self) -> Advice:
        """What its hit ratio by size says of the size of the memory, in words and numbers."""
        found: Advice = self.memory.advice()
        return found

    def stats(self) -> dict[str, Any]:
        """What was counted, by layer, key family and tag, as JSON has it."""
        return stats_of(self.core)

    def rows(self) -> list[Row]:
        """The same for whoever gathers metrics."""
        return list(rows_of(self.core))

    def prometheus(self) -> str:
        """The same as text for a scraper: to be answered as `text/plain; version=0.0.4`."""
        return text_of(rows_of(self.core))

    def snapshot(self) -> CacheSnapshot:
        return snapshot_of(self.core, self.prefix)

    def health(self) -> Health:
        return health_of(self.core)

    # ---- inner

    def full_key(self, key: str) -> str:
        check_key(key)
        full = self.prefix + key
        if self.prefix:
            check_key(full)
        return full

    def full_keys(self, keys: Iterable[str]) -> dict[str, str]:
        if isinstance(keys, str):
            raise TypeError(f"keys={keys!r}: write a list of keys")
        return {self.full_key(key): key for key in keys}

    def merged(self, settings: Settings | dict[str, Any]) -> Options:
        """The settings of a call, read once for all calls that give the same."""
        if not settings:
            return self.options
        try:
            key = tuple(
                (name, tuple(value) if isinstance(value, list) else value)
                for name, value in settings.items()
            )
            found = self._memo.get(key)
        except TypeError:
            return options(self.options, settings)
        if found is None:
            found = options(self.options, settings)
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()  # tags of their own for each call, most likely
            self._memo[key] = found
        return found

    def ask_for(
        self, full: str, family: str, loader: Callable[..., Any], settings: Settings
    ) -> Ask:
        made = self.merged(settings)
        if not callable(loader):
            raise TypeError(f"loader {loader!r} cannot be called; to keep a value, use set()")
        if wants_loading(loader):
            return Ask(full, family, made, loader, made.tags)
        call = lambda entry: loader()  # noqa: ARG005, E731 - a name of its own says no more
        return Ask(full, family, made, call, made.tags)

    def news_of(
        self,
        tags: Iterable[str],
        keys: Iterable[str],
        patterns: Iterable[str],
        *,
        everything: bool,
        soft: bool,
    ) -> Invalidation:
        return calls.news_of(self.prefix, tags, keys, patterns, everything, soft)

    def _heard_of_link(self, news: Invalidation) -> None:
        calls.heard_of_link(self.core, news)

    def _gap_of_link(self) -> None:
        calls.gap_of_link(self.core)
