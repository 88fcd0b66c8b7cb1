"""Responses on the disk: found again after a restart, bounded, and never one that was struck."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from headgate.cache.http.stored import Stored
from headgate.cache.invalidation import Invalidation
from headgate.gateway.caching import disk_file
from headgate.gateway.caching.disk_file import ResponseFile
from headgate.gateway.caching.packing import Spoilt, pack, unpack
from tests.gateway.caching.disk_rig import MB, WALL, file_of, opened, response, written

pytestmark = pytest.mark.integration


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


def test_what_is_stale_already_is_stale_on_the_disk(tmp_path: Path) -> None:
    file = ResponseFile(tmp_path / "f.db", MB)
    kept = response("a")
    kept.is_soft_struck = True
    file.put([kept], 0)
    found = file.find("a", (), WALL)
    assert found is not None
    assert found[1].is_soft_struck
    file.close()


def test_the_barriers_of_the_worker_hold_before_the_disk_has_heard(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, barriers):
            store.put(response("a", "t", stamp=3))
            await written(store)
            barriers.raise_for(Invalidation(tags=("t",), stamp=5))
            assert await store.find("a", ()) is None

    asyncio.run(main())


def test_what_is_forgotten_is_gone_from_the_disk_and_the_queue(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            store.put(response("a"))
            await written(store)
            store.put(response("a", body=b"in the queue"))
            store.forget(("https://h/a",))
            await written(store)
            assert await store.find("a", ()) is None
            store.put(response("a", body=b"new"))
            await written(store)
            assert await store.find("a", ()) is not None

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


def test_what_is_forgotten_is_not_found_while_the_disk_is_busy(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (store, _):
            store.put(response("a"))
            store.put(response("b"))
            await written(store)
            held = sqlite3.connect(file_of(tmp_path), isolation_level=None)
            held.execute("BEGIN IMMEDIATE")
            try:
                begun = asyncio.ensure_future(store.find("a", ()))
                await asyncio.sleep(0)
                store.forget(("https://h/a",))
                assert await begun is None
                assert await store.find("a", ()) is None
                assert await store.find("b", ()) is not None
            finally:
                held.execute("ROLLBACK")
                held.close()
            await written(store)
            store.put(response("a", body=b"new"))
            await written(store)
            again = await store.find("a", ())
            assert again is not None
            assert again.body == b"new"

    asyncio.run(main())


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
