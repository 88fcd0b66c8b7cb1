"""The object cache for plain code: the same calls, which block instead of being awaited.

Safe in any thread. One load of a key at a time over all threads and event loops of the process: it
runs in the thread that asked first, the others wait. In the thread of the event loop in which the
second layer lives these calls go on without it (`sync`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from headgate.cache import calls
from headgate.cache.events import family_of
from headgate.cache.layer import Invalidated
from headgate.cache.loading import PlainLoader
from headgate.cache.options import Duration, Settings
from headgate.cache.ports import THREAD
from headgate.cache.sync import drive

if TYPE_CHECKING:
    from headgate.cache.cache import Cache

__all__ = ["SyncCache"]

T = TypeVar("T")


class SyncCache:
    """A view of a cache, from `cache.sync`; making one costs nothing."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def get(self, key: str, default: Any = None) -> Any:
        cache, core = self._cache, self._cache.core
        full = cache.full_key(key)
        time_s = core.clock()
        held = core.memory.get(full, time_s)
        if core.is_plain(held, time_s) and not core.listeners.is_heard:
            held.family.hits += 1
            return held.given()
        return drive(
            calls.get(core, THREAD, full, held, time_s, cache.options, cache.prefix, default)
        )

    def get_or_set(self, key: str, loader: PlainLoader[T], **settings: Unpack[Settings]) -> T:
        cache, core = self._cache, self._cache.core
        full = cache.full_key(key)
        time_s = core.clock()
        held = core.memory.get(full, time_s)
        if core.is_plain(held, time_s) and not core.listeners.is_heard:
            held.family.hits += 1
            found: T = held.given()
            return found
        ask = cache.ask_for(full, family_of(key), loader, settings)
        made: T = calls.unwrap(drive(core.obtain(ask, THREAD, held, time_s)))
        return made

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        cache = self._cache
        return drive(calls.get_many(cache.core, THREAD, cache.full_keys(keys), cache.options))

    def set(self, key: str, value: Any, **settings: Unpack[Settings]) -> None:
        self.set_many({key: value}, **settings)

    def set_many(self, values: Mapping[str, Any], **settings: Unpack[Settings]) -> None:
        cache = self._cache
        full = {cache.full_key(key): value for key, value in calls.pairs(values)}
        drive(calls.set_many(cache.core, THREAD, full, cache.merged(settings), cache.prefix))

    def delete(self, *keys: str) -> None:
        cache = self._cache
        drive(calls.delete(cache.core, THREAD, [cache.full_key(key) for key in keys], cache.prefix))

    def touch(self, key: str, ttl: Duration | None = None) -> bool:
        cache = self._cache
        made = cache.options if ttl is None else cache.merged({"ttl": ttl})
        return drive(calls.touch(cache.core, THREAD, cache.full_key(key), made))

    def increment(self, key: str, amount: int = 1, ttl: Duration | None = None) -> int:
        cache = self._cache
        return drive(calls.increment(cache.core, THREAD, cache.full_key(key), amount, ttl))

    def invalidate(
        self,
        *,
        tags: Iterable[str] = (),
        keys: Iterable[str] = (),
        patterns: Iterable[str] = (),
        everything: bool = False,
        soft: bool = False,
    ) -> Invalidated:
        cache = self._cache
        news = cache.news_of(tags, keys, patterns, everything=everything, soft=soft)
        done = drive(calls.invalidate(cache.core, THREAD, news))
        if cache.links and not cache.links.tell_from_thread(news.at(done.stamp)):
            return Invalidated(done.stamp, is_queued=True)
        return done

    def close(self) -> None:
        cache = self._cache
        cache.core.is_closed = True
        cache.core.break_off()
        cache.links.close_from_thread()
        if cache.core.home is not None:
            cache.core.home.close_from_thread()

    def __enter__(self) -> Self:
        self._cache.core.is_closed = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
