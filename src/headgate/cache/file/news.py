"""The clock, the barriers and the leases in the file; each function within a transaction.

Theory of operation. A barrier is a row: one for each name and strength, at its latest stamp. Who
has read the rows up to a stamp reads those above it, and has heard everything: nothing is lost by
having been away, unless rows were forgotten meanwhile, which raises `floor`. Rows are bounded: of
more than `BARRIERS_MAX` the oldest go, a tenth at a time.

A lease ends by the monotonic clock, which the processes of a machine share. Its fence outlives it
by an hour, so that a loader that was stopped meanwhile is known for one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from headgate.cache.invalidation import Invalidation

__all__ = [
    "BARRIERS_MAX",
    "LEASE_MAX_S",
    "clock",
    "is_overtaken",
    "lease",
    "news_since",
    "publish",
    "release",
    "sweep_leases",
]

BARRIERS_MAX: Final = 100_000
LEASE_MAX_S: Final = 600.0
_FENCE_KEPT_S: Final = 3600.0
_KINDS: Final = ("tags", "keys", "patterns", "urls")
_EVERYTHING: Final = len(_KINDS)


def to_blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def to_text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")


def clock(db: sqlite3.Connection) -> tuple[int, int]:
    """The stamp and the floor."""
    found = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('stamp', 'floor')"))
    return found["stamp"], found["floor"]


def publish(db: sqlite3.Connection, invalidation: Invalidation, wall: float) -> Invalidation:
    """Raise barriers at a new stamp, above that which the invalidation bears already."""
    stamp, _ = clock(db)
    stamp = max(stamp + 1, int(wall * 1e6), invalidation.stamp)
    soft, by = int(invalidation.soft), invalidation.by
    rows = [
        (soft, kind, to_blob(name), stamp, by)
        for kind, names in enumerate(_KINDS)
        for name in getattr(invalidation, names)
    ]
    if invalidation.everything:
        rows.append((soft, _EVERYTHING, to_blob(invalidation.everything), stamp, by))
    before = db.total_changes
    db.executemany(
        "INSERT INTO barriers VALUES (?, ?, ?, ?, ?) ON CONFLICT (soft, kind, name)"
        " DO UPDATE SET stamp = excluded.stamp, by = excluded.by",
        rows,
    )
    db.execute("UPDATE meta SET value = ? WHERE name = 'stamp'", (stamp,))
    # Counted, not exact: an update counts too, and is put right when there seem to be too many.
    added = db.total_changes - before - 1
    db.execute("UPDATE meta SET value = value + ? WHERE name = 'barriers'", (added,))
    ((count,),) = db.execute("SELECT value FROM meta WHERE name = 'barriers'")
    if count > BARRIERS_MAX:
        _forget(db)
    return invalidation.at(stamp)


def _forget(db: sqlite3.Connection) -> None:
    ((count,),) = db.execute("SELECT count(*) FROM barriers")
    if count > BARRIERS_MAX:
        ((floor,),) = db.execute(
            "SELECT stamp FROM barriers ORDER BY stamp LIMIT 1 OFFSET ?",
            (count - BARRIERS_MAX * 9 // 10,),
        )
        db.execute("DELETE FROM barriers WHERE stamp <= ?", (floor,))
        db.execute("UPDATE meta SET value = max(value, ?) WHERE name = 'floor'", (floor,))
        ((count,),) = db.execute("SELECT count(*) FROM barriers")
    db.execute("UPDATE meta SET value = ? WHERE name = 'barriers'", (count,))


def news_since(db: sqlite3.Connection, stamp: int) -> Iterator[Invalidation]:
    """What was invalidated above this stamp, in order."""
    now_at, now_by, now_soft = 0, "", 0
    found: list[tuple[int, bytes]] = []
    for at, soft, by, kind, name in db.execute(
        "SELECT stamp, soft, by, kind, name FROM barriers WHERE stamp > ? ORDER BY stamp, soft, by",
        (stamp,),
    ):
        if (at, soft, by) != (now_at, now_soft, now_by):
            if found:
                yield _said(found, now_at, now_soft, now_by)
            found = []
            now_at, now_soft, now_by = at, soft, by
        found.append((kind, name))
    if found:
        yield _said(found, now_at, now_soft, now_by)


def _said(found: list[tuple[int, bytes]], stamp: int, soft: int, by: str) -> Invalidation:
    lists: dict[str, list[str]] = {name: [] for name in _KINDS}
    everything = ""
    for kind, name in found:
        if kind == _EVERYTHING:
            everything = to_text(name)
        else:
            lists[_KINDS[kind]].append(to_text(name))
    return Invalidation(
        tags=tuple(lists["tags"]),
        keys=tuple(lists["keys"]),
        patterns=tuple(lists["patterns"]),
        urls=tuple(lists["urls"]),
        everything=everything,  # type: ignore[arg-type]  # written by `publish`
        soft=bool(soft),
        stamp=stamp,
        by=by,
    )


def lease(db: sqlite3.Connection, key: bytes, ttl_s: float, now: float) -> tuple[int, float] | None:
    """The fence and the end of a lease, or None while another holds one."""
    held = db.execute("SELECT until FROM leases WHERE key = ?", (key,)).fetchone()
    # One that would last longer than any is left from a clock that was another.
    if held is not None and now < held[0] <= now + LEASE_MAX_S:
        return None
    db.execute("UPDATE meta SET value = value + 1 WHERE name = 'fence'")
    ((fence,),) = db.execute("SELECT value FROM meta WHERE name = 'fence'")
    until = now + min(ttl_s, LEASE_MAX_S)
    db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (key, fence, until))
    return fence, until


def release(db: sqlite3.Connection, key: bytes, fence: int, now: float) -> None:
    db.execute("UPDATE leases SET until = ? WHERE key = ? AND fence = ?", (now, key, fence))


def is_overtaken(db: sqlite3.Connection, key: bytes, fence: int) -> bool:
    found = db.execute("SELECT fence FROM leases WHERE key = ?", (key,)).fetchone()
    return found is not None and found[0] > fence


def sweep_leases(db: sqlite3.Connection, now: float) -> None:
    db.execute(
        "DELETE FROM leases WHERE until < ? OR until > ?", (now - _FENCE_KEPT_S, now + LEASE_MAX_S)
    )
