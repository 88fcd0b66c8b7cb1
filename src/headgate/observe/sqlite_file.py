"""A file of SQLite as the stores of traces, logs, alerts and monitors keep theirs.

Theory of operation
-------------------
One process writes, readers do not wait for it (WAL). What is written survives the end of the
process; of what was written in the last moment before the machine itself goes down, some may be
lost (`synchronous=NORMAL`), which for what these stores hold is worth not waiting for the disk.
Nobody but who runs Headgate reads the file (0600), and nothing that stands in it is run when it is
opened (`trusted_schema`).

A file that is *spoilt* is no database, or one whose pages do not fit, or not one of ours: whoever
finds that sets it aside and begins anew. Anything else, a full disk or a lock, passes.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["Spoilt", "check_pages", "is_spoilt", "open_file"]

_LOG_BYTES: Final = 4 * 1024 * 1024
_SPOILT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OF_ANOTHER: Final = ("no such", "has no column", "already")
"""What SQLite says of tables that are there and not ours."""


class Spoilt(sqlite3.DatabaseError):
    """Not SQLite's finding, but ours."""


def open_file(
    path: Path, *, busy_s: float, log_bytes: int = _LOG_BYTES, first: Sequence[str] = ()
) -> sqlite3.Connection:
    """For writing; `first` are pragmas that have a meaning only before there are pages. Raises
    OSError, sqlite3.Error.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            *first,
            "journal_mode=WAL",
            "synchronous=NORMAL",
            f"journal_size_limit={log_bytes}",
            "trusted_schema=OFF",
        ):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


def check_pages(db: sqlite3.Connection, budget_s: float | None = None) -> None:
    """Raises Spoilt where the pages of the file do not fit; looks no longer than `budget_s`, for a
    store must not hold up the start.
    """
    if budget_s is not None:
        ends = time.monotonic() + budget_s
        db.set_progress_handler(lambda: time.monotonic() > ends, 10_000)
    try:
        rows = db.execute("PRAGMA quick_check(1)").fetchall()
        if not rows or rows[0][0] != "ok":
            found = str(rows[0][0])[:200] if rows else "nothing"
            raise Spoilt(f"its pages do not fit: {found}")
    except sqlite3.OperationalError as error:
        if budget_s is None or "interrupt" not in str(error):
            raise
    finally:
        db.set_progress_handler(None, 0)


def is_spoilt(error: BaseException) -> bool:
    """Whether the file is not, or no longer, one of ours; and not just out of reach or full."""
    if isinstance(error, Spoilt | UnicodeDecodeError):
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    if code in {0, sqlite3.SQLITE_ERROR}:
        said = str(error)
        return any(words in said for words in _OF_ANOTHER) or "decode" in said
    return code in _SPOILT
