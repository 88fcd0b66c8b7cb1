"""Reload when a file changes: those of the configuration, and those that it names.

Theory of operation
-------------------
A changed file is seldom a written file. Editors write a draft and rename it; Kubernetes swaps a
symbolic link two directories up; certbot moves a link to another archive. So directories are
watched, and an event there is only an occasion to look: what counts is the *signature* of the
watched files, which follows links. A directory given as the configuration counts with the list
of the files in it.

After an event we wait until the signature has been still for `QUIET_S`, so that a slow write or
a `git pull` is one reload. A file that is caught half-written all the same is refused by the
loader and read again at its next event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from watchfiles import awatch

__all__ = ["Watch", "named_files", "signature"]

QUIET_S = 0.15
DEBOUNCE_MS = 50
POLL_S = 5.0  # a look even without an event: some network file systems send none

Signature = tuple[tuple[str, int, int, int], ...]


def named_files(document: Any, base: Path) -> list[Path]:
    """The files that a document names: every `*_file`, and `file`, at any depth."""
    found: list[Path] = []
    if isinstance(document, dict):
        for key, value in document.items():
            if isinstance(value, str) and (key == "file" or str(key).endswith("_file")):
                found.append(base / value)
            else:
                found.extend(named_files(value, base))
    elif isinstance(document, list):
        for value in document:
            found.extend(named_files(value, base))
    return found


def signature(paths: Iterable[Path]) -> Signature:
    """What would be different if any of these files were."""
    rows: list[tuple[str, int, int, int]] = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            rows.append((str(path), 0, 0, 0))
            continue
        if path.is_dir():
            with contextlib.suppress(OSError):
                rows.extend(
                    row for child in sorted(path.glob("*.y*ml")) for row in signature([child])
                )
        else:
            rows.append((str(path), found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(rows)


def directories(paths: Iterable[Path]) -> set[Path]:
    """Where to listen: beside each file, and beside what each link on the way points to."""
    found: set[Path] = set()
    for path in paths:
        for candidate in (path, path.resolve()):
            home = candidate if candidate.is_dir() else candidate.parent
            if home.is_dir():
                found.add(home)
    return found


class Watch:
    """Calls `changed` after a change of any of the files. `follow` replaces what is watched."""

    def __init__(self, changed: Callable[[], Awaitable[None]]) -> None:
        self._changed = changed
        self._paths: tuple[Path, ...] = ()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(self, paths: Iterable[Path]) -> None:
        wanted = tuple(dict.fromkeys(paths))
        if wanted == self._paths:
            return
        self._paths = wanted
        self._stop.set()
        if wanted and self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="watch")

    async def close(self) -> None:
        self._paths = ()
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        seen: Signature = ()
        watched: tuple[Path, ...] = ()
        while self._paths:
            if watched != self._paths:
                watched = self._paths
                seen = signature(watched)
            self._stop.clear()
            async for _events in awatch(
                *directories(watched),
                recursive=False,
                debounce=DEBOUNCE_MS,
                step=DEBOUNCE_MS,
                stop_event=self._stop,
                rust_timeout=int(POLL_S * 1000),
                yield_on_timeout=True,
            ):
                now = signature(watched)
                if now == seen:
                    continue
                seen = await self._still(watched, now)
                await self._changed()
                # Links may point elsewhere by now, and new directories may matter.
                break
        self._task = None

    @staticmethod
    async def _still(paths: tuple[Path, ...], now: Signature) -> Signature:
        while True:
            await asyncio.sleep(QUIET_S)
            later = signature(paths)
            if later == now:
                return later
            now = later
