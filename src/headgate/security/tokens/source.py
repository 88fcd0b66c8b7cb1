"""Where keys come from: as they are, or from a file that may change.

Theory of operation. A source has `keys`, a set or None while nothing is known, and tells its
listeners when the set has become another one. Only keys that verify other tokens than before count
as another set: fetching the same again changes nothing. A set that cannot be read is reported and
the last good one stays; nothing that was known is ever thrown away for an outage.

A source may outlive the method that made it: after a reload the next one finds it under its `key`
(`Parts.keep`), so that a reload does not wait for the issuer. It works as long as anybody uses it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from headgate.security.method import Parts
from headgate.security.tokens.jwk import read_keys
from headgate.security.tokens.keys import KeySet, KeysUnusable, PrivateKeyShown

log: Final = logging.getLogger("headgate.security")

MAX_FILE: Final = 1024 * 1024


class KeySource:
    key: tuple[object, ...] | None = None
    """Under which it outlives reloads; None for sources with nothing to keep."""
    where: str = "the file"
    """For logs and operators."""

    def __init__(self, keys: KeySet | None) -> None:
        self.keys = keys
        self.last_error = ""
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[object] | None = None
        self._is_started = False
        self._is_let_go = False

    def use(self, parts: Parts, hear: Callable[[], None]) -> None:
        """Begin to use it, and to hear of changes."""
        self._listeners.append(hear)
        if not self._is_started:
            self._is_started = True
            self._start(parts)

    def leave(self, hear: Callable[[], None]) -> None:
        """Use it no more."""
        if hear in self._listeners:
            self._listeners.remove(hear)
        if not self._listeners and (self._is_let_go or self.key is None):
            self._stop()

    def close(self) -> None:
        """Nobody will find it again. Whoever uses it still does so."""
        self._is_let_go = True
        if not self._listeners:
            self._stop()

    def wait_first(self, wait_s: float) -> Awaitable[None] | None:
        """For the first keys; None when there is nothing to wait for now."""
        return None

    def wait_for(self, kid: str, wall: float, wait_s: float) -> Awaitable[None] | None:
        """For news that may bring this key; None when there will be none."""
        return None

    def snapshot(self, wall: float) -> dict[str, Any]:
        keys = self.keys
        return {
            "source": self.where,
            "is_known": keys is not None,
            "keys": [] if keys is None else keys.snapshot(),
            "left_out": [] if keys is None else list(keys.warnings),
            "last_error": self.last_error,
        }

    def _start(self, parts: Parts) -> None:
        """Take up work, if there is any."""

    def _stop(self) -> None:
        self._is_let_go = True
        if self._task is not None:
            self._task.cancel()

    def _put(self, keys: KeySet) -> None:
        """These are the keys now."""
        known = self.keys
        if known is None or known.warnings != keys.warnings:
            for warning in keys.warnings:
                log.warning("keys from %s: not used: %s", self.where, warning)
        self.keys = keys
        if self.last_error:
            log.info("keys from %s: there again", self.where)
            self.last_error = ""
        if known is None or known.mark != keys.mark:
            for hear in tuple(self._listeners):
                hear()

    def _fail(self, error: Exception) -> None:
        """Said once for each reason, not each time."""
        reason = str(error)
        if reason != self.last_error:
            kept = "none are known" if self.keys is None else "the last good ones stay"
            level = logging.ERROR if isinstance(error, PrivateKeyShown) else logging.WARNING
            log.log(level, "keys from %s: %s; %s", self.where, reason, kept)
        self.last_error = reason


class FixedKeys(KeySource):
    def __init__(self, keys: KeySet) -> None:
        super().__init__(keys)
        self.where = "the configuration"


class FileKeys(KeySource):
    """Read when built, so that a bad file is a fault of the configuration; later, when it has
    changed, a bad file is a warning.
    """

    def __init__(self, path: str, poll_s: float) -> None:
        self._path = Path(path)
        self._poll_s = poll_s
        self._seen = self._look()
        super().__init__(_read(self._path))
        self.where = path

    def _start(self, parts: Parts) -> None:
        parts.spawn(self._watch())

    async def _watch(self) -> None:
        self._task = asyncio.current_task()
        while not self._is_let_go:
            await asyncio.sleep(self._poll_s)
            try:
                await self.look_again()
            except Exception:  # whatever it was, the next look may be better
                log.exception("keys from %s: cannot be looked at", self.where)

    async def look_again(self) -> None:
        """Read the file if it is another one than before."""
        seen = await asyncio.to_thread(self._look)
        if seen == self._seen:
            return
        try:
            keys = await asyncio.to_thread(_read, self._path)
        except KeysUnusable as error:
            self._fail(error)
        else:
            self._put(keys)
        self._seen = seen

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - follows links, as mounted secrets are
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> KeySet:
    try:
        # A pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            octets = file.read(MAX_FILE + 1) or b""  # None, of a pipe that is empty
    except OSError as error:
        raise KeysUnusable(f"the file cannot be read: {error.strerror or error}") from None
    if len(octets) > MAX_FILE:
        raise KeysUnusable(f"the file has more than {MAX_FILE} bytes")
    return read_keys(octets)


Clock = Callable[[], float]
wall_clock: Final[Clock] = time.time  # noqa: TID251 - the rim's clock: ages of keys, ends of tokens
