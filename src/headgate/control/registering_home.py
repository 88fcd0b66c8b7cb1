"""Where the registry is kept: a SQLite file beside, and a Redis above, where the file names one.

Theory of operation
-------------------
The book is on the loop and is never waited for. What is to be written goes to the thread of the
SQLite file in one piece, one piece at a time; what could not be written is given back to the book
and goes with the next. A file that another process has taken over, as the next generation does in
an upgrade, is written no more.

With a Redis several control processes have one registry: leases are given and ended there, and the
file is what this one remembers of it, for a start while the Redis is away.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from headgate.config import Config
from headgate.errors import HeadgateError
from headgate.mesh.registry.book import Book
from headgate.mesh.registry.remembered import Remembered, Unsaved
from headgate.mesh.registry.store_redis import RedisHome
from headgate.mesh.registry.store_sqlite import SqliteStore, StoreTrouble

__all__ = ["Home", "redis_of"]

SAVE_AGAIN_S: Final = 1.0

T = TypeVar("T")

log = logging.getLogger("headgate.control")


def redis_of(config: Config | None) -> str:
    """The Redis that several controls share as the home of the registry; "": there is none."""
    if config is None or not config.registry or config.registry.home == "sqlite":
        return ""
    home = config.registry.home
    return home if home != "state" else config.state if config.state != "memory" else ""


class Home:
    def __init__(
        self, book: Book, path: Path, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.book = book
        self.redis: RedisHome | None = None
        """Ask it in place of the book for what changes leases."""
        self.store = SqliteStore(path, book.rules)
        self._clock = clock
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._url = ""
        self._no_redis = ""
        self._is_open = False
        self._saving: asyncio.Task[None] | None = None
        self._save_again_at = 0.0
        self._last_trouble = ""

    # ---- life

    async def open(self) -> Remembered:
        """Hear what was known before, and begin the book with it. It never fails."""
        known = await self._on_thread(self.store.open)
        try:
            self.book.restore(known, self._clock(), self._wall())
        except Exception as error:
            # Better a registry that those who live fill again than none.
            log.exception("what the registry knew cannot be taken up")
            self.book.forget_saved()
            known = Remembered(lost=(f"what it knew cannot be taken up: {error!r}",))
        self._is_open = True
        for lost in known.lost:
            log.warning("the registry: %s", lost)
        return known

    async def follow(self, url: str, *, is_first: bool = False) -> None:
        """Give and end leases in this Redis from now on; "": here."""
        if url == self._url:
            return
        before, self.redis, self._url = self.redis, None, url
        self._no_redis = ""
        if before is not None:
            await before.close()
            self.book.forgive(self._clock())
        if not url:
            return
        try:
            redis = RedisHome(url, self.book, clock=self._clock, wall=self._wall)
        except HeadgateError as error:
            self._no_redis = f"the registry is of this process alone: {error}"
            log.warning("%s", self._no_redis)
            return
        # What registered before the file named this Redis is not ended by its not knowing it.
        await redis.start(offers_all=not is_first)
        self.redis = redis

    async def close(self) -> None:
        """Write the last, with the mark that nothing is missing."""
        if self.redis is not None:
            await self.redis.close()
        if self._saving is not None:
            await asyncio.gather(self._saving, return_exceptions=True)
        unsaved = self.book.take_unsaved() if self._is_open else None
        try:
            await self._on_thread(lambda: self.store.close(unsaved))
        except StoreTrouble as error:
            log.warning("what the registry knew last is not kept: %s", error)
        finally:
            self._thread.shutdown(wait=False)

    # ---- keeping

    def save(self) -> None:
        """Begin to write what is not written yet, unless that is under way or no use."""
        if self._saving is not None or self._clock() < self._save_again_at:
            return
        unsaved = self.book.take_unsaved()
        if not unsaved.is_nothing:
            work = self._write(unsaved)
            self._saving = asyncio.get_running_loop().create_task(work, name="registry home")

    async def _write(self, unsaved: Unsaved) -> None:
        try:
            await self._on_thread(lambda: self.store.write(unsaved))
        except StoreTrouble as error:
            self.book.give_back(unsaved)
            if error.kind == "lost":
                self.book.forget_saved()
            again_s = math.inf if error.kind == "taken" else SAVE_AGAIN_S
            self._save_again_at = self._clock() + again_s
            if str(error) != self._last_trouble:
                log.warning("the registry is not kept: %s", error)
            self._last_trouble = str(error)
        except Exception:
            self.book.give_back(unsaved)
            self._save_again_at = self._clock() + SAVE_AGAIN_S
            log.exception("the registry is not kept")
        else:
            self._last_trouble = ""
        finally:
            self._saving = None

    async def _on_thread(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        # Whoever is cancelled here leaves no half-done work: the thread ends what it has begun.
        return await asyncio.shield(loop.run_in_executor(self._thread, work))

    # ---- asked

    @property
    def place(self) -> str:
        return self.redis.place if self.redis is not None else "sqlite"

    @property
    def is_kept(self) -> bool:
        return not self.store.trouble and (self.redis is None or not self.redis.worry)

    def worries(self) -> Iterable[str]:
        if self.store.trouble:
            yield f"the registry is not kept: {self.store.trouble}"
        if self.redis is not None and self.redis.worry:
            yield f"the registry in {self.redis.worry}"
        if self._no_redis:
            yield self._no_redis
