"""What monitors found, in one SQLite file: days, the last results, and since when it is so.

Theory of operation. Days are small and kept for as long as is promised (90); results are many and
only the newest of each monitor are kept. A day is written whole, each time: a lost write costs the
last seconds and nothing before them. Rows that cannot be read are left out, one by one; a file that
cannot be read is moved aside as `<name>.spoilt-<time>` and begun anew, and `faults` says so.

Everything here blocks, and is called from one thread.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headgate.observe.health.outcome import RANK, Status
from headgate.observe.health.uptime import Day
from headgate.observe.odd_files import put_odd_aside, set_aside
from headgate.observe.sqlite_file import check_pages, is_spoilt, open_file

__all__ = ["KEEP_DAYS", "KEEP_RESULTS", "Found", "MonitorStore", "Seen", "Stood"]

KEEP_DAYS: Final = 90
KEEP_RESULTS: Final = 500
_MOST_DAYS: Final = 60_000
_BUSY_S: Final = 2.0
_TRIM_EVERY: Final = 100
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS days (
    monitor TEXT NOT NULL, day INTEGER NOT NULL, json TEXT NOT NULL, PRIMARY KEY (monitor, day));
CREATE TABLE IF NOT EXISTS results (
    number INTEGER PRIMARY KEY AUTOINCREMENT, monitor TEXT NOT NULL, at REAL NOT NULL,
    status TEXT NOT NULL, took REAL NOT NULL, code INTEGER, why TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS results_of ON results (monitor, number);
CREATE TABLE IF NOT EXISTS stood (
    monitor TEXT PRIMARY KEY, status TEXT NOT NULL, since REAL NOT NULL, why TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One result."""

    at: float
    status: Status
    took_s: float
    why: str = ""
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Stood:
    """How a monitor stood last."""

    status: Status
    since: float
    why: str


@dataclass(slots=True)
class Found:
    """What was there."""

    days: dict[str, dict[int, Day]] = field(default_factory=dict)
    results: dict[str, list[Seen]] = field(default_factory=dict)
    stood: dict[str, Stood] = field(default_factory=dict)
    left_out: int = 0


class MonitorStore:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self._db: sqlite3.Connection | None = None
        self._writes = 0

    @property
    def is_open(self) -> bool:
        return self._db is not None

    def open(self, wall: float) -> Found:
        """Raises OSError or sqlite3.Error when the place itself is unusable."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (odd := put_odd_aside(self.path, wall)) is not None:
            self.faults.append(f"{self.path.name} was no file and is now {odd.name}")
        try:
            return self._open()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self._close_quietly()
            if not is_spoilt(error):
                raise
            aside = set_aside(self.path, wall)
            self.faults.append(f"{self.path.name} was spoilt and is now {aside.name}: {error}")
            return self._open()

    def _open(self) -> Found:
        db = self._db = open_file(self.path, busy_s=_BUSY_S)
        check_pages(db)
        db.executescript(_SCHEMA)
        return self._read(db)

    @staticmethod
    def _read(db: sqlite3.Connection) -> Found:
        found = Found()
        for name, day, text in db.execute("SELECT monitor, day, json FROM days"):
            try:
                found.days.setdefault(str(name), {})[int(day)] = Day.of_json(
                    int(day), json.loads(text)
                )
            except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
                found.left_out += 1
        rows = db.execute(
            "SELECT monitor, at, status, took, code, why FROM results ORDER BY number"
        )
        for name, at, status, took, code, why in rows:
            try:
                seen = Seen(float(at), _status(status), float(took), str(why), _code(code))
            except (ValueError, TypeError):
                found.left_out += 1
                continue
            of_one = found.results.setdefault(str(name), [])
            of_one.append(seen)
            del of_one[:-KEEP_RESULTS]
        for name, status, since, why in db.execute("SELECT monitor, status, since, why FROM stood"):
            try:
                found.stood[str(name)] = Stood(_status(status), float(since), str(why))
            except (ValueError, TypeError):
                found.left_out += 1
        return found

    def write(
        self,
        days: Iterable[tuple[str, Day]],
        results: Iterable[tuple[str, Seen]],
        stood: Iterable[tuple[str, Stood]],
        today: int,
    ) -> None:
        """All of it or nothing. Raises sqlite3.Error."""
        if self._db is None:
            raise sqlite3.OperationalError("the store is not open")
        db = self._db
        rows = [
            (name, day.day, json.dumps(day.to_json(), separators=(",", ":"))) for name, day in days
        ]
        seen = [(n, each.at, each.status, each.took_s, each.code, each.why) for n, each in results]
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany("INSERT OR REPLACE INTO days VALUES (?, ?, ?)", rows)
            db.executemany(
                "INSERT INTO results (monitor, at, status, took, code, why)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                seen,
            )
            db.executemany(
                "INSERT OR REPLACE INTO stood VALUES (?, ?, ?, ?)",
                [(name, each.status, each.since, each.why) for name, each in stood],
            )
            self._writes += 1
            if self._writes % _TRIM_EVERY == 1:
                self._trim(db, today)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    @staticmethod
    def _trim(db: sqlite3.Connection, today: int) -> None:
        # A day of the future is one that a clock set wrongly made.
        db.execute("DELETE FROM days WHERE day <= ? OR day > ?", (today - KEEP_DAYS, today + 1))
        db.execute(
            "DELETE FROM days WHERE rowid IN"
            " (SELECT rowid FROM days ORDER BY day DESC LIMIT -1 OFFSET ?)",
            (_MOST_DAYS,),
        )
        names = [name for (name,) in db.execute("SELECT DISTINCT monitor FROM results")]
        for name in names:
            db.execute(
                "DELETE FROM results WHERE monitor = ? AND number <="
                " (SELECT number FROM results WHERE monitor = ? ORDER BY number DESC"
                " LIMIT 1 OFFSET ?)",
                (name, name, KEEP_RESULTS),
            )
        db.execute("DELETE FROM results WHERE monitor NOT IN (SELECT DISTINCT monitor FROM days)")
        db.execute("DELETE FROM stood WHERE monitor NOT IN (SELECT DISTINCT monitor FROM days)")

    def close(self) -> None:
        self._close_quietly()

    def _close_quietly(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _status(value: Any) -> Status:
    if value not in RANK:
        raise ValueError("no status")
    status: Status = value
    return status


def _code(value: Any) -> int | None:
    return None if value is None else int(value)
