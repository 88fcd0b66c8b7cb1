"""The disk is full, or the file has grown to its bound: what is there goes on being of use."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from headgate.gateway.caching.disk_file import ResponseFile
from tests.gateway.caching.disk_rig import (
    MB,
    WALL,
    Invalidation,
    file_of,
    opened,
    response,
    until,
    written,
)

pytestmark = pytest.mark.integration

_TAKES = ResponseFile.put


def _full(code: int = sqlite3.SQLITE_FULL) -> sqlite3.OperationalError:
    wrong = sqlite3.OperationalError("database or disk is full")
    wrong.sqlite_errorcode = code
    return wrong


@pytest.mark.parametrize("size", [100, 1100, 1500, 2100, 3600, 4500, 6700, 20_000])
def test_what_pages_waste_counts_for_the_bound(tmp_path: Path, size: int) -> None:
    file = ResponseFile(tmp_path / "f.db", 2 * MB)
    number = 0
    while not file.evicted:
        number += 1
        assert number < 500
        file.put([response(f"{number}.{n}", "t", body=bytes(size)) for n in range(20)], number)
    file.close()
    held = sum(each.stat().st_size for each in tmp_path.glob("f.db"))
    assert 0.75 * 2 * MB < held < 1.1 * 2 * MB


def _with_room_for(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are opened from now on have no more pages."""
    whole = ResponseFile._open

    def opened_with_less(self: ResponseFile, *, is_reader: bool) -> None:
        whole(self, is_reader=is_reader)
        self._db.execute(f"PRAGMA max_page_count = {pages}")

    monkeypatch.setattr(ResponseFile, "_open", opened_with_less)


def test_on_a_full_disk_what_was_used_least_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_room_for(300, monkeypatch)

    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            path = file_of(tmp_path)
            for n in range(600):
                store.put(response(f"{n}", body=os.urandom(5000)))
                await asyncio.sleep(0)
                await until(lambda: store.snapshot().queued < 50)
            # All of them are written: those that came when it was full as well.
            await until(lambda: store.snapshot().writes == 600)
            said = store.snapshot()
            assert (said.dropped, said.is_away, said.writes) == (0, False, 600)
            assert said.failures > 0
            assert "full" in said.why
            assert await store.find("599", ()) is not None
            assert await store.find("0", ()) is None
            assert file_of(tmp_path) == path
            store.invalidate(Invalidation(everything="responses", stamp=5))
            assert await store.settle()
            await until(lambda: store.snapshot().struck)
            assert await store.find("599", ()) is None

    asyncio.run(main())


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE], ids=["disk", "quota"]
)
def test_where_no_room_can_be_made_what_is_there_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    takes_none = True

    def put(self: ResponseFile, *args: Any) -> int:
        if takes_none:
            raise _full(code)
        return _TAKES(self, *args)

    def give_room(self: ResponseFile) -> None:
        raise _full(code)

    async def main() -> None:
        nonlocal takes_none
        async with opened(tmp_path) as (store, _):
            takes_none = False
            store.put(response("a", stamp=1))
            await written(store)
            takes_none = True
            store.put(response("b", stamp=1))
            await until(lambda: store.snapshot().dropped == 1)
            store.put(response("c", stamp=1))
            assert store.snapshot().dropped == 2
            assert not store.snapshot().is_away
            assert await store.find("a", ()) is not None
            # A purge of what can still be written is no less safe for it.
            store.invalidate(Invalidation(urls=("https://h/a",), stamp=5))
            assert await store.settle()
            await until(lambda: store.snapshot().struck)
            assert await store.find("a", ()) is None
            takes_none = False

            async def is_taken() -> bool:
                store.put(response("d", stamp=6))
                return await store.find("d", ()) is not None

            async with asyncio.timeout(20):
                while not await is_taken():
                    await asyncio.sleep(0.05)

    monkeypatch.setattr(ResponseFile, "put", put)
    monkeypatch.setattr(ResponseFile, "give_room", give_room)
    asyncio.run(main())


def test_what_was_forgotten_meanwhile_is_not_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            times = 0

            def put(self: ResponseFile, batch: Any, used: int) -> int:
                nonlocal times
                times += 1
                if times == 1:
                    # It comes while the thread is at work on the batch.
                    store.forget(("https://h/a",))
                    raise _full()
                return _TAKES(self, batch, used)

            monkeypatch.setattr(ResponseFile, "put", put)
            store.put(response("a"))
            await until(lambda: times == 1)
            store.put(response("b"))
            await written(store)
            await until(lambda: times == 2)
            assert await store.find("a", ()) is None
            assert await store.find("b", ()) is not None

    asyncio.run(main())


def test_a_file_that_is_full_takes_a_purge_by_making_room_or_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = ResponseFile.record
    times = 0

    def record(self: ResponseFile, asked: Any) -> None:
        nonlocal times
        times += 1
        if times != 2:
            raise _full()
        recorded(self, asked)

    async def main() -> None:
        monkeypatch.setattr(ResponseFile, "record", record)
        async with opened(tmp_path) as (store, _):
            path = file_of(tmp_path)
            for n in range(100):
                store.put(response(f"{n}", "t", stamp=1))
            await written(store)
            store.invalidate(Invalidation(tags=("none",), stamp=5))
            assert await store.settle()
            assert times == 2
            assert file_of(tmp_path) == path
            assert await store.find("99", ()) is not None
            store.invalidate(Invalidation(tags=("t",), stamp=6))
            assert await store.settle()
        monkeypatch.undo()
        async with opened(tmp_path) as (store, _):
            assert await store.find("99", ()) is None

    asyncio.run(main())


@pytest.mark.parametrize("gives_room", [True, False], ids=["room", "none"])
def test_a_purge_that_the_last_process_did_not_finish_holds_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gives_room: bool
) -> None:
    """It is recorded, and there is no room to strike what it names."""
    acts, gives = ResponseFile.act, ResponseFile.give_room
    has_room = False

    def act(self: ResponseFile) -> int:
        if not has_room:
            raise _full()
        return acts(self)

    def give_room(self: ResponseFile) -> None:
        nonlocal has_room
        if not gives_room:
            raise _full()
        gives(self)
        has_room = True

    async def main() -> None:
        nonlocal has_room
        async with opened(tmp_path) as (store, _):
            for n in range(100):
                store.put(response(f"{n}", stamp=1))
            await written(store)
            path = file_of(tmp_path)
        file = ResponseFile(path, MB)
        file.record([Invalidation(everything="responses", stamp=5)])
        file.close()
        monkeypatch.setattr(ResponseFile, "act", act)
        monkeypatch.setattr(ResponseFile, "give_room", give_room)
        async with opened(tmp_path) as (store, _):
            # Whether it is read already or not.
            assert await store.find("99", ()) is None
            has_room |= not gives_room
            await until(lambda: not store.snapshot().is_away)
            assert await store.find("99", ()) is None
            assert (file_of(tmp_path) == path) is gives_room
            store.put(response("new", stamp=6))
            await written(store)
            assert await store.find("new", ()) is not None

    asyncio.run(main())


def test_room_is_given_also_by_a_file_with_nothing_in_it(tmp_path: Path) -> None:
    file = ResponseFile(tmp_path / "f.db", MB)
    file.give_room()
    file.put([response("a")], 1)
    file.give_room()
    assert file.totals() == (0, 0)
    assert file.find("a", (), WALL) is None
    file.close()
