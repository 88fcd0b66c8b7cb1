"""What alerts must not forget, in one SQLite file: state, what is on its way, what was sent.

Theory of operation. One transaction holds the state of rules and groups together with the
notifications that were decided from it. So after `kill -9` either both are there (and what was
not confirmed is sent again, with the same id) or neither (and it is decided again). The log of
notifications is bounded by rows, the oldest go first.

Everything here blocks; the caller uses a thread of its own for it. A file that cannot be read is
moved aside as `<name>.spoilt-<time>` and begun anew; `faults` says so.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from headgate.observe.odd_files import put_odd_aside, set_aside
from headgate.observe.sqlite_file import check_pages, is_spoilt, open_file

__all__ = ["Keeper"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS told (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, id TEXT NOT NULL,
    receiver TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, alerts TEXT NOT NULL,
    attempt INTEGER NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL, took_ms REAL NOT NULL);
"""
_VERSION: Final = 1
_TOLD: Final = "number, at, id, receiver, kind, subject, alerts, attempt, outcome, detail, took_ms"
_SPOILT_KEPT: Final = 3
_TRIM_EVERY: Final = 200
_BUSY_S: Final = 2.0


class Keeper:
    """Used from one thread at a time."""

    def __init__(self, path: Path, *, most: int = 10_000) -> None:
        self.path = path
        self._most = most
        self._written = 0
        self._last: dict[str, str] = {}
        self.faults: list[str] = []
        self._aside: list[tuple[Path, str]] = []
        self._db: sqlite3.Connection | None = None

    def open(self, wall: float) -> dict[str, Any]:
        """Open, or begin anew; what was kept. Raises OSError or sqlite3.Error when the place
        itself is unusable.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (odd := put_odd_aside(self.path, wall)) is not None:
            self._aside.append((odd, "it is no file"))
        try:
            return self._open()
        except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
            self._close_quietly()
            if isinstance(error, sqlite3.Error) and not is_spoilt(error):
                raise
            self._set_aside(error, wall)
            return self._open()

    def worries(self) -> Iterable[str]:
        """What was set aside, until somebody has taken it away."""
        yield from self.faults
        for aside, why in self._aside:
            if aside.exists():
                yield (
                    f"{self.path.name} was spoilt and is now {aside.name}: {why}; remove it when"
                    " you have looked at it"
                )

    def _set_aside(self, error: BaseException, wall: float) -> None:
        aside = set_aside(self.path, wall)
        self._aside = [*self._aside, (aside, str(error)[:200])][-_SPOILT_KEPT:]

    def _open(self) -> dict[str, Any]:
        db = self._db = open_file(self.path, busy_s=_BUSY_S)
        check_pages(db)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise ValueError(f"its tables are of version {version}")
        db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={_VERSION};COMMIT;")
        db.execute(f"SELECT {_TOLD} FROM told LIMIT 1").fetchall()  # noqa: S608 - our names
        self._last.clear()
        kept: dict[str, Any] = {}
        for name, text in db.execute("SELECT name, json FROM kept"):
            kept[name] = json.loads(text)
            self._last[name] = text
        return kept

    def write(self, kept: Mapping[str, Any], told: Iterable[tuple[Any, ...]] = ()) -> None:
        """All of it or nothing. What did not change is not written. Raises OSError, sqlite3.Error.
        A file that has become unreadable is set aside, and all is written to a new one.
        """
        rows = list(told)
        try:
            self._write(kept, rows)
        except sqlite3.DatabaseError as error:
            if not is_spoilt(error):
                raise
            self._close_quietly()
            self._set_aside(error, time.time())  # noqa: TID251 - for its name
            self._open()
            self._write(kept, rows)

    def _write(self, kept: Mapping[str, Any], rows: Sequence[tuple[Any, ...]]) -> None:
        if self._db is None:
            raise sqlite3.OperationalError("the store is not open")
        changed = {}
        for name, value in kept.items():
            text = json.dumps(value, separators=(",", ":"))
            if self._last.get(name) != text:
                changed[name] = text
        if not changed and not rows:
            return
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?)",
                changed.items(),
            )
            db.executemany(
                "INSERT INTO told (at, id, receiver, kind, subject, alerts, attempt, outcome,"
                " detail, took_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._written += len(rows)
            if self._written >= _TRIM_EVERY:
                db.execute(
                    "DELETE FROM told WHERE number <= (SELECT max(number) FROM told) - ?",
                    (self._most,),
                )
                self._written = 0
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        self._last.update(changed)

    def told(
        self, *, limit: int, before: int | None = None, receiver: str = "", outcome: str = ""
    ) -> list[dict[str, Any]]:
        """The newest first."""
        if self._db is None:
            return []
        names = _TOLD
        rows = self._db.execute(
            f"SELECT {names} FROM told WHERE (? IS NULL OR number < ?)"  # noqa: S608 - our names
            " AND (? = '' OR receiver = ? OR receiver LIKE ? || '/%')"
            " AND (? = '' OR outcome = ?) ORDER BY number DESC LIMIT ?",
            (before, before, receiver, receiver, receiver, outcome, outcome, limit),
        )
        found = [dict(zip(names.split(", "), row, strict=True)) for row in rows]
        for row in found:
            row["alerts"] = json.loads(row["alerts"])
        return found

    def close(self) -> None:
        self._close_quietly()

    def _close_quietly(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
