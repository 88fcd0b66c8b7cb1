"""Who calls whom: reports in, figures out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headgate.control.admin.mesh_report import MeshReport
from headgate.control.topology import Topology, gateway_edges
from headgate.control.topology_edges import (
    AGE_S,
    PLACES,
    PROCESSES_MAX,
    REFUSALS_MAX,
    SLOT_S,
    SLOTS,
    BreakerSaid,
    EdgeFigures,
    EdgeReport,
    Edges,
    RefusalSaid,
    Report,
)
from headgate.observe import Rows, merge, to_prometheus
from headgate.observe.histogram import SHOWN_BOUNDS, empty


def edge(to="users", requests=10, errors=0, place=5, retries=0) -> EdgeReport:
    buckets = [0] * PLACES
    buckets[place] = requests
    return EdgeReport(to, requests, errors, retries, 0, tuple(buckets), 0.008 * requests)


def report(*edges: EdgeReport, source="orders", process="p", breakers=()) -> Report:
    return Report(source, process, 5.0, edges, tuple(breakers))


def percentiles(found: EdgeFigures) -> list[float]:
    """Those that are known."""
    return [each for each in (found.p50_s, found.p95_s, found.p99_s) if each is not None]


def test_counts_of_all_processes_add_up_and_percentiles_are_of_all():
    edges = Edges()
    edges.take(report(edge(requests=90, place=5), process="a"), 100.0)
    edges.take(report(edge(requests=10, errors=5, place=8, retries=3), process="b"), 101.0)
    (found,) = edges.figures(102.0)
    assert (found.source, found.destination) == ("orders", "users")
    assert (found.requests, found.errors, found.retries) == (100, 5, 3)
    assert found.error_rate == 0.05
    assert percentiles(found)[0] < SHOWN_BOUNDS[5] <= percentiles(found)[1] <= SHOWN_BOUNDS[8]
    assert found.requests_per_s > 0


def test_rates_and_percentiles_are_of_the_last_minutes_and_totals_of_all_time():
    edges = Edges()
    edges.take(report(edge(requests=1000, errors=1000, place=12)), 0.0)
    later = SLOT_S * (SLOTS + 1)
    edges.take(report(edge(requests=30, place=2)), later)
    (found,) = edges.figures(later + 1)
    assert (found.requests, found.errors) == (1030, 1000)
    assert found.error_rate == 0.0
    assert percentiles(found)[2] <= SHOWN_BOUNDS[2]
    assert found.requests_per_s == pytest.approx(30 / (SLOT_S * SLOTS), rel=0.1)


def test_a_steady_rate_is_shown_as_what_it_is_from_early_on():
    edges = Edges()
    for at in range(20):
        edges.take(report(edge(requests=50)), 1000.0 + 5 * at)
        shown = edges.figures(1000.0 + 5 * at)[0].requests_per_s
    assert 5 < shown <= 12


def test_an_edge_of_which_nothing_is_heard_is_forgotten():
    edges = Edges()
    edges.take(report(edge()), 0.0)
    edges.take(report(edge("pay")), AGE_S - 1)
    assert [each.destination for each in edges.figures(AGE_S + 1)] == ["pay"]


def test_edges_beyond_the_bound_are_counted_under_other_and_nothing_is_lost():
    edges = Edges(edges_max=3)
    for at in range(10):
        edges.take(report(edge(f"s{at}", requests=2)), 1.0)
    found = edges.figures(2.0)
    assert len(found) == 4
    assert sum(each.requests for each in found) == 20
    assert edges.overflowed == 7
    other = next(each for each in found if each.source == "other")
    assert (other.destination, other.requests) == ("other", 14)


def test_breakers_are_counted_by_state_and_forgotten_with_their_process():
    said = [BreakerSaid("users", "users", "open")]
    edges = Edges()
    edges.take(report(edge(), process="a", breakers=said), 0.0)
    edges.take(report(edge(), process="b", breakers=said), 0.0)
    assert edges.figures(1.0)[0].breakers == {"open": 2}
    edges.take(report(edge(), process="a"), 2.0)
    assert edges.figures(3.0)[0].breakers == {"open": 1}
    assert edges.figures(60.0)[0].breakers == {}


def test_refusals_are_added_up_bounded_and_recorded_within_reason():
    recorded: list[Any] = []
    told: list[Any] = []
    now = [9.0]
    topology = Topology(
        clock=lambda: now[0],
        record=lambda *said, **more: recorded.append((said, more)),
        tell=lambda *said, **more: told.append(said),
    )
    said = RefusalSaid("orders", "default", "strict", 2)
    for at in range(30):
        now[0] = 9.0 + 5 * at
        topology.hear(Report("users", "p", 5.0, (), (), (said,)))
    (found,) = topology.refusals()
    assert (found.source, found.destination, found.count) == ("orders", "users", 60)
    assert len(recorded) == len(told) == 3  # at once, and each minute
    assert recorded[0][0] == ("mesh.refused", "orders")
    assert told[0] == ("mesh", "orders is refused by users")
    many = tuple(RefusalSaid(f"s{at}", "rule", "permissive", 1) for at in range(100))
    topology.hear(Report("users", "p", 5.0, (), (), many))
    assert len(told) == 23
    edges = Edges()
    for at in range(REFUSALS_MAX + 5):
        one = RefusalSaid(f"s{at}", "rule", "permissive", 1)
        edges.take(Report("users", "p", 5.0, (), (), (one,)), 1.0)
    held = edges.refusals(2.0)
    assert len(held) == REFUSALS_MAX + 1
    assert sum(each.count for each in held) == REFUSALS_MAX + 5


def test_processes_are_bounded():
    edges = Edges()
    said = [BreakerSaid("users", "users", "open")]
    for at in range(PROCESSES_MAX + 10):
        edges.take(report(process=f"p{at}", breakers=said), 0.0)
    assert len(edges._processes) == PROCESSES_MAX


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_in_whatever_order_and_whenever_it_comes_no_count_is_lost(seed, count):
    rng = random.Random(seed)
    edges, now, total = Edges(edges_max=5), 0.0, 0
    for _ in range(count):
        now += rng.random() * 20
        requests = rng.randrange(50)
        total += requests
        said = edge(f"s{rng.randrange(8)}", requests, place=rng.randrange(PLACES))
        edges.take(report(said, source=f"c{rng.randrange(3)}"), now)
    found = edges.figures(now)
    if now < AGE_S:
        assert sum(each.requests for each in found) == total
    for each in found:
        assert percentiles(each) == sorted(percentiles(each))


def test_metrics_are_those_of_the_edges():
    topology = Topology(clock=lambda: 5.0)
    topology.hear(report(edge(requests=4, errors=1, place=5, retries=2)))
    rows: Rows = {}
    stats = {"rows": rows, "process": "control", "start": "1"}
    for name in (
        "headgate_mesh_requests_total",
        "headgate_mesh_errors_total",
        "headgate_mesh_retries_total",
        "headgate_mesh_duration_seconds",
        "headgate_mesh_edges",
        "headgate_mesh_edges_overflowed_total",
        "headgate_mesh_refused_total",
    ):
        rows[name] = []
    topology.rows_into(rows)
    text = to_prometheus(merge([stats]))
    labels = 'source="orders",destination="users"'
    assert f"headgate_mesh_requests_total{{{labels}}} 4" in text
    assert f"headgate_mesh_errors_total{{{labels}}} 1" in text
    assert f'headgate_mesh_duration_seconds_bucket{{{labels},le="0.005"}} 0' in text
    assert f'headgate_mesh_duration_seconds_bucket{{{labels},le="0.01"}} 4' in text
    assert f"headgate_mesh_duration_seconds_count{{{labels}}} 4" in text


def test_what_passes_the_gateway_is_an_edge_of_its_own():
    counts = empty()
    counts[40] = 8
    rows = {
        "headgate_http_requests_total": [
            (["api", "users", "GET", "200"], 7),
            (["web", "users", "GET", "502"], 1),
            (["", "", "GET", "404"], 3),
        ],
        "headgate_upstream_duration_seconds": [(["api", "users"], {"counts": counts, "sum": 0.1})],
        "headgate_upstream_retries_total": [(["users", "http://u:1"], 2)],
        "headgate_breaker_state": [(["users", "", "open"], 1), (["users", "", "closed"], 0)],
    }
    merged = merge([{"rows": rows}])
    (found,) = gateway_edges(merged, {("api", "users"): 2.0, ("web", "users"): 0.5}, "gateway")
    assert (found.source, found.destination, found.requests) == ("gateway", "users", 8)
    assert (found.errors, found.retries, found.requests_per_s) == (1, 2, 2.5)
    assert found.breakers == {"open": 1}
    assert percentiles(found)[0] > 0


GOOD: dict[str, Any] = {
    "source": "orders",
    "edges": [
        {
            "to": "users",
            "requests": 1,
            "duration_s": {"count": 1, "sum": 0.1, "buckets": [1] + [0] * (PLACES - 1)},
        }
    ],
}


@pytest.mark.parametrize(
    "change",
    [
        {"source": ""},
        {"source": "a\nb"},
        {"source": "x" * 200},
        {"source": None},
        {"every_s": 0},
        {"every_s": float("nan")},
        {"edges": [{"to": "users"}]},
        {"edges": [{**GOOD["edges"][0], "requests": -1}]},
        {"edges": [{**GOOD["edges"][0], "requests": 10**20}]},
        {"edges": [{**GOOD["edges"][0], "duration_s": {"count": 1, "sum": 1, "buckets": [1]}}]},
        {
            "edges": [
                {
                    **GOOD["edges"][0],
                    "duration_s": {"count": 1, "sum": float("inf"), "buckets": [0] * PLACES},
                }
            ]
        },
        {"edges": GOOD["edges"] * 1001},
    ],
    ids=lambda change: next(iter(change)) + str(len(str(change)) % 97),
)
def test_a_report_that_makes_no_sense_is_refused(change):
    MeshReport.model_validate(GOOD)
    with pytest.raises(ValidationError):
        MeshReport.model_validate({**GOOD, **change})
