"""Several processes on one file: nobody serves what was invalidated, whoever is killed or stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headgate.cache.entry import Entry
from headgate.cache.file import open_layer
from headgate.cache.invalidation import Invalidation
from headgate.cache.layer import LayerAway

pytestmark = pytest.mark.integration

BOUND_S = 0.1

# Keeps what it reads in memory, as a first layer does, and serves it while the layer is coherent
# and no barrier stands on it. Every value says when it was made; after each invalidation of its tag
# the test notes when that returned. The machine's monotonic clock is one for all.
READER = """
import asyncio, json, sys, time
from headgate.cache.barriers import Standing
from headgate.cache.entry import Entry
from headgate.cache.file import open_layer
from headgate.cache.layer import LayerAway

path, ends_at = sys.argv[1], float(sys.argv[2])

async def main():
    layer = open_layer(path)
    await layer.start()
    held, gaps = {}, []
    layer.on_gap(held.clear)
    served = fresh = incoherent = 0
    worst = {}
    while time.monotonic() < ends_at:
        for key in ("a", "b", "c"):
            now = time.monotonic()
            if not layer.is_coherent(now):
                held.clear()
                incoherent += 1
            entry = held.get(key)
            if entry is not None:
                if layer.barriers.judge(key, entry.tags, entry.stamp) is not Standing.ALIVE:
                    entry = held.pop(key) and None
                else:
                    fresh += 1
            if entry is None:
                stamp = layer.barriers.stamp
                try:
                    (entry,) = await layer.get([key])
                    if entry is None:
                        made = Entry(time.monotonic(), time.time(), stamp=stamp, tags=("t:" + key,))
                        await asyncio.sleep(0.001)
                        await layer.put({key: made})
                        continue
                    held[key] = entry
                except LayerAway:
                    continue
            served += 1
            print(json.dumps([key, entry.value, now]))
        await asyncio.sleep(0.0005)
    print(json.dumps({"served": served, "from_memory": fresh, "incoherent": incoherent}))
    await layer.close()

asyncio.run(main())
"""


def reader(path: Path, ends_at: float, out: Path) -> subprocess.Popen[str]:
    with out.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-c", READER, str(path), str(ends_at)], stdout=file, text=True
        )


@pytest.mark.parametrize("trouble", ["none", "kill", "stop"])
def test_no_process_serves_what_was_invalidated_later_than_the_bound(tmp_path, trouble):
    path = tmp_path / "c.db"
    ends_at = time.monotonic() + 4.5
    outs = [tmp_path / f"out{at}" for at in range(4)]
    readers = [reader(path, ends_at, out) for out in outs]
    rng = random.Random(5)
    returned: dict[str, list[tuple[float, float]]] = {"a": [], "b": [], "c": []}

    async def invalidate() -> None:
        layer = open_layer(path)
        await layer.start()
        await asyncio.sleep(1.0)
        while time.monotonic() < ends_at - 0.3:
            key = rng.choice("abc")
            asked = time.monotonic()
            got = await layer.invalidate(Invalidation(tags=(f"t:{key}",)))
            if not got.is_queued:
                returned[key].append((asked, time.monotonic()))
            await asyncio.sleep(rng.random() * 0.05)
            if trouble == "stop" and rng.random() < 0.1:
                readers[0].send_signal(signal.SIGSTOP)
                await asyncio.sleep(0.15)
                readers[0].send_signal(signal.SIGCONT)
            if trouble == "kill" and rng.random() < 0.1:
                readers[0].kill()
                await asyncio.sleep(0.02)
        await layer.close()

    try:
        asyncio.run(asyncio.wait_for(invalidate(), 40))
        for each in readers:
            each.wait(timeout=20)
    finally:
        for each in readers:
            if each.poll() is None:
                each.send_signal(signal.SIGCONT)
                each.kill()
                each.wait()
    memory = served = 0
    for out in outs:
        for line in out.read_text().splitlines():
            with contextlib.suppress(ValueError):  # cut by a kill
                said = json.loads(line)
                if isinstance(said, dict):
                    memory += said["from_memory"]
                    continue
                key, made_at, at = said
                served += 1
                for asked, done in returned[key]:
                    # What was made before an invalidation was asked for is not served when it has
                    # returned longer ago than the bound.
                    assert not (made_at < asked and at > done + BOUND_S), (key, at - done)
    assert served > 200 and memory > 100
    assert sum(map(len, returned.values())) > 10
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


WRITER = """
import asyncio, os, sys, time
from headgate.cache.entry import Entry
from headgate.cache.file import open_layer
from headgate.cache.layer import LayerAway

async def main():
    layer = open_layer(sys.argv[1], size="1MB", zstd_above=None)
    await layer.start()
    print("up", flush=True)
    at = 0
    while True:
        at += 1
        try:
            await asyncio.gather(*(
                layer.put({f"{os.getpid()}:{at}:{n}": Entry("x" * 3000, time.time(), stamp=layer.barriers.stamp)})
                for n in range(5)
            ), layer.add("n", 1, None))
        except LayerAway:
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


def test_writers_that_are_killed_leave_a_file_that_is_whole(tmp_path):
    path = tmp_path / "c.db"
    rng = random.Random(6)
    for _ in range(4):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for each in writers:
            assert each.stdout is not None
            assert each.stdout.readline() == b"up\n"
        time.sleep(rng.random() * 0.3)
        for each in writers:
            each.send_signal(signal.SIGKILL)
            each.wait()
            assert each.stdout is not None
            each.stdout.close()

    async def main() -> None:
        layer = open_layer(path, size="1MB")
        await layer.start()
        assert not layer.is_away
        found = [key async for key in layer.scan("*")]
        assert len(found) > 5
        assert await layer.add("n", 1, None) > 1
        await layer.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert not Path(f"{path}.corrupt").exists()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        ((kept,),) = db.execute("SELECT sum(size) FROM entries")
        ((said,),) = db.execute("SELECT value FROM meta WHERE name = 'bytes'")
        assert kept == said <= 1024 * 1024 * 1.1


def test_a_stopped_writer_with_the_lock_makes_nobody_wait(tmp_path):
    path = tmp_path / "c.db"
    holder = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""

    async def main() -> None:
        layer = open_layer(path, busy="50ms")
        await layer.start()
        await layer.put({"a": Entry(1, time.time(), stamp=layer.barriers.stamp)})
        process = subprocess.Popen(
            [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout and process.stdin
            assert process.stdout.readline() == b"held\n"
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(LayerAway, match="locked"):
                await layer.add("n", 1, None)
            with pytest.raises(LayerAway, match="locked"):
                await layer.add("n", 1, None)
            (got,) = await layer.get(["a"])
            assert got and got.value == 1
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
            process.stdin.close()  # type: ignore[union-attr]
        give_up = time.monotonic() + 10
        while True:
            try:
                assert await layer.add("n", 1, None) == 1
                break
            except LayerAway:
                assert time.monotonic() < give_up
                await asyncio.sleep(0.02)
        await layer.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_several_processes_may_find_it_corrupt_at_once(tmp_path):
    path = tmp_path / "c.db"
    path.write_bytes(os.urandom(20_000))
    ends_at = time.monotonic() + 3
    outs = [tmp_path / f"out{at}" for at in range(3)]
    readers = [reader(path, ends_at, out) for out in outs]
    for each in readers:
        assert each.wait(timeout=20) == 0
    for out in outs:
        assert json.loads(out.read_text().splitlines()[-1])["served"] > 0
    assert Path(f"{path}.corrupt").stat().st_size == 20_000
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
