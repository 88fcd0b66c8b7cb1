"""Connections to SQLite end, whoever gave them up and how often."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from headgate.db.sqlite import SqliteConnections

PATIENCE_S = 20.0


@pytest.fixture
def connections(tmp_path):
    return SqliteConnections(lambda: sqlite3.connect(tmp_path / "a.db", timeout=5.0))


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_who_is_cancelled_twice_within_a_statement_ends(connections, turns):
    async def main():
        engine = create_async_engine("sqlite+aiosqlite://", async_creator=connections.open)
        is_under_way = asyncio.Event()
        go = threading.Event()

        def held():
            loop.call_soon_threadsafe(is_under_way.set)
            go.wait(PATIENCE_S)

        async def ask():
            async with engine.connect() as db:
                raw: Any = await db.get_raw_connection()
                await raw.driver_connection.create_function("held", 0, held)
                await db.execute(sa.text("SELECT held()"))

        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(ask())
        async with asyncio.timeout(PATIENCE_S):
            await is_under_way.wait()
        for _ in range(2):
            task.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
        go.set()
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        assert done == {task}
        await engine.dispose()
        await connections.close(PATIENCE_S)

    asyncio.run(main())


def test_what_nobody_closed_is_closed_at_the_end(connections):
    async def main():
        left = [await connections.open() for _ in range(3)]
        await left[0].close()
        await left[0].close()  # told twice
        await connections.close(PATIENCE_S)
        for one in left:
            with pytest.raises((sqlite3.ProgrammingError, ValueError)):
                await one.execute("SELECT 1")
            one._thread.join(PATIENCE_S)
            assert not one._thread.is_alive()
        await connections.close(PATIENCE_S)  # nothing is left

    asyncio.run(main())


def test_one_that_cannot_be_made_is_an_error_and_leaves_no_thread(tmp_path):
    connections = SqliteConnections(lambda: sqlite3.connect(tmp_path / "no" / "a.db"))

    async def main():
        with pytest.raises(sqlite3.OperationalError):
            await connections.open()
        await connections.close(PATIENCE_S)
        assert not connections._open

    asyncio.run(main())
