"""The Prometheus text: golden lines, escapes, and what promtool says of all families at once."""

from __future__ import annotations

import asyncio
import gc
import importlib
import shutil
import subprocess

import pytest

import headgate
from headgate.observe import (
    METRICS,
    ProcessWatch,
    WorkerStats,
    histogram,
    merge,
    to_accepted,
    to_prometheus,
    wants_openmetrics,
)


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
    instance.attempts, instance.attempts_s = 4, 0.2
    stats.timeouts.add("first_byte")
    stats.refused_downstream.add("two hosts")
    stats.filter_errors.add("Stamp")

    def control(rows):
        rows["headgate_workers"].append(([], 2))
        rows["headgate_worker_restarts_total"].append((["0"], 1))
        rows["headgate_reloads_total"].append((["ok"], 1))
        rows["headgate_admin_refused_total"].append((["token"], 1))
        rows["headgate_admin_live_dropped_total"].append(([], 0))
        rows["headgate_admin_live_views"].append(([], 1))
        rows["headgate_config_versions_lost_total"].append(([], 0))
        rows["headgate_system_cpu_usage_ratio"].append(([], 0.25))
        rows["headgate_system_cpus"].append(([], 2))
        rows["headgate_system_cpus_usable"].append(([], 1.5))
        rows["headgate_system_load"].append((["1m"], 0.7))
        rows["headgate_system_uptime_seconds"].append(([], 86_400.5))
        rows["headgate_system_memory_total_bytes"].append(([], 8_000_000_000))
        rows["headgate_system_memory_available_bytes"].append(([], 6_000_000_000))
        rows["headgate_system_disk_total_bytes"].append((["/var/lib/headgate"], 100_000))
        rows["headgate_system_disk_free_bytes"].append((["/var/lib/headgate"], 60_000))
        rows["headgate_certificate_expiry_seconds"].append((["www.pem"], 86_400))
        rows["headgate_monitor_up"].append((["payments", "true"], 1))
        rows["headgate_monitor_degraded"].append((["payments"], 0))
        rows["headgate_monitor_duration_seconds"].append((["payments"], 0.12))
        rows["headgate_monitor_checks_total"].append((["payments", "ok"], 7))
        rows["headgate_monitor_certificate_expiry_seconds"].append((["payments"], 864_000))
        rows["headgate_monitor_uptime_ratio"].append((["payments"], 0.99))
        rows["headgate_monitor_results_lost_total"].append(([], 0))
        rows["headgate_alerts"].append((["cpu", "warning", "firing"], 1))
        rows["headgate_alerts_evaluations_total"].append((["ok"], 5))
        rows["headgate_alerts_notifications_total"].append((["ops/slack", "sent"], 1))
        rows["headgate_alerts_queued"].append(([], 0))
        rows["headgate_alerts_held_back_total"].append(([], 1))

    def traffic(rows):
        rows["headgate_breaker_state"].append((["users", "", "open"], 1))
        rows["headgate_breaker_rejected_total"].append((["users", ""], 3))
        rows["headgate_instance_usable"].append((["users", "http://u:1"], 1))
        rows["headgate_instance_drained"].append((["users", "http://u:1"], 0))
        rows["headgate_limit_decisions_total"].append((["global/ip", "refused"], 4))
        rows["headgate_limit_keys"].append((["global/ip"], 2))
        rows["headgate_guard_decisions_total"].append((["jwt", "verified"], 7))
        rows["headgate_members_changes_total"].append((["users"], 3))
        rows["headgate_members_unread_total"].append(([], 1))
        rows["headgate_registry_instances"].append((["users", "suspect"], 2))
        rows["headgate_registry_leases"].append(([], 12))
        rows["headgate_registry_events_total"].append((["registered"], 30))
        rows["headgate_registry_watchers"].append(([], 4))
        rows["headgate_registry_watchers_cut_total"].append(([], 1))
        rows["headgate_registry_members_told_total"].append(([], 9))
        rows["headgate_registry_writes_total"].append((["done"], 8))
        rows["headgate_mesh_certificates_issued_total"].append((["orders", "renew"], 4))
        rows["headgate_mesh_certificates_refused_total"].append((["token"], 1))
        rows["headgate_mesh_authority_ends_timestamp_seconds"].append((["root"], 2e9))
        rows["headgate_mesh_roots"].append(([], 1))
        rows["headgate_mesh_join_tokens"].append(([], 2))
        rows["headgate_mesh_refused_total"].append((["orders", "users", "default", "strict"], 2))
        for what in ("requests", "errors", "retries"):
            rows[f"headgate_mesh_{what}_total"].append((["orders", "users"], 3))
        took = {"counts": [0] * 40 + [3] + [0] * (len(histogram.BOUNDS) - 40), "sum": 0.03}
        rows["headgate_mesh_duration_seconds"].append((["orders", "users"], took))
        rows["headgate_mesh_edges"].append(([], 1))
        rows["headgate_mesh_edges_overflowed_total"].append(([], 0))
        rows["headgate_traces_kept_total"].append((["error"], 3))
        rows["headgate_traces_dropped_total"].append((["gateway"], 1))
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

    def logs(rows):
        rows["headgate_logs_lines_total"].append((["worker-0", "stderr", "written"], 7))
        rows["headgate_logs_queued_bytes"].append((["worker-0", "stderr"], 120))
        slo = ["checkout", "availability"]
        rows["headgate_slo_target_ratio"].append((slo, 0.999))
        rows["headgate_slo_good_ratio"].append((slo, 0.9995))
        rows["headgate_slo_budget_left_ratio"].append((slo, 0.5))
        rows["headgate_slo_burn_rate"].append(([*slo, "1h"], 0.5))
        rows["headgate_slo_window_events"].append(([*slo, "1h", "all"], 100))
        rows["headgate_slo_age_seconds"].append((["checkout"], 3))
        rows["headgate_capacity_full_seconds"].append((["disk", "/x", "likely"], 86400))
        rows["headgate_capacity_instances_wanted"].append((["users"], 3))
        rows["headgate_capacity_forecasts_total"].append((["made"], 4))
        rows["headgate_metrics_left_out"].append(([], 0))
        rows["headgate_history_series"].append(([], 9))
        rows["headgate_history_samples_total"].append(([], 900))
        rows["headgate_history_dropped_total"].append((["moment"], 1))
        rows["headgate_history_bytes"].append(([], 4096))
        rows["headgate_history_blocks"].append((["1min"], 2))
        rows["headgate_history_unwritten_blocks"].append(([], 0))
        rows["headgate_history_scrapes_total"].append((["ok"], 3))
        rows["headgate_logs_stored_total"].append((["worker", "heard"], 6))
        rows["headgate_logs_store_total"].append((["written"], 6))
        rows["headgate_logs_store_bytes"].append(([], 40960))
        rows["headgate_logs_store_lines"].append(([], 6))
        rows["headgate_traces_spans_total"].append((["stored"], 5))
        rows["headgate_traces_exported_total"].append((["sent"], 5))
        rows["headgate_metrics_pushes_total"].append((["ok"], 2))
        rows["headgate_traces_store_bytes"].append(([], 40960))
        rows["headgate_traces_stored"].append(([], 2))

    stats.add_source(logs)
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


def parsed(families):
    return {
        (
            sample.name,
            tuple(sorted((k, float(v) if k == "le" else v) for k, v in sample.labels.items())),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def test_both_formats_say_the_same_to_the_parsers_of_prometheus_client():
    parser = importlib.import_module("prometheus_client.parser")
    opened = importlib.import_module("prometheus_client.openmetrics.parser")
    merged = merge([full_stats().snapshot()])
    text, kind = to_accepted(merged, "text/plain")
    assert kind.startswith("text/plain; version=0.0.4")
    open_text, open_kind = to_accepted(merged, "application/openmetrics-text; version=1.0.0")
    assert open_kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert open_text.endswith("\n# EOF\n")
    plain = parsed(parser.text_string_to_metric_families(text))
    assert plain == parsed(opened.text_string_to_metric_families(open_text))
    assert len(plain) > 100


def test_nothing_is_an_end_in_openmetrics():
    assert to_accepted(merge([]), "application/openmetrics-text")[0] == "# EOF\n"


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,*/*;q=0.8", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.5,text/plain;version=0.0.4;q=0.9", False),
        ("application/openmetrics-text;q=0.5,text/plain;version=0.0.4;q=0.5", True),
        ("application/openmetrics-text;q=x", False),
        ("application/openmetrics-text;q=nan", False),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,"
            "*/*;q=0.2",
            True,
        ),
        (",;,;q=,=" * 2000, False),
    ],
    ids=[
        "none",
        "any",
        "html",
        "open",
        "versioned",
        "too-new",
        "refused",
        "less",
        "as-much",
        "odd",
        "nan",
        "prometheus",
        "noise",
    ],
)
def test_the_format_is_what_the_scraper_prefers(accept, is_open):
    assert wants_openmetrics(accept) is is_open


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
