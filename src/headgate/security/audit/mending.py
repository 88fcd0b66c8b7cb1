"""What the book does to files besides adding entries: checkpoints, cutting off, a reserve."""

from __future__ import annotations

import contextlib
import errno
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from headgate.security.audit.chain import Checkpoint, NotALine, read_checkpoint
from headgate.security.audit.files import last_of, lines_of

__all__ = [
    "FULL",
    "RESERVE_BYTES",
    "Reserve",
    "add_checkpoint",
    "cut_torn",
    "last_checkpoint",
    "shorten",
]

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
RESERVE_BYTES: Final = 256 * 1024
_READ_MAX: Final = 1024 * 1024


class Reserve:
    """Room on the disk that is let go when there is no other."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self) -> bool:
        """Whether there is a reserve, or no need of one."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError as error:
            if error.errno not in FULL:
                return True  # a file system that cannot do this; we do without
            with contextlib.suppress(OSError):
                self._path.unlink()
            return False
        finally:
            os.close(fd)
        return True

    def let_go(self) -> bool:
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


def cut_torn(path: Path, torn: int) -> dict[str, Any]:
    """Take off a line without an end. What it was is kept as a digest."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        rest = os.pread(fd, min(torn, _READ_MAX), size - torn)
        os.ftruncate(fd, size - torn)
        os.fsync(fd)
    finally:
        os.close(fd)
    return {
        "what": f"{torn} bytes of a line without an end were cut off {path.name}",
        "file": path.name,
        "bytes": torn,
        "digest": blake2b(rest, digest_size=16).hexdigest(),
    }


def last_checkpoint(path: Path) -> Checkpoint | None:
    """The newest one of a file, which loses a torn line."""
    if not path.exists():
        return None
    line, torn = last_of(path)
    if torn:
        cut_torn(path, torn)
    try:
        return read_checkpoint(line) if line else None
    except NotALine:
        return None


def add_checkpoint(path: Path, made: Checkpoint) -> None:
    """Append it whole, on the disk; or raise OSError and leave the file as it was."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        line = made.to_line()
        try:
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(fd, size)
            raise
        os.fsync(fd)
    finally:
        os.close(fd)


def shorten(path: Path, gone: int) -> None:
    """Drop the checkpoints of entries that have gone, those up to this number."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        for line in lines_of(path):
            try:
                is_kept = read_checkpoint(line).seq > gone
            except NotALine:
                is_kept = True  # a fault stays to be found
            if is_kept:
                file.write(line)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
