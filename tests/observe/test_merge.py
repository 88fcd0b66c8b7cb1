"""Merging: sums over workers, and counters that do not fall when a worker dies."""

from __future__ import annotations

import pytest

from headgate.observe import Carried, WorkerStats, merge, to_prometheus


def worker(name, start, hits, *, route="r", in_flight=0):
    stats = WorkerStats(name, start)
    stats.in_flight = in_flight
    for _ in range(hits):
        stats.route(route, "s").record("GET", 200, 0.01, 0.01, 0, 1)
    return stats.snapshot()


def test_workers_add_up():
    got = merge([worker("worker-0", "1", 2, in_flight=1), worker("worker-1", "1", 3, in_flight=2)])
    assert got.total("headgate_http_requests_total") == 5
    assert got.total("headgate_http_requests_in_flight") == 3
    key = ("r", "s")
    assert sum(got.histograms["headgate_http_request_duration_seconds"][key].counts) == 5


def test_a_dead_worker_keeps_its_counters_and_loses_its_gauges():
    carried = Carried()
    carried.take(worker("worker-0", "1", 2, in_flight=4))
    carried.take(worker("worker-1", "1", 3))
    carried.take(worker("worker-0", "2", 1))  # killed and started again
    got = carried.merged()
    assert got.total("headgate_http_requests_total") == 6
    assert got.total("headgate_http_requests_in_flight") == 0
    assert got.total("headgate_config_generation") == 0


def test_a_newer_snapshot_of_the_same_life_takes_the_place_of_the_older():
    carried = Carried()
    carried.take(worker("worker-0", "1", 2))
    carried.take(worker("worker-0", "1", 5))
    assert carried.merged().total("headgate_http_requests_total") == 5


def test_an_ended_process_is_carried_once():
    carried = Carried()
    carried.take(worker("worker-0", "1", 2))
    carried.end("worker-0")
    carried.end("worker-0")
    assert carried.merged().total("headgate_http_requests_total") == 2
    assert carried.merged().total("headgate_http_requests_total") == 2
    carried.take(worker("worker-0", "2", 1))
    assert carried.merged().total("headgate_http_requests_total") == 3


def test_merging_leaves_the_carried_sums_alone():
    carried = Carried()
    carried.take(worker("worker-0", "1", 2))
    carried.end("worker-0")
    carried.take(worker("worker-1", "1", 2))
    for _ in range(3):
        got = carried.merged().histograms["headgate_http_request_duration_seconds"]["r", "s"]
        assert sum(got.counts) == 4


def test_label_sets_beyond_the_bound_stay_where_they_were():
    carried = Carried(max_sets=2)
    for n in range(5):
        carried.take(worker(f"worker-{n}", "1", 1, route=f"r{n}"))
    name = "headgate_http_response_body_bytes_total"
    expected = {("r0", "s"): 1, ("r1", "s"): 1, ("other", "other"): 3}
    assert carried.merged().numbers[name] == expected
    carried.take(worker("worker-0", "2", 1, route="r9"))
    expected["other", "other"] += 1
    assert carried.merged().numbers[name] == expected


def test_gauges_of_places_given_back_make_room():
    carried = Carried(max_sets=1)

    def listening(start, name):
        stats = WorkerStats("worker-0", start)
        stats.listener(name).open = 1
        snapshot = stats.snapshot()
        snapshot["rows"] = {"headgate_connections": snapshot["rows"]["headgate_connections"]}
        return snapshot

    carried.take(listening("1", ":1"))
    assert carried.merged().numbers["headgate_connections"] == {(":1",): 1}
    carried.take(listening("2", ":2"))
    carried.merged()
    assert carried.merged().numbers["headgate_connections"] == {(":2",): 1}


ODD_ROWS = {
    "unknown": ("headgate_made_up", [([], 1)]),
    "labels": ("headgate_http_requests_total", [(["r"], 1)]),
    "no-number": ("headgate_http_requests_total", [(["r", "s", "GET", "200"], "many")]),
    "no-labels": ("headgate_http_requests_total", [(None, 1)]),
    "no-row": ("headgate_http_requests_total", [7]),
    "buckets": (
        "headgate_http_request_duration_seconds",
        [(["r", "s"], {"counts": [1, 2], "sum": 3.0})],
    ),
    "no-histogram": ("headgate_http_request_duration_seconds", [(["r", "s"], 3)]),
    "no-sum": ("headgate_http_request_duration_seconds", [(["r", "s"], {"counts": [0] * 122})]),
}


@pytest.mark.parametrize("odd", ODD_ROWS.values(), ids=ODD_ROWS)
def test_what_a_process_of_another_version_tells_is_left_out_and_the_rest_added_up(odd):
    name, rows = odd
    carried = Carried()
    carried.take(worker("worker-0", "1", 2))
    good = worker("worker-1", "1", 3)
    carried.take({**good, "rows": {**good["rows"], name: [*good["rows"].get(name, ()), *rows]}})
    for _ in range(2):
        got = carried.merged()
        assert got.left_out == {name}
        assert got.total("headgate_metrics_left_out") == 1
        assert got.total("headgate_http_requests_total") == 5
        counted = got.histograms["headgate_http_request_duration_seconds"]["r", "s"]
        assert sum(counted.counts) == 5
        assert "headgate_made_up" not in to_prometheus(got)
        carried.end("worker-1")  # and once it has gone
    assert merge([{"process": "p", "start": "1", "rows": {name: rows}}]).left_out == {name}


def test_nothing_left_out_is_told_too():
    carried = Carried()
    carried.take(worker("worker-0", "1", 2))
    assert carried.merged().numbers["headgate_metrics_left_out"] == {(): 0}
