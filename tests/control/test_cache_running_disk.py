"""Responses on the disk of a running gateway: restarts, kills, a full disk, reloads, upgrades."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.gateway.caching.disk_place import Place
from tests.control.cache_running_rig import Asking, Origin, Shop, shop, wait_until
from tests.ports import free_port

pytestmark = pytest.mark.integration

DISK: dict[str, Any] = {"disk": True}
MANY = [f"/page/{number}" for number in range(40)]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


def fill(gateway: Shop, paths: list[str]) -> None:
    for path in paths:
        assert gateway.see(path).status == 200
    gateway.wait_written(len(paths))


def test_a_restart_keeps_what_is_on_the_disk_also_when_the_state_has_moved(
    tmp_path: Path, origin: Origin
):
    with shop(tmp_path, origin, cache_store=DISK) as gateway:
        fill(gateway, MANY)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_end() == 0
        where = tmp_path / "elsewhere"
        gateway.state.path.rename(where)
        gateway.state = type(gateway.state)(where)
        gateway.write()
        gateway.start()
        assert all(gateway.see(path).is_hit for path in MANY)
        assert origin.served == len(MANY)
        # What was purged stays so over a restart too.
        gateway.post("/api/cache/purge", prefix=f"http://127.0.0.1:{gateway.port}/page/1")
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_end() == 0
        origin.version = 2
        gateway.start()
        found = Counter(gateway.see(path).version for path in MANY)
        assert found == {1: len(MANY) - 11, 2: 11}


def test_workers_killed_while_they_write_leave_nothing_garbled(tmp_path: Path, origin: Origin):
    paths = [f"/size/{1000 + 300 * number}/x" for number in range(200)]
    with shop(tmp_path, origin, cache_store={**DISK, "memory": "1MB"}) as gateway:
        with Asking(gateway.port, paths) as asking:
            for _ in range(4):
                asking.wait_for_more(100)
                gateway.kill_worker(gateway.worker_pids()[0])
            asking.wait_for_more(400)
        for _, path, got in asking.answers:
            size = int(path.split("/")[2])
            assert (got.status, len(got.body)) == (200, size)
            assert got.body.startswith(path.encode())
        # Connections that were the killed worker's are cut; nobody else notices.
        assert len(asking.failures) <= 4 * 3
        assert sum(got.is_hit for _, _, got in asking.answers) > 0
        assert gateway.lower()["away"] == 0
        assert not any("spoilt" in line for line in gateway.log)
        assert gateway.figure(
            "headgate_cache_lower_drops_total", layer="disk", reason="spoilt"
        ) == 0  # fmt: skip


def _mounted(where: Path) -> tuple[str, ...]:
    """A command before ours, by which a file system of 8 MB is there."""
    spaces = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mount = f"mount -t tmpfs -o size=8m,mode=700 none {where}"
    tried = subprocess.run(
        [*spaces, "sh", "-c", mount], capture_output=True, check=False, text=True
    )
    if tried.returncode:
        pytest.skip(f"needs a small disk of its own; run as root ({tried.stderr.strip()})")
    return (*spaces, "sh", "-c", f'{mount} && exec "$@"', "sh")


def _short_files(_where: Path) -> tuple[str, ...]:
    """A command before ours, by which files end at 4 MB: the system refuses as by a quota."""
    return ("prlimit", f"--fsize={4 * 2**20}", "--")


@pytest.mark.parametrize("room", [_mounted, _short_files], ids=["mounted", "short-files"])
def test_on_a_full_disk_what_is_there_is_served_and_purges_hold(
    tmp_path: Path, origin: Origin, room: Callable[[Path], tuple[str, ...]]
):
    paths = [f"/size/30000/{number}" for number in range(450)]
    gateway = Shop(tmp_path, origin)
    gateway.write(cache_store={**DISK, "memory": "1MB"})
    folder = gateway.state.path / "cache"
    folder.mkdir(mode=0o700, parents=True)
    gateway.state.path.chmod(0o700)
    try:
        gateway.start(prefix=room(folder))
        for _ in range(2):
            for path in paths:
                got = gateway.see(path)
                assert (got.status, len(got.body), got.version) == (200, 30_000, 1)
        wait_until(lambda: gateway.lower()["failures"] and not gateway.lower()["queued"])
        said = gateway.lower()
        assert said["away"] == 0, gateway.said
        assert said["hits"] > 20
        # It is told once, not every second.
        assert sum("make room" in line for line in gateway.log) <= 4
        origin.version = 2
        assert gateway.post("/api/cache/purge", everything="responses")["complete"]
        gateway.kill_worker(gateway.worker_pids()[0])
        assert {gateway.see(path).version for path in paths[:100]} == {2}
    finally:
        gateway.stop()


def test_reloads_change_memory_path_and_kind_while_requests_run(tmp_path: Path, origin: Origin):
    other = str(tmp_path / "other")
    stores: list[tuple[int, dict[str, Any]]] = [
        (1, {"disk": True, "memory": "1MB"}),
        (64, {"disk": {"path": other, "size": "20MB"}}),
        (2, {"disk": {"path": other, "size": "30MB"}, "memory": "2MB"}),
        (64, {}),
        (64, DISK),
    ]
    with shop(tmp_path, origin, cache_store=DISK) as gateway:
        fill(gateway, MANY)
        before = 0.0
        with Asking(gateway.port, [*MANY, *(f"/new/{n}" for n in range(200))]) as asking:
            for memory_mb, store in stores:
                gateway.reload(cache_store=store)
                gateway.wait_kinds("memory", *({"disk"} & set(store)))
                assert gateway.stores()["memory"]["bytes_max"] == 2 * memory_mb * 2**20
                asking.wait_for_more(50)
                # A counter never falls back.
                now = gateway.figure(
                    "headgate_cache_lower_reads_total", layer="disk", result="miss"
                )
                assert now >= before
                before = now
        assert asking.failures == []
        assert {(got.status, got.version) for _, _, got in asking.answers} == {(200, 1)}
        # What no route keeps any more is let go of.
        gateway.reload(cache=False, cache_store={})
        wait_until(lambda: gateway.stores()["memory"]["entries"] == 0)
        assert gateway.see(MANY[0]).said == ""


def test_a_directory_that_comes_back_serves_nothing_that_was_purged_meanwhile(
    tmp_path: Path, origin: Origin
):
    with shop(tmp_path, origin, cache_store=DISK) as gateway:
        fill(gateway, MANY)
        gateway.reload(cache_store={})
        gateway.wait_kinds("memory")
        assert Place(gateway.state.path / "cache").current() is None
        gateway.post("/api/cache/purge", everything="responses")
        origin.version = 2
        for pid in gateway.worker_pids():
            gateway.kill_worker(pid)
        gateway.reload(cache_store=DISK)
        wait_until(lambda: "disk" in gateway.stores())
        assert {gateway.see(path).version for path in MANY} == {2}


def test_an_upgrade_under_load_loses_nothing(tmp_path: Path, origin: Origin):
    with shop(tmp_path, origin, cache_store=DISK) as gateway:
        fill(gateway, MANY)
        asked = origin.served
        old = gateway.worker_pids()
        with Asking(gateway.port, MANY) as asking:
            asking.wait_for_more(50)
            done = gateway.command("upgrade")
            assert done.returncode == 0, done.stderr
            wait_until(lambda: not set(gateway.worker_pids()) & set(old))
            asking.wait_for_more(100)
        assert asking.failures == []
        assert all(got.is_hit for _, _, got in asking.answers)
        assert origin.served == asked


def test_a_drain_writes_what_waits(tmp_path: Path, origin: Origin):
    paths = [f"/size/10000/{number}" for number in range(150)]
    with shop(tmp_path, origin, cache_store=DISK) as gateway:
        for path in paths:
            gateway.see(path)
        gateway.signal(signal.SIGTERM)  # at once
        assert gateway.wait_end() == 0
        gateway.start()
        assert all(gateway.see(path).is_hit for path in paths)


def test_a_disk_that_cannot_be_used_is_told_and_fails_no_request(tmp_path: Path, origin: Origin):
    """Where a directory should be is a plain file; then it is put right."""
    (tmp_path / "state").mkdir(mode=0o700)
    blocked = tmp_path / "state" / "cache"
    blocked.write_text("not a directory")
    with shop(tmp_path, origin, cache_store=DISK) as gateway:
        assert {gateway.see(path).status for path in MANY} == {200}
        gateway.wait_lower(away=2)
        assert "cache: File exists" in gateway.lower()["why"]
        assert gateway.figure("headgate_cache_lower_away", layer="disk") == 2
        blocked.unlink()
        gateway.wait_lower(away=0)
        wait_until(lambda: gateway.see(f"/late/{time.monotonic()}") and gateway.written() > 0)


def test_two_gateways_do_not_share_a_directory_by_chance(tmp_path: Path, origin: Origin):
    """They may name the same one: then each finds its own responses, by host and port."""
    shared = {"disk": {"path": str(tmp_path / "shared"), "size": "20MB"}}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with (
        shop(tmp_path / "a", origin, cache_store=shared) as one,
        shop(tmp_path / "b", origin, cache_store=shared) as two,
    ):
        assert one.port != two.port
        fill(one, MANY)
        assert not any(two.see(path).is_hit for path in MANY)
        # And where hosts are the same, so are the responses, and a purge reaches the file.
        host = f"shop.example:{free_port()}"
        for path in MANY:
            one.see(path, host=host)
        one.wait_written(2 * len(MANY))
        assert all(two.see(path, host=host).is_hit for path in MANY)
