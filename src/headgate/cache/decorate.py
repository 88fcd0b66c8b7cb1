"""`cached`: a function whose answers are kept.

    @cached("user:{user_id}", ttl="5min", tags=["users", "user:{user_id}"])
    async def fetch_user(user_id): ...

The key is a template of the parameters (`keys`), a function of the arguments, or, if none is given,
the function's name with all its arguments. A coroutine function stays one; a plain function may be
called from many threads, of which one runs it. Methods too: what distinguishes their objects must
be in the template ("{self.id}"), or their objects must say what they are by `__cache_key__()`.

Without a cache of its own a function uses that of the process: in memory, or what `use_cache` said.
"""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar, Unpack, overload

from headgate.cache import calls
from headgate.cache.cache import Cache
from headgate.cache.core import Core
from headgate.cache.keys import check_key, compile_key, compile_texts
from headgate.cache.layer import Invalidated
from headgate.cache.loading import Ask, Loading
from headgate.cache.options import DEFAULTS, Options, Settings, options
from headgate.cache.ports import LOOP, THREAD
from headgate.cache.sync import drive, on_fork

__all__ = ["DEFAULT", "Site", "cached", "default_cache", "site_of", "use_cache"]

F = TypeVar("F", bound=Callable[..., Any])


class Site:
    """A decorated function and its keys: from `site_of(function)`."""

    def __init__(
        self,
        function: Callable[..., Any],
        key: str | Callable[..., str] | None,
        cache: Cache | None,
        settings: Settings,
    ) -> None:
        self.function = function
        self.is_async = is_async(function)
        self._key = key
        self._settings = settings
        self._cache = cache
        self._first: tuple[Any, ...] = ()
        made = options(DEFAULTS, settings)
        self._tags: Callable[..., tuple[str, ...]] | None = None
        if any("{" in tag or "}" in tag for tag in made.tags):
            self._tags = compile_texts(function, made.tags)
        name = f"{function.__module__}.{function.__qualname__}"
        self.family = key if isinstance(key, str) else name
        compile_key(function, key)  # what is wrong with it is said now
        self.core: Core | None = None
        self.key_of: Callable[..., str] = compile_key(function, key)
        self._options = made
        if cache is not None:
            self._bind(cache)

    def _bind(self, cache: Cache) -> Core:
        self._options = options(cache.options, self._settings)
        self.key_of = compile_key(self.function, self._key, cache.prefix)
        self.core = cache.core
        return cache.core

    def bind(self) -> Core:
        """Find the cache, at the first call."""
        return self._bind(self._cache or DEFAULT.cache(self))

    def unbind(self) -> None:
        if self._cache is None:
            self.core = None

    @property
    def options(self) -> Options:
        self.core or self.bind()
        return self._options

    def ask(self, key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ask:
        function, made = self.function, self._options
        tags = made.tags if self._tags is None else self._tags(*args, **kwargs)

        def call(entry: Loading) -> Any:
            return function(*args, **kwargs)

        return Ask(key, self.family, made, call, tags)

    def of(self, owner: Any) -> Site:
        """The same for a method of this object."""
        bound = Site.__new__(Site)
        bound.__dict__.update(self.__dict__, _first=(owner,))
        return bound

    def key(self, *args: Any, **kwargs: Any) -> str:
        """The key of this call, with its namespace."""
        if self.core is None:
            self.bind()
        return self.key_of(*self._first, *args, **kwargs)

    async def invalidate(self, *args: Any, **kwargs: Any) -> Invalidated:
        """Forget the answer to this call, everywhere."""
        core = self.core or self.bind()
        news = calls.news_of("", (), [self.key(*args, **kwargs)], (), False, False)
        return await calls.invalidate(core, LOOP, news)

    def invalidate_sync(self, *args: Any, **kwargs: Any) -> Invalidated:
        core = self.core or self.bind()
        news = calls.news_of("", (), [self.key(*args, **kwargs)], (), False, False)
        return drive(calls.invalidate(core, THREAD, news))

    def __repr__(self) -> str:
        return f"<cached {self.function.__qualname__} under {self.family!r}>"


class _Default:
    """The cache of the process, and who uses it."""

    def __init__(self) -> None:
        self._cache: Cache | None = None
        self._sites: weakref.WeakSet[Site] = weakref.WeakSet()
        self._lock = threading.Lock()
        on_fork(self)

    def forked(self) -> None:
        self._lock = threading.Lock()

    def cache(self, site: Site | None = None) -> Cache:
        with self._lock:
            if site is not None:
                self._sites.add(site)
            if self._cache is None:
                self._cache = Cache()
            return self._cache

    def use(self, cache: Cache) -> None:
        with self._lock:
            self._cache = cache
            for site in list(self._sites):
                site.unbind()


DEFAULT: Final = _Default()


def default_cache() -> Cache:
    """The cache of functions that were decorated without one; in memory unless `use_cache` said."""
    return DEFAULT.cache()


def use_cache(cache: Cache) -> None:
    """From now on this is the cache of functions that were decorated without one."""
    if not isinstance(cache, Cache):
        raise TypeError(f"use_cache({cache!r}): give a Cache")
    DEFAULT.use(cache)


def is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object that is called like one
    )


def site_of(function: Callable[..., Any]) -> Site:
    """The keys of a decorated function; of a bound method, those of its object."""
    site = getattr(function, "__cached__", None)
    if not isinstance(site, Site):
        raise TypeError(f"{function!r} was not decorated by cached")
    owner = getattr(function, "__self__", None)
    return site if owner is None else site.of(owner)


@overload
def cached(function: F, /) -> F: ...


@overload
def cached(
    function: str | None = None,
    /,
    *,
    key: str | Callable[..., str] | None = None,
    cache: Cache | None = None,
    **settings: Unpack[Settings],
) -> Callable[[F], F]: ...


def cached(
    function: Any = None,
    /,
    *,
    key: str | Callable[..., str] | None = None,
    cache: Cache | None = None,
    **settings: Unpack[Settings],
) -> Any:
    """Keep what a function answers. The template may be the first argument, or `key`."""
    if isinstance(function, str):
        if key is not None:
            raise TypeError("cached: give the template once, first or as key=")
        key, function = function, None

    def decorate(each: F) -> F:
        return _decorated(each, Site(_checked(each), key, cache, settings))

    # Found now rather than when the function is defined, where there is none yet.
    options(DEFAULTS, settings)
    return decorate if function is None else decorate(function)


def _checked(function: Any) -> Any:
    if isinstance(function, (staticmethod, classmethod, property)):
        kind = type(function).__name__
        raise TypeError(f"cached: put it below @{kind}, so that it gets the function itself")
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"cached: {function!r} is not a function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"cached: {function.__qualname__}() is a generator, which can be read once only; "
            "answer with a list"
        )
    if not hasattr(function, "__qualname__"):
        raise TypeError(f"cached: {function!r} has no name; decorate a function that calls it")
    return function


def _decorated(function: F, site: Site) -> F:
    made = _async(site) if site.is_async else _plain(site)
    functools.update_wrapper(made, function)
    made.__cached__ = site
    return made  # type: ignore[no-any-return]  # it has the signature of `function`


def _async(site: Site) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        core = site.core or site.bind()
        key = site.key_of(*args, **kwargs)
        time_s = core.clock()
        held = core.memory.get(key, time_s)
        if (
            held is not None
            and time_s < held.plain_until
            and held.version == core.barriers.version
            and (core.home is None or core.is_plain(held, time_s))
        ):
            if core.listeners.is_heard:
                core.tell("hit", key, site.family, "memory")
            else:
                held.family.hits += 1
            return held.value if held.copier is None else held.copier(held.value)
        check_key(key)
        ask = site.ask(key, args, kwargs)
        return calls.unwrap(await core.obtain(ask, LOOP, held, time_s))

    return call


def _plain(site: Site) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        core = site.core or site.bind()
        key = site.key_of(*args, **kwargs)
        time_s = core.clock()
        held = core.memory.get(key, time_s)
        if (
            held is not None
            and time_s < held.plain_until
            and held.version == core.barriers.version
            and (core.home is None or core.is_plain(held, time_s))
        ):
            if core.listeners.is_heard:
                core.tell("hit", key, site.family, "memory")
            else:
                held.family.hits += 1
            return held.value if held.copier is None else held.copier(held.value)
        check_key(key)
        ask = site.ask(key, args, kwargs)
        return calls.unwrap(drive(core.obtain(ask, THREAD, held, time_s)))

    return call
