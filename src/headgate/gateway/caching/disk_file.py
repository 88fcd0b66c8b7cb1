"""Responses in an SQLite file: every operation, on the thread of whoever calls.

Theory of operation. Several processes have the file open (WAL); each write is a transaction, so a
process that is killed leaves a whole file, and what is read carries its own digest beside. Every
write looks first at the invalidations that others have recorded, so a response that was begun
before one is not written after it. An invalidation is recorded first, on the disk and not only on
its way there, and then acted on in small steps; whoever opens the file goes on with what was not
finished. Records are kept up to `RECORDS_MAX`; the oldest finished one is forgotten by refusing,
from then on, whatever was begun before it.

A file is never repaired and never replaced under its name, since another process that closes it
later would take away the log of its successor. `disk_place` says which file is the one in use.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from headgate.cache.barriers import Barriers, Standing
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.cache.sqlite_faults import is_busy, is_full
from headgate.gateway.caching.disk_schema import STATEMENTS
from headgate.gateway.caching.packing import FORMAT, Spoilt, digest_of, pack, unpack
from headgate.gateway.caching.purging import Fitting
from headgate.gateway.caching.variants import VARIANTS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from headgate.gateway.caching.variants import Kept
    from headgate.wire.message import Header

__all__ = ["RECORDS_MAX", "ResponseFile", "SpoiltRow"]

RECORDS_MAX: Final = 10_000
_STEP: Final = 200
"""Rows that one transaction strikes, so that others may write in between."""
_EVICTED_AT_ONCE: Final = 32
_ROW_BYTES: Final = 400
"""Of the index, beside the response itself."""
_PAGE: Final = 4096
_BUSY_S: Final = 2.0
_AHEAD_MAX_S: Final = 60.0


class ResponseFile:
    """One connection; used by one thread at a time."""

    def __init__(self, path: Path, bytes_max: int = 0, *, is_reader: bool = False) -> None:
        self._bytes_max = bytes_max
        # A reader never makes a file: then it would have one of its own.
        mode = "rw" if is_reader else "rwc"
        self._db = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        self._heard = 0
        self._barriers = Barriers("responses")
        self.evicted = 0
        try:
            self._open(is_reader=is_reader)
        except BaseException:
            self._db.close()
            raise

    def _open(self, *, is_reader: bool) -> None:
        if is_reader:
            self._db.execute("PRAGMA query_only = 1")
            return
        self._db.execute(f"PRAGMA page_size = {_PAGE}")  # before there is a file
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA journal_size_limit = {16 * 1024 * 1024}")
        # A second bound beside ours, for what is lost between the pages.
        pages = max(self._bytes_max + self._bytes_max // 4, 4 * 1024 * 1024) // _PAGE
        self._db.execute(f"PRAGMA max_page_count = {pages}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != FORMAT:
            with self._transaction():
                for statement in STATEMENTS:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Reading

    def find(self, key: str, fields: tuple[Header, ...], wall: float) -> tuple[int, Kept] | None:
        """The response that fits, and its number. Spoilt: what is there cannot be read."""
        slot = digest_of(key.encode("utf-8", "surrogatepass"))
        rows = self._db.execute(
            "SELECT id, variant, names, made, soft, keep_until FROM responses WHERE slot = ?",
            (slot,),
        ).fetchall()
        said: dict[str, bytes] = {}
        best: tuple[bool, float, int, int] | None = None
        for number, variant, names, made, soft, keep_until in rows:
            if names not in said:
                wanted = tuple(name.encode("latin-1") for name in json.loads(names))
                said[names] = _variant(normal(wanted, fields))
            # Made in the future: the clock was set back since, and how old it is nobody knows.
            is_timely = made <= wall + _AHEAD_MAX_S and wall <= keep_until
            if said[names] == variant and is_timely:
                rank = (names != "[]", made, number, soft)
                best = rank if best is None else max(best, rank)
        if best is None:
            return None
        _, _, number, soft = best
        row = self._db.execute("SELECT data FROM bodies WHERE id = ?", (number,)).fetchone()
        if row is None:
            return None
        try:
            kept = unpack(row[0])
        except Spoilt as wrong:
            raise SpoiltRow(number, str(wrong)) from wrong
        if kept.key != key:
            return None
        kept.is_soft_struck = bool(soft)
        return number, kept

    def totals(self) -> tuple[int, int]:
        """Entries, bytes."""
        said = dict(self._db.execute("SELECT name, value FROM state").fetchall())
        return said["entries"], said["bytes"]

    # Writing

    def put(self, batch: Sequence[Kept], used: int) -> int:
        """Write these, but for those that are struck; how many were."""
        packed = [(kept, pack(kept)) for kept in batch]
        declined = 0
        with self._transaction():
            floor = self._hear()
            for kept, data in packed:
                standing = self._barriers.judge(kept.url, kept.stored.tags, kept.stamp)
                if standing is Standing.DEAD or kept.stamp < floor:
                    declined += 1
                else:
                    self._put(kept, data, used, soft=standing is Standing.STALE)
        self._make_room()
        return declined

    def _put(self, kept: Kept, data: bytes, used: int, *, soft: bool) -> None:
        stored = kept.stored
        slot = digest_of(kept.key.encode("utf-8", "surrogatepass"))
        variant = _variant(stored.vary)
        names = json.dumps([name.decode("latin-1") for name, _ in stored.vary])
        made = stored.received_at - stored.initial_age_s
        self._db.execute(
            "DELETE FROM responses WHERE slot = ? AND (variant = ? OR names = '[]')",
            (slot, variant),
        )
        if not stored.vary:
            # It is what this key says now; what varied before would win over it for ever.
            self._db.execute("DELETE FROM responses WHERE slot = ?", (slot,))
        else:
            self._db.execute(
                "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE slot = ?"
                " ORDER BY id DESC LIMIT -1 OFFSET ?)",
                (slot, VARIANTS_MAX - 1),
            )
        size = _in_pages(len(data)) + len(kept.url) + sum(map(len, stored.tags)) + _ROW_BYTES
        soft |= kept.is_soft_struck
        number = self._db.execute(
            "INSERT INTO responses (slot, variant, names, url, stamp, made, keep_until, soft, used,"
            " size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (slot, variant, names, kept.url, kept.stamp, made, kept.keep_until, soft, used, size),
        ).lastrowid
        self._db.execute("INSERT INTO bodies VALUES (?, ?)", (number, data))
        self._db.executemany(
            "INSERT OR IGNORE INTO tags VALUES (?, ?)", [(tag, number) for tag in stored.tags]
        )

    def _make_room(self, most: int = 1000) -> None:
        """Let the least recently used go, a few at a time."""
        while most > 0 and self.totals()[1] > self._bytes_max:
            most -= _EVICTED_AT_ONCE
            with self._transaction():
                rows = self._db.execute(
                    "SELECT id FROM responses ORDER BY used LIMIT ?", (_EVICTED_AT_ONCE,)
                ).fetchall()
                over = self.totals()[1] - self._bytes_max * 49 // 50
                for (number,) in rows:
                    over -= self._delete_one(number)
                    self.evicted += 1
                    if over <= 0:
                        break
            if not rows:
                return

    def give_room(self) -> None:
        """Let a tenth go, as the disk is full or the pages are not enough: the pages that become
        free are written next.
        """
        try:
            # What is only in the log yet takes its place twice.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as wrong:
            if not is_busy(wrong) and not is_full(wrong):
                raise
        entries, _ = self.totals()
        left = max(entries // 10, _EVICTED_AT_ONCE)
        while left > 0:
            with self._transaction():
                rows = self._db.execute(
                    "SELECT id FROM responses ORDER BY used LIMIT ?", (_EVICTED_AT_ONCE,)
                ).fetchall()
                for (number,) in rows:
                    self._delete_one(number)
            self.evicted += len(rows)
            left = left - len(rows) if rows else 0

    def _delete_one(self, number: int) -> int:
        row = self._db.execute("SELECT size FROM responses WHERE id = ?", (number,)).fetchone()
        self._db.execute("DELETE FROM responses WHERE id = ?", (number,))
        return 0 if row is None else int(row[0])

    def remove(self, numbers: Iterable[int]) -> None:
        with self._transaction():
            self._db.executemany("DELETE FROM responses WHERE id = ?", [(n,) for n in numbers])

    def remove_kept(self, kept: Kept) -> None:
        slot = digest_of(kept.key.encode("utf-8", "surrogatepass"))
        with self._transaction():
            self._db.execute(
                "DELETE FROM responses WHERE slot = ? AND variant = ? AND stamp <= ?",
                (slot, _variant(kept.stored.vary), kept.stamp),
            )

    def forget(self, urls: Iterable[str]) -> None:
        """What is here under these URLs; `*` is all."""
        with self._transaction():
            for url in urls:
                if url == "*":
                    self._db.execute("DELETE FROM responses")
                else:
                    self._db.execute("DELETE FROM responses WHERE url = ?", (url,))

    def touch(self, numbers: Iterable[int], used: int) -> None:
        with self._transaction():
            self._db.executemany(
                "UPDATE responses SET used = ? WHERE id = ?", [(used, n) for n in numbers]
            )

    def sweep(self, wall: float) -> int:
        """Take away some that are over."""
        rows = self._rows("SELECT id, url FROM responses WHERE keep_until < ? LIMIT 100", wall)
        if rows:
            self.remove(number for number, _ in rows)
        return len(rows)

    # Invalidations

    def record(self, asked: Sequence[Invalidation]) -> None:
        """Written down: from here on it holds, whatever happens to this process or machine."""
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._transaction():
                self._db.executemany(
                    "INSERT OR IGNORE INTO records (stamp, said, is_done) VALUES (?, ?, 0)",
                    [(each.stamp, json.dumps(each.to_json(), sort_keys=True)) for each in asked],
                )
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    def last_stamp(self) -> int:
        """The latest of anything here: what is begun from now on is newer."""
        (last,) = self._db.execute(
            "SELECT max((SELECT coalesce(max(stamp), 0) FROM responses),"
            " (SELECT coalesce(max(stamp), 0) FROM records),"
            " (SELECT value FROM state WHERE name = 'floor'))"
        ).fetchone()
        return int(last)

    def act(self) -> int:
        """Strike what is recorded and not finished; how many responses it were."""
        struck = 0
        rows = self._db.execute("SELECT id, said FROM records WHERE is_done = 0").fetchall()
        for number, said in rows:
            asked = Invalidation.from_json(json.loads(said))
            struck += self._strike(asked)
            with self._transaction():
                self._db.execute("UPDATE records SET is_done = 1 WHERE id = ?", (number,))
        if rows:
            self._forget()
        return struck

    def _strike(self, asked: Invalidation) -> int:
        struck = 0
        for numbers in self._fitting(asked):
            with self._transaction():
                how = "DELETE FROM responses WHERE"
                if asked.soft:
                    how = "UPDATE responses SET soft = 1 WHERE soft = 0 AND"
                for number in numbers:
                    struck += self._db.execute(
                        f"{how} id = ? AND stamp < ?",
                        (number, asked.stamp),
                    ).rowcount
        return struck

    def _fitting(self, asked: Invalidation) -> Iterator[list[int]]:
        """The rows that it names, in steps."""
        fitting = Fitting(asked)
        if not Fitting.needs_all(asked):
            named: set[int] = set()
            for tag in asked.tags:
                named |= {n for (n,) in self._rows("SELECT id FROM tags WHERE tag = ?", tag)}
            for url in asked.urls:
                named |= {n for (n,) in self._rows("SELECT id FROM responses WHERE url = ?", url)}
            numbers = sorted(named)
            for start in range(0, len(numbers), _STEP):
                yield numbers[start : start + _STEP]
            return
        last = -1
        while True:
            rows = self._rows(
                "SELECT id, url FROM responses WHERE id > ? ORDER BY id LIMIT ?", last, _STEP
            )
            if not rows:
                return
            last = rows[-1][0]
            yield [
                number
                for number, url in rows
                if fitting.is_everything or fitting.fits(url, self._tags_of(number))
            ]

    def _tags_of(self, number: int) -> list[str]:
        return [tag for (tag,) in self._rows("SELECT tag FROM tags WHERE id = ?", number)]

    def _rows(self, query: str, *values: str | float) -> list[tuple[Any, ...]]:
        return self._db.execute(query, values).fetchall()

    def _hear(self) -> int:
        """Raise the barriers that others have recorded; the stamp below which all is refused."""
        rows = self._db.execute(
            "SELECT id, said FROM records WHERE id > ? ORDER BY id", (self._heard,)
        )
        for number, said in rows.fetchall():
            self._heard = number
            self._barriers.raise_for(Invalidation.from_json(json.loads(said)))
        (floor,) = self._db.execute("SELECT value FROM state WHERE name = 'floor'").fetchone()
        return int(floor)

    def _forget(self) -> None:
        with self._transaction():
            (known,) = self._db.execute("SELECT count(*) FROM records").fetchone()
            if known <= RECORDS_MAX:
                return
            rows = self._db.execute(
                "SELECT id, stamp FROM records WHERE is_done = 1 ORDER BY id LIMIT ?",
                (known - RECORDS_MAX,),
            ).fetchall()
            self._db.executemany("DELETE FROM records WHERE id = ?", [(n,) for n, _ in rows])
            floor = max((stamp for _, stamp in rows), default=0)
            self._db.execute(
                "UPDATE state SET value = max(value, ?) WHERE name = 'floor'", (floor,)
            )


class SpoiltRow(Spoilt):
    """A row whose response cannot be read."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


def _in_pages(size: int) -> int:
    """What a value of so many bytes takes of the file. A page holds whole cells only, and what is
    too long for one goes on in pages of its own (SQLite's file format, 1.5 and 1.6).
    """
    local, pages = size + 5, 0
    if local > _PAGE - 35:
        least = (_PAGE - 12) * 32 // 255 - 23
        local = least + (local - least) % (_PAGE - 4)
        if local > _PAGE - 35:
            local = least
        pages = -(-(size + 5 - local) // (_PAGE - 4))
    return pages * _PAGE + _PAGE // max((_PAGE - 8) // (local + 12), 1)


def _variant(vary: tuple[Header, ...]) -> bytes:
    return digest_of(*(part for field in vary for part in field))
