"""The ready-made checks, without peers: files, memory, pools and queues."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from headgate.observe import QueueMeter, Registry, health
from headgate.observe.health.machine import cgroup_limit, memory_limit
from headgate.observe.health.names import addresses_of
from headgate.observe.health.resp import parse_redis_url, read_info
from headgate.observe.health.stores import judge_info

GB = 1 << 30


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"warn_free": None, "fail_free": None, "warn_inodes": None, "fail_inodes": None}, "ok"),
        ({"warn_free": "100%", "fail_free": None, "warn_inodes": None, "fail_inodes": None}, "degraded"),
        ({"warn_free": None, "fail_free": "900TB"}, "failing"),
        ({"warn_free": None, "fail_free": None, "fail_inodes": "100%", "warn_inodes": None}, "failing"),
    ],
    ids=range(4),
)  # fmt: skip
def test_a_disk_is_judged_by_what_is_free(tmp_path, more, status):
    if more.get("fail_inodes") and not os.statvfs(tmp_path).f_files:
        status = "ok"  # a file system without a fixed number of inodes does not run out of them
    assert health.disk(tmp_path, **more)().status == status


def test_a_folder_that_cannot_be_written_fails(tmp_path):
    free: dict[str, Any] = {
        "warn_free": None,
        "fail_free": None,
        "warn_inodes": None,
        "fail_inodes": None,
    }
    place = "/proc/self" if os.path.exists("/proc/self") else tmp_path / "no"
    found = health.disk(place, **free)()
    assert found.status == "failing"
    assert "cannot be written" in found.why
    assert health.disk(place, writable=False, **free)().status == "ok"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/mine").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/mine\n")
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "bound"), [("max\n", 8 * GB), (f"{GB}\n", GB), (f"{1 << 62}\n", 8 * GB), ("", 8 * GB)]
)
def test_memory_is_bounded_by_the_control_group(root, limit, bound):
    (root / "sys/fs/cgroup/mine/memory.max").write_text(limit)
    assert memory_limit(root) == bound
    assert (cgroup_limit(root) or bound) == bound


@pytest.mark.parametrize(
    ("resident", "more", "status"),
    [
        (0.5 * GB, {}, "ok"),
        (0.81 * GB, {}, "degraded"),
        (0.96 * GB, {}, "failing"),
        (0.96 * GB, {"limit": "2GB"}, "ok"),
        (0.1 * GB, {"warn_system": "50%"}, "degraded"),
        (0.1 * GB, {"warn_system": None, "fail_system": "40%"}, "failing"),
    ],
    ids=range(6),
)
def test_memory_is_judged_against_its_bound(root, resident, more, status):
    (root / "sys/fs/cgroup/mine/memory.max").write_text(str(GB))
    assert health.memory(root=root, resident=lambda: resident, **more)().status == status


@pytest.mark.parametrize(
    ("age_s", "status"), [(0, "ok"), (120, "degraded"), (4000, "failing"), (-500, "ok")]
)
def test_a_file_is_judged_by_its_age(tmp_path, age_s, status):
    file = tmp_path / "backup"
    file.write_text("x")
    wall = file.stat().st_mtime + age_s
    check = health.file_age(file, warn_after="1min", fail_after="1h", wall=lambda: wall)
    assert check().status == status


def test_a_file_that_is_missing_or_empty_fails(tmp_path):
    file = tmp_path / "backup"
    assert "does not exist" in health.file_age(file)().why
    file.write_text("")
    assert "0 bytes" in health.file_age(file)().why


@pytest.mark.parametrize(
    ("left", "status"),
    [
        (timedelta(days=90), "ok"),
        (timedelta(days=20), "degraded"),
        (timedelta(days=2), "failing"),
        (timedelta(days=-1), "failing"),
    ],
    ids=range(4),
)
def test_a_certificate_is_judged_by_its_end(tmp_path, left, status):
    ends = datetime.now(UTC) + left
    made = trustme.CA().issue_cert(
        "localhost", not_before=ends - timedelta(days=400), not_after=ends
    )
    file = tmp_path / "cert.pem"
    file.write_bytes(made.cert_chain_pems[0].bytes())
    found = health.certificate(file)()
    assert found.status == status
    if left < timedelta():
        assert "ended" in found.why


def test_a_certificate_that_is_none_fails_with_a_reason(tmp_path):
    file = tmp_path / "cert.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")

    async def main():
        checks = health.Checks(registry=None)
        checks.add("broken", health.certificate(file))
        checks.add("missing", health.certificate(tmp_path / "no.pem"))
        return {each.name: each for each in (await checks.report()).checks}

    found = asyncio.run(main())
    assert {each.status for each in found.values()} == {"failing"}
    assert "FileNotFoundError" in found["missing"].why


class Pool:
    def __init__(self, taken: int) -> None:
        self.taken, self.asked = taken, 0
        self._max_overflow = 5

    def size(self):
        return 5

    def checkedout(self):
        return self.taken


@pytest.mark.parametrize(("taken", "status"), [(1, "ok"), (8, "degraded"), (10, "failing")])
def test_a_pool_that_is_used_up_is_told_without_asking(taken, status):
    from sqlalchemy import create_engine

    engine = create_engine("sqlite://")
    asked: list[int] = []

    def connect():
        asked.append(1)
        return engine.connect()

    fake = SimpleNamespace(pool=Pool(taken), connect=connect, dispose=engine.dispose)
    found = health.sqlalchemy(fake)()
    engine.dispose()
    assert found.status == status
    assert bool(asked) == (status != "failing")


class PsycopgPool:
    max_size = 4

    def __init__(self, available: int, *, is_async: bool) -> None:
        self.available = available
        self.queries: list[str] = []
        if is_async:
            self.getconn = self._async_getconn  # type: ignore[method-assign]
            self.connection = self._async_connection  # type: ignore[method-assign]

    def get_stats(self):
        return {"pool_size": 4, "pool_available": self.available, "pool_max": 4}

    def getconn(self):
        return self

    async def _async_getconn(self):
        return self

    def connection(self):
        pool = self

        class Held:
            def __enter__(self):
                return SimpleNamespace(execute=pool.queries.append)

            def __exit__(self, *_error):
                return False

        return Held()

    def _async_connection(self):
        pool = self

        async def execute(query):
            pool.queries.append(query)

        class Held:
            async def __aenter__(self):
                return SimpleNamespace(execute=execute)

            async def __aexit__(self, *_error):
                return False

        return Held()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("available", "status"), [(4, "ok"), (0, "failing")])
def test_pools_of_psycopg_are_asked_in_their_way(available, status, is_async):
    async def main():
        pool = PsycopgPool(available, is_async=is_async)
        checks = health.Checks(registry=None)
        checks.add("a", health.psycopg(pool))
        (found,) = (await checks.report()).checks
        assert found.status == status
        assert pool.queries == (["SELECT 1"] if status == "ok" else [])

    asyncio.run(main())


@pytest.mark.parametrize(("seconds", "status"), [(1, "ok"), (70, "degraded"), (700, "failing")])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_queue_is_judged_by_how_far_behind_it_is(seconds, status, is_async):
    async def later():
        return seconds

    async def main():
        checks = health.Checks(registry=None)
        checks.add("a", health.queue_lag(later if is_async else lambda: seconds))
        (found,) = (await checks.report()).checks
        assert (found.status, found.value) == (status, seconds)

    asyncio.run(main())


def test_a_queue_meter_tells_lag_since_the_last_check_and_depth():
    meter = QueueMeter("mail", registry=Registry())
    check = health.queue_lag(meter, warn="10s", fail="1min", warn_depth=100)
    assert check().status == "ok"
    meter.lag(20)
    meter.lag(40)
    found = check()
    assert (found.status, found.value) == ("degraded", 30)
    assert check().status == "ok"
    meter.depth.set(500)
    assert "500 items" in check().why


def test_a_loop_that_is_held_up_is_told():
    async def main():
        check = health.loop_lag(warn="300ms", fail="1h")
        await check()
        time.sleep(0.5)
        found = await check()
        assert found.status == "degraded"
        assert found.value is not None and found.value >= 300

    asyncio.run(main())


@pytest.mark.parametrize(
    ("info", "status", "words"),
    [
        ({}, "ok", ""),
        ({"used_memory": 90, "maxmemory": 100}, "degraded", "memory"),
        ({"used_memory": 99, "maxmemory": 100}, "failing", "memory"),
        ({"used_memory": 99, "maxmemory": 0}, "ok", ""),
        ({"role": "slave", "master_link_status": "down"}, "failing", "master"),
        ({"role": "slave", "master_link_status": "up", "master_last_io_seconds_ago": 60}, "degraded", "behind"),
        ({"role": "master", "slave0": "ip=10.0.0.5,port=6379,state=online,offset=1,lag=0"}, "ok", ""),
        ({"role": "master", "slave0": "ip=10.0.0.5,port=6379,state=online,offset=1,lag=99"}, "degraded", "10.0.0.5"),
        ({"role": "master", "slave0": {"ip": "a", "port": 1, "state": "wait_bgsave"}}, "degraded", "wait_bgsave"),
        ({"used_memory": "x", "maxmemory": None, "slave0": "?"}, "degraded", "unknown"),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_redis_says_of_itself_is_judged(info, status, words):
    found = judge_info(info, health.Bounds(0.8, 0.95), health.Bounds(10.0))
    assert found.status == status
    assert words in found.why


def test_info_is_read_and_addresses_too():
    assert read_info(b"# Memory\r\nused_memory:5\r\n\r\nbroken\r\n") == {"used_memory": "5"}
    found = parse_redis_url("rediss://u:p%40@cache:7000/0")
    assert (found.host, found.port, found.is_tls, found.user, found.password) == (
        "cache", 7000, True, "u", "p@",
    )  # fmt: skip
    assert "p@" not in repr(found)
    with pytest.raises(ValueError, match="address"):
        parse_redis_url("http://cache")


def test_a_name_is_looked_up_once_for_all_who_ask(monkeypatch):
    go, asked = threading.Event(), []

    def slowly(host, port, **_more):
        asked.append(host)
        assert go.wait(20)
        return [(2, 1, 6, "", ("127.0.0.9", port))]

    monkeypatch.setattr("socket.getaddrinfo", slowly)

    async def main():
        first = asyncio.create_task(addresses_of("cache", 1))
        rest = [asyncio.create_task(addresses_of("cache", 1)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        while not asked:
            await asyncio.sleep(0.005)
        go.set()
        assert await asyncio.gather(*rest) == [["127.0.0.9"]] * 5
        assert asked == ["cache"]

    asyncio.run(main())
