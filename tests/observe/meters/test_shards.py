"""Metrics of several processes as one: living, killed, forked, spoilt, and without a disk."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from headgate.observe.meters.registry import Registry

pytestmark = pytest.mark.integration

WORKER = """
import sys, os
from headgate.observe.meters.registry import Registry
registry = Registry()
registry.counter("n", "", ("a",)).add(int(sys.argv[2]), "x")
registry.gauge("open").set(5)
registry.gauge("memory", merge="each").set(7)
registry.timer("took").observe(1)
registry.share(sys.argv[1], every_s=0.05)
print(os.getpid(), flush=True)
sys.stdin.readline()
registry["n_total"].add(100, "x")
"""


@pytest.fixture
def start():
    with ExitStack() as stack:

        def run(folder, amount):
            child = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(folder), str(amount)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

            def end():
                child.kill()
                child.wait(30)
                for pipe in (child.stdin, child.stdout):
                    if pipe is not None:
                        pipe.close()

            stack.callback(end)
            assert child.stdout is not None
            assert int(child.stdout.readline()) == child.pid
            return child

        yield run


@pytest.fixture
def shared(tmp_path):
    made = []

    def make(folder=tmp_path, **settings):
        registry = Registry()
        registry.counter("n", "", ("a",)).add(1, "x")
        made.append(registry.share(str(folder), **settings))
        return registry

    yield make
    for shards in made:
        shards.close()


def numbers(registry):
    found = {}
    for family in registry.collect():
        found[family.name] = family.numbers or {
            labels: sketch.count for labels, sketch in family.sketches.items()
        }
    return found


def test_processes_add_up_and_the_dead_keep_their_counts(tmp_path, shared, start):
    registry = shared()
    first, second = start(tmp_path, 10), start(tmp_path, 20)
    found = numbers(registry)
    assert found["n_total"] == {("x",): 31}
    assert found["open"] == {(): 10}
    assert found["memory"] == {(str(first.pid),): 7, (str(second.pid),): 7}
    assert found["took"] == {(): 2}
    assert found["observe_processes"] == {(): 3}

    first.send_signal(signal.SIGKILL)
    first.wait(30)
    second.stdin.write("\n")  # ends in an orderly way, and counts a last time
    second.stdin.flush()
    second.wait(30)
    for _ in range(3):
        found = numbers(registry)
        assert found["n_total"] == {("x",): 131}
        assert found["took"] == {(): 2}
        assert "open" not in found
        assert found["observe_processes"] == {(): 1}
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(
        ["ended.meters", "fold.lock", *(p for p in left if p.startswith(str(os.getpid())))]
    )

    third = start(tmp_path, 1000)
    assert numbers(registry)["n_total"] == {("x",): 1131}
    third.kill()
    third.wait(30)
    assert numbers(registry)["n_total"] == {("x",): 1131}


def test_a_crash_between_folding_and_removing_counts_nothing_twice(tmp_path, shared, start):
    registry = shared()
    child = start(tmp_path, 10)
    child.kill()
    child.wait(30)
    (file,) = tmp_path.glob(f"{child.pid}-*.meters")
    before = file.read_bytes()
    assert numbers(registry)["n_total"] == {("x",): 11}
    file.write_bytes(before)  # as if it had never been removed
    for _ in range(3):
        assert numbers(registry)["n_total"] == {("x",): 11}
    assert not file.exists()


def test_a_fork_begins_at_zero_with_a_file_of_its_own(tmp_path, start):
    # In a process of its own: this one has threads.
    scene = """
import os, sys, time
from headgate.observe.meters.registry import Registry
registry = Registry()
jobs = registry.counter("jobs")
jobs.inc(5)
registry.share(sys.argv[1], every_s=0.05)
read, write = os.pipe()
child = os.fork()
if not child:
    jobs.inc(2)
    registry.shards.write()
    os.write(write, b"x")
    time.sleep(60)
os.read(read, 1)
def jobs_now():
    return {f.name: f.numbers for f in registry.collect()}["jobs_total"][()]
print(jobs_now())
os.kill(child, 9)
os.waitpid(child, 0)
print(jobs_now(), jobs_now())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", scene, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["7.0", "7.0", "7.0"], done.stderr


def test_a_spoilt_file_is_moved_aside_and_counted(tmp_path, shared):
    (tmp_path / "1-dead.meters").write_bytes(b"HGMETER1 and then nothing that makes sense")
    (tmp_path / "ended.meters").write_bytes(b"\0" * 100)
    registry = shared()
    assert numbers(registry)["n_total"] == {("x",): 1}
    assert registry.shards.spoilt >= 2
    assert numbers(registry)["n_total"] == {("x",): 1}
    assert (tmp_path / "1-dead.spoilt").exists()


def test_a_folder_that_is_gone_costs_nothing_but_the_others(tmp_path, shared, caplog):
    folder = tmp_path / "gone"
    registry = shared(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    registry["n_total"].add(1, "x")
    registry.shards.write()
    registry.shards.write()
    assert registry.shards.write_failures >= 2
    assert numbers(registry)["n_total"] == {("x",): 2}
    assert sum("cannot be written" in record.message for record in caplog.records) == 1


def test_what_is_left_by_processes_killed_at_a_bad_moment_is_removed(tmp_path, shared, start):
    for name in (".1-dead.meters.1.new", "1-dead.live", ".2-young.meters.2.new", "2-young.live"):
        (tmp_path / name).write_bytes(b"")
        if "dead" in name:
            os.utime(tmp_path / name, (1, 1))
    (tmp_path / "notes.txt").write_text("not ours")
    child = start(tmp_path, 1)
    child.kill()
    child.wait(30)
    registry = shared()
    assert numbers(registry)["n_total"] == {("x",): 2}
    left = {path.name for path in tmp_path.iterdir()}
    assert not [name for name in left if "dead" in name]
    assert {".2-young.meters.2.new", "2-young.live", "notes.txt"} <= left


def test_what_is_folded_is_not_read_again_while_somebody_else_folds(tmp_path, shared, start):
    registry = shared()
    child = start(tmp_path, 10)
    child.kill()
    child.wait(30)
    (file,) = tmp_path.glob(f"{child.pid}-*.meters")
    before = file.read_bytes()
    assert numbers(registry)["n_total"] == {("x",): 11}
    file.write_bytes(before)
    with (tmp_path / "fold.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert numbers(registry)["n_total"] == {("x",): 11}
        assert file.exists()


def test_a_parent_that_dies_before_its_child_is_dead(tmp_path):
    scene = """
import os, sys
from headgate.observe.meters.registry import Registry
told, tell = os.pipe()
parent = os.fork()
if not parent:
    registry = Registry()
    registry.gauge("open").set(5)
    registry.counter("jobs").inc(3)
    registry.share(sys.argv[1], every_s=60)
    if os.fork():
        os.kill(os.getpid(), 9)
    os.read(told, 1)
    found = {f.name: f.numbers for f in registry.collect()}
    print(found["observe_processes"][()], found["open"][()], found["jobs_total"][()], flush=True)
    os._exit(0)
os.waitpid(parent, 0)
os.write(tell, b"x")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", scene, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["1", "0", "3.0"], done.stderr


def test_files_are_for_their_owner_alone(tmp_path, shared):
    folder = tmp_path / "own"
    shared(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_the_thread_writes_by_itself(tmp_path, shared):
    registry = shared(every_s=0.05)
    other = shared(every_s=60)
    registry["n_total"].add(10, "x")
    until = time.monotonic() + 30
    while numbers(other)["n_total"] != {("x",): 12}:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_ten_thousand_series_of_three_processes_are_merged(tmp_path):
    made = []
    try:
        for _ in range(3):
            registry = Registry(max_series=10_000)
            jobs = registry.counter("jobs", "", ("a",))
            for at in range(10_000):
                jobs.add(1, f"s{at}")
            made.append(registry.share(str(tmp_path), every_s=60))
        found = numbers(registry)["jobs_total"]
        assert len(found) == 10_000
        assert set(found.values()) == {3}
    finally:
        for shards in made:
            shards.close()


@pytest.mark.parametrize("every_s", [0, -1, 61, float("nan")])
def test_the_interval_is_checked(tmp_path, every_s):
    with pytest.raises(ValueError, match="every_s"):
        Registry().share(str(tmp_path), every_s=every_s)
