"""The disk in trouble: spoilt, vanished, full, slow, and writers that are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from headgate.cache.barriers import Barriers
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching import disk_file, disk_writer
from headgate.gateway.caching.disk import DiskStore
from headgate.gateway.caching.disk_file import ResponseFile
from headgate.gateway.caching.disk_place import Place, Unusable
from tests.gateway.caching.disk_rig import MB, WALL, file_of, opened, response, until, written

pytestmark = pytest.mark.integration


def test_a_garbled_response_is_a_miss_and_taken_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            store.put(response("a"))
            store.put(response("b"))
            await written(store)
            with sqlite3.connect(file_of(tmp_path)) as db:
                db.execute("UPDATE bodies SET data = substr(data, 1, 60) WHERE id = 1")
            db.close()
            assert await store.find("a", ()) is None
            assert await store.find("b", ()) is not None
            await until(lambda: store.snapshot().spoilt == 1)
            await until(lambda: store.snapshot().entries == 1)
            assert not store.snapshot().is_away

    asyncio.run(main())


@pytest.mark.parametrize("how", ["garbage", "truncated", "empty", "middle"])
def test_a_spoilt_file_is_begun_anew(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            for n in range(50):
                store.put(response(f"{n}", body=random.Random(n).randbytes(20_000)))
        path = file_of(tmp_path)
        data = path.read_bytes()
        if how == "garbage":
            path.write_bytes(random.Random(1).randbytes(len(data)))
        elif how == "truncated":
            path.write_bytes(data[: len(data) // 2])
        elif how == "empty":
            path.write_bytes(b"")
        else:
            path.write_bytes(data[:8192] + random.Random(2).randbytes(len(data) - 8192))
        async with opened(tmp_path) as (store, _):
            for n in range(50):
                found = await store.find(f"{n}", ())
                if found is not None:
                    assert found.body == random.Random(n).randbytes(20_000)
            await until(lambda: not store.snapshot().is_away)
            store.put(response("new"))
            for _ in range(200):
                if await store.find("new", ()) is not None:
                    break
                store.put(response("new"))
                await asyncio.sleep(0.05)
            assert await store.find("new", ()) is not None

    asyncio.run(main())


def test_a_vanished_directory_is_made_again(tmp_path: Path) -> None:
    where = tmp_path / "set"

    async def main() -> None:
        async with opened(where) as (store, _):
            store.put(response("a"))
            await written(store)
            for path in where.iterdir():
                path.unlink()
            where.rmdir()
            async with asyncio.timeout(20):
                while not where.exists() or await store.find("b", ()) is None:
                    store.put(response("b"))
                    await asyncio.sleep(0.05)
            assert await store.find("a", ()) is None

    asyncio.run(main())


def test_a_place_that_cannot_be_used_is_a_miss_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")

    async def main() -> None:
        async with opened(tmp_path / "file") as (store, _):
            assert store.snapshot().is_away
            store.put(response("a"))
            assert await store.find("a", ()) is None
            assert store.snapshot().dropped == 1
            store.invalidate(Invalidation(tags=("t",), stamp=5))
            assert not await store.settle()

    asyncio.run(main())
    assert len([line for line in caplog.messages if "out of use" in line]) == 1


def test_a_directory_of_another_user_is_declined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(Unusable, match="change its owner"):
        Place(tmp_path).prepare()


def test_a_directory_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Place(tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_files_that_nobody_names_are_removed_after_a_while(tmp_path: Path) -> None:
    place = Place(tmp_path)
    used = place.claim()
    other = tmp_path / "responses-v0-0123456789abcdef.db"
    foreign = tmp_path / "notes.db"
    for path in (other, foreign):
        path.write_bytes(b"")
    written_at = other.stat().st_mtime
    place.remove_strays(written_at + 10.0)
    assert other.exists()
    place.remove_strays(written_at + 7200.0)
    assert not other.exists()
    assert foreign.exists()
    assert used.exists()


def test_a_queue_that_is_full_drops_and_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            held = sqlite3.connect(file_of(tmp_path), isolation_level=None)
            held.execute("BEGIN IMMEDIATE")
            try:
                for n in range(1500):
                    store.put(response(f"{n}"))
                assert store.snapshot().queued <= 1000
                assert store.snapshot().dropped >= 400
                # Readers are not kept waiting by whoever writes.
                assert await store.find("a", ()) is None
            finally:
                held.execute("ROLLBACK")
                held.close()

    asyncio.run(main())


def test_a_response_that_is_too_large_is_dropped(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path, MB) as (store, _):
            store.put(response("a", body=bytes(MB // 2)))
            assert store.snapshot().dropped == 1

    asyncio.run(main())


def test_a_full_disk_costs_what_it_costs_and_no_purge_is_lost(tmp_path: Path) -> None:
    file = ResponseFile(tmp_path / "f.db", 4 * MB)
    file._db.execute("PRAGMA max_page_count = 300")
    with pytest.raises(sqlite3.OperationalError):
        for n in range(1000):
            file.put([response(f"{n}", body=bytes(5000))], n)
    assert file.find("0", (), WALL) is not None
    file.close()


def test_a_purge_that_cannot_be_written_takes_the_file_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def record(self: ResponseFile, asked: list[Invalidation]) -> None:
        raise full

    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            store.put(response("a", "t", stamp=1))
            await written(store)
            monkeypatch.setattr(ResponseFile, "record", record)
            store.invalidate(Invalidation(tags=("t",), stamp=5))
            assert await store.settle()
            monkeypatch.undo()
        async with opened(tmp_path) as (store, _):
            assert await store.find("a", ()) is None

    asyncio.run(main())


def test_a_purge_does_not_wait_for_a_process_that_was_stopped_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_file, "_BUSY_S", 0.05)
    monkeypatch.setattr(disk_writer, "_BUSY_MAX_S", 0.0)

    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            store.put(response("a", "t", stamp=1))
            await written(store)
            held = sqlite3.connect(file_of(tmp_path), isolation_level=None)
            held.execute("BEGIN IMMEDIATE")
            store.invalidate(Invalidation(tags=("t",), stamp=5))
            assert await store.settle()
            held.execute("ROLLBACK")
            held.close()
        async with opened(tmp_path) as (store, _):
            assert await store.find("a", ()) is None

    asyncio.run(main())


def test_two_workers_go_on_with_the_same_new_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (one, _), opened(tmp_path) as (two, _):
            one.put(response("a"))
            await written(one)
            assert await two.find("a", ()) is not None
            path = file_of(tmp_path)
            for part in ("", "-wal", "-shm"):
                path.with_name(path.name + part).write_bytes(b"spoilt" * 10_000)
            async with asyncio.timeout(30):
                while await two.find("b", ()) is None or file_of(tmp_path) == path:
                    one.put(response("b"))
                    await asyncio.sleep(0.05)
            two.put(response("c"))
            await written(two)
            async with asyncio.timeout(30):
                while await one.find("c", ()) is None:
                    await asyncio.sleep(0.05)

    asyncio.run(main())


def test_a_read_that_is_late_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def find(self: ResponseFile, *_: Any) -> None:
        release.wait(20)

    async def main() -> None:
        store = DiskStore(tmp_path, MB, wall=lambda: WALL, deadline_s=0.02)
        await store.start(Barriers("responses"))
        monkeypatch.setattr(ResponseFile, "find", find)
        try:
            assert await store.find("a", ()) is None
            assert store.snapshot().failures == 1
        finally:
            release.set()
            await store.close()

    asyncio.run(main())


def test_a_caller_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            asking = asyncio.create_task(store.find("a", ()))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: store._waiting == 0)
            assert await store.find("a", ()) is None

    asyncio.run(main())


_WRITER = """
import asyncio, random, sys
sys.path.insert(0, {tests!r})
from tests.gateway.caching.disk_rig import response, Barriers, DiskStore, MB, WALL, Invalidation

async def main():
    store = DiskStore({where!r}, 2 * MB, wall=lambda: WALL, deadline_s=20)
    await store.start(Barriers("responses"))
    number, seed = 0, int(sys.argv[1])
    while True:
        number += 1
        name = random.Random(seed * 100_000 + number).randrange(60)
        size = random.Random(name).randrange(60_000)
        store.put(response(str(name), "t", body=random.Random(name).randbytes(size), stamp=number))
        if number % 50 == 0:
            store.invalidate(Invalidation(tags=("none",), stamp=number))
        print(number, flush=True)
        await asyncio.sleep(0)

asyncio.run(main())
"""


def test_writers_that_are_killed_leave_only_whole_responses(tmp_path: Path) -> None:
    code = _WRITER.format(tests=str(Path(__file__).parents[3]), where=str(tmp_path))
    found = 0
    for turn in range(4):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(2 * turn + n)], stdout=subprocess.PIPE
            )
            for n in range(2)
        ]
        for writer in writers:
            with writer:
                assert writer.stdout is not None
                for _ in range(100 + 37 * turn):
                    assert writer.stdout.readline()
                writer.send_signal(signal.SIGKILL)

        async def look() -> int:
            seen = 0
            async with opened(tmp_path, 2 * MB) as (store, _):
                for name in range(60):
                    kept = await store.find(str(name), ())
                    if kept is not None:
                        size = random.Random(name).randrange(60_000)
                        assert kept.body == random.Random(name).randbytes(size)
                        seen += 1
                assert store.snapshot().spoilt == store.snapshot().failures == 0
            return seen

        found += asyncio.run(look())
    assert found > 0
