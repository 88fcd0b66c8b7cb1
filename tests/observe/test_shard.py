"""What a worker counts: bounded label sets, and no count lost when names change."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from headgate.observe import Counts, WorkerStats, histogram, merge
from headgate.observe.metrics import METRICS


def merged(*stats):
    # Through JSON, as it travels.
    return merge([json.loads(json.dumps(one.snapshot())) for one in stats])


def test_a_request_is_counted_under_its_labels():
    stats = WorkerStats("worker-0", "1")
    stats.route("api", "users").record("GET", 200, 0.012, 0.01, 5, 100)
    stats.route("api", "users").record("GET", 200, 0.012, -1.0, 0, 1)
    got = merged(stats)
    assert got.numbers["headgate_http_requests_total"] == {("api", "users", "GET", "200"): 2}
    assert got.numbers["headgate_http_request_body_bytes_total"] == {("api", "users"): 5}
    assert got.numbers["headgate_http_response_body_bytes_total"] == {("api", "users"): 101}
    duration = got.histograms["headgate_http_request_duration_seconds"]["api", "users"]
    upstream = got.histograms["headgate_upstream_duration_seconds"]["api", "users"]
    assert (sum(duration.counts), round(duration.sum, 6)) == (2, 0.024)
    assert (sum(upstream.counts), upstream.sum) == (1, 0.01)


def test_a_response_in_one_piece_took_as_long_upstream():
    stats = WorkerStats("worker-0", "1")
    route = stats.route("api", "users")
    route.record("GET", 200, 0.25, 0.25, 0, 1)
    route.record("GET", 200, 0.5, 0.125, 0, 1)
    route.record("GET", 200, 1.0, -1.0, 0, 1)
    got = merged(stats)
    duration = got.histograms["headgate_http_request_duration_seconds"]["api", "users"]
    upstream = got.histograms["headgate_upstream_duration_seconds"]["api", "users"]
    assert (sum(duration.counts), duration.sum) == (3, 1.75)
    assert (sum(upstream.counts), upstream.sum) == (2, 0.375)
    for value, counts in ((0.25, duration), (0.5, duration), (0.25, upstream), (0.125, upstream)):
        assert counts.counts[histogram.place_of(value)] == 1
    # What was read is not counted again.
    assert merged(stats).numbers == got.numbers


def test_what_clients_make_up_is_no_label():
    stats = WorkerStats("worker-0", "1")
    route = stats.route("api")
    for n in range(1000):
        route.record(f"METHOD{n}", 700 + n % 300, 0.1, -1, 0, 0)
    route.record("GET", 0, 0.1, -1, 0, 0)
    route.record("GET", -5, 0.1, -1, 0, 0)
    route.record("GET", 10**6, 0.1, -1, 0, 0)
    route.record("GET", 599, 0.1, -1, 0, 0)
    route.record("GET", 499, 0.1, -1, 0, 0)
    family = merged(stats).numbers["headgate_http_requests_total"]
    assert {labels[2:] for labels in family} == {
        ("other", "7xx"), ("other", "8xx"), ("other", "9xx"),
        ("GET", "other"), ("GET", "9xx"), ("GET", "5xx"), ("GET", "499"),
    }  # fmt: skip
    assert sum(family.values()) == 1005


def test_routes_beyond_the_bound_are_counted_together():
    stats = WorkerStats("worker-0", "1", max_sets=3)
    for n in range(6):
        stats.route(f"r{n}", "s").record("GET", 200, 0.1, -1, 0, 10)
    family = merged(stats).numbers["headgate_http_response_body_bytes_total"]
    assert family == {("r0", "s"): 10, ("r1", "s"): 10, ("r2", "s"): 10, ("other", "other"): 30}


def test_pairs_of_method_and_code_are_bounded():
    stats = WorkerStats("worker-0", "1", max_sets=1)
    route = stats.route("r")
    for status in range(200, 230):
        for method in ("GET", "POST", "PUT"):
            route.record(method, status, 0.1, -1, 0, 0)
    family = merged(stats).numbers["headgate_http_requests_total"]
    assert len(family) <= 11
    assert sum(family.values()) == 90
    assert family["r", "", "other", "other"] > 0


def test_a_plan_takes_the_places_of_routes_that_are_gone():
    stats = WorkerStats("worker-0", "1", max_sets=2)
    old = stats.route("old", "s")
    old.record("GET", 200, 0.1, 0.1, 1, 1)
    stats.route("stays", "s").record("GET", 200, 0.1, 0.1, 1, 1)
    stats.keep([("stays", "s"), ("new", "s")], [], [])
    stats.route("new", "s").record("GET", 200, 0.1, 0.1, 1, 1)
    old.record("GET", 404, 0.1, 0.1, 1, 1)  # began before the reload
    got = merged(stats)
    assert got.numbers["headgate_http_requests_total"] == {
        ("stays", "s", "GET", "200"): 1,
        ("new", "s", "GET", "200"): 1,
        ("other", "other", "GET", "200"): 1,
        ("other", "other", "GET", "404"): 1,
    }
    folded = got.histograms["headgate_http_request_duration_seconds"]["other", "other"]
    assert sum(folded.counts) == 2


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("hit"), st.integers(0, 9)),
            st.tuples(st.just("plan"), st.frozensets(st.integers(0, 9), min_size=1)),
        )
    )
)
def test_no_count_is_lost_over_any_order_of_plans(steps):
    stats = WorkerStats("worker-0", "1", max_sets=3)
    held = {}
    hits = 0
    for step, value in steps:
        if step == "plan":
            keys = [(f"r{n}", "s") for n in sorted(value)]
            stats.keep(keys, [], [])
            held.update({key: stats.route(*key) for key in keys})
        else:
            key = (f"r{value}", "s")
            held.setdefault(key, stats.route(*key)).record("GET", 200, 0.1, 0.1, 1, 2)
            hits += 1
    got = merged(stats)
    assert got.total("headgate_http_requests_total") == hits
    assert got.total("headgate_http_response_body_bytes_total") == 2 * hits
    assert len(got.numbers.get("headgate_http_requests_total", {})) <= 4


def test_an_instance_in_use_keeps_its_place():
    stats = WorkerStats("worker-0", "1", max_sets=1)
    one = stats.instance("s", "a:1")
    one.active = 1
    one.created = 5
    one.failures.add("connect")
    stats.keep([], [("s", "b:1")], [])
    assert stats.instance("s", "b:1") is stats.instance("s", "c:1")
    one.active = 0
    stats.instance("s", "b:1").created += 1
    got = merged(stats)
    assert got.total("headgate_upstream_connections_created_total") == 6
    assert got.total("headgate_upstream_failures_total", kind="connect") == 1


def test_instances_that_came_and_went_while_a_plan_stayed_do_not_pile_up():
    stats = WorkerStats("worker-0", "1")
    stats.instance("s", "stays").created += 1
    busy = stats.instance("s", "busy")
    busy.active = 1
    stats.let_go_instance("s", "busy")
    for at in range(1000):
        stats.instance("s", f"i{at}").created += 1
        stats.let_go_instance("s", f"i{at}")
        stats.let_go_instance("s", "stranger")
    got = merged(stats)
    family = "headgate_upstream_connections_created_total"
    assert got.total(family) == 1001
    assert len(got.numbers[family]) < 210
    assert got.numbers[family]["s", "stays"] == 1
    assert stats.instance("s", "busy") is busy
    # One that comes again in time goes on counting where it was, and keeps its place.
    assert stats.instance("s", "i999").created == 1
    for at in range(500):
        stats.instance("s", f"j{at}").created += 1
        stats.let_go_instance("s", f"j{at}")
    assert stats.instance("s", "i999").created == 1
    assert merged(stats).total(family) == 1501


def test_counts_are_bounded():
    counts = Counts(max_sets=2)
    for name in "abcabc":
        counts.add(name)
    assert counts.counts == {"a": 2, "b": 2, "other": 2}


def test_a_snapshot_has_only_known_families_and_is_json():
    stats = WorkerStats("worker-0", "1")
    stats.listener(":8080").refused.add("per_ip")
    stats.listener(":8080").tls_ok += 1
    stats.refused_downstream.add("bad host")
    stats.refused_upstream.add("bad length")
    stats.timeouts.add("first_byte")
    stats.filter_errors.add("Stamp")
    stats.add_source(lambda rows: rows["headgate_workers"].append(([], 2)))
    snapshot = json.loads(json.dumps(stats.snapshot()))
    assert set(snapshot["rows"]) <= set(METRICS)
    for name, rows in snapshot["rows"].items():
        for labels, _ in rows:
            assert len(labels) == len(METRICS[name].labels), name
    got = merged(stats)
    assert got.total("headgate_workers") == 2
    assert got.total("headgate_protocol_refusals_total", side="upstream") == 1
