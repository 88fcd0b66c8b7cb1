"""The file itself: opened, made, checked, and set aside when it is broken.

Theory of operation. One SQLite database in WAL mode, shared by the processes of one machine. Making
it, and moving a broken one out of the way, is done under a lock on `<path>-lock`, so that no two
processes do it at once and nobody moves away what another has just made. What is left beside a
database that somebody deleted (`-wal`, `-shm`) belongs to those who still have it open, and is
unlinked before a new one is made.

The clock of the barriers is in the table `meta`. A new file begins its clock at the time of day, or
above what this process has seen before, and everything older is dead to it (`floor`). After the
machine has been started anew the floor is raised too: so a commit need not wait for the disk, as
the worst that can be lost with the power is what nobody is served any more. (SQLite itself keeps
the database whole: `synchronous=NORMAL`.) Where starts of the machine cannot be told apart,
invalidations do wait.

Only the owner may read it: mode 0600, and a file that belongs to another user is not used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "Opened",
    "Unusable",
    "boot_id",
    "identity",
    "open_database",
    "set_aside",
]

_SCHEMA: Final = 1
_LOCK_WAIT_S: Final = 1.0
_SQLITE_MIN: Final = (3, 35, 0)

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, data BLOB, count INTEGER,
    stamp INTEGER NOT NULL, made_at REAL NOT NULL, fresh_until REAL NOT NULL,
    usable_until REAL NOT NULL, used INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS entries_used ON entries (used);
CREATE INDEX IF NOT EXISTS entries_usable ON entries (usable_until);
CREATE TABLE IF NOT EXISTS barriers (
    soft INTEGER NOT NULL, kind INTEGER NOT NULL, name BLOB NOT NULL, stamp INTEGER NOT NULL,
    by TEXT NOT NULL, PRIMARY KEY (soft, kind, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS barriers_stamp ON barriers (stamp);
CREATE TABLE IF NOT EXISTS leases (
    key BLOB PRIMARY KEY, fence INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
"""
_META: Final = ("schema", "file", "boot", "stamp", "floor", "bytes", "fence", "barriers")


class Unusable(Exception):
    """This file cannot be used as it is; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Opened:
    connection: sqlite3.Connection
    identity: tuple[int, int]
    """Device and inode: another one at the same path is another file."""
    file: int
    """A number of its own, from when it was made."""


def identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_database(path: str, wall: float, stamp_min: int, busy_s: float) -> Opened:
    """Raises Unusable, OSError or sqlite3.Error."""
    if sqlite3.sqlite_version_info < _SQLITE_MIN:
        raise Unusable(f"SQLite {sqlite3.sqlite_version} is too old for it: 3.35 is needed")
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path):
        if not os.path.lexists(path):
            for beside in ("-wal", "-shm"):
                Path(path + beside).unlink(missing_ok=True)
        _own(path)
        connection = sqlite3.connect(
            path, timeout=busy_s, isolation_level=None, check_same_thread=False
        )
        try:
            file = _prepared(connection, wall, stamp_min)
            found = identity(path)
        except BaseException:
            connection.close()
            raise
    if found is None:
        connection.close()
        raise Unusable("it was deleted while it was opened")
    return Opened(connection, found, file)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    lock = os.open(path + "-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        give_up = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise Unusable("another process is opening it and does not finish") from None
                time.sleep(0.005)
        yield
    finally:
        os.close(lock)


def _own(path: str) -> None:
    """Make it with the right mode; SQLite gives its companions the same."""
    made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(made)
        if not stat.S_ISREG(found.st_mode):
            raise Unusable("it is not a file")
        if found.st_uid != os.geteuid():
            raise Unusable(
                f"it belongs to user {found.st_uid}; give this process a path of its own"
            )
        if found.st_mode & 0o077:
            os.fchmod(made, 0o600)
    finally:
        os.close(made)


def _prepared(connection: sqlite3.Connection, wall: float, stamp_min: int) -> int:
    run = connection.execute
    run("PRAGMA journal_mode=WAL").fetchone()
    run("PRAGMA synchronous=NORMAL")
    run("PRAGMA journal_size_limit=8388608")
    run("PRAGMA wal_autocheckpoint=1000")
    run("PRAGMA temp_store=MEMORY")
    run("PRAGMA mmap_size=0")
    run("PRAGMA trusted_schema=OFF")
    run("BEGIN IMMEDIATE")
    try:
        (version,) = run("PRAGMA user_version").fetchone()
        tables = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and (version != _SCHEMA or "meta" not in tables):
            raise Unusable("it is the database of something else, or of another release")
        for statement in filter(str.strip, _TABLES.split(";")):
            run(statement)
        run(f"PRAGMA user_version={_SCHEMA}")
        boot = boot_id()
        begin = max(int(wall * 1e6), stamp_min + 1)
        first = {"schema": _SCHEMA, "file": secrets.randbits(62), "boot": boot}
        first |= {"stamp": begin, "floor": begin}
        for name in _META:
            run("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, first.get(name, 0)))
        ((file,),) = run("SELECT value FROM meta WHERE name = 'file'")
        ((booted,),) = run("SELECT value FROM meta WHERE name = 'boot'")
        if booted != boot:
            # Leases end by the monotonic clock, which began anew. And the last invalidations may
            # not have reached the disk before the machine went down: what they struck is unknown.
            run("DELETE FROM leases")
            run("UPDATE meta SET value = ? WHERE name = 'boot'", (boot,))
            run("UPDATE meta SET value = max(value + 1, ?) WHERE name = 'stamp'", (begin,))
            run(
                "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'stamp')"
                " WHERE name = 'floor'"
            )
        run("COMMIT")
    except BaseException:
        if connection.in_transaction:
            run("ROLLBACK")
        raise
    return int(file)


def boot_id() -> int:
    """Another after each start of the machine; 0 where that is not known."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return int(text.strip().replace("-", "")[:15], 16)
    except (OSError, ValueError):
        return 0


def set_aside(path: str, known: tuple[int, int] | None, wall: float) -> str | None:
    """Move a broken file out of the way; where to. None if it is no longer the one that was known
    to be broken. One is kept: what was set aside before is overwritten.
    """
    with _locked(path):
        if known is not None and identity(path) != known:
            return None
        place = f"{path}.corrupt"
        Path(path).replace(place)
        for beside in ("-wal", "-shm"):
            Path(path + beside).unlink(missing_ok=True)
        os.utime(place, (wall, wall))
    return place
