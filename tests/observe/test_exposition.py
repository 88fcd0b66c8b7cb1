"""The Prometheus text: golden lines, escapes, and what promtool says of all families at once."""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess

import headgate
from headgate.observe import METRICS, ProcessWatch, WorkerStats, merge, to_prometheus


def full_stats():
    """A worker that has something under every family."""
    stats = WorkerStats("worker-0", "1")
    route = stats.route("api", "users")
    for status in (200, 404, 502, 499):
        route.record("GET", status, 0.003, 0.002, 10, 1000)
    stats.route('we"ird\\ro\nute', "").record("POST", 201, 1000.0, -1.0, 10, 10)
    listener = stats.listener("0.0.0.0:8443")
    listener.open, listener.accepted, listener.tls_ok = 3, 10, 9
    listener.refused.add("per_ip")
    instance = stats.instance("users", "127.0.0.1:3001")
    instance.active, instance.created, instance.reused = 1, 2, 3
    instance.failures.add("connect")
    stats.timeouts.add("first_byte")
    stats.refused_downstream.add("two hosts")
    stats.filter_errors.add("Stamp")

    def control(rows):
        rows["headgate_workers"].append(([], 2))
        rows["headgate_worker_restarts_total"].append((["0"], 1))
        rows["headgate_reloads_total"].append((["ok"], 1))

    def traffic(rows):
        rows["headgate_breaker_state"].append((["users", "", "open"], 1))
        rows["headgate_breaker_rejected_total"].append((["users", ""], 3))
        rows["headgate_instance_usable"].append((["users", "http://u:1"], 1))
        rows["headgate_limit_decisions_total"].append((["global/ip", "refused"], 4))
        rows["headgate_limit_keys"].append((["global/ip"], 2))
        rows["headgate_guard_decisions_total"].append((["jwt", "verified"], 7))
        rows["headgate_concurrency_limit"].append((["service/users"], 100))
        rows["headgate_concurrency_in_flight"].append((["service/users"], 5))
        rows["headgate_concurrency_waiting"].append((["service/users"], 0))
        rows["headgate_concurrency_rejected_total"].append((["service/users"], 1))
        rows["headgate_policy_events_total"].append((["api", "retries"], 7))

    def caches(rows):
        rows["headgate_cache_total"].append((["api", "hit"], 12))
        rows["headgate_cache_bytes"].append(([], 4096))
        rows["headgate_cache_bytes_max"].append(([], 268_435_456))
        rows["headgate_cache_responses"].append(([], 2))
        rows["headgate_cache_evictions_total"].append(([], 1))
        rows["headgate_cache_fills"].append(([], 1))
        rows["headgate_cache_lower_reads_total"].append((["disk", "hit"], 3))
        rows["headgate_cache_lower_writes_total"].append((["disk", "written"], 4))
        rows["headgate_cache_lower_drops_total"].append((["disk", "evicted"], 1))
        rows["headgate_cache_lower_failures_total"].append((["disk"], 1))
        rows["headgate_cache_lower_away"].append((["disk"], 0))
        rows["headgate_cache_lower_queued"].append((["disk"], 0))
        rows["headgate_cache_lower_bytes"].append((["disk"], 8192))
        rows["headgate_cache_lower_bytes_max"].append((["disk"], 1_000_000))

    stats.add_source(control)
    stats.add_source(traffic)
    stats.add_source(caches)
    watch = ProcessWatch("worker-0")
    stats.add_source(watch.rows_into)
    return stats


def test_golden_lines():
    stats = WorkerStats("worker-0", "1")
    stats.route("api", "users").record("GET", 200, 0.003, -1.0, 7, 1000)
    text = to_prometheus(merge([stats.snapshot()]))
    assert "# TYPE headgate_http_requests_total counter\n" in text
    assert (
        'headgate_http_requests_total{route="api",service="users",method="GET",code="200"} 1\n'
        in text
    )
    at = text.index("headgate_http_request_duration_seconds_bucket")
    assert text[at:].splitlines()[:7] == [
        'headgate_http_request_duration_seconds_bucket{route="api",service="users",le="0.00025"} 0',
        'headgate_http_request_duration_seconds_bucket{route="api",service="users",le="0.0005"} 0',
        'headgate_http_request_duration_seconds_bucket{route="api",service="users",le="0.001"} 0',
        'headgate_http_request_duration_seconds_bucket{route="api",service="users",le="0.0025"} 0',
        'headgate_http_request_duration_seconds_bucket{route="api",service="users",le="0.005"} 1',
        'headgate_http_request_duration_seconds_bucket{route="api",service="users",le="0.01"} 1',
        'headgate_http_request_duration_seconds_bucket{route="api",service="users",le="0.025"} 1',
    ]
    assert 'duration_seconds_bucket{route="api",service="users",le="+Inf"} 1\n' in text
    assert 'duration_seconds_sum{route="api",service="users"} 0.003\n' in text
    assert 'duration_seconds_count{route="api",service="users"} 1\n' in text
    assert "headgate_http_requests_in_flight 0\n" in text
    assert "headgate_upstream_duration_seconds" not in text


def test_label_values_are_escaped():
    text = to_prometheus(merge([full_stats().snapshot()]))
    assert r'route="we\"ird\\ro\nute"' in text


def test_nothing_is_an_empty_text():
    assert to_prometheus(merge([])) == ""


def test_promtool_accepts_every_family():
    snapshot = full_stats().snapshot()
    assert set(snapshot["rows"]) == set(METRICS)
    text = to_prometheus(merge([snapshot]))
    assert shutil.which("promtool"), "promtool is missing: apt-get install prometheus"
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout + done.stderr == ""


def test_the_process_knows_itself():
    async def scenario():
        watch = ProcessWatch("worker-0")
        watch.start(asyncio.get_running_loop())
        gc.collect()
        await asyncio.sleep(0.3)
        watch.stop()
        watch.stop()
        return watch

    watch = asyncio.run(scenario())
    assert watch._on_collection not in gc.callbacks
    stats = WorkerStats("worker-0", "1")
    stats.add_source(watch.rows_into)
    got = merge([stats.snapshot()])
    numbers = got.numbers
    assert next(iter(numbers["headgate_build_info"]))[0] == headgate.__version__
    assert 0 < numbers["headgate_process_open_fds"]["worker-0",] < 10_000
    assert numbers["headgate_process_resident_memory_bytes"]["worker-0",] > 5_000_000
    assert sum(got.histograms["headgate_gc_pause_seconds"]["worker-0",].counts) >= 1
    assert sum(got.histograms["headgate_event_loop_lag_seconds"]["worker-0",].counts) >= 1
