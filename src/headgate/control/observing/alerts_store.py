"""The file of what alerts must not forget, on a thread of its own.

A disk that takes nothing is a fault that is told, and holds nothing up: what could not be written
is given back and written with the next turn. One that hangs is a fault, too: nobody waits for it
longer than `PATIENCE_S`, and nothing else is given to it until it has answered.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from headgate.errors import HeadgateError
from headgate.observe.alerts.keeping import Keeper

__all__ = ["Store"]

PATIENCE_S: Final = 5.0
T = TypeVar("T")


class Store:
    def __init__(self) -> None:
        self._keeper: Keeper | None = None
        self._disk: ThreadPoolExecutor | None = None
        self.patience_s = PATIENCE_S
        self._opening: asyncio.Future[Mapping[str, Any] | None] | None = None
        self.is_open = False
        self.fault = ""

    def start(self) -> None:
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="alert-store")

    def take(self, path: Path, *, most: int) -> None:
        """Where it is stands for the whole run."""
        if self._keeper is None:
            self._keeper = Keeper(path, most=most)

    async def open(self, now: float) -> Mapping[str, Any] | None:
        """What was kept, once; None when there is nothing to restore from, now or any more."""
        if self.is_open or self._keeper is None:
            return None
        is_news = self._opening is None
        opening = self._opening = self._opening or self._on_disk(self._keeper.open, now)
        if not await self.has_ended(opening, waits=is_news):
            return None
        self._opening = None
        try:
            kept = opening.result()
        except (OSError, sqlite3.Error) as error:
            self.fault = f"what was told is not kept: {error}"
            return None
        self.is_open = True
        self.fault = ""
        return kept

    async def write(self, kept: Mapping[str, Any], rows: list[tuple[Any, ...]]) -> bool:
        """False when the disk took nothing."""
        if self._keeper is None:
            return False
        try:
            await asyncio.shield(self._on_disk(self._keeper.write, kept, rows))
        except (OSError, sqlite3.Error) as error:
            self.fault = f"what was told is not kept: {error}"
            return False
        self.fault = ""
        return True

    async def told(self, **asked: Any) -> list[dict[str, Any]]:
        keeper = self._keeper
        if keeper is None or not self.is_open:
            return []
        asking = self._on_disk(lambda: keeper.told(**asked))
        if not await self.has_ended(asking):
            asking.cancel()
            raise HeadgateError("the disk that keeps what was told does not answer")
        return asking.result()

    async def close(self) -> None:
        if self._keeper is not None and self._disk is not None:
            closing = self._on_disk(self._keeper.close)
            if await self.has_ended(closing):
                closing.result()
            else:
                closing.cancel()
        if self._disk is not None:
            self._disk.shutdown(wait=False, cancel_futures=True)

    async def has_ended(self, work: asyncio.Future[Any], *, waits: bool = True) -> bool:
        """Whether the disk has answered, now or within our patience. It goes on by itself."""
        await asyncio.wait({work}, timeout=self.patience_s if waits else 0.0)
        if not work.done():
            self.fault = "the disk does not answer; what is told is not kept"
        return work.done()

    def makes_no_sense(self, error: Exception) -> None:
        if self._keeper is not None:
            self._keeper.faults.append(
                f"some of what was kept makes no sense and is left out: {error!r}"
            )

    def worries(self) -> Iterable[str]:
        if self.fault:
            yield self.fault
        if self._keeper is not None:
            yield from self._keeper.worries()

    def _on_disk(self, act: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._disk, act, *args)
