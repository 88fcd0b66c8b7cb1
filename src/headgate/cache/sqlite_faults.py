"""What an error of SQLite means for what is cached in a file.

Theory of operation. Such a file may always be made anew, so the question is whether that helps. It
does where the file is not, or no longer, as we wrote it: then it `is_corrupt`. It does not where a
full disk, a missing right or another process stands in the way: that would meet a new file, too. An
error of input or output (`SQLITE_IOERR`) is one or the other. What cannot be read back is as good
as damaged; if it cannot be written, synced or locked, that says nothing of what it holds.
"""

from __future__ import annotations

import sqlite3
from typing import Final

__all__ = ["is_busy", "is_corrupt", "is_full", "reason_of"]

_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNREAD: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
        sqlite3.SQLITE_IOERR_DATA,
    }
)
_OTHER_TABLES: Final = ("no such", "has no column")


def _code(error: BaseException) -> int:
    """The extended one; 0 where it is no error of SQLite's, or one of the module's own."""
    return getattr(error, "sqlite_errorcode", 0) or 0


def is_corrupt(error: BaseException) -> bool:
    """Whether another file is needed."""
    code = _code(error)
    if code & 0xFF == sqlite3.SQLITE_ERROR:
        # A table of ours that is not there, or not as it was made.
        return any(words in str(error) for words in _OTHER_TABLES)
    return code & 0xFF in _CORRUPT or code in _UNREAD


def is_busy(error: BaseException) -> bool:
    """Whether another process is at it."""
    return _code(error) & 0xFF in _BUSY


def is_full(error: BaseException) -> bool:
    """Whether there is no room for more, by the disk, a quota or a limit on the size of files. To
    SQLite the latter two are errors of writing like any other.
    """
    code = _code(error)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_WRITE


def reason_of(error: BaseException) -> str:
    """What an operator may do something about."""
    code = _code(error)
    if is_busy(error):
        return "it is locked by another process"
    if code == sqlite3.SQLITE_IOERR_WRITE:
        return "it cannot be written (is there a quota, or a limit on the size of files?)"
    if is_full(error):
        return "the disk is full"
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        return "it cannot be written: read-only"
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return "it cannot be opened: does its directory exist, and may this process write there?"
    if is_corrupt(error):
        return "it is corrupt"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
