"""A file of credentials that may change while we run: read again, and the last good one kept.

Theory of operation. `load` reads the file now and raises ValueError in plain words; that is for
building, where a bad file refuses the configuration. `start` looks every few seconds whether the
file is another one than before (time, size, inode) and reads it in a thread. One that cannot be
read or is wrong changes nothing: what was good stays in force, the reason is logged once for each
state of the file and is in `fault`. A file that is gone keeps its content in force likewise, since
editors and deployments take files away for a moment; to lock everybody out, write an empty list.

What an editor must not break: `read` runs in a thread and must touch nothing but its argument;
`on_change` runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from headgate.security.method import Parts
from headgate.units import MB, format_size

T = TypeVar("T")

log: Final = logging.getLogger("headgate.security")

EVERY_S: Final = 2.0
MAX_BYTES: Final = 512 * MB

_Stamp = tuple[int, int, int, int] | None


class WatchedFile(Generic[T]):
    """One file and what was read from it last."""

    def __init__(
        self,
        path: str,
        read: Callable[[bytes], T],
        *,
        every_s: float = EVERY_S,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.path = path
        self.fault = ""
        """Why the present state of the file is not in force; empty while it is."""
        self.readings = 0
        self._read = read
        self._every_s = every_s
        self._max_bytes = max_bytes
        self._seen: _Stamp = None
        self._closing: asyncio.Event | None = None
        self._is_closed = False

    def load(self) -> T:
        """Read it now. ValueError says what is wrong, with the file's name."""
        self._seen = self._stamp()
        return self._load()

    def start(self, parts: Parts, on_change: Callable[[T], None]) -> None:
        """Look for changes from now on."""
        parts.spawn(self._watch(on_change))

    def close(self) -> None:
        self._is_closed = True
        if self._closing is not None:
            self._closing.set()

    async def look(self, on_change: Callable[[T], None]) -> None:
        """Look once; read it if it has changed."""
        seen = await asyncio.to_thread(self._stamp)
        if seen == self._seen:
            return
        try:
            content = await asyncio.to_thread(self._load)
        except ValueError as error:
            self._seen = seen
            self.fault = str(error)
            log.error("%s; what it said before stays in force", error)  # noqa: TRY400 - a fault of the file, not of a call
            return
        if self._is_closed:
            return
        # The stamp from before the reading: a change in between is seen the next time.
        self._seen = seen
        self.fault = ""
        on_change(content)
        log.info("%s: read again", self.path)

    def snapshot(self) -> dict[str, Any]:
        return {"file": self.path, "fault": self.fault, "readings": self.readings}

    async def _watch(self, on_change: Callable[[T], None]) -> None:
        self._closing = asyncio.Event()
        while not self._is_closed:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._closing.wait()
            except TimeoutError:
                await self.look(on_change)

    def _stamp(self) -> _Stamp:
        try:
            found = Path(self.path).stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)

    def _load(self) -> T:
        try:
            with Path(self.path).open("rb") as file:
                content = file.read(self._max_bytes + 1)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read: {error.strerror}") from error
        if len(content) > self._max_bytes:
            raise ValueError(f"{self.path}: is longer than {format_size(self._max_bytes)}")
        try:
            made = self._read(content)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        except Exception as error:  # a watch that dies is a file that never counts
            raise ValueError(f"{self.path}: is not understood ({type(error).__name__})") from error
        self.readings += 1
        return made
