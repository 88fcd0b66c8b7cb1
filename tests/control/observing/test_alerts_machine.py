"""Figures of the machine, from what a kernel says."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest

from headgate.control.observing.machine import Machine, cpu_share, memory_of

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


def test_a_system_that_tells_nothing_has_no_figures(tmp_path):
    machine = Machine(tmp_path / "away", root=tmp_path)
    machine.take(SimpleNamespace(listeners=()))
    rows = defaultdict(list)
    machine.rows_into(rows)
    assert dict(rows) == {}


def test_this_machine_tells_all_of_them(tmp_path):
    now = [0.0]
    ends = [{"name": "shop.example", "not_after": 1000.0}, {"name": "none", "not_after": None}]
    machine = Machine(tmp_path, lambda: ends, mono=lambda: now[0], wall=lambda: 900.0)
    machine.take(SimpleNamespace(listeners=()))
    rows = defaultdict(list)
    now[0] = 5.0
    machine.rows_into(rows)
    assert rows["headgate_certificate_expiry_seconds"] == [(["shop.example"], 100)]
    assert rows["headgate_system_memory_total_bytes"][0][1] > 0
    assert rows["headgate_system_disk_free_bytes"][0][0] == [str(tmp_path)]
