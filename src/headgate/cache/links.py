"""Others who keep what the same tags name, such as a gateway: they are told, and tell.

A link belongs to the event loop in which it was started: that of `start()`, or of the first
invalidation. What it tells is stamped anew here, on the clock of this cache: all that was loaded up
to then is struck, which is never too little. If a link may have missed news, memory is emptied.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from headgate.cache.invalidation import Invalidation
from headgate.cache.sync import own_loop

__all__ = ["Link", "Links"]

log = logging.getLogger("headgate.cache")

_BOUND_S = 5.0


class Link(Protocol):
    async def start(
        self, hear: Callable[[Invalidation], None], on_gap: Callable[[], None]
    ) -> None: ...

    async def tell(self, invalidation: Invalidation) -> bool:
        """Have it forgotten there; False: it will be."""
        ...

    async def close(self) -> None: ...


class Links:
    def __init__(
        self,
        links: tuple[Link, ...],
        hear: Callable[[Invalidation], None],
        on_gap: Callable[[], None],
    ) -> None:
        for link in links:
            if not callable(getattr(link, "tell", None)):
                raise TypeError(f"links: {link!r} has no tell()")
        self._links = links
        self._hear = hear
        self._on_gap = on_gap
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: threading.Thread | None = None
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        return bool(self._links)

    async def start(self) -> None:
        await self._at_home(self._nothing)

    async def tell(self, news: Invalidation) -> bool:
        """Whether all have forgotten it by now."""
        return bool(await self._at_home(lambda: self._tell(news)))

    def tell_from_thread(self, news: Invalidation) -> bool:
        with self._lock:
            if self._loop is None or not self._loop.is_running():
                self._loop, self._own = own_loop()
                asyncio.run_coroutine_threadsafe(self._start_all(), self._loop).result(_BOUND_S)
            loop = self._loop
        try:
            if asyncio.get_running_loop() is loop:
                # In the thread of that very loop, which must not wait for itself.
                asyncio.run_coroutine_threadsafe(self._tell(news), loop)
                return False
        except RuntimeError:
            pass
        told = asyncio.run_coroutine_threadsafe(self._tell(news), loop)
        try:
            return told.result(_BOUND_S)
        except TimeoutError:
            return False

    async def _at_home(self, make: Callable[[], Any]) -> Any:
        here = asyncio.get_running_loop()
        with self._lock:
            loop = self._loop
            is_new = loop is None or (loop is not here and not loop.is_running())
            if is_new:
                loop = self._loop = here
        if is_new:
            await self._start_all()
        if loop is here or loop is None:
            return await make()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(), loop))

    async def _start_all(self) -> None:
        for link in self._links:
            await link.start(self._hear, self._on_gap)

    async def _tell(self, news: Invalidation) -> bool:
        is_told = True
        for link in self._links:
            try:
                is_told = bool(await link.tell(news)) and is_told
            except Exception:
                log.exception("a link of the cache could not be told of an invalidation")
                is_told = False
        return is_told

    async def _nothing(self) -> None:
        pass

    async def close(self) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        await self._at_home(self._close_all)
        own, loop, self._loop, self._own = self._own, self._loop, None, None
        if own is not None and loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def close_from_thread(self) -> None:
        loop = self._loop
        if loop is None or not loop.is_running():
            return
        asyncio.run_coroutine_threadsafe(self._close_all(), loop).result(_BOUND_S)
        own, self._loop, self._own = self._own, None, None
        if own is not None:
            loop.call_soon_threadsafe(loop.stop)
            own.join(_BOUND_S)

    async def _close_all(self) -> None:
        for link in self._links:
            try:
                await link.close()
            except Exception:
                log.exception("a link of the cache could not be closed")

    def forked(self) -> None:
        self._lock = threading.RLock()
        self._loop = None
        self._own = None
