"""The state directory: what a run leaves on the disk, and who may read it.

    lock           held with flock by the supervisor for as long as it lives; holds its pid
    admin-token    the bearer token of the admin API, made at the first start
    control.sock   the admin API for this machine's own user; the commands speak to it
    instance.json  pid, version and addresses of the run
    totals.json    counters of workers that have gone, so that totals survive a restart of control

The directory is 0700 and everything in it 0600. The configuration is never written here: its
references are resolved, so it holds secrets.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import time
from pathlib import Path
from typing import Any

from headgate.errors import AlreadyRunning, HeadgateError

__all__ = ["StateDir", "StateDirUnusable"]

TOKEN_FILE = "admin-token"  # noqa: S105  a file name
LOCK_FILE = "lock"
INSTANCE_FILE = "instance.json"
TOTALS_FILE = "totals.json"
SOCKET_FILE = "control.sock"


class StateDirUnusable(HeadgateError):
    """The state directory cannot be made, entered or written."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(path, reason)

    def __str__(self) -> str:
        return f"the state directory {self.path} {self.reason}"


_REASONS = {
    errno.EACCES: "cannot be written by this user; choose another with --state-dir",
    errno.EPERM: "cannot be written by this user; choose another with --state-dir",
    errno.EROFS: "is on a read-only file system; choose another with --state-dir",
    errno.ENOSPC: "is on a full disk; free some room, or choose another with --state-dir",
    errno.EDQUOT: "is over its disk quota; free some room, or choose another with --state-dir",
    errno.ENOTDIR: "has a plain file in its path; choose another with --state-dir",
    errno.EEXIST: "is a plain file; move it away, or choose another with --state-dir",
    errno.ENOENT: "does not exist",
}


def _unusable(path: Path, error: OSError) -> StateDirUnusable:
    reason = _REASONS.get(error.errno or 0, f"cannot be used: {error.strerror or error}")
    return StateDirUnusable(path, reason)


class StateDir:
    """One state directory. `prepare` and `lock` are the supervisor's; others only read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def socket_path(self) -> Path:
        return self.path / SOCKET_FILE

    def prepare(self) -> None:
        """Make the directory, or tighten the one that is there, and see that it takes a file."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid not in {os.geteuid(), 0}:
                raise StateDirUnusable(
                    self.path,
                    f"belongs to user {found.st_uid}, who could read the admin token; "
                    "choose another with --state-dir",
                )
            if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                self.path.chmod(0o700)
            self._write("probe", b"\n" * 4096)
            (self.path / "probe").unlink()
        except OSError as error:
            raise _unusable(self.path, error) from error

    def lock(self) -> int:
        """Hold the directory for this process; the answer is the lock's descriptor.

        The descriptor is closed on exec, so that no child keeps the lock of a dead supervisor;
        a re-exec makes it inheritable for itself.
        """
        try:
            fd = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        for patience in (0.02, 0.1, 0.0):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if patience:
                    # It may be a command that looks, see `running_pid`, and not a run.
                    time.sleep(patience)
                    continue
                pid = _pid_in(fd)
                os.close(fd)
                raise AlreadyRunning(str(self.path), pid) from None
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(fd)
            raise _unusable(self.path, error) from error
        return fd

    def running_pid(self) -> int | None:
        """The pid of the supervisor that holds the lock, or None when nothing runs here."""
        try:
            fd = os.open(self.path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            # A shared lock is enough to find out, and two commands may ask at once.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_in(fd)
        finally:
            os.close(fd)
        return None

    def token(self) -> str | None:
        try:
            return (self.path / TOKEN_FILE).read_text().strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self.path, error) from error

    def make_token(self) -> str:
        """The token of earlier runs, or a new one."""
        existing = self.token()
        if existing is not None:
            (self.path / TOKEN_FILE).chmod(0o600)
            return existing
        token = secrets.token_urlsafe(32)
        try:
            self._write(TOKEN_FILE, f"{token}\n".encode())
        except OSError as error:
            raise _unusable(self.path, error) from error
        return token

    def write_instance(self, instance: dict[str, Any]) -> None:
        self.write_json(INSTANCE_FILE, instance)

    def instance(self) -> dict[str, Any]:
        return self.read_json(INSTANCE_FILE)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        try:
            self._write(name, json.dumps(content).encode())
        except OSError as error:
            raise _unusable(self.path, error) from error

    def read_json(self, name: str) -> dict[str, Any]:
        """The file's content; an absent or torn file is an empty one."""
        try:
            content = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def forget_instance(self) -> None:
        for name in (INSTANCE_FILE, SOCKET_FILE, TOTALS_FILE):
            with contextlib.suppress(OSError):
                (self.path / name).unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all: readers see the old one or the new one."""
        target = self.path / name
        draft = self.path / f".{name}.{os.getpid()}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            try:
                os.fchmod(fd, 0o600)
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
            finally:
                os.close(fd)
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _pid_in(fd: int) -> int | None:
    content = os.pread(fd, 32, 0).strip()
    return int(content) if content.isdigit() else None
