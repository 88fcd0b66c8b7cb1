"""The metrics that services have with `headgate.observe`, as the gateway's are in METRICS.

Each row is one family of a ready instrument; a test makes the instruments and compares. What a
service counts besides is its own, and nothing handed over knows of it.
"""

from __future__ import annotations

from typing import Final

from headgate.observe.metrics import Kind, Metric

__all__ = ["SERVICES"]


def _rows(help_text: str, kind: Kind, *rows: str) -> list[Metric]:
    """Of rows as `name label label`."""
    found = []
    for row in rows:
        name, *labels = row.split()
        found.append(Metric(name, kind, tuple(labels), help_text))
    return found


SERVICES: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        *_rows(
            "Requests served (MetricsMiddleware).",
            "counter",
            "http_server_requests_total method route code",
        ),
        *_rows(
            "Requests served (MetricsMiddleware).",
            "histogram",
            "http_server_request_duration_seconds method route",
            "http_server_request_body_bytes route",
            "http_server_response_body_bytes route",
        ),
        *_rows(
            "Requests served (MetricsMiddleware).",
            "gauge",
            "http_server_requests_in_flight",
            "http_server_websockets_open",
        ),
        *_rows(
            "Requests sent (metered).",
            "counter",
            "http_client_requests_total host method code",
            "http_client_failures_total host error",
        ),
        *_rows(
            "Requests sent (metered).",
            "histogram",
            "http_client_request_duration_seconds host method",
        ),
        *_rows("Requests sent (metered).", "gauge", "http_client_requests_in_flight host"),
        *_rows(
            "Databases (watch_sqlalchemy, watch_asyncpg).",
            "histogram",
            "db_query_duration_seconds database operation",
        ),
        *_rows(
            "Databases (watch_sqlalchemy, watch_asyncpg).",
            "counter",
            "db_query_failures_total database error",
        ),
        *_rows(
            "Databases (watch_sqlalchemy, watch_asyncpg_pool).",
            "gauge",
            "db_pool_connections database state",
        ),
        *_rows("Queues (QueueMeter).", "gauge", "queue_depth queue", "queue_in_progress queue"),
        *_rows(
            "Queues (QueueMeter).",
            "histogram",
            "queue_lag_seconds queue",
            "queue_processing_seconds queue",
        ),
        *_rows(
            "Queues (QueueMeter).",
            "counter",
            "queue_added_total queue",
            "queue_processed_total queue result",
        ),
        *_rows(
            "What users feel (VitalsEndpoint).",
            "histogram",
            "web_vitals_seconds name page",
            "web_vitals_layout_shift page",
        ),
        *_rows(
            "What users feel (VitalsEndpoint).",
            "counter",
            "web_vitals_ratings_total name page rating",
            "web_vitals_beacons_total result",
        ),
        *_rows(
            "The process (watch_runtime).",
            "histogram",
            "python_gc_pause_seconds",
            "event_loop_lag_seconds",
        ),
        *_rows(
            "The process (watch_runtime).",
            "counter",
            "process_cpu_seconds_total",
            "python_gc_collections_total generation",
        ),
        *_rows(
            "The process (watch_runtime); with several of them by `pid`.",
            "gauge",
            "process_resident_memory_bytes pid",
            "process_open_fds pid",
            "process_max_fds pid",
            "process_start_time_seconds pid",
            "process_uptime_seconds pid",
            "process_threads pid",
        ),
        *_rows(
            "The machine (watch_runtime).",
            "gauge",
            "system_load window",
            "system_memory_bytes state",
            "system_disk_bytes path state",
        ),
        *_rows(
            "The cache (watch_cache).",
            "counter",
            "headgate_cache_loads_total",
            "headgate_cache_load_failures_total",
            "headgate_cache_joined_total",
            "headgate_cache_stale_total",
            "headgate_cache_layer_hits_total layer",
            "headgate_cache_layer_misses_total layer",
            "headgate_cache_layer_evictions_total layer",
            "headgate_cache_family_hits_total family",
            "headgate_cache_family_misses_total family",
        ),
        *_rows(
            "The cache (watch_cache).",
            "gauge",
            "headgate_cache_loading",
            "headgate_cache_layer_bytes layer",
            "headgate_cache_layer_bytes_max layer",
            "headgate_cache_layer_items layer",
        ),
        *_rows("The cache (watch_cache).", "histogram", "headgate_cache_load_seconds family"),
        *_rows(
            "Guards (watch_resilience).",
            "gauge",
            "breaker_state breaker state",
            "bulkhead_limit bulkhead",
            "bulkhead_in_flight bulkhead",
            "bulkhead_waiting bulkhead",
        ),
        *_rows(
            "Guards (watch_resilience).",
            "counter",
            "breaker_rejected_total breaker",
            "bulkhead_rejected_total bulkhead",
            "retry_retries_total retry",
            "retry_gave_up_total retry",
            "limit_refused_total limit",
        ),
    )
}
