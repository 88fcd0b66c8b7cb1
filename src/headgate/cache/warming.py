"""Loading ahead, at a rate that the source can bear.

What is asked for goes the usual way: what is there is not loaded, what others load is waited for.
As many as `concurrency` are on their way at once and no more than `rate` are begun in a time. What
fails is counted and does not end it. Cancelled, it begins nothing more; loads on their way go on,
as they always do.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headgate.cache.loading import Loading
from headgate.cache.options import Settings
from headgate.units import UnitError, parse_rate

if TYPE_CHECKING:
    from headgate.cache.cache import Cache

__all__ = ["Progress", "WarmSummary", "warm"]

_ERRORS_MAX: Final = 20
CONCURRENCY_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    loaded: int
    failed: int
    took_s: float
    total: int | None
    """If what is to be warmed has a length."""


@dataclass(frozen=True, slots=True)
class WarmSummary:
    done: int
    loaded: int
    held: int
    """Was there already, or was loaded by another."""
    failed: int
    took_s: float
    errors: tuple[tuple[str, str], ...]
    """What failed first, with the reason."""


class Warming:
    def __init__(
        self,
        cache: Cache,
        what: Iterable[Any] | AsyncIterable[Any],
        loader: Callable[[str], Any] | None,
        interval_s: float,
        progress: Callable[[Progress], None] | None,
        settings: Settings,
    ) -> None:
        self.cache = cache
        self.loader = loader
        self.interval_s = interval_s
        self.progress = progress
        self.settings = settings
        self.total = len(what) if isinstance(what, Sized) else None
        self.left = _each(what)
        self.now = cache.core.now
        self.began = self.next_at = self.now()
        self.done = self.loaded = self.failed = 0
        self.errors: list[tuple[str, str]] = []
        self.lock = asyncio.Lock()

    async def work(self) -> None:
        while True:
            async with self.lock:
                try:
                    each = await anext(self.left)
                except StopAsyncIteration:
                    return
                now = self.now()
                wait_s = self.next_at - now
                # What was missed is not made up for in a burst.
                self.next_at = max(self.next_at, now - self.interval_s) + self.interval_s
                if wait_s > 0.0:
                    await asyncio.sleep(wait_s)
            await self.one(each)

    async def one(self, each: Any) -> None:
        name = each if isinstance(each, str) else repr(each)
        try:
            is_key = isinstance(each, str)
            is_loaded = await (self.load_key(each) if is_key else self.run_call(each))
        except Exception as error:  # noqa: BLE001 - counted, and shown in the summary
            self.failed += 1
            if len(self.errors) < _ERRORS_MAX:
                self.errors.append((name[:200], f"{type(error).__name__}: {error}"[:500]))
        else:
            self.loaded += is_loaded
        self.done += 1
        if self.progress is not None:
            self.progress(self.progress_now())

    def progress_now(self) -> Progress:
        took_s = self.now() - self.began
        return Progress(self.done, self.loaded, self.failed, took_s, self.total)

    async def load_key(self, key: str) -> bool:
        loader = self.loader
        if loader is None:
            raise TypeError("warm(): keys need a loader, which is given each of them")
        is_loaded = False

        async def load(entry: Loading) -> Any:
            nonlocal is_loaded
            is_loaded = True
            made = loader(key)
            return await made if inspect.isawaitable(made) else made

        await self.cache.get_or_set(key, load, **self.settings)
        return is_loaded

    async def run_call(self, call: Any) -> bool:
        if not callable(call):
            raise TypeError(f"warm(): {call!r} is neither a key nor something to be called")
        loads = self.cache.core.counts["loads"]
        made = call()
        if inspect.isawaitable(made):
            await made
        return self.cache.core.counts["loads"] > loads


async def _each(what: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(what, AsyncIterable):
        async for each in what:
            yield each
        return
    for each in what:
        yield each


async def warm(
    cache: Cache,
    what: Iterable[Any] | AsyncIterable[Any],
    loader: Callable[[str], Any] | None,
    rate: str | None,
    concurrency: int,
    progress: Callable[[Progress], None] | None,
    settings: Settings,
) -> WarmSummary:
    if isinstance(what, str):
        raise TypeError(f"warm({what!r}): write a list of keys or of calls")
    if type(concurrency) is not int or not 1 <= concurrency <= CONCURRENCY_MAX:
        raise ValueError(f"concurrency={concurrency!r}: write 1 to {CONCURRENCY_MAX}")
    interval_s = 0.0
    if rate is not None:
        try:
            per_s = parse_rate(rate).per_second
        except UnitError as error:
            raise ValueError(f"rate: {error}") from None
        if per_s <= 0.0:
            raise ValueError(f"rate={rate!r} would never begin; write 100/s, or None for no limit")
        interval_s = 1.0 / per_s
    work = Warming(cache, what, loader, interval_s, progress, settings)
    warmings = cache.core.warmings
    warmings.add(work)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(concurrency):
                group.create_task(work.work(), name=f"headgate cache warming {number}")
    finally:
        warmings.discard(work)
    return WarmSummary(
        done=work.done,
        loaded=work.loaded,
        held=work.done - work.loaded - work.failed,
        failed=work.failed,
        took_s=work.now() - work.began,
        errors=tuple(work.errors),
    )
