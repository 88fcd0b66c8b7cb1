"""The directory of the responses, and which file in it is the one in use.

A file called `current` says so by name; it is replaced in one step, under a lock that processes
share. A spoilt file is left for a new one under another name: whoever still has the old one open
notices within a second, and takes nothing away from the new one when it closes. Files that nobody
names any more, also those of other versions, are removed once they have not been written for an
hour.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headgate.errors import HeadgateError
from headgate.gateway.caching.packing import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Place", "Unusable"]

_NAME: Final = re.compile(rf"responses-v{FORMAT}-[0-9a-f]{{16}}\.db")
_STRAY: Final = re.compile(r"responses-v\d+-[0-9a-f]{16}\.db(?:-wal|-shm)?")
_STRAY_S: Final = 3600.0
_PARTS: Final = ("", "-wal", "-shm")


class Unusable(HeadgateError):
    """The directory cannot be used; the message says why, and the way out."""


class Place:
    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._pointer = self.directory / f"current-v{FORMAT}"

    def prepare(self) -> None:
        """Make the directory, for this user alone."""
        where = self.directory
        try:
            where.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = where.stat()
            if found.st_uid != os.geteuid():
                raise Unusable(
                    f"{where} belongs to user {found.st_uid}, and this process is user"
                    f" {os.geteuid()}: change its owner, or choose another directory"
                )
            if found.st_mode & 0o077:
                where.chmod(0o700)
        except OSError as wrong:
            raise Unusable(f"{where}: {wrong.strerror or wrong}") from wrong

    def current(self) -> Path | None:
        """The file in use, if there is one."""
        try:
            name = self._pointer.read_text("ascii", "replace")[:100].strip()
        except OSError:
            return None
        path = self.directory / name
        return path if _NAME.fullmatch(name) and path.is_file() else None

    def claim(self) -> Path:
        """The file in use; a new one if there is none."""
        with self._lock():
            path = self.current()
            if path is None:
                path = self.directory / f"responses-v{FORMAT}-{secrets.token_hex(8)}.db"
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                self._point_at(path.name)
            return path

    def abandon(self, path: Path) -> None:
        """Nobody is to use this file any more. OSError: it cannot be helped."""
        with self._lock():
            if self.current() in (path, None):
                self._pointer.unlink(missing_ok=True)
            _remove(path)

    def remove_strays(self, wall: float) -> None:
        with self._lock():
            used = self.current()
            for path in self.directory.iterdir():
                if not _STRAY.fullmatch(path.name):
                    continue
                if used is not None and path.name.startswith(used.name):
                    continue
                if wall - path.stat().st_mtime > _STRAY_S:
                    path.unlink(missing_ok=True)

    def _point_at(self, name: str) -> None:
        fresh = self._pointer.with_name(f"{self._pointer.name}.{os.getpid()}")
        with fresh.open("w", encoding="ascii") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._pointer)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        file = os.open(self.directory / "lock", flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def _remove(path: Path) -> None:
    for part in _PARTS:
        path.with_name(path.name + part).unlink(missing_ok=True)
