"""Traces on disk, in one SQLite file, bounded by size and age.

Theory of operation
-------------------
Two tables. `spans` holds each span with what is searched for in columns and the rest as JSON;
`traces` holds one row a trace, made anew from its spans whenever some come. Spans of a trace may
come in any order and from anybody; the same span twice is one.

*Bounds.* The size of the file, less its free pages, stays below `max_bytes`: before a batch is put
the traces whose beginning is oldest go until there is room, some at a time. Free pages are given
back to the disk. A single trace has at most `MOST_SPANS`; more of it are refused and counted.

*Crashes.* WAL with synchronous=NORMAL: a batch is there whole or not at all, after kill -9 too; a
power cut may take the last seconds. A file that SQLite does not take, or that `quick_check` finds
faults in, is renamed to `<name>.spoilt-<time>` with its companions, and a new one is begun.

One thread writes; readers have connections of their own and are cut off after a deadline, since a
search by attribute may have to look at everything. Not a pure module: it is the file.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from headgate.observe.history.trusted import TrustedClock
from headgate.observe.odd_files import put_odd_aside, set_aside
from headgate.observe.sqlite_file import Spoilt, check_pages, is_spoilt, open_file
from headgate.observe.tracing.record import SpanRecord
from headgate.observe.tracing.rules import StoreRules

__all__ = ["MOST_SPANS", "TraceStore", "route_of", "status_of"]

MOST_SPANS: Final = 5000
_SCHEMA_VERSION: Final = 1
_CHECK_BUDGET_S: Final = 3.0
_AHEAD_S: Final = 3600.0
"""By so much a clock elsewhere may be fast."""
_DROP_AT_ONCE: Final = 200
_SCHEMA: Final = """
CREATE TABLE spans (
  trace_id BLOB NOT NULL, span_id BLOB NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL,
  kind TEXT NOT NULL, start REAL NOT NULL, duration REAL NOT NULL, failed INTEGER NOT NULL,
  route TEXT NOT NULL, status INTEGER NOT NULL, attributes TEXT NOT NULL, more TEXT NOT NULL,
  PRIMARY KEY (trace_id, span_id)) WITHOUT ROWID;
CREATE TABLE traces (
  trace_id BLOB PRIMARY KEY, start REAL NOT NULL, duration REAL NOT NULL, spans INTEGER NOT NULL,
  failed INTEGER NOT NULL, name TEXT NOT NULL, service TEXT NOT NULL, route TEXT NOT NULL,
  status INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX traces_start ON traces (start, trace_id);
"""


def status_of(span: SpanRecord) -> int:
    """The HTTP status, 0 for none."""
    for key in ("http.response.status_code", "http.status_code"):
        said = span.attributes.get(key)
        if isinstance(said, int) and not isinstance(said, bool) and 0 < said < 1000:
            return said
    return 0


def route_of(span: SpanRecord) -> str:
    for key in ("headgate.route", "http.route"):
        said = span.attributes.get(key)
        if isinstance(said, str):
            return said
    return ""


class TraceStore:
    """The file, for one thread that writes. `reader` opens another way in, for searches."""

    def __init__(
        self,
        path: Path,
        rules: StoreRules,
        *,
        wall: Callable[[], float] = time.time,  # noqa: TID251  # age is by the calendar
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.rules = rules
        self._wall = wall
        self._mono = mono
        self._clock = TrustedClock()
        self.spoilt: Path | None = None
        """Where a file that could not be read was put, if there was one."""
        self.refused = 0
        """Spans of traces that have too many, and those of the future."""
        self.dropped_traces = 0
        """Traces that had to go before their time, for want of room."""
        self.traces = 0
        """Traces that are held. Kept, since to count them takes as long as there are many."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.spoilt = put_odd_aside(path, wall())
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if not is_spoilt(error):
                raise
            self.spoilt = set_aside(path, wall())
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = open_file(self.path, busy_s=5.0, first=("auto_vacuum=INCREMENTAL",))
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={_SCHEMA_VERSION};COMMIT;")
            elif version != _SCHEMA_VERSION:
                raise Spoilt(f"its tables are of version {version}")
            _check(db)
            (self.traces,) = db.execute("SELECT count(*) FROM traces").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    # -- writing ------------------------------------------------------------------------------

    def put(self, spans: Iterable[SpanRecord]) -> int:
        """Keep these; how many were new. All of them or, on an error, none."""
        latest = self._wall() + _AHEAD_S
        rows: dict[bytes, list[tuple[Any, ...]]] = {}
        for span in spans:
            if span.start > latest:  # it would outlive all others, being the newest for ever
                self.refused += 1
            else:
                rows.setdefault(bytes.fromhex(span.trace_id), []).append(_row(span))
        if not rows:
            return 0
        self._make_room(sum(_weight(row) for each in rows.values() for row in each))
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            before = db.total_changes
            begun = self._cut(rows)
            db.executemany(
                "INSERT OR IGNORE INTO spans VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (row for each in rows.values() for row in each),
            )
            new = db.total_changes - before
            for trace_id in rows:
                self._summarise(trace_id)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.traces += begun
        self._make_room(0)
        return new

    def _cut(self, found: dict[bytes, list[tuple[Any, ...]]]) -> int:
        """Leave of each trace what it may still have; how many there were none of."""
        begun = 0
        for trace_id, rows in found.items():
            held = self._db.execute(
                "SELECT spans FROM traces WHERE trace_id=?", (trace_id,)
            ).fetchone()
            begun += held is None
            room = MOST_SPANS - (held[0] if held else 0)
            if len(rows) > room:
                self.refused += len(rows) - max(0, room)
                del rows[max(0, room) :]
        return begun

    def _summarise(self, trace_id: bytes) -> None:
        db = self._db
        start, count, failed = db.execute(
            "SELECT min(start), count(*), sum(failed) FROM spans WHERE trace_id=?", (trace_id,)
        ).fetchone()
        if not count:
            return
        # The difference first: a wall time and a duration in one float would lose digits.
        duration = db.execute(
            "SELECT max((start - ?) + duration) FROM spans WHERE trace_id=?", (start, trace_id)
        ).fetchone()[0]
        # What the whole is called by: the root; before it has come, the span that began first.
        name, service, route, status = db.execute(
            "SELECT name, service, route, status FROM spans WHERE trace_id=?"
            " ORDER BY json_extract(more, '$[0]') <> '', start, -duration LIMIT 1",
            (trace_id,),
        ).fetchone()
        db.execute(
            "INSERT OR REPLACE INTO traces VALUES (?,?,?,?,?,?,?,?,?)",
            (trace_id, start, duration, count, failed, name, service, route, status),
        )

    def probe(self) -> None:
        """Write a little that changes nothing; raises sqlite3.Error where that cannot be done."""
        self._db.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def expire(self) -> int:
        """Let go of what is older than it may be; how many traces. A clock that leaps is not
        believed at once: one wrong second would empty the store.
        """
        wall, mono = self._wall(), self._mono()
        if not self._clock.is_set:
            (newest,) = self._db.execute("SELECT max(start) FROM traces").fetchone()
            self._clock.begin(wall if newest is None else min(wall, newest), mono)
        self._clock.note(wall, mono)
        oldest = self._clock.now - self.rules.keep_s
        return self._drop("start < ?", (oldest,), None)

    def _make_room(self, more: int) -> None:
        while self.size() + more > self.rules.max_bytes:
            gone = self._drop("1", (), _DROP_AT_ONCE)
            self.dropped_traces += gone
            if not gone:
                return

    def _drop(self, where: str, values: tuple[Any, ...], most: int | None) -> int:
        db = self._db
        limit = f" ORDER BY start LIMIT {most}" if most else ""
        db.execute("BEGIN IMMEDIATE")
        try:
            ids = db.execute(f"SELECT trace_id FROM traces WHERE {where}{limit}", values).fetchall()  # noqa: S608
            db.executemany("DELETE FROM spans WHERE trace_id=?", ids)
            db.executemany("DELETE FROM traces WHERE trace_id=?", ids)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.traces -= len(ids)
        if ids:
            db.execute("PRAGMA incremental_vacuum").fetchall()
        return len(ids)

    def size(self) -> int:
        """What is held, in bytes of the file; what waits in the log beside it comes on top."""
        db = self._db
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        free = db.execute("PRAGMA freelist_count").fetchone()[0]
        page = db.execute("PRAGMA page_size").fetchone()[0]
        return int((pages - free) * page)

    def counts(self) -> tuple[int, int]:
        """Traces and spans, counted."""
        found = self._db.execute("SELECT count(*), coalesce(sum(spans), 0) FROM traces").fetchone()
        return int(found[0]), int(found[1])

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def reader(self, budget_s: float = 5.0) -> Iterator[sqlite3.Connection]:
        """Read-only, for one search; `sqlite3.OperationalError: interrupted` after the budget."""
        with reading(self.path, budget_s) as db:
            yield db


@contextlib.contextmanager
def reading(path: Path, budget_s: float = 5.0) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=5.0,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        ends = time.monotonic() + budget_s
        db.set_progress_handler(lambda: time.monotonic() > ends, 5000)
        yield db
    finally:
        db.close()


def _check(db: sqlite3.Connection) -> None:
    check_pages(db, _CHECK_BUDGET_S)
    db.execute("SELECT trace_id, start, duration, spans, failed FROM traces LIMIT 1").fetchall()
    db.execute("SELECT attributes, more FROM spans LIMIT 1").fetchall()


def _weight(row: tuple[Any, ...]) -> int:
    """About what it takes on the disk, its trace's row and half-empty pages included."""
    return (300 + sum(len(each) for each in row if isinstance(each, str))) * 5 // 4


def _row(span: SpanRecord) -> tuple[Any, ...]:
    row = span.to_json()
    more = [row[2], row[7], *row[10:]]
    return (
        bytes.fromhex(span.trace_id),
        bytes.fromhex(span.span_id),
        _clean(span.service),
        _clean(span.name),
        span.kind,
        span.start,
        span.duration_s,
        int(span.status == "error"),
        _clean(route_of(span)),
        status_of(span),
        json.dumps(row[9], separators=(",", ":")),
        json.dumps(more, separators=(",", ":")),
    )


def _clean(text: str) -> str:
    """Lone surrogates cannot be written to the file."""
    return text.encode("utf-8", "replace").decode()


def span_of(row: Sequence[Any]) -> SpanRecord:
    """The span of a row of `spans`."""
    more = json.loads(row[11])
    return SpanRecord.of_json(
        [
            bytes(row[0]).hex(),
            bytes(row[1]).hex(),
            more[0],
            row[3],
            row[4],
            row[5],
            row[6],
            more[1],
            row[2],
            json.loads(row[10]),
            *more[2:],
        ]
    )
