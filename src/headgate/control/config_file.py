"""The file that the gateway runs, as the admin API may write it.

Theory of operation
-------------------
A draft is written beside the file, so that whatever the text names relative to itself is found, and
is read and tried there. What was tried is then what takes the file's place, by one rename: whoever
reads sees the old file or the new one, also when the machine stops in between. The old one stays
beside it as `NAME.bak`; it takes its place again when the workers refuse what was tried.

A folder as configuration is several files, and is not written. A symbolic link stays one: what it
points to is replaced.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

__all__ = ["ConfigFile", "NotWritable"]

MAX_BYTES: Final = 16 * 1024 * 1024
_STALE_S: Final = 3600.0


class NotWritable(Exception):
    """Why the file cannot be written, in words for an operator."""


class ConfigFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """The text; None when it is none, or several."""
        with contextlib.suppress(OSError):
            if self.path.is_file():
                with self.path.open("rb") as file:
                    found = file.read(MAX_BYTES + 1)
                return found if len(found) <= MAX_BYTES else None
        return None

    def draft(self, text: bytes) -> Path:
        """The text beside the file, for trying. OSError, or NotWritable."""
        target = self._target()
        self._sweep(target)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}.draft")
        self._write(draft, text, 0o600)
        return draft

    def swap(self, draft: Path) -> Path:
        """Put the draft in the file's place; where the old one is now."""
        target = self._target()
        found = target.stat()
        mode = found.st_mode & 0o777
        backup = target.with_name(f"{target.name}.bak")
        copy = target.with_name(f".{target.name}.{secrets.token_hex(6)}.draft")
        try:
            self._write(copy, target.read_bytes(), mode)
            draft.chmod(mode)
            for path in (copy, draft):
                with contextlib.suppress(PermissionError):
                    os.chown(path, found.st_uid, found.st_gid)
            copy.replace(backup)
            draft.replace(target)
        finally:
            copy.unlink(missing_ok=True)
        self._settle(target.parent)
        return backup

    def restore(self, backup: Path) -> None:
        """Undo `swap`. Needs no room on the disk."""
        target = self._target()
        backup.replace(target)
        self._settle(target.parent)

    def _target(self) -> Path:
        if self.path.is_dir():
            raise NotWritable(f"{self.path} is a folder of several files; change them there")
        target = Path(os.path.realpath(self.path))
        if not target.is_file():
            raise NotWritable(f"{self.path} is no file")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise NotWritable(
                f"the folder of {self.path} cannot be written by the user that the gateway runs as"
            )
        return target

    @staticmethod
    def _write(path: Path, text: bytes, mode: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    @staticmethod
    def _settle(folder: Path) -> None:
        """Bring the rename to the disk."""
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    @staticmethod
    def _sweep(target: Path) -> None:
        """Drafts that a process left that was killed."""
        wall = time.time()  # noqa: TID251 - files have wall time
        for path in target.parent.glob(f".{target.name}.*.draft"):
            with contextlib.suppress(OSError):
                if wall - path.stat().st_mtime > _STALE_S:
                    path.unlink()
