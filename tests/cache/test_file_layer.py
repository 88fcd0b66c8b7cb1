"""The file layer by itself: what a cache asks of it, and what may happen to its file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from headgate.cache.barriers import Standing
from headgate.cache.codecs import Unencodable, json_codec
from headgate.cache.entry import FOREVER, Entry
from headgate.cache.file import FileLayer, open_layer
from headgate.cache.file import news as news_module
from headgate.cache.file.owed import Owed
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import Layer, LayerAway

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def opened(path: Path, **settings: Any):
    layer = open_layer(path, **settings)
    await layer.start()
    try:
        yield layer
    finally:
        await layer.close()


def made(layer: FileLayer, value: Any, **more: Any) -> Entry:
    return Entry(value, time.time(), stamp=more.pop("stamp", layer.barriers.stamp), **more)


async def values(layer: FileLayer, *keys: str) -> list[Any]:
    return [None if entry is None else entry.value for entry in await layer.get(keys)]


async def until(is_so, what: str = "it") -> None:
    """Polled, as it happens in a thread; the bound only catches a hang."""
    give_up = time.monotonic() + 15
    while not is_so():
        assert time.monotonic() < give_up, f"{what} did not come to be"
        await asyncio.sleep(0.01)


def run(coroutine) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 50))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "c.db"


def test_it_is_a_layer(path):
    async def main() -> None:
        async with opened(path) as layer:
            as_layer: Layer = layer
            assert as_layer.kind == "file"
            assert not layer.is_away
            assert layer.is_coherent(time.monotonic())

    run(main())


def test_entries_come_back_as_they_were_and_outlive_the_process(path):
    async def main() -> None:
        async with opened(path) as layer:
            entry = made(layer, {"id": 1}, tags=("t", "\ud800"), cost_s=0.5, validator='"v"')
            await layer.put({"a": entry, "ключ\0\ud800": made(layer, None, is_nothing=True)})
        async with opened(path) as layer:
            got, nothing, none = await layer.get(["a", "ключ\0\ud800", "other"])
            assert none is None
            assert got and nothing and nothing.is_nothing
            for name in Entry.__slots__:
                assert getattr(got, name) == getattr(entry, name)
            assert await layer.get([]) == []

    run(main())


def test_what_is_over_is_not_answered_and_is_swept(path):
    async def main() -> None:
        async with opened(path) as layer:
            wall = time.time()
            short = Entry(1, wall, wall + 0.05, wall + 0.1, stamp=layer.barriers.stamp)
            await layer.put({"a": short, "b": made(layer, 2)})
            await layer.put({"c": Entry(1, wall, wall - 2, wall - 1, stamp=layer.barriers.stamp)})
            await until(lambda: rows(path) == 1, "the sweep")
            assert await values(layer, "a", "b", "c") == [None, 2, None]

    def rows(path: Path) -> int:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return int(db.execute("SELECT count(*) FROM entries").fetchone()[0])

    run(main())


def test_touch_moves_the_end(path):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({"a": made(layer, 1)})
            far = time.time() + 1000
            assert await layer.touch(["a", "none"], far + 5, far) == 1
            (got,) = await layer.get(["a"])
            assert got and (got.fresh_until, got.usable_until) == (far, far + 5)
            assert await layer.touch(["a"], time.time() - 1, 0) == 1
            assert await values(layer, "a") == [None]

    run(main())


@pytest.mark.parametrize(
    "said",
    [
        Invalidation(tags=("t",)),
        Invalidation(keys=("user:1",)),
        Invalidation(patterns=("user:*",)),
        Invalidation(everything="objects"),
        Invalidation(everything="all"),
    ],
    ids=["tag", "key", "pattern", "objects", "all"],
)
def test_what_is_invalidated_is_never_answered_nor_written_back(path, said):
    async def main() -> None:
        async with opened(path) as layer, opened(path) as other:
            before = layer.barriers.stamp
            await layer.put({"user:1": made(layer, "old", tags=("t",))})
            got = await other.invalidate(said)
            assert not got.is_queued and got.stamp > before
            assert await values(layer, "user:1") == [None]
            await layer.put({"user:1": made(layer, "old", tags=("t",), stamp=before)})
            assert await values(layer, "user:1") == [None]
            assert await values(other, "user:1") == [None]
            await layer.put({"user:1": made(layer, "new", tags=("t",), stamp=got.stamp)})
            assert await values(other, "user:1") == ["new"]
        async with opened(path) as again:
            assert again.barriers.judge("user:1", ("t",), before) is Standing.DEAD
            assert await values(again, "user:1") == ["new"]

    run(main())


def test_a_soft_invalidation_makes_stale(path):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({"a": made(layer, 1, tags=("t",))})
            await layer.invalidate(Invalidation(tags=("t",), soft=True))
            (got,) = await layer.get(["a"])
            assert got and got.fresh_until <= time.time() < got.usable_until

    run(main())


def test_others_hear_it_after_their_barriers_are_raised(path):
    async def main() -> None:
        async with opened(path) as layer, opened(path) as other:
            heard: list[tuple[Invalidation, Standing]] = []
            own: list[Invalidation] = []
            end = other.listen(lambda one: heard.append((one, other.barriers.judge("k", (), 1))))
            layer.listen(own.append)
            said = Invalidation(
                tags=("t",), keys=("k",), patterns=("p*",), urls=("/x",), by="me", everything=""
            )
            stamp = (await layer.invalidate(said)).stamp
            await until(lambda: heard)
            assert heard == [(said.at(stamp), Standing.DEAD)]
            end()
            await layer.invalidate(Invalidation(everything="all", soft=True))
            await until(lambda: other.barriers.judge("z", (), stamp) is Standing.STALE)
            assert len(heard) == 1 and own == []

    run(main())


def test_an_older_load_does_not_replace_a_newer(path):
    async def main() -> None:
        async with opened(path) as layer:
            before = layer.barriers.stamp
            after = (await layer.invalidate(Invalidation(tags=("else",)))).stamp
            await layer.put({"a": made(layer, "newer", stamp=after)})
            await layer.put({"a": made(layer, "older", stamp=before)})
            assert await values(layer, "a") == ["newer"]

    run(main())


def test_a_value_may_be_changed_as_soon_as_put_waits(path):
    async def main() -> None:
        async with opened(path) as layer:
            value = [1]
            put = asyncio.ensure_future(layer.put({"a": made(layer, value)}))
            await asyncio.sleep(0)
            value.append(2)
            await put
            assert await values(layer, "a") == [[1]]
            with pytest.raises(Unencodable):
                await layer.put({"a": made(layer, object())})

    run(main())


def test_counting_is_atomic_and_ends(path):
    async def main() -> None:
        async with opened(path) as layer, opened(path) as other:
            counts = await asyncio.gather(*(each.add("n", 1, 60.0) for each in [layer, other] * 25))
            assert sorted(counts) == list(range(1, 51))
            (got,) = await layer.get(["n"])
            assert got and got.value == 50 and got.usable_until < time.time() + 61
            await layer.put({"m": made(layer, 7), "text": made(layer, "x")})
            assert await layer.add("m", -10, None) == -3
            with pytest.raises(TypeError, match="whole number"):
                await layer.add("text", 1, None)
            with pytest.raises(OverflowError, match="64 bits"):
                await layer.add("m", 2**63 + 3, None)
            await other.invalidate(Invalidation(keys=("n",)))
            assert await layer.add("n", 1, None) == 1
            assert await layer.add("brief", 5, 0.01) == 5
            await asyncio.sleep(0.02)
            assert await layer.add("brief", 5, 0.01) == 5

    run(main())


def test_a_lease_is_one_and_a_loader_that_was_overtaken_keeps_nothing(path):
    async def main() -> None:
        async with opened(path) as layer, opened(path) as other:
            first = await layer.lease("k", 0.05)
            assert first and await other.lease("k", 5) is None
            await asyncio.sleep(0.06)
            second = await other.lease("k", 5)
            assert second and second.fence > first.fence
            await layer.put({"k": made(layer, "late")}, first)
            assert await values(layer, "k") == [None]
            await layer.release(first)  # not its any more
            assert await layer.lease("k", 5) is None
            await other.put({"k": made(other, "good")}, second)
            await other.release(second)
            assert await values(layer, "k") == ["good"]
            third = await layer.lease("k", 5)
            assert third and third.fence > second.fence

    run(main())


def test_a_lease_that_nobody_waits_for_is_given_back(path):
    async def main() -> None:
        async with opened(path) as layer:
            asked = asyncio.ensure_future(layer.lease("k", 500))
            await asyncio.sleep(0)
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            give_up = time.monotonic() + 10
            while (await layer.lease("k", 500)) is None:
                assert time.monotonic() < give_up
                await asyncio.sleep(0.01)

    run(main())


@pytest.mark.parametrize("turns", range(4))
def test_cancelled_calls_harm_nobody(path, turns):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({"a": made(layer, 1)})
            calls = [
                layer.get(["a"]),
                layer.put({"b": made(layer, 2)}),
                layer.invalidate(Invalidation(tags=("t",))),
                layer.add("n", 1, None),
                layer.touch(["a"], FOREVER, FOREVER),
            ]
            tasks = [asyncio.ensure_future(call) for call in calls]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await values(layer, "a") == [1]
            assert layer._waiting == 0

    run(main())


def test_a_scan_finds_each_key_that_fits(path):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({f"user:{at}": made(layer, at) for at in range(450)})
            await layer.put(
                {"user:[x]": made(layer, 1), "users": made(layer, 1), "a": made(layer, 1)}
            )
            await layer.invalidate(Invalidation(keys=("user:7",)))
            found = [key async for key in layer.scan("user:*")]
            assert sorted(found) == sorted(
                {f"user:{at}" for at in range(450)} - {"user:7"} | {"user:[x]"}
            )
            assert [key async for key in layer.scan("*s")] == ["users"]
            assert [key async for key in layer.scan("a")] == ["a"]
            assert [key async for key in layer.scan("user:[*")] == ["user:[x]"]

    run(main())


def test_it_stays_within_its_size_and_the_longest_unused_goes(path):
    async def main() -> None:
        async with opened(path, size="1MB", zstd_above=None) as layer:
            wall = time.time()
            layer._store.wall = lambda: wall
            await layer.put({"old": made(layer, "x" * 1000)})
            for at in range(200):
                wall += 1
                await layer.put({f"k{at}": made(layer, "x" * 10_000)})
            assert await values(layer, "old", "k199") == [None, "x" * 10_000]
            assert layer._store.evicted > 90
            await layer.put({"k199": made(layer, "x" * 900_000)})
            assert await values(layer, "k199") == [None], (
                "too large: and the older one is not served"
            )
        assert path.stat().st_size < 2 * 1024 * 1024

    run(main())


def test_barriers_are_bounded_and_forgetting_them_forgets_what_they_struck(path, monkeypatch):
    monkeypatch.setattr(news_module, "BARRIERS_MAX", 100)

    async def main() -> None:
        async with opened(path) as layer, opened(path) as other:
            before = layer.barriers.stamp
            for at in range(3):
                await layer.invalidate(Invalidation(tags=tuple(f"t{at}-{n}" for n in range(60))))
            await other.put({"a": made(other, 1, tags=("t0-1",), stamp=before)})
            assert await values(other, "a") == [None]
            await until(lambda: other.barriers.floor > before)
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM barriers").fetchone()[0] <= 120

    run(main())


def test_only_its_owner_may_read_it(path):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({"a": made(layer, 1)})
            for each in path.parent.iterdir():
                assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.chmod(0o644)
        async with opened(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    run(main())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"not a database, by any means" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + os.urandom(40_000)),
    ],
    ids=["not-one", "cut", "garbled"],
)
def test_a_corrupt_file_is_set_aside_and_said(path, spoil):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({f"a{at}": made(layer, "x" * 500) for at in range(50)})
        spoil(path)
        async with opened(path) as layer:
            for at in range(50):
                try:
                    await layer.get([f"a{at}"])
                    await layer.put({f"b{at}": made(layer, at)})
                except LayerAway as error:
                    assert "corrupt" in str(error)
                    await until(lambda: not layer.is_away)
            assert Path(f"{path}.corrupt").exists()
            await layer.put({"new": made(layer, 1)})
            assert await values(layer, "new") == [1]

    run(main())


def test_a_deleted_file_is_made_anew_and_everybody_is_told(path):
    async def main() -> None:
        async with opened(path) as layer, opened(path) as other:
            stamp = layer.barriers.stamp
            await layer.put({"a": made(layer, 1)})
            gaps: list[str] = []
            layer.on_gap(
                lambda: gaps.append(
                    "layer" if layer.barriers.judge("a", (), stamp) is Standing.DEAD else "early"
                )
            )
            other.on_gap(lambda: gaps.append("other"))
            path.unlink()
            await until(lambda: sorted(gaps) == ["layer", "other"], "the gap")
            assert layer.barriers.judge("a", (), stamp) is Standing.DEAD
            await layer.put({"b": made(layer, 2)})
            assert await values(other, "a", "b") == [None, 2]
            assert sorted(gaps) == ["layer", "other"]

    run(main())


def test_a_file_locked_by_another_is_read_and_what_is_owed_is_paid(path):
    async def main() -> None:
        async with opened(path, busy="20ms") as layer:
            await layer.put({"a": made(layer, 1, tags=("t",)), "b": made(layer, 2)})
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                with pytest.raises(LayerAway, match="locked"):
                    await layer.put({"b": made(layer, 3)})
                assert await values(layer, "a") == [1], "reading goes on"
                got = await layer.invalidate(Invalidation(tags=("t",)))
                assert got.is_queued
                assert layer.barriers.judge("a", ("t",), got.stamp - 1) is Standing.DEAD
                assert layer.snapshot().queued == 2
                assert "locked" in layer.snapshot().why
                db.execute("ROLLBACK")
            await until(lambda: layer.snapshot().queued == 0, "payment")
            assert await values(layer, "a", "b") == [None, None]
            await layer.put({"b": made(layer, 3)})
            assert await values(layer, "b") == [3]

    run(main())


def test_a_full_disk_is_survived(path):
    async def main() -> None:
        async with opened(path, zstd_above=None) as layer:
            await layer.put({"a": made(layer, 1)})
            with layer._store.mutex:
                layer._store.db.execute("PRAGMA max_page_count=30")
            with pytest.raises(LayerAway, match="full"):
                for at in range(50):
                    await layer.put({f"k{at}": made(layer, "x" * 10_000)})
            assert await values(layer, "a") == [1]
            with layer._store.mutex:
                layer._store.db.execute("PRAGMA max_page_count=1000000")
            await until(lambda: layer.snapshot().queued == 0)
            await layer.put({"z": made(layer, 9)})
            assert await values(layer, "z") == [9]

    run(main())


@pytest.mark.parametrize(
    "place,why",
    [
        ("dir", "is a directory"),
        ("/proc/none/c.db", "no such file"),
        ("file/c.db", "exists|not a dir"),
    ],
    ids=["directory", "nowhere", "below-a-file"],
)
def test_a_place_that_cannot_be_used_is_away_with_the_reason(tmp_path, place, why):
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()

    async def main() -> None:
        async with opened(tmp_path / place) as layer:
            assert layer.is_away and not layer.is_coherent(time.monotonic())
            with pytest.raises(LayerAway, match=f"(?i){why}"):
                await layer.get(["a"])
            assert (await layer.invalidate(Invalidation(keys=("a",)))).is_queued

    run(main())


def test_it_comes_later_if_it_must(tmp_path):
    (tmp_path / "c.db").mkdir()

    async def main() -> None:
        async with opened(tmp_path / "c.db") as layer:
            await layer.invalidate(Invalidation(tags=("t",)))
            (tmp_path / "c.db").rmdir()
            await until(lambda: not layer.is_away and not layer.snapshot().queued)
            await layer.put({"a": made(layer, 1)})
            assert await values(layer, "a") == [1]
            assert layer.is_coherent(time.monotonic())

    run(main())


def test_a_foreign_database_is_left_alone(path):
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (a)")
        db.commit()

    async def main() -> None:
        async with opened(path) as layer:
            assert layer.is_away and "something else" in layer.snapshot().why

    run(main())
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_a_file_that_does_not_answer_slows_nobody_beyond_the_deadline(path):
    async def main() -> None:
        async with opened(path, deadline="100ms") as layer:
            layer._store.mutex.acquire()
            try:
                with pytest.raises(LayerAway, match="no answer"):
                    await layer.get(["a"])
                with pytest.raises(LayerAway, match="no answer"):
                    await layer.get(["a"])  # at once
                assert layer.is_away
                assert (await layer.invalidate(Invalidation(keys=("a",)))).is_queued
                await until(lambda: not layer.is_coherent(time.monotonic()))
            finally:
                layer._store.mutex.release()
            await until(lambda: not layer.is_away and layer.is_coherent(time.monotonic()))
            assert await values(layer, "a") == [None]

    run(main())


def test_calls_of_one_turn_are_one_batch(path):
    async def main() -> None:
        async with opened(path) as layer:
            before = layer.snapshot()
            await asyncio.gather(*(layer.get([f"k{at}"]) for at in range(100)))
            after = layer.snapshot()
            assert after.commands - before.commands == 100
            assert after.batches - before.batches == 1

    run(main())


def test_before_its_start_and_after_its_end_it_is_away(path):
    async def main() -> None:
        layer = open_layer(path)
        with pytest.raises(LayerAway, match="not started"):
            await layer.get(["a"])
        await layer.close()
        await layer.start()
        await layer.start()
        put = asyncio.ensure_future(layer.put({"a": made(layer, 1)}))
        await asyncio.sleep(0)
        await layer.close()
        await put
        with pytest.raises(LayerAway, match="not started"):
            await layer.get(["a"])
        await layer.start()
        assert await values(layer, "a") == [1]
        await layer.close()

    run(main())


@pytest.mark.parametrize(
    "settings",
    [{"size": 10}, {"size": "1 parsec"}, {"codec": "yaml"}, {"codec": "pickle"}, {"deadline": 0}],
    ids=["small", "no-size", "codec", "pickle", "deadline"],
)
def test_a_wrong_setting_is_refused(tmp_path, settings):
    with pytest.raises(ValueError):
        open_layer(tmp_path / "x", **settings)


@pytest.mark.parametrize("name", ["", ":memory:", "a\0b"], ids=["none", "memory", "nul"])
def test_a_path_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="path of a file"):
        open_layer(name)


def test_another_version_of_the_values_is_a_miss_to_both(path):
    async def main() -> None:
        async with opened(path, version="1") as old, opened(path, version="2") as new:
            await old.put({"a": made(old, 1)})
            assert await values(new, "a") == [None]
            assert await values(old, "a") == [1]
            await new.put({"a": made(new, 2)})
            assert await values(old, "a") == [None]

    run(main())


def test_what_is_owed_is_bounded():
    owed = Owed()
    owed.add_keys(f"k{at}" for at in range(10_001))
    assert [each.everything for each in owed.all()] == ["objects"]
    for at in range(2000):
        owed.add(Invalidation(tags=(f"t{at}",), stamp=at))
    assert len(owed) <= 1000
    assert any(each.everything == "all" for each in owed.all())
    owed.paid(owed.all())
    assert len(owed) == 0


FORK = """
import asyncio, os, sys, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from headgate.cache.entry import Entry
from headgate.cache.file import open_layer

layer = open_layer(sys.argv[1])

def made(value):
    return Entry(value, time.time(), stamp=layer.barriers.stamp)

async def child():
    await layer.start()
    assert [e and e.value for e in await layer.get(["a"])] == [1]
    for at in range(50):
        await layer.put({f"c{at}": made(at)})
    await layer.close()

async def before():
    await layer.start()
    await layer.put({"a": made(1)})

async def after(pid):
    for at in range(50):
        await layer.put({f"p{at}": made(at)})
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        await asyncio.sleep(0.01)
    keys = [key async for key in layer.scan("*")]
    assert len(keys) == 101, len(keys)
    await layer.close()

loop = asyncio.new_event_loop()
loop.run_until_complete(before())
pid = os.fork()
if pid == 0:
    asyncio.run(child())
    os._exit(0)
loop.run_until_complete(after(pid))
loop.close()
print("good")
"""


def test_a_process_may_fork(path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK), str(path)],
        capture_output=True,
        timeout=40,
        text=True,
    )
    assert done.stdout.strip() == "good", done.stderr
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_codec_of_ones_own_is_used(path):
    async def main() -> None:
        async with opened(path, codec=json_codec().signed(b"k" * 32)) as layer:
            await layer.put({"a": made(layer, (1, 2))})
            assert await values(layer, "a") == [(1, 2)]

    run(main())


@pytest.mark.parametrize(
    "entry",
    [Entry(1, float("nan"), stamp=1), Entry(1, 1.0, float("nan")), Entry(1, 1.0, stamp=2**63)],
    ids=["made-at", "fresh-until", "stamp"],
)
def test_an_entry_that_a_file_cannot_hold_is_refused_alone(path, entry):
    async def main() -> None:
        async with opened(path) as layer:
            good = asyncio.ensure_future(layer.put({"a": made(layer, 1)}))
            with pytest.raises(Unencodable):
                await layer.put({"b": entry})
            with pytest.raises(ValueError):
                await layer.touch(["a"], float("nan"), 1.0)
            await good
            assert await values(layer, "a", "b") == [1, None]

    run(main())


def test_a_listener_that_fails_harms_nobody(path, caplog):
    async def main() -> None:
        async with opened(path) as layer, opened(path) as other:
            heard: list[Invalidation] = []

            def fails(_: object = None) -> None:
                raise KeyError("mine")

            other.listen(fails)
            other.listen(heard.append)
            other.on_gap(fails)
            await layer.invalidate(Invalidation(tags=("t",)))
            await until(lambda: heard)
            path.unlink()
            await until(lambda: "listener of gaps failed" in caplog.text)
            assert await values(other, "a") == [None]

    run(main())


def test_a_fault_within_a_batch_leaves_no_transaction_behind(path, monkeypatch):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({"a": made(layer, 1)})

            def fails(*_: object) -> int:
                raise ZeroDivisionError

            with monkeypatch.context() as patched:
                patched.setattr("headgate.cache.file.entries.keep", fails)
                with pytest.raises(ZeroDivisionError):
                    await layer.put({"b": made(layer, 1)})
            await layer.put({"b": made(layer, 2)})
            assert await values(layer, "a", "b") == [1, 2]

    run(main())


def test_one_batch_does_not_grow_it_without_bound(path):
    async def main() -> None:
        async with opened(path, size="1MB", zstd_above=None) as layer:
            await asyncio.gather(
                *(layer.put({f"k{at}": made(layer, "x" * 200_000)}) for at in range(100))
            )
        assert path.stat().st_size < 3 * 1024 * 1024

    run(main())


@pytest.mark.parametrize("boot", [1, 0], ids=["known", "unknown"])
def test_after_the_machine_was_started_anew_nothing_older_is_served(path, monkeypatch, boot):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({"a": made(layer, 1)})
            lease = await layer.lease("k", 500)
            assert lease
        async with opened(path) as layer:
            assert await values(layer, "a") == [1]
        monkeypatch.setattr("headgate.cache.file.database.boot_id", lambda: boot)
        async with opened(path) as layer:
            assert await values(layer, "a") == [None]
            assert await layer.lease("k", 500)
            await layer.invalidate(Invalidation(tags=("t",)))
            await layer.put({"a": made(layer, 2)})
        async with opened(path) as layer:
            assert await values(layer, "a") == [2]

    run(main())


def test_a_file_that_cannot_be_written_is_read(path):
    async def main() -> None:
        async with opened(path) as layer:
            await layer.put({"a": made(layer, 1)})
            with layer._store.mutex:
                layer._store.db.execute("PRAGMA query_only=1")
            with pytest.raises(LayerAway, match="read-only"):
                await layer.add("n", 1, None)
            assert await values(layer, "a") == [1]
            assert not layer.is_away and layer.snapshot().breaker == "open"
            assert (await layer.invalidate(Invalidation(keys=("a",)))).is_queued
            with layer._store.mutex:
                layer._store.db.execute("PRAGMA query_only=0")
            await until(lambda: not layer.snapshot().queued)
            assert await values(layer, "a") == [None]
            assert await layer.add("n", 1, None) == 1

    run(main())
