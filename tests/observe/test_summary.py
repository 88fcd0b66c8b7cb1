from __future__ import annotations

import pytest

from headgate.observe import Latency, WorkerStats, merge, summarise


def test_routes_are_summed_up_busiest_first():
    stats = WorkerStats("worker-0", "1")
    for n in range(100):
        stats.route("busy", "s").record("GET", 503 if n < 5 else 200, 0.001 * (n + 1), 0.001, 1, 2)
    stats.route("idle", "").record("GET", 404, 0.5, -1.0, 0, 0)
    busy, idle = summarise(merge([stats.snapshot()]))
    assert (busy.route, busy.requests, busy.server_errors, busy.client_errors) == (
        "busy",
        100,
        5,
        0,
    )
    assert (busy.bytes_in, busy.bytes_out) == (100, 200)
    assert busy.duration.p50_s == pytest.approx(0.050, rel=0.06)
    assert busy.duration.p99_s == pytest.approx(0.099, rel=0.06)
    assert busy.duration.mean_s == pytest.approx(0.0505)
    assert (idle.client_errors, idle.upstream) == (1, Latency(None, None, None, None))
