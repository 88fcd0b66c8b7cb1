"""One file of the store: rows in the order in which they came, and an index of their words.

Theory of operation. A segment is written by one thread until it is full, then only read, and goes
as a whole. So nothing is ever deleted within, and the index needs no copy of the text (FTS5 without
content, which cannot delete): it takes about a third of the rows. Each reader opens the file anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from headgate.observe.logs.search import Query, Stored
from headgate.observe.sqlite_file import check_pages, open_file

__all__ = ["Segment"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rows(
    id INTEGER PRIMARY KEY, at REAL NOT NULL, level INTEGER NOT NULL, logger TEXT NOT NULL,
    service TEXT NOT NULL, route TEXT NOT NULL, request_id TEXT NOT NULL, trace_id TEXT NOT NULL,
    line TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_trace ON rows(trace_id) WHERE trace_id <> '';
CREATE INDEX IF NOT EXISTS by_request ON rows(request_id) WHERE request_id <> '';
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2');
"""
_CHECKED_BYTES: Final = 64 * 1024 * 1024
_LOG_BYTES: Final = 1024 * 1024


class Segment:
    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.first_at = float("inf")
        self.last_at = float("-inf")
        self.rows = 0
        self._writing: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        return self._writing is not None

    def open(self) -> None:
        """For writing; raises sqlite3.Error."""
        db = open_file(self.path, busy_s=2.0, log_bytes=_LOG_BYTES)
        try:
            db.executescript(_SCHEMA)
            self._look(db)
        except BaseException:
            db.close()
            raise
        self._writing = db

    def look(self) -> None:
        """Find out what a full one holds; raises sqlite3.Error where it is spoilt."""
        with contextlib.closing(self._reading()) as db:
            self._look(db)

    def _look(self, db: sqlite3.Connection) -> None:
        # Of some megabytes this takes milliseconds. A large file is found out when it is read.
        if self.size_bytes() <= _CHECKED_BYTES:
            check_pages(db)
        first, last, count = db.execute("SELECT min(at), max(at), count(*) FROM rows").fetchone()
        if count:
            self.first_at, self.last_at = first, last
        self.rows = count

    def _reading(self) -> sqlite3.Connection:
        # Not as read-only: after a kill the file beside it has to be read in.
        return sqlite3.connect(f"file:{self.path}?mode=rw", uri=True, timeout=2.0)

    def add(self, rows: Sequence[Stored]) -> None:
        """All or none; raises sqlite3.Error."""
        db = self._writing
        if db is None:
            raise RuntimeError("the segment is not open")
        at = self.rows
        db.execute("BEGIN IMMEDIATE")
        try:
            (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM rows").fetchone()
            at = newest
            db.executemany(
                "INSERT INTO rows VALUES (?,?,?,?,?,?,?,?,?)", self._rows(rows, newest + 1)
            )
            db.executemany(
                "INSERT INTO words(rowid, text) VALUES (?,?)",
                ((newest + 1 + number, row.words) for number, row in enumerate(rows)),
            )
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        self.rows = at + len(rows)
        self.first_at = min(self.first_at, *(row.at for row in rows))
        self.last_at = max(self.last_at, *(row.at for row in rows))

    def probe(self) -> None:
        """Write a little that changes nothing; raises sqlite3.Error where that cannot be done."""
        if self._writing is not None:
            self._writing.execute("PRAGMA user_version = 1")

    def _rows(self, rows: Sequence[Stored], first: int) -> Iterable[tuple[Any, ...]]:
        for number, row in enumerate(rows):
            yield (
                first + number, row.at, row.level, row.logger, row.service, row.route,
                row.request_id, row.trace_id, row.line,
            )  # fmt: skip

    def find(
        self, query: Query, before: int | None, limit: int, keep_on: Any
    ) -> list[tuple[int, str]]:
        """(id, line), the newest first. `keep_on()` is asked now and then; False ends the search
        with sqlite3.OperationalError.
        """
        if query.since is not None and self.last_at < query.since:
            return []
        if query.until is not None and self.first_at >= query.until:
            return []
        where, values = query.where()
        if before is not None:
            where = f"id < ? AND {where}"
            values = [before, *values]
        with contextlib.closing(self._reading()) as db:
            db.set_progress_handler(lambda: 0 if keep_on() else 1, 10_000)
            # What stands in `where` are our own words; what was asked is in `values`.
            sql = f"SELECT id, line FROM rows WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608
            found: list[tuple[int, str]] = db.execute(sql, (*values, limit)).fetchall()
        return found

    def size_bytes(self) -> int:
        total = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                total += Path(f"{self.path}{suffix}").stat().st_size
        return total

    def close(self) -> None:
        db, self._writing = self._writing, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.close()

    def remove(self) -> None:
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        """Out of the way, for whoever wants to look at it."""
        self.close()
        self.path.rename(self.path.with_name(name))
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
