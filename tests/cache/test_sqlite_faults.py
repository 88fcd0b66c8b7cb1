"""What an error of SQLite means, for all who keep a cache in a file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from headgate.cache.sqlite_faults import is_busy, is_corrupt, is_full, reason_of


def fault(code: int, text: str = "disk I/O error") -> sqlite3.Error:
    made = sqlite3.OperationalError(text)
    made.sqlite_errorcode = code
    return made


@pytest.mark.parametrize(
    ("error", "means", "reason"),
    [
        pytest.param(fault(sqlite3.SQLITE_BUSY), "busy", "locked by another", id="busy"),
        pytest.param(fault(sqlite3.SQLITE_BUSY_SNAPSHOT), "busy", "locked", id="busy-snapshot"),
        pytest.param(fault(sqlite3.SQLITE_LOCKED), "busy", "locked by another", id="locked"),
        pytest.param(fault(sqlite3.SQLITE_FULL), "full", "the disk is full", id="full"),
        pytest.param(fault(sqlite3.SQLITE_IOERR_WRITE), "full", "a quota", id="quota"),
        pytest.param(fault(sqlite3.SQLITE_IOERR_READ), "corrupt", "corrupt", id="unreadable"),
        pytest.param(fault(sqlite3.SQLITE_IOERR_SHORT_READ), "corrupt", "corrupt", id="cut-short"),
        pytest.param(fault(sqlite3.SQLITE_IOERR_DATA), "corrupt", "corrupt", id="checksum"),
        pytest.param(fault(sqlite3.SQLITE_IOERR_FSYNC), "", "disk I/O error", id="sync"),
        pytest.param(fault(sqlite3.SQLITE_IOERR_LOCK), "", "disk I/O error", id="lock"),
        pytest.param(fault(sqlite3.SQLITE_IOERR), "", "disk I/O error", id="io"),
        pytest.param(fault(sqlite3.SQLITE_CORRUPT), "corrupt", "corrupt", id="corrupt"),
        pytest.param(fault(sqlite3.SQLITE_CORRUPT_INDEX), "corrupt", "corrupt", id="index"),
        pytest.param(fault(sqlite3.SQLITE_NOTADB), "corrupt", "corrupt", id="no-database"),
        pytest.param(fault(sqlite3.SQLITE_READONLY), "", "read-only", id="read-only"),
        pytest.param(fault(sqlite3.SQLITE_CANTOPEN), "", "cannot be opened", id="no-directory"),
        pytest.param(fault(sqlite3.SQLITE_ERROR, "near x"), "", "near x", id="words"),
        pytest.param(sqlite3.ProgrammingError("closed"), "", "closed", id="of-the-module"),
        pytest.param(PermissionError(13, "Permission denied"), "", "permission denied", id="os"),
        pytest.param(ValueError(), "", "ValueError", id="nothing-said"),
    ],
)
def test_what_it_means_and_what_people_are_told(error, means, reason):
    found = {"busy": is_busy(error), "full": is_full(error), "corrupt": is_corrupt(error)}
    assert [name for name, is_so in found.items() if is_so] == ([means] if means else [])
    assert reason in reason_of(error)


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM entries", "SELECT key FROM other", "INSERT INTO other (key) VALUES (1)"],
    ids=["table", "column", "column-to-write"],
)
def test_tables_of_something_else_are_a_corrupt_file(tmp_path: Path, statement: str) -> None:
    db = sqlite3.connect(tmp_path / "a.db")
    try:
        db.execute("CREATE TABLE other (a)")
        with pytest.raises(sqlite3.Error) as wrong:
            db.execute(statement)
    finally:
        db.close()
    assert is_corrupt(wrong.value)
