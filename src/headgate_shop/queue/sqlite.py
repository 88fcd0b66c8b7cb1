"""The queue in one SQLite file that all services share; the default.

Theory of operation
-------------------
A message has one row in `message` and one in `delivery` for each of its groups. A delivery's row
goes when that group is done, and the message stays, without its body, for as long as its id must
be known: publishing it again does nothing.

Ready ones are found by one index in the order of priority and age; those whose time may come, by
another one in the order of that time. Counts are kept by triggers, so a bound costs no counting.
All processes are on one machine and share its clock. What is told to be done is on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from headgate_shop.queue.desk import Desk
from headgate_shop.queue.home import (
    Again,
    Bury,
    DeadLetter,
    Put,
    Take,
    Taken,
    TopicStats,
    Verdict,
)
from headgate_shop.queue.message import Outgoing, wall_time
from headgate_shop.queue.nudges import Nudges

__all__ = ["SqliteHome"]

READY, DELAYED, IN_FLIGHT, DEAD = range(4)
REMEMBER_S: Final = 86_400.0
BUCKET_S: Final = 10
PURGE_ROWS: Final = 1_000
VERSION: Final = 1

SCHEMA: Final = (
    """CREATE TABLE message (
        id TEXT PRIMARY KEY, topic TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL,
        awaited INTEGER NOT NULL, done_at REAL)""",
    "CREATE INDEX message_done ON message (done_at) WHERE done_at IS NOT NULL",
    """CREATE TABLE delivery (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL REFERENCES message (id),
        grp TEXT NOT NULL, topic TEXT NOT NULL, at REAL NOT NULL, priority INTEGER NOT NULL,
        state INTEGER NOT NULL, due REAL NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
        claim INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '')""",
    "CREATE UNIQUE INDEX delivery_id ON delivery (grp, id)",
    "CREATE INDEX delivery_next ON delivery (grp, state, priority DESC, number)",
    "CREATE INDEX delivery_due ON delivery (grp, state, due, number)",
    "CREATE TABLE held (grp TEXT PRIMARY KEY, count INTEGER NOT NULL)",
    """CREATE TRIGGER delivery_in AFTER INSERT ON delivery BEGIN
        INSERT INTO held VALUES (new.grp, 1)
            ON CONFLICT (grp) DO UPDATE SET count = count + 1;
    END""",
    """CREATE TRIGGER delivery_out AFTER DELETE ON delivery BEGIN
        UPDATE held SET count = count - 1 WHERE grp = old.grp;
        UPDATE message SET awaited = awaited - 1 WHERE id = old.id;
    END""",
    """CREATE TABLE tally (
        grp TEXT, topic TEXT, bucket INTEGER, published INTEGER NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (bucket, grp, topic)) WITHOUT ROWID""",
    f"PRAGMA user_version = {VERSION}",
)

log = logging.getLogger("headgate_shop.queue")


class SqliteHome:
    kind = "sqlite"

    def __init__(self, path: Path, *, limit: int, wall: Callable[[], float] = wall_time) -> None:
        self.limit = limit
        self._path = path.absolute()
        self._wall = wall
        self._desk = Desk(self._path, self._prepare)
        self._nudges = Nudges(self._path.with_name(f"{self._path.name}.wake"))
        self._told: Callable[[str], None] = lambda _group: None

    def on_nudge(self, told: Callable[[str], None]) -> None:
        self._told = told

    # ---- life

    async def open(self, groups: Sequence[str]) -> None:
        self._desk.start()
        for group in groups:
            try:
                self._nudges.listen(group, self._told)
            except OSError as error:
                log.warning("%s: nobody can wake %s; it polls: %s", self._path, group, error)
        await self.ping()

    async def close(self) -> None:
        self._nudges.close()
        await self._desk.close()

    async def ping(self) -> None:
        """A write, if of nothing: a read would not notice a folder that is read-only, or a lock."""
        await self._desk.write(
            lambda db: db.execute("INSERT INTO held VALUES ('', 0) ON CONFLICT DO NOTHING")
        )

    def _prepare(self, db: sqlite3.Connection) -> None:
        with self._alone():
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA journal_size_limit = 16777216")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == VERSION:
                return
            if version:
                raise sqlite3.DatabaseError(
                    f"its tables are of version {version}, and this program knows {VERSION}"
                )
            db.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                db.execute(statement)
            db.execute("COMMIT")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While processes start together, they prepare the file one after the other."""
        try:
            lock = self._path.with_name(f"{self._path.name}.opening").open("w")
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # ---- in

    async def put(self, messages: Sequence[tuple[Outgoing, tuple[str, ...]]]) -> Put:
        now = self._wall()

        def work(db: sqlite3.Connection) -> Put:
            for index, (message, groups) in enumerate(messages):
                full = self._put(db, message, groups, now)
                if full:
                    return Put(index, full)
            return Put(len(messages))

        put = await self._desk.write(work)
        self._nudges.send({group for _, groups in messages[: put.accepted] for group in groups})
        return put

    def _put(
        self, db: sqlite3.Connection, message: Outgoing, groups: tuple[str, ...], now: float
    ) -> str:
        """The group that has no room, or nothing."""
        if db.execute("SELECT 1 FROM message WHERE id = ?", (message.id,)).fetchone():
            return ""
        for group in groups:
            held = db.execute("SELECT count FROM held WHERE grp = ?", (group,)).fetchone()
            if held is not None and held[0] >= self.limit:
                return group
        db.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, NULL)",
            (message.id, message.topic, message.body, message.at, len(groups)),
        )
        state = DELAYED if message.due > now else READY
        for group in groups:
            db.execute(
                "INSERT INTO delivery (id, grp, topic, at, priority, state, due)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    message.id,
                    group,
                    message.topic,
                    message.at,
                    message.priority,
                    state,
                    message.due,
                ),
            )
            _count(db, group, message.topic, "published", now)
        return ""

    # ---- out

    async def take(self, group: str, topics: Sequence[str], count: int, lease_s: float) -> Take:
        now = self._wall()
        marks = ",".join("?" * len(topics))

        def is_any(db: sqlite3.Connection) -> bool:
            return (
                db.execute(
                    f"SELECT 1 FROM delivery WHERE grp = ? AND state = {READY}"  # noqa: S608
                    f" AND topic IN ({marks}) LIMIT 1",
                    (group, *topics),
                ).fetchone()
                is not None
                or _next_due(db, group) <= now
            )

        def work(db: sqlite3.Connection) -> Take:
            db.execute(
                f"UPDATE delivery SET state = {READY}"  # noqa: S608 - numbers of ours
                f" WHERE grp = ? AND state IN ({DELAYED}, {IN_FLIGHT}) AND due <= ?",
                (group, now),
            )
            rows = db.execute(
                "SELECT d.number, d.id, d.topic, m.body, d.at, d.attempt + 1, d.claim + 1"  # noqa: S608
                " FROM delivery d JOIN message m ON m.id = d.id"
                f" WHERE d.grp = ? AND d.state = {READY} AND d.topic IN ({marks})"
                " ORDER BY d.priority DESC, d.number LIMIT ?",
                (group, *topics, count),
            ).fetchall()
            db.executemany(
                f"UPDATE delivery SET state = {IN_FLIGHT}, due = ?, attempt = ?, claim = ?"  # noqa: S608
                " WHERE number = ?",
                [(now + lease_s, row[5], row[6], row[0]) for row in rows],
            )
            taken = tuple(
                Taken(row[1], group, row[2], row[3], row[4], row[5], f"{row[0]}:{row[6]}")
                for row in rows
            )
            return Take(taken, self._wait(db, group))

        # Most looks find nothing, and a look that only reads disturbs nobody.
        if await self._desk.read(is_any):
            return await self._desk.write(work)
        return Take((), await self._desk.read(lambda db: self._wait(db, group)))

    def _wait(self, db: sqlite3.Connection, group: str) -> float | None:
        due = _next_due(db, group)
        return None if due == float("inf") else max(0.0, due - self._wall())

    async def renew(self, taken: Sequence[Taken], lease_s: float) -> frozenset[str]:
        until = self._wall() + lease_s

        def work(db: sqlite3.Connection) -> frozenset[str]:
            lost = set()
            for one in taken:
                number, _, claim = one.claim.partition(":")
                # A lease that ended, and that nobody has taken since, is taken back.
                found = db.execute(
                    f"UPDATE delivery SET state = {IN_FLIGHT}, due = ?"  # noqa: S608
                    f" WHERE number = ? AND claim = ? AND state IN ({READY}, {IN_FLIGHT})",
                    (until, number, claim),
                )
                if not found.rowcount:
                    lost.add(one.claim)
            return frozenset(lost)

        return await self._desk.write(work)

    async def finish(self, taken: Taken, verdict: Verdict) -> bool:
        number, _, claim = taken.claim.partition(":")
        now = self._wall()

        def work(db: sqlite3.Connection) -> bool:
            mine = f"number = ? AND claim = ? AND state IN ({READY}, {IN_FLIGHT})"
            if isinstance(verdict, Again):
                uncounted = 0 if verdict.is_counted else 1
                state = DELAYED if verdict.delay_s > 0 else READY
                found = db.execute(
                    "UPDATE delivery SET state = ?, due = ?, error = ?, attempt = attempt - ?,"  # noqa: S608
                    f" claim = claim + 1 WHERE {mine}",
                    (state, now + verdict.delay_s, verdict.error, uncounted, number, claim),
                )
                if found.rowcount and verdict.is_counted:
                    _count(db, taken.group, taken.topic, "failed", now)
            elif isinstance(verdict, Bury):
                found = db.execute(
                    f"UPDATE delivery SET state = {DEAD}, due = ?, error = ?, claim = claim + 1"  # noqa: S608
                    f" WHERE {mine}",
                    (now, verdict.error, number, claim),
                )
                if found.rowcount:
                    _count(db, taken.group, taken.topic, "failed", now)
            else:
                found = db.execute(f"DELETE FROM delivery WHERE {mine}", (number, claim))  # noqa: S608
                if found.rowcount:
                    _release(db, taken.id, now)
                    _count(db, taken.group, taken.topic, "done", now)
            return bool(found.rowcount)

        is_done = await self._desk.write(work)
        if is_done and isinstance(verdict, Again) and verdict.delay_s <= 0:
            self._nudges.send((taken.group,))
        return is_done

    # ---- looking

    async def stats(self) -> list[TopicStats]:
        now = self._wall()
        first = int(now // BUCKET_S) - 6

        def work(db: sqlite3.Connection) -> list[TopicStats]:
            figures: dict[tuple[str, str], dict[str, float]] = {}
            for grp, topic, state, count, oldest in db.execute(
                "SELECT grp, topic, state, COUNT(*), MIN(at) FROM delivery GROUP BY 1, 2, 3"
            ):
                row = figures.setdefault((grp, topic), {})
                row[("ready", "delayed", "in_flight", "dead")[state]] = count
                if state != DEAD:
                    row["oldest_s"] = max(row.get("oldest_s", 0.0), now - oldest)
            for grp, topic, *counts in db.execute(
                "SELECT grp, topic, SUM(published), SUM(done), SUM(failed) FROM tally"
                " WHERE bucket >= ? AND bucket < ? GROUP BY 1, 2",
                (first, first + 6),
            ):
                row = figures.setdefault((grp, topic), {})
                for name, count in zip(("published", "done", "failed"), counts, strict=True):
                    row[f"{name}_per_s"] = count / (6 * BUCKET_S)
            return [TopicStats(*key, **row) for key, row in figures.items()]  # type: ignore[arg-type] # counts are whole

        return await self._desk.read(work)

    async def dead(self, group: str, limit: int, after: str) -> list[DeadLetter]:
        def work(db: sqlite3.Connection) -> list[DeadLetter]:
            last = db.execute(
                "SELECT due, number FROM delivery WHERE grp = ? AND id = ?", (group, after)
            ).fetchone() or (-1.0, 0)
            rows = db.execute(
                "SELECT d.id, d.grp, d.topic, m.body, d.at, d.due, d.attempt, d.error"  # noqa: S608
                f" FROM delivery d JOIN message m ON m.id = d.id WHERE d.grp = ? AND state = {DEAD}"
                " AND (d.due, d.number) > (?, ?) ORDER BY d.due, d.number LIMIT ?",
                (group, *last, limit),
            )
            return [DeadLetter(*row) for row in rows]

        return await self._desk.read(work)

    async def redrive(self, group: str, message_id: str | None) -> int:
        which, values = _which(group, message_id)

        def work(db: sqlite3.Connection) -> int:
            return db.execute(
                f"UPDATE delivery SET state = {READY}, attempt = 0, error = '' WHERE {which}",  # noqa: S608
                values,
            ).rowcount

        count = await self._desk.write(work)
        self._nudges.send((group,))
        return count

    async def drop(self, group: str, message_id: str) -> int:
        which, values = _which(group, message_id)
        now = self._wall()

        def work(db: sqlite3.Connection) -> int:
            count = db.execute(f"DELETE FROM delivery WHERE {which}", values).rowcount  # noqa: S608
            if count:
                _release(db, message_id, now)
            return count

        return await self._desk.write(work)

    async def purge(self) -> int:
        now = self._wall()

        def work(db: sqlite3.Connection) -> int:
            db.execute("DELETE FROM tally WHERE bucket < ?", (int(now // BUCKET_S) - 60,))
            return db.execute(
                "DELETE FROM message WHERE id IN"
                " (SELECT id FROM message WHERE done_at < ? ORDER BY done_at LIMIT ?)",
                (now - REMEMBER_S, PURGE_ROWS),
            ).rowcount

        return await self._desk.write(work)


def _which(group: str, message_id: str | None) -> tuple[str, tuple[str, ...]]:
    if message_id is None:
        return f"grp = ? AND state = {DEAD}", (group,)
    return f"grp = ? AND state = {DEAD} AND id = ?", (group, message_id)


def _next_due(db: sqlite3.Connection, group: str) -> float:
    due = float("inf")
    for state in (DELAYED, IN_FLIGHT):  # one look into the index each
        found = db.execute(
            "SELECT MIN(due) FROM delivery WHERE grp = ? AND state = ?", (group, state)
        ).fetchone()[0]
        if found is not None:
            due = min(due, found)
    return due


def _release(db: sqlite3.Connection, message_id: str, now: float) -> None:
    """When no group awaits it any more, only its id is kept."""
    db.execute(
        "UPDATE message SET done_at = ?, body = '' WHERE id = ? AND awaited <= 0",
        (now, message_id),
    )


def _count(db: sqlite3.Connection, group: str, topic: str, what: str, now: float) -> None:
    db.execute(
        f"INSERT INTO tally (bucket, grp, topic, {what}) VALUES (?, ?, ?, 1)"  # noqa: S608
        f" ON CONFLICT (bucket, grp, topic) DO UPDATE SET {what} = {what} + 1",
        (int(now // BUCKET_S), group, topic),
    )
