from __future__ import annotations

import asyncio
import functools
import json
import sqlite3
import time
from contextlib import asynccontextmanager, closing

import pytest
import sqlalchemy as sa

from headgate_shop.base.database import Database
from headgate_shop.base.faults import Fault, Faults
from headgate_shop.base.settings import Settings
from headgate_shop.base.short_reads import AVOID_S, Prepared, SqliteReads

METADATA = sa.MetaData()
THINGS = sa.Table(
    "things",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(40), nullable=False),
    sa.Column("is_new", sa.Boolean, nullable=False),
    sa.Column("images", sa.JSON, nullable=False),
    sa.Column("price", sa.Integer),
)
ALL = Prepared(sa.select(THINGS).order_by(THINGS.c.id))
DEARER = Prepared(
    sa.select(THINGS.c.id, sa.func.coalesce(THINGS.c.price, 7)).where(
        sa.func.coalesce(THINGS.c.price, 7) > sa.bindparam("price")
    )
)
MISSING = Prepared(sa.select(sa.literal_column("x")).select_from(sa.table("nowhere")))
ROWS = [
    {"id": 1, "name": "lämp", "is_new": True, "images": ["a", "b"], "price": 5},
    {"id": 2, "name": "'; --", "is_new": False, "images": [], "price": None},
]


def in_loop(test):
    @functools.wraps(test)
    def run(**fixtures):
        async def scene():
            async with asyncio.timeout(30):
                await test(**fixtures)

        asyncio.run(scene())

    return run


@asynccontextmanager
async def opened(folder):
    database = Database(Settings("orders", folder))
    try:
        async with database.writing() as connection:
            await connection.run_sync(METADATA.create_all)
            await connection.execute(sa.insert(THINGS), ROWS)
        yield database
    finally:
        await database.close()


def without_engine(database, monkeypatch):
    def reading():
        raise AssertionError("it was read by the engine")

    monkeypatch.setattr(database, "reading", reading)


@in_loop
async def test_a_short_read_needs_no_engine(tmp_path, monkeypatch):
    async with opened(tmp_path) as database:
        without_engine(database, monkeypatch)
        assert [row[1] for row in await database.rows(ALL)] == ["lämp", "'; --"]
        assert await database.rows(DEARER, price=6) == [(2, 7)]
        assert await database.rows(DEARER, price=7) == []


@in_loop
async def test_rows_are_the_same_either_way(tmp_path):
    async with opened(tmp_path) as database:
        short = [tuple(row) for row in await database.rows(ALL)]
        assert short[0][2] is True
        assert short[0][3] == ["a", "b"]
        Faults(tmp_path, "orders").write(Fault(slow_ms=1))
        database._faults._look_again = 0.0
        assert [tuple(row) for row in await database.rows(ALL)] == short


@in_loop
async def test_what_was_committed_is_seen_at_once_and_nothing_before(tmp_path, monkeypatch):
    async with opened(tmp_path) as database:
        assert len(await database.rows(ALL)) == 2
        async with database.writing() as connection:
            await connection.execute(sa.delete(THINGS).where(THINGS.c.id == 2))
            with monkeypatch.context() as patch:
                without_engine(database, patch)  # a writer makes nobody wait
                assert len(await database.rows(ALL)) == 2
        assert len(await database.rows(ALL)) == 1


@in_loop
async def test_nothing_stays_open_after_a_read(tmp_path):
    async with opened(tmp_path) as database:
        await database.rows(ALL)
        with closing(sqlite3.connect(tmp_path / "orders.db", timeout=0)) as other:
            # The whole log can be taken back only when nobody reads from it.
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def test_it_cannot_write(tmp_path):
    reads = SqliteReads(str(tmp_path / "x.db"))
    with closing(sqlite3.connect(tmp_path / "x.db")) as other, other:
        other.execute("CREATE TABLE things (id)")
    with closing(reads._opened()) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("INSERT INTO things VALUES (1)")


def test_what_takes_long_is_left_to_the_engine_for_a_while(tmp_path):
    now = work = 0.0

    def working():
        nonlocal work
        work += 0.001  # each look at it is a millisecond of work
        return work

    reads = SqliteReads(str(tmp_path / "x.db"), longest_s=0.005, clock=lambda: now, work=working)
    counting = sa.select(sa.literal(1).label("n")).cte("counting", recursive=True)
    counting = counting.union_all(
        sa.select(counting.c.n + 1).where(counting.c.n < sa.bindparam("most"))
    )
    long = Prepared(sa.select(sa.func.count()).select_from(counting))
    try:
        assert reads.rows(long, {"most": 10}) == [(10,)]
        assert reads.rows(long, {"most": 100_000}) is None
        assert reads.rows(long, {"most": 10}) is None  # nobody can know that this one is short
        now = AVOID_S - 1
        assert reads.rows(long, {"most": 10}) is None
        now = AVOID_S
        assert reads.rows(long, {"most": 10}) == [(10,)]
    finally:
        reads.close()


@in_loop
async def test_the_engine_reads_what_was_broken_off(tmp_path):
    async with opened(tmp_path) as database:
        database._short.close()
        database._short = SqliteReads(database._short._path, work=iter(range(10**6)).__next__)
        many = [{**ROWS[0], "id": at} for at in range(10, 3000)]
        async with database.writing() as connection:
            await connection.execute(sa.insert(THINGS), many)
        assert len(await database.rows(ALL)) == 2992
        assert database._short._avoided


@in_loop
async def test_a_locked_database_is_waited_for_in_a_thread(tmp_path):
    async with opened(tmp_path) as database:
        path = tmp_path / "orders.db"
        await database.engine.dispose()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN IMMEDIATE")
            other.execute("DELETE FROM things WHERE id = 2")
            read = asyncio.get_running_loop().create_task(database.rows(ALL))
            done, _ = await asyncio.wait([read], timeout=0.2)
            assert not done
            other.execute("COMMIT")
        assert len(await read) == 1


@in_loop
async def test_what_is_wrong_is_told_as_by_the_engine(tmp_path):
    async with opened(tmp_path) as database:
        with pytest.raises(sa.exc.OperationalError, match="nowhere"):
            await database.rows(MISSING)
        with pytest.raises(sa.exc.StatementError, match="price"):
            await database.rows(DEARER)


@in_loop
async def test_a_slow_database_is_slow_here_too(tmp_path):
    Faults(tmp_path, "orders").write(Fault(database_ms=200))
    async with opened(tmp_path) as database:
        began = time.monotonic()
        assert len(await database.rows(ALL)) == 2
        assert time.monotonic() - began >= 0.2


@in_loop
async def test_after_its_end_it_can_be_read_again(tmp_path):
    async with opened(tmp_path) as database:
        await database.rows(ALL)
        await database.close()
        assert json.dumps([row[0] for row in await database.rows(ALL)]) == "[1, 2]"
