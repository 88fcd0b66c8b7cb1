"""The encrypted file on disk: read, and changed under a lock, whole or not at all.

Theory of operation
-------------------
A change holds a lock on `.<name>.lock` beside the file from its reading to its writing, so that
two commands at once do not lose a secret; a second one waits for a while and then says who it
waits for. The new file is written under another name with mode 0600, synced and moved into place:
a reader finds the old one or the new one. A link stays a link, an owner stays the owner.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headgate.security.secrets.envelope import (
    MAX_FILE_BYTES,
    Content,
    FileKey,
    Head,
    Key,
    Passphrase,
    check_name,
    check_value,
    key_text,
    open_content,
    parse_key,
    read_head,
    seal_content,
)
from headgate.security.secrets.errors import (
    SecretFileBusy,
    SecretFileError,
    SecretFileMissing,
)

__all__ = ["Draft", "SecretFile", "read_key_file", "read_passphrase_file", "write_key_file"]

LOCK_S: Final = 10.0
_POLL_S: Final = 0.05
_MAX_KEY_FILE: Final = 4096


@dataclass(slots=True)
class Draft:
    """The secrets while they are changed."""

    values: dict[str, str] = field(repr=False)
    revision: int
    key: Key = field(repr=False)
    """What the file will be sealed with; another one rotates the key."""

    def set(self, name: str, value: str) -> None:
        check_name(name)
        check_value(name, value)
        self.values[name] = value

    def remove(self, name: str) -> None:
        if name not in self.values:
            raise SecretFileError(f"there is no secret {name}")
        del self.values[name]


class SecretFile:
    """One encrypted file. Its errors are SecretFileErrors that begin with its name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"SecretFile({str(self.path)!r})"

    def head(self) -> Head:
        """What it says without a key: its names, and what kind of key opens it."""
        with self._named():
            return read_head(self._bytes())

    def read(self, key: Key) -> Content:
        """Everything in it."""
        with self._named():
            return open_content(self._bytes(), key)

    def create(self, key: Key) -> None:
        """A new file with nothing in it. One that exists is left alone."""
        with self._named(), self._locked():
            if os.path.lexists(self.path):
                raise SecretFileError("exists already")
            self._write(seal_content(Content({}, 1), key))

    @contextlib.contextmanager
    def change(self, key: Key) -> Iterator[Draft]:
        """Its content, written back at the end if nothing was raised and something is different."""
        with self._named(), self._locked():
            content = open_content(self._bytes(), key)
            draft = Draft(dict(content.values), content.revision, key)
            yield draft
            if draft.values != content.values or draft.key is not key:
                self._write(seal_content(Content(draft.values, content.revision + 1), draft.key))

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except SecretFileError as error:
            text = str(error)
            if text.startswith(f"{self.path}: "):
                raise
            raise type(error)(f"{self.path}: {text}") from None

    def _bytes(self) -> bytes:
        return _read(self.path, MAX_FILE_BYTES)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SecretFileMissing(f"cannot be written: {_reason(error)}") from error
        try:
            deadline = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise SecretFileBusy("another command is changing it") from None
                    time.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        try:
            _write(self.path.resolve(), data)
        except OSError as error:
            raise SecretFileError(f"cannot be written: {_reason(error)}") from error


def read_key_file(path: Path) -> FileKey:
    """The key in a file made by `write_key_file`."""
    try:
        return parse_key(_read(path, _MAX_KEY_FILE).decode("ascii", "replace"))
    except SecretFileError as error:
        raise type(error)(f"{path}: {error}") from None


def write_key_file(path: Path, key: FileKey) -> None:
    """A key for its owner's eyes only. A file that exists is left alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{key_text(key)}\n".encode())
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise SecretFileError(f"{path}: exists already") from None
        raise SecretFileError(f"{path}: cannot be written: {_reason(error)}") from error


def read_passphrase_file(path: Path) -> Passphrase:
    """The first line of a file."""
    try:
        text = _read(path, _MAX_KEY_FILE).decode()
    except UnicodeDecodeError:
        raise SecretFileError(f"{path}: is not UTF-8 text") from None
    except SecretFileError as error:
        raise type(error)(f"{path}: {error}") from None
    return Passphrase(text.split("\n", 1)[0].removesuffix("\r"))


def _read(path: Path, most: int) -> bytes:
    try:
        # Opening a pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SecretFileMissing("is not a regular file")
            data = file.read(most + 1)
    except OSError as error:
        raise SecretFileMissing(f"cannot be read: {_reason(error)}") from error
    if len(data) > most:
        raise SecretFileError("is too large")
    return data


def _write(target: Path, data: bytes) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            with contextlib.suppress(OSError):  # the gateway may run as its owner
                found = target.stat()
                os.fchown(descriptor, found.st_uid, found.st_gid)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _reason(error: OSError) -> str:
    return (error.strerror or "unreadable").lower()
