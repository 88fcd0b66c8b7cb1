"""The registry's home on one machine: a SQLite file that may be lost without harm.

Theory of operation. `open` reads what is there, `write` puts one `Unsaved` whole or not at all, and
`close` the last one with the mark that all is in it. The mark is taken away at the start, and that
reaches the disk before anything is told: so after a crash the epoch is not resumed, and watchers
ask for all instead of believing a revision that was told but not written.

The file is there for a quick start and never in the way: without it the processes register again
with their next beat. So nothing about it keeps the registry from running. One that is corrupt is
renamed to `<name>.spoilt-<time>` and another begun; a row that cannot be read is left out and told;
a full disk, a missing right or a lock is `trouble`, and the next write tries again.

One process has it. Another that opens it, as the next generation does in an upgrade, takes it over:
what the former would write after that is refused, since it is older than what the other knows.

WAL, synchronous=NORMAL: a power cut may take the last second, which is a crash like any other. All
calls block, and are meant for one thread at a time.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from headgate.cache.sqlite_faults import is_corrupt, reason_of
from headgate.errors import HeadgateError
from headgate.mesh.registry.listing import Owner
from headgate.mesh.registry.model import Change, Instance, Source
from headgate.mesh.registry.remembered import (
    UNREADABLE,
    LeaseRow,
    Remembered,
    Unsaved,
    judged,
    judged_lease,
)
from headgate.observe.odd_files import put_odd_aside, set_aside
from headgate.policy.registering import RegistryRules

__all__ = ["SqliteStore", "StoreTrouble"]

_SCHEMA_VERSION: Final = 1
_BUSY_S: Final = 2.0
_NAMING: Final = frozenset(get_args(Source)) - {"self"}
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE leases (
  service TEXT NOT NULL, id TEXT NOT NULL, said TEXT NOT NULL, PRIMARY KEY (service, id)
) WITHOUT ROWID;
CREATE TABLE named (
  source TEXT NOT NULL, key TEXT NOT NULL, said TEXT NOT NULL, PRIMARY KEY (source, key)
) WITHOUT ROWID;
CREATE TABLE changes (revision INTEGER PRIMARY KEY, said TEXT NOT NULL);
"""
_EMPTY: Final = ("DELETE FROM leases", "DELETE FROM named", "DELETE FROM changes")


class StoreTrouble(HeadgateError):
    """Nothing of it was written. `lost`: what was written before is gone as well, so that all is to
    be written again. `taken`: another process has the file now; there is no use in trying again.
    """

    def __init__(self, message: str, kind: Literal["later", "lost", "taken"] = "later") -> None:
        super().__init__(message)
        self.kind: Literal["later", "lost", "taken"] = kind


class _OfAnother(sqlite3.DatabaseError):
    """It is a database, and none of ours."""


class SqliteStore:
    def __init__(
        self,
        path: Path,
        rules: RegistryRules | None = None,
        *,
        wall: Callable[[], float] = time.time,  # noqa: TID251  for the names of spoilt files
    ) -> None:
        self.path = path
        self.rules = rules or RegistryRules()
        self._wall = wall
        self._db: sqlite3.Connection | None = None
        self._own = secrets.token_hex(8)
        self._file: tuple[int, int] | None = None
        self.spoilt: Path | None = None
        """Where a file that could not be read was put last, if there was one."""
        self.trouble = ""
        """Why what is known is not on disk; empty while it is."""
        self.writes = 0
        self.failures = 0

    # ---- life

    def open(self) -> Remembered:
        """What is there. It never fails: see `trouble` and what was `lost`."""
        lost: list[str] = []
        known = Remembered()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            odd = put_odd_aside(self.path, self._wall())
            if odd is not None:
                self.spoilt = odd
                lost.append(f"{self.path.name} was no file and is now {odd.name}")
            try:
                known = self._begin(lost)
            except sqlite3.DatabaseError as error:
                if not _is_spoilt(error):
                    raise
                lost.append(self._put_aside(error))
                known = self._begin(lost)
        except (OSError, sqlite3.Error) as error:
            self._drop()
            self._fail(error)
        return replace(known, lost=tuple(lost))

    def write(self, unsaved: Unsaved) -> None:
        """All of it, or raise StoreTrouble."""
        self._write(unsaved, in_order=False)

    def close(self, unsaved: Unsaved | None = None) -> None:
        """Write the last, with the mark that nothing is missing. Raises StoreTrouble if it cannot,
        and is closed all the same.
        """
        try:
            if unsaved is not None:
                self._write(unsaved, in_order=True)
        finally:
            self._drop()

    # ---- inside

    def _begin(self, lost: list[str]) -> Remembered:
        """Open it, read it, and take it over."""
        db = self._db = self._connect()
        self._file = _identity(self.path)
        known, bad = self._read(db)
        if bad:
            lost.append(f"{self.path.name}: {bad} rows could not be read and are left out")
        try:
            db.execute("PRAGMA synchronous=FULL")
            with _transaction(db):
                _put_meta(db, "own", self._own)
                _put_meta(db, "in_order", "")
        except sqlite3.OperationalError as error:
            # A full disk, a file that is read-only: what is in it counts, and the next write takes
            # it over. Its epoch is not resumed, as it may still be marked when this run crashes.
            if is_corrupt(error):
                raise
            self._fail(error)
            known = replace(known, epoch=None)
        else:
            self.trouble = ""
        finally:
            db.execute("PRAGMA synchronous=NORMAL")
        return known

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            for beside in ("-wal", "-shm"):
                Path(f"{self.path}{beside}").unlink(missing_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA journal_size_limit=4194304")
            db.execute("PRAGMA trusted_schema=OFF")
            ((version,),) = db.execute("PRAGMA user_version")
            ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master")
            if version == 0 and not tables:
                db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={_SCHEMA_VERSION};COMMIT;")
            elif version != _SCHEMA_VERSION:
                raise _OfAnother(f"its tables are of version {version}")
            ((found,),) = db.execute("PRAGMA quick_check(1)")
            if found != "ok":
                raise _OfAnother("it is corrupt")
        except BaseException:
            db.close()
            raise
        return db

    def _read(self, db: sqlite3.Connection) -> tuple[Remembered, int]:
        bad = 0
        meta: dict[str, str] = dict(db.execute("SELECT name, value FROM meta"))
        leases: list[LeaseRow] = []
        for service, instance_id, said in db.execute("SELECT service, id, said FROM leases"):
            try:
                row = LeaseRow.of_json(json.loads(said))
                if (row.instance.service, row.instance.id) != (service, instance_id):
                    raise ValueError("it is another's")
                leases.append(judged_lease(row, self.rules))
            except UNREADABLE:
                bad += 1
        named: dict[Owner, list[Instance]] = {}
        for source, key, said in db.execute("SELECT source, key, said FROM named"):
            try:
                found = [judged(Instance.of_json(each), self.rules) for each in json.loads(said)]
                if source not in _NAMING:
                    raise ValueError("it is no source")
                named[Owner(source, key)] = found
            except UNREADABLE:
                bad += 1
        changes: list[Change] = []
        for revision, said in db.execute("SELECT revision, said FROM changes ORDER BY revision"):
            try:
                change = Change.of_json(json.loads(said))
                judged(change.instance, self.rules)
                if change.revision != revision:
                    raise ValueError("it is another")
                changes.append(change)
            except UNREADABLE:
                bad += 1
        revision = _number(meta.get("revision"))
        # A watcher resumes by what happened since: with a gap in it there is none.
        revisions = [each.revision for each in changes]
        is_whole = bad == 0 and revisions == list(range(revision - len(changes) + 1, revision + 1))
        known = Remembered(
            epoch=(meta.get("in_order") or None) if is_whole else None,
            revision=revision,
            fence=_number(meta.get("fence")),
            leases=leases,
            named=named,
            changes=changes,
        )
        return known, bad

    def _write(self, unsaved: Unsaved, *, in_order: bool) -> None:
        try:
            if self._db is not None and _identity(self.path) != self._file:
                self._drop()  # deleted, or replaced: what we would write, nobody would find
            if self._db is None:
                self._begin([])
                if not unsaved.is_all:
                    raise StoreTrouble("it was opened again, and what it holds is old", "lost")
            db = self._db
            if db is None:
                raise StoreTrouble(self.trouble)
            with _transaction(db):
                self._put(db, unsaved, in_order=in_order)
        except StoreTrouble as error:
            self.failures += 1
            if error.kind != "lost":
                self.trouble = str(error)
            raise
        except (OSError, sqlite3.Error) as error:
            if not isinstance(error, OSError) and _is_spoilt(error):
                self.failures += 1
                self._drop()
                with suppress(OSError):
                    self.trouble = self._put_aside(error)
                raise StoreTrouble(self.trouble, "lost") from error
            self._fail(error)
            raise StoreTrouble(self.trouble) from error
        self.trouble = ""
        self.writes += 1

    def _put(self, db: sqlite3.Connection, unsaved: Unsaved, *, in_order: bool) -> None:
        owned = db.execute("SELECT value FROM meta WHERE name = 'own'").fetchone()
        if owned is not None and owned[0] != self._own:
            raise StoreTrouble(f"{self.path.name}: another process has taken it over", "taken")
        if unsaved.is_all:
            for statement in _EMPTY:
                db.execute(statement)
        db.executemany("DELETE FROM leases WHERE service = ? AND id = ?", unsaved.gone)
        db.executemany(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)",
            (
                (row.instance.service, row.instance.id, _json(row.to_json()))
                for row in unsaved.leases
            ),
        )
        for owner, rows in unsaved.named.items():
            if rows:
                said = _json([each.to_json() for each in rows])
                db.execute("INSERT OR REPLACE INTO named VALUES (?, ?, ?)", (*owner, said))
            else:
                db.execute("DELETE FROM named WHERE source = ? AND key = ?", owner)
        db.executemany(
            "INSERT OR REPLACE INTO changes VALUES (?, ?)",
            ((each.revision, _json(each.to_json())) for each in unsaved.changes),
        )
        kept = self.rules.changes_kept
        db.execute("DELETE FROM changes WHERE revision <= ?", (unsaved.revision - kept,))
        _put_meta(db, "own", self._own)
        _put_meta(db, "revision", str(unsaved.revision))
        _put_meta(db, "fence", str(unsaved.fence))
        _put_meta(db, "in_order", unsaved.epoch if in_order else "")

    def _put_aside(self, error: BaseException) -> str:
        self._drop()
        self.spoilt = set_aside(self.path, self._wall())
        why = str(error) if isinstance(error, _OfAnother) else reason_of(error)
        return f"{self.path.name}: {why}; it is now {self.spoilt.name}, and another is begun"

    def _fail(self, error: BaseException) -> None:
        self.failures += 1
        self.trouble = f"{self.path.name}: {reason_of(error)}"

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _put_meta(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _is_spoilt(error: BaseException) -> bool:
    return isinstance(error, _OfAnother) or is_corrupt(error)


def _json(said: Any) -> str:
    return json.dumps(said, separators=(",", ":"))


def _number(text: str | None) -> int:
    try:
        return max(0, int(text or 0))
    except ValueError:
        return 0
