"""A file that is turned over by size and age, kept in numbers, and compressed.

Theory of operation
-------------------
Several processes may write one file (workers and control do). Each appends whole batches with one
write, and turns the file over only while it holds a lock beside it, after it has looked again: so
one of them does, and the others notice within a second that the name is another file now. The same
look finds a file that somebody renamed or deleted.

Full files are called NAME.20260131-120000[.N], and NAME.20260131-120000.gz once they are
compressed: to a temporary name first, so that a crash leaves the plain file.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from headgate.observe.logs.pump import Line, Sent
from headgate.observe.logs.rules import FileRotation

__all__ = ["FileCarrier"]

_LOOK_EVERY_S: Final = 1.0
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_TURNED: Final = re.compile(r"\.[0-9]{8}-[0-9]{6}(\.[0-9]+)?(\.gz)?")


class FileCarrier:
    is_local = True

    def __init__(self, path: str, rotation: FileRotation) -> None:
        self.name = f"file:{path}"
        self._path = Path(path)
        self._rotation = rotation
        self._fd = -1
        self._size = 0
        self._born = 0.0
        self._looked_at = 0.0
        self._is_torn = False

    def send(self, lines: Sequence[Line], deadline: float) -> Sent:
        data = b"".join([part for line in lines for part in (line.data, b"\n")])
        now = time.monotonic()
        if self._fd < 0 or not 0 <= now - self._looked_at < _LOOK_EVERY_S:
            self._look(now)
        if self._is_due(len(data)):
            self._turn_over()
        if self._is_torn:
            data = b"\n" + data
        at = 0
        try:
            while at < len(data):
                at += os.write(self._fd, memoryview(data)[at:])
        except OSError as error:
            lost = min(len(lines), data.count(b"\n", at))
            if at:
                self._is_torn = data[at - 1] != 0x0A
            self._size += at
            return Sent(len(lines) - lost, lost, why=error.strerror or str(error))
        self._size += at
        self._is_torn = False
        return Sent(len(lines))

    def reopen(self) -> None:
        self._close()
        self._look(time.monotonic())

    def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self, now: float) -> None:
        """Be where the name points to."""
        self._looked_at = now
        if self._fd >= 0:
            ours = os.fstat(self._fd)
            with contextlib.suppress(FileNotFoundError):
                there = self._path.stat()
                if (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev):
                    self._size = there.st_size
                    return
            self._close()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._fd = os.open(self._path, _FLAGS, 0o640)
        found = os.fstat(self._fd)
        self._size = found.st_size
        # No file system tells everywhere when a file was made; its first lines may be older.
        self._born = time.time() if not found.st_size else self._began(found.st_mtime)  # noqa: TID251

    def _began(self, otherwise: float) -> float:
        """When a file that we found was begun: after the one before it was full."""
        turned = [path.stat().st_mtime for path in self._turned()]
        return max(turned, default=otherwise)

    def _is_due(self, more: int) -> bool:
        rotation = self._rotation
        if not self._size:
            return False
        if rotation.size_bytes and self._size + more > rotation.size_bytes:
            return True
        age_s = time.time() - self._born  # noqa: TID251  files live by wall time
        return bool(rotation.every_s) and age_s >= rotation.every_s

    def _turned(self) -> list[Path]:
        """Files that were turned over, the oldest first."""
        stem = self._path.name
        found = [
            path
            for path in self._path.parent.iterdir()
            if path.name.startswith(stem) and _TURNED.fullmatch(path.name[len(stem) :])
        ]
        return sorted(found, key=lambda path: path.name.removesuffix(".gz"))

    def _turn_over(self) -> None:
        lock = os.open(f"{self._path}.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = os.fstat(self._fd).st_ino
            self._look(time.monotonic())
            if os.fstat(self._fd).st_ino != before:
                return  # another process has done it
            stamp = time.strftime("%Y%m%d-%H%M%S")
            name, number = f"{self._path}.{stamp}", 0
            while Path(name).exists() or Path(f"{name}.gz").exists():
                number += 1
                name = f"{self._path}.{stamp}.{number:03d}"
            self._path.rename(name)
            self._close()
            self._look(time.monotonic())
            self._born = time.time()  # noqa: TID251
            if self._rotation.compress:
                _compress(Path(name))
            for path in self._turned()[: -self._rotation.keep or None]:
                path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _compress(path: Path) -> None:
    """A disk without room leaves the file as it was."""
    partial = Path(f"{path}.partial")
    try:
        with path.open("rb") as source, gzip.open(partial, "wb", compresslevel=5) as packed:
            shutil.copyfileobj(source, packed, 1024 * 1024)
        partial.chmod(0o640)
        partial.rename(f"{path}.gz")
        path.unlink()
    except OSError:
        partial.unlink(missing_ok=True)
