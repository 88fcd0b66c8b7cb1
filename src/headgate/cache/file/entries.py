"""Entries in the file: read, kept, counted, and removed in small steps; within a transaction.

Theory of operation. The times of a row count, not those within its bytes, as `touch` moves them.
`used` is the wall clock in seconds at which it was last asked for, brought up to date now and then
and not at every read, so that reading does not write. `meta.bytes` is the sum of `size`.

What makes the file too large goes by the longest not used, at most `_STEP_MAX` rows at once; while
it is more than a quarter too large, nothing new is kept. A row whose bytes cannot be read is a
miss, and stays: another release, running beside this one, may read it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from headgate.cache.barriers import Standing
from headgate.cache.codecs import Undecodable
from headgate.cache.entry import FOREVER, Entry
from headgate.cache.file.news import to_text
from headgate.cache.invalidation import Invalidation

if TYPE_CHECKING:
    from headgate.cache.file.store import Store

__all__ = [
    "PAGE",
    "Packed",
    "Page",
    "Row",
    "add",
    "evict",
    "keep",
    "mark_used",
    "read",
    "remove",
    "sweep",
    "touch",
]

_ROW_BYTES: Final = 150
"""What a row takes beside its key and its bytes, indexes included."""
_STEP: Final = 200
PAGE: Final = 200
"""Keys of one step of a scan."""
_STEP_MAX: Final = 2000
_COUNT_MAX: Final = 2**63 - 1

_KEEP: Final = """
INSERT INTO entries (key, data, count, stamp, made_at, fresh_until, usable_until, used, size)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (key) DO UPDATE SET
data = ?2, count = ?3, stamp = ?4, made_at = ?5, fresh_until = ?6, usable_until = ?7,
used = ?8, size = ?9
"""

Row: TypeAlias = tuple[int, int, float]
"""Which row, and which of the entries that were kept in it: its id, stamp and end."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An entry as it goes into the file."""

    key: bytes
    data: bytes
    stamp: int
    made_at: float
    fresh_until: float
    usable_until: float
    tags: tuple[str, ...]


def read(
    store: Store, key: bytes, wall: float, count_s: float = FOREVER
) -> tuple[Entry | None, Row | None]:
    """The entry; and the row, where it is worth nothing and may be removed. `count_s`: so long a
    count may be held, since adding is told to nobody.
    """
    row = store.db.execute(
        "SELECT id, data, count, stamp, made_at, fresh_until, usable_until FROM entries"
        " WHERE key = ?",
        (key,),
    ).fetchone()
    if row is None:
        return None, None
    at, data, count, stamp, made_at, fresh_until, usable_until = row
    if usable_until <= wall:
        return None, (at, stamp, usable_until)
    if data is None:
        usable_until = min(usable_until, wall + count_s)
        fresh_until = min(fresh_until, usable_until)
        entry = Entry(count, made_at, fresh_until, usable_until, stamp=stamp)
    else:
        try:
            store.bytes_in += len(data)
            entry = store.packer.decode(data)
        except Undecodable:
            return None, None  # another release, beside this one, may read it
    entry.fresh_until, entry.usable_until = fresh_until, usable_until
    standing = store.barriers.judge(to_text(key), entry.tags, stamp)
    if standing is Standing.DEAD:
        return None, (at, stamp, usable_until)
    if standing is Standing.STALE:
        entry.fresh_until = min(fresh_until, made_at)
    return entry, None


def keep(store: Store, item: Packed, wall: float) -> int:
    """How much the sum grew. What is struck, too large, or older than what is there is not kept."""
    db = store.db
    size = len(item.key) + len(item.data) + _ROW_BYTES
    if size > store.bytes_max // 4 or not store.has_room(size) or item.usable_until <= wall:
        return -remove_keys(db, (item.key,))
    name = to_text(item.key)
    if store.barriers.judge(name, item.tags, item.stamp) is not Standing.ALIVE:
        return 0
    row = db.execute(
        "SELECT size, stamp, usable_until FROM entries WHERE key = ?", (item.key,)
    ).fetchone()
    before = 0
    if row is not None:
        before, stamp, usable_until = row
        # Loaded before the one that is there: unless that is worth nothing, it stays.
        if stamp > item.stamp and usable_until > wall:
            return 0
    values = (item.data, None, item.stamp, item.made_at, item.fresh_until, item.usable_until)
    db.execute(_KEEP, (item.key, *values, int(wall), size))
    return size - int(before)


class Page:
    """A job: keys above `after` that begin with `prefix`, and whether each is worth anything."""

    __slots__ = ("after", "prefix")

    def __init__(self, prefix: bytes, after: bytes) -> None:
        self.prefix = prefix
        self.after = after

    def __call__(self, store: Store) -> list[tuple[bytes, bool]]:
        wall = store.wall()
        keys = store.db.execute(
            # No key holds this byte, as all are UTF-8.
            "SELECT key FROM entries WHERE key > ? AND key >= ? AND key < ? ORDER BY key LIMIT ?",
            (self.after, self.prefix, self.prefix + b"\xff", PAGE),
        ).fetchall()
        return [(key, read(store, key, wall)[0] is not None) for (key,) in keys]


def touch(store: Store, key: bytes, wall: float, ends: tuple[float, float]) -> bool:
    entry, _ = read(store, key, wall)
    if entry is None:
        return False
    usable_until, fresh_until = ends
    store.db.execute(
        "UPDATE entries SET usable_until = ?, fresh_until = ? WHERE key = ?",
        (usable_until, fresh_until, key),
    )
    return True


def add(store: Store, key: bytes, wall: float, amount: int, ttl_s: float | None) -> tuple[int, int]:
    """The new count, and how much the sum grew. A number that was kept is counted on from."""
    entry, _ = read(store, key, wall)
    if entry is not None and type(entry.value) is not int:
        raise TypeError(f"increment: what is under {to_text(key)[:100]!r} is not a whole number")
    count = amount if entry is None else entry.value + amount
    if not -_COUNT_MAX - 1 <= count <= _COUNT_MAX:
        raise OverflowError(f"{to_text(key)!r} and {amount} do not fit into 64 bits")
    db = store.db
    row = db.execute("SELECT size, data IS NULL FROM entries WHERE key = ?", (key,)).fetchone()
    stamp = store.barriers.stamp
    if entry is not None and row is not None and not row[1]:
        # Others hold it as the value it was, and must not any longer.
        stamp = store.publish(Invalidation(keys=(to_text(key),))).stamp
        row = None
    size = len(key) + _ROW_BYTES
    made_at, until = wall, FOREVER if ttl_s is None else wall + ttl_s
    if entry is not None:
        made_at, until = entry.made_at, entry.usable_until
    values = (None, count, stamp, made_at, until, until)
    db.execute(_KEEP, (key, *values, int(wall), size))
    return count, size - (row[0] if row else 0)


def remove(db: sqlite3.Connection, rows: Iterable[Row]) -> int:
    """How much the sum shrank. A row that has been kept anew meanwhile stays."""
    freed = 0
    for row in rows:
        for (size,) in db.execute(
            "DELETE FROM entries WHERE id = ? AND stamp = ? AND usable_until = ? RETURNING size",
            row,
        ).fetchall():
            freed += size
    return freed


def remove_keys(db: sqlite3.Connection, keys: Iterable[bytes]) -> int:
    freed = 0
    for key in keys:
        for (size,) in db.execute(
            "DELETE FROM entries WHERE key = ? RETURNING size", (key,)
        ).fetchall():
            freed += size
    return freed


def evict(db: sqlite3.Connection, total: int, bytes_max: int) -> tuple[int, int]:
    """Rows and bytes that went to bring `total` down to the bound."""
    rows = freed = 0
    while total - freed > bytes_max and rows < _STEP_MAX:
        found = db.execute(
            "SELECT id, size FROM entries ORDER BY used, id LIMIT ?", (_STEP,)
        ).fetchall()
        if not found:
            break
        for at, size in found:
            db.execute("DELETE FROM entries WHERE id = ?", (at,))
            rows += 1
            freed += size
            if total - freed <= bytes_max:
                break
    return rows, freed


def sweep(db: sqlite3.Connection, wall: float, below: int) -> list[Row]:
    """Some rows that are over, or older than this stamp. It only reads, so that there is no
    transaction where there are none.
    """
    found = db.execute(
        "SELECT id, stamp, usable_until FROM entries WHERE usable_until <= ? LIMIT ?", (wall, _STEP)
    ).fetchall()
    if below and len(found) < _STEP:
        found += db.execute(
            "SELECT id, stamp, usable_until FROM entries WHERE stamp < ? LIMIT ?", (below, _STEP)
        ).fetchall()
    return found


def mark_used(db: sqlite3.Connection, keys: Sequence[bytes], wall: float) -> None:
    db.executemany("UPDATE entries SET used = ? WHERE key = ?", [(int(wall), key) for key in keys])
