"""Responses on the disk: found again after anything, and never half of one."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headgate.cache.barriers import Barriers
from headgate.cache.http.stored import Stored
from headgate.cache.http.vary import normal
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching import disk_file
from headgate.gateway.caching.disk import DiskStore
from headgate.gateway.caching.disk_file import ResponseFile
from headgate.gateway.caching.disk_place import Place, Unusable
from headgate.gateway.caching.packing import Spoilt, pack, unpack
from headgate.gateway.caching.store import Kept
from headgate.wire.message import Header

pytestmark = pytest.mark.integration

MB = 1024 * 1024
WALL = 1_000_000.0


def response(
    key: str,
    *tags: str,
    body: bytes = b"body",
    stamp: int = 0,
    fields: tuple[Header, ...] = (),
    names: tuple[bytes, ...] = (),
    at: float = WALL,
) -> Kept:
    stored = Stored(
        200,
        b"OK",
        ((b"content-type", b"text/html"), (b"x-raw", b"\xff\x80")),
        received_at=at,
        initial_age_s=0.0,
        fresh_s=60.0,
        etag=b'W/"1"',
        last_modified=5.0,
        vary=normal(names, fields),
        stripped_fields=frozenset({b"set-cookie"}),
        tags=tags,
    )
    return Kept(
        key,
        f"https://h/{key}",
        stored,
        body,
        ((b"x-trailer", b"1"),),
        stamp=stamp,
        keep_until=at + 3600.0,
    )


async def until(holds: Callable[[], Any]) -> None:
    """Wait for a thread to come round to it."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def opened(
    where: Path, bytes_max: int = 8 * MB, *, wall: float = WALL
) -> AsyncIterator[tuple[DiskStore, Barriers]]:
    # No bound that a busy machine could reach: what is late is a test of its own.
    store, barriers = (
        DiskStore(where, bytes_max, wall=lambda: wall, deadline_s=20),
        Barriers("responses"),
    )
    await store.start(barriers)
    try:
        yield store, barriers
    finally:
        await store.close()


async def written(store: DiskStore) -> None:
    await until(lambda: store.snapshot().queued == 0)
    # The batch that was taken last is over when the thread answers.
    assert await store.settle()


def file_of(where: Path) -> Path:
    path = Place(where).current()
    assert path is not None
    return path


def test_a_response_is_the_same_after_packing() -> None:
    kept = response(
        "a", "t", body=bytes(range(256)), stamp=9, fields=((b"x", b"1"),), names=(b"x",)
    )
    again = unpack(pack(kept))
    for name in ("key", "url", "body", "trailers", "stamp", "keep_until", "is_soft_struck"):
        assert getattr(again, name) == getattr(kept, name)
    for name in Stored.__slots__:
        assert getattr(again.stored, name) == getattr(kept.stored, name), name


def test_no_cut_and_no_flipped_bit_is_taken_for_a_response() -> None:
    data = pack(response("a", "t"))
    for end in range(len(data)):
        with pytest.raises(Spoilt):
            unpack(data[:end])
    for at in range(len(data)):
        with pytest.raises(Spoilt):
            unpack(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
    with pytest.raises(Spoilt):
        unpack(data + b"x")


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "new" / "dir") as (store, _):
            store.put(response("a", "t", body=b"one"))
        async with opened(tmp_path / "new" / "dir") as (store, _):
            found = await store.find("a", ())
            assert found is not None
            assert found.body == b"one"
            assert found.stored.tags == ("t",)
            assert await store.find("b", ()) is None
            assert (store.snapshot().hits, store.snapshot().misses) == (1, 1)

    asyncio.run(main())
    assert (tmp_path / "new" / "dir").stat().st_mode & 0o777 == 0o700
    assert file_of(tmp_path / "new" / "dir").stat().st_mode & 0o777 == 0o600


def test_variants_are_told_apart(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            for said in (b"de", b"fr"):
                fields = ((b"accept-language", said),)
                store.put(response("a", body=said, fields=fields, names=(b"accept-language",)))
            await written(store)
            for said in (b"de", b"fr"):
                found = await store.find("a", ((b"accept-language", said),))
                assert found is not None
                assert found.body == said
            assert await store.find("a", ()) is None

    asyncio.run(main())


def test_variants_of_one_key_are_bounded(tmp_path: Path) -> None:
    file = ResponseFile(tmp_path / "f.db", 8 * MB)
    for n in range(60):
        file.put([response("a", fields=((b"x", b"%d" % n),), names=(b"x",))], n)
    assert file.totals()[0] == 50
    assert file.find("a", ((b"x", b"9"),), WALL) is None
    assert file.find("a", ((b"x", b"59"),), WALL) is not None
    file.put([response("a")], 61)
    assert file.totals()[0] == 1
    file.close()


def test_the_bytes_are_bounded_and_the_least_used_go(tmp_path: Path) -> None:
    file = ResponseFile(tmp_path / "f.db", MB)
    for n in range(40):
        file.put([response(f"{n}", body=bytes(20_000))], n)
    found = file.find("0", (), WALL)
    assert found is not None
    file.touch([found[0]], 1000)
    for n in range(40, 80):
        file.put([response(f"{n}", body=bytes(20_000))], n)
        assert file.totals()[1] <= MB
    assert file.find("0", (), WALL) is not None
    assert file.find("1", (), WALL) is None
    assert file.evicted == 80 - file.totals()[0]
    assert (tmp_path / "f.db").stat().st_size <= 4 * MB
    file.close()


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(Invalidation(tags=("red",)), id="tag"),
        pytest.param(Invalidation(urls=("https://h/a",)), id="url"),
        pytest.param(Invalidation(urls=("/a*",)), id="path"),
        pytest.param(Invalidation(urls=("https://h/a*",)), id="prefix"),
    ],
)
def test_a_purge_holds_also_after_a_restart(tmp_path: Path, asked: Invalidation) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, barriers):
            store.put(response("a", "red", stamp=3))
            store.put(response("b", "blue", stamp=3))
            await written(store)
            store.invalidate(asked.at(5))
            assert await store.settle()
            # What was begun before it, and comes late.
            store.put(response("a", "red", stamp=4))
            assert barriers.stamp == 0
        async with opened(tmp_path) as (store, barriers):
            assert barriers.stamp == 5
            assert await store.find("a", ()) is None
            assert await store.find("b", ()) is not None
            store.put(response("a", "red", stamp=4))
            store.put(response("a", "red", body=b"new", stamp=barriers.stamp))
            await written(store)
            found = await store.find("a", ())
            assert found is not None
            assert found.body == b"new"

    asyncio.run(main())


def test_a_soft_purge_leaves_it_stale(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            store.put(response("a", "t", stamp=3))
            await written(store)
            store.invalidate(Invalidation(tags=("t",), soft=True, stamp=5))
            assert await store.settle()
        async with opened(tmp_path) as (store, _):
            found = await store.find("a", ())
            assert found is not None
            assert found.is_soft_struck

    asyncio.run(main())


def test_the_barriers_of_the_worker_hold_before_the_disk_has_heard(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, barriers):
            store.put(response("a", "t", stamp=3))
            await written(store)
            barriers.raise_for(Invalidation(tags=("t",), stamp=5))
            assert await store.find("a", ()) is None

    asyncio.run(main())


def test_another_worker_cannot_write_what_this_one_has_struck(tmp_path: Path) -> None:
    one, two = (ResponseFile(tmp_path / "f.db", MB) for _ in range(2))
    two.put([response("x", stamp=1)], 0)
    one.record([Invalidation(tags=("t",), stamp=5)])
    one.act()
    assert two.put([response("a", "t", stamp=4), response("b", stamp=4)], 0) == 1
    assert one.find("a", (), WALL) is None
    assert one.find("b", (), WALL) is not None
    one.close()
    two.close()


def test_what_was_recorded_but_not_acted_on_is_acted_on_by_the_next(tmp_path: Path) -> None:
    one = ResponseFile(tmp_path / "f.db", MB)
    one.put([response(f"{n}", "t", stamp=1) for n in range(500)], 0)
    one.record([Invalidation(tags=("t",), stamp=5)])
    one.close()
    two = ResponseFile(tmp_path / "f.db", MB)
    assert two.act() == 500
    assert two.act() == 0
    assert two.totals() == (0, 0)
    two.close()


def test_records_are_bounded_and_what_is_older_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_file, "RECORDS_MAX", 10)
    file = ResponseFile(tmp_path / "f.db", MB)
    file.put([response("kept", stamp=1)], 0)
    for n in range(2, 32):
        file.record([Invalidation(tags=(f"t{n}",), stamp=n)])
        file.act()
    # Forgotten up to 21: begun before that, it might have been struck.
    assert file.put([response("late", stamp=20), response("new", stamp=21)], 0) == 1
    assert file.find("kept", (), WALL) is not None
    assert file.last_stamp() == 31
    file.close()


def test_what_is_over_or_from_the_future_is_a_miss_and_goes(tmp_path: Path) -> None:
    file = ResponseFile(tmp_path / "f.db", MB)
    file.put([response("a")], 0)
    assert file.find("a", (), WALL + 3601.0) is None
    assert file.find("a", (), WALL - 3600.0) is None
    assert file.sweep(WALL) == 0
    assert file.sweep(WALL + 3601.0) == 1
    assert file.totals() == (0, 0)
    file.close()


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
from test_disk import response, Barriers, DiskStore, MB, WALL, Invalidation

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
    code = _WRITER.format(tests=str(Path(__file__).parent), where=str(tmp_path))
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
