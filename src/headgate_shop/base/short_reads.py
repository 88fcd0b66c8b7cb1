"""Short reads: one SELECT, run on the loop itself where SQLite answers.

Theory of operation
-------------------
A statement that SQLAlchemy and aiosqlite run goes to a thread and back three times (run, fetch,
close), with a BEGIN before and a ROLLBACK after it, and each time one thread waits for the other to
let go of the interpreter. Of a SELECT that takes a tenth of a millisecond that makes one of two,
and many under load. So what is read by one statement is read where it is asked for, by a connection
of its own that may not write. One statement is one view of the data, so no transaction is needed,
and none stays open: all rows are taken at once.

The loop stands still meanwhile. What would hold it up goes by the engine instead, in a thread:

    work of more than `LONGEST_S`  broken off, and begun anew there; for `AVOID_S` that statement
                                   goes there by itself. It is processor time that counts: on a
                                   busy machine a thread would take longer still.
    a database that is locked      nobody waits here. With a write-ahead log readers do not wait for
                                   writers; what locks is recovery after a kill, or the last
                                   connection that closes.
    a prepared failure             the engine knows how to be slow (`faults.slow_down`)

With PostgreSQL everything goes by the engine, whose driver waits without a thread.

Statements are SQLAlchemy's and are written once: what differs from one time to the next is a bound
parameter (`sa.bindparam("name")`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

__all__ = ["Prepared", "Row", "SqliteReads"]

LONGEST_S: Final = 0.02
AVOID_S: Final = 60.0
LOOK_EVERY: Final = 2000
"""Instructions of SQLite's machine between two looks at the clock; some 50 us."""
_DIALECT: Final = sqlite.dialect(paramstyle="named")

Row = Sequence[Any]


class Prepared:
    """A SELECT that is written once. Its columns come as SQLAlchemy's types have them."""

    __slots__ = ("_convert", "given", "select", "text")

    def __init__(self, select: sa.Select[Any]) -> None:
        self.select = select
        compiled = select.compile(dialect=_DIALECT)
        self.text = str(compiled)
        self.given = {name: value for name, value in compiled.params.items() if value is not None}
        """Parameters that have their value already."""
        found: list[tuple[int, Callable[[Any], Any]]] = []
        for at, column in enumerate(select.selected_columns):
            convert = column.type.dialect_impl(_DIALECT).result_processor(_DIALECT, None)
            if convert is not None:
                found.append((at, convert))
        self._convert = found

    def converted(self, rows: list[Row]) -> Sequence[Row]:
        if not self._convert:
            return rows
        made = [list(row) for row in rows]
        for at, convert in self._convert:
            before = told = None
            for values in made:
                if values[at] != before:  # what is said in each row is read once
                    before = values[at]
                    told = convert(before)
                values[at] = told
        return made


class SqliteReads:
    """The connection of one process for short reads. It belongs to the thread of the loop."""

    def __init__(
        self,
        path: str,
        *,
        longest_s: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
        work: Callable[[], float] = time.thread_time,
    ) -> None:
        self._path = path
        self._longest_s = longest_s
        self._clock = clock
        self._work = work
        self._connection: sqlite3.Connection | None = None
        self._until = 0.0
        self._avoided: dict[str, float] = {}

    def rows(self, prepared: Prepared, values: dict[str, Any]) -> Sequence[Row] | None:
        """None if it is to be read by the engine."""
        if self._avoided and self._is_avoided(prepared):
            return None
        self._until = self._work() + self._longest_s
        try:
            with closing(self._opened().execute(prepared.text, prepared.given | values)) as cursor:
                found = cursor.fetchall()
        except sqlite3.DatabaseError:
            # The engine waits where that helps, and says what is wrong as all others hear it.
            if self._is_over():
                self._avoided[prepared.text] = self._clock() + AVOID_S
            return None
        return prepared.converted(found)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _is_avoided(self, prepared: Prepared) -> bool:
        until = self._avoided.get(prepared.text)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._avoided[prepared.text]
        return False

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            # Not opened as read-only: such a connection cannot recover what a kill left behind.
            connection.execute("PRAGMA query_only = ON").close()
            connection.set_progress_handler(self._is_over, LOOK_EVERY)
            self._connection = connection
        return self._connection

    def _is_over(self) -> bool:
        return self._work() > self._until
