"""Figures of the machine, from what a kernel says."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from headgate.config import Config
from headgate.control.observing.machine import Machine, cpu_share, memory_of, usable_cpus
from headgate.observe import new_rows

NO_LISTENERS = Config.model_construct(listeners=())
MEMINFO = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n"


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ([0] * 10, [30, 0, 20, 40, 10, 0, 0, 0, 0, 0], 0.5),
        ([5] * 10, [5] * 10, None),
        ([], [], None),
        ([0] * 8, [0, 0, 0, 100, 0, 0, 0, 0], 0.0),
        ([9] * 8, [0] * 8, None),
    ],
    ids=["half", "no_time", "nothing", "idle", "backwards"],
)
def test_processor_use_is_of_the_time_between(before, after, share):
    assert cpu_share(before, after) == share


@pytest.mark.parametrize(
    ("most", "current", "inactive", "expected"),
    [
        ("", "", 0, (1024000, 409600)),
        ("max\n", "5", 0, (1024000, 409600)),
        ("500000\n", "200000\n", 50000, (500000, 350000)),
        ("99999999", "5", 0, (1024000, 409600)),
        ("500000", "600000", 0, (500000, 0)),
    ],
    ids=["no_group", "unbound", "bound", "bound_above", "over"],
)
def test_memory_is_of_the_smaller_bound(most, current, inactive, expected):
    assert memory_of(MEMINFO, most, current, inactive) == expected


@pytest.mark.parametrize(
    ("affinity", "quota", "usable"),
    [
        (0, "", 8.0),
        (4, "", 4.0),
        (8, "max 100000\n", 8.0),
        (8, "150000 100000\n", 1.5),
        (1, "300000 100000", 1.0),
        (16, "900000 100000", 8.0),
        (8, "5 0", 8.0),
        (8, "nonsense", 8.0),
    ],
    ids=["unknown", "affinity", "no_quota", "quota", "both", "more", "no_period", "nonsense"],
)
def test_usable_processors_are_those_that_affinity_and_quota_leave(affinity, quota, usable):
    assert usable_cpus(8, affinity, quota) == usable


def test_load_processors_and_uptime_are_read_as_the_kernel_writes_them(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/stat").write_text("cpu  9 0 9 9\ncpu0 9 0 9 9\ncpu1 9 0 9 9\nintr 5 6\n")
    (tmp_path / "proc/loadavg").write_text("0.50 1.25 2.00 3/400 12345\n")
    (tmp_path / "proc/uptime").write_text("3600.25 7000.00\n")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    machine = Machine(tmp_path, root=tmp_path)
    machine.look()
    rows = new_rows()
    machine.rows_into(rows)
    assert rows["headgate_system_cpus"] == [([], 2)]
    assert rows["headgate_system_cpus_usable"] == [([], 0.5)]
    assert rows["headgate_system_load"] == [(["1m"], 0.5), (["5m"], 1.25), (["15m"], 2.0)]
    assert rows["headgate_system_uptime_seconds"] == [([], 3600.25)]
    (tmp_path / "proc/loadavg").write_text("what\n")
    machine.look()
    rows = new_rows()
    machine.rows_into(rows)
    assert not rows["headgate_system_load"]
    assert rows["headgate_system_cpus"]


def test_a_system_that_tells_nothing_has_no_figures(tmp_path):
    machine = Machine(tmp_path / "away", root=tmp_path)
    machine.take(NO_LISTENERS)
    machine.look()
    rows = new_rows()
    machine.rows_into(rows)
    assert not any(rows.values())


def test_this_machine_tells_all_of_them(tmp_path):
    now = [0.0]
    ends: list[dict[str, object]] = [
        {"name": "shop.example", "not_after": 1000.0},
        {"name": "none", "not_after": None},
    ]
    machine = Machine(tmp_path, lambda: ends, mono=lambda: now[0], wall=lambda: 900.0)
    machine.take(NO_LISTENERS)
    machine.look()
    rows = new_rows()
    now[0] = 5.0
    machine.rows_into(rows)
    assert rows["headgate_certificate_expiry_seconds"] == [(["shop.example"], 100)]
    assert rows["headgate_system_memory_total_bytes"][0][1] > 0
    assert rows["headgate_system_disk_free_bytes"][0][0] == [str(tmp_path)]
    now[0] = 40.0
    rows = new_rows()
    machine.rows_into(rows)
    assert not any(rows.values())


def test_a_disk_that_hangs_holds_up_no_snapshot_and_is_told(tmp_path, monkeypatch):
    released, hung = threading.Event(), threading.Event()
    real = os.statvfs

    def hangs(path: Any) -> Any:
        hung.set()
        released.wait(60.0)
        return real(path)

    now = [0.0]
    monkeypatch.setattr(os, "statvfs", hangs)
    machine = Machine(tmp_path, mono=lambda: now[0])

    async def whole() -> None:
        machine.start()
        try:
            machine.take(NO_LISTENERS)
            assert await asyncio.to_thread(hung.wait, 20.0)
            rows = new_rows()
            machine.rows_into(rows)
            assert not any(rows.values())
            assert not list(machine.worries())
            now[0] = 31.0
            assert "does not answer" in next(iter(machine.worries()))
        finally:
            released.set()
            async with asyncio.timeout(20.0):
                while list(machine.worries()):
                    await asyncio.sleep(0.01)
            await machine.close()
        rows = new_rows()
        machine.rows_into(rows)
        assert rows["headgate_system_disk_free_bytes"]

    asyncio.run(whole())
