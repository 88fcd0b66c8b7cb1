"""Services that use `headgate.observe`: what they serve, ask, query, cache and wait for."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import EACH
from headgate.interop.grafana.model import Board, Panel, Query, Row, Variable

__all__ = ["INSIDE"]

_S: Final = 'service=~"$service"'
_SERVED: Final = "http_server_requests_total"


def _by(labels: str, metric: str, more: str = "") -> tuple[Query, ...]:
    """A rate by labels."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in labels.split(","))
    return (Query(f"sum by ({labels}) (rate({metric}{{{_S}{more}}}{EACH}))", legend),)


def _now(labels: str, metric: str, more: str = "") -> tuple[Query, ...]:
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in labels.split(","))
    return (Query(f"sum by ({labels}) ({metric}{{{_S}{more}}})", legend),)


def _p95(labels: str, metric: str, more: str = "") -> tuple[Query, ...]:
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in labels.split(","))
    return (
        Query(
            f"histogram_quantile(0.95, sum by ({labels}, le)"
            f" (rate({metric}_bucket{{{_S}{more}}}{EACH})))",
            legend,
            has_exemplars=True,
        ),
    )


INSIDE: Final = Board(
    "headgate-inside",
    "Headgate / Inside services",
    "What services with headgate.observe say of themselves. Labels `service` and"
    " `service_instance` are given by whoever scrapes.",
    (
        Row(
            "Requests served",
            (
                Panel("Requests", _by("service, route", _SERVED), unit="reqps", is_stacked=True),
                Panel(
                    "Errors",
                    (
                        Query(
                            f'sum by (service) (rate({_SERVED}{{{_S},code=~"5.."}}{EACH}))'
                            f" / sum by (service) (rate({_SERVED}{{{_S}}}{EACH}))",
                            "{{service}}",
                        ),
                    ),
                    unit="percentunit",
                    bounds=((0.05, "orange"), (0.10, "red")),
                ),
                Panel(
                    "95th percentile",
                    _p95("service, route", "http_server_request_duration_seconds"),
                    unit="s",
                ),
                Panel("Under way", _now("service", "http_server_requests_in_flight")),
                Panel(
                    "Bytes out", _by("service", "http_server_response_body_bytes_sum"), unit="Bps"
                ),
                Panel("WebSockets", _now("service", "http_server_websockets_open")),
            ),
        ),
        Row(
            "Requests sent",
            (
                Panel("To hosts", _by("host, code", "http_client_requests_total"), unit="reqps"),
                Panel(
                    "Without an answer",
                    _by("host, error", "http_client_failures_total"),
                    unit="reqps",
                ),
                Panel(
                    "95th percentile",
                    _p95("host", "http_client_request_duration_seconds"),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Databases",
            (
                Panel(
                    "Queries",
                    _by("database, operation", "db_query_duration_seconds_count"),
                    unit="ops",
                    width=6,
                ),
                Panel(
                    "95th percentile",
                    _p95("database, operation", "db_query_duration_seconds"),
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Failures",
                    _by("database, error", "db_query_failures_total"),
                    unit="ops",
                    width=6,
                ),
                Panel("Pools", _now("database, state", "db_pool_connections"), width=6),
            ),
        ),
        Row(
            "Cache",
            (
                Panel(
                    "Hit rate by layer",
                    (
                        Query(
                            "sum by (service, layer)"
                            f" (rate(headgate_cache_layer_hits_total{{{_S}}}{EACH}))"
                            " / (sum by (service, layer)"
                            f" (rate(headgate_cache_layer_hits_total{{{_S}}}{EACH}))"
                            " + sum by (service, layer)"
                            f" (rate(headgate_cache_layer_misses_total{{{_S}}}{EACH})))",
                            "{{service}} {{layer}}",
                        ),
                    ),
                    unit="percentunit",
                    most=1.0,
                    width=6,
                ),
                Panel("Loads", _by("service", "headgate_cache_loads_total"), unit="ops", width=6),
                Panel(
                    "Loads that failed",
                    _by("service", "headgate_cache_load_failures_total"),
                    unit="ops",
                    width=6,
                ),
                Panel(
                    "Room",
                    _now("service, layer", "headgate_cache_layer_bytes"),
                    unit="bytes",
                    width=6,
                ),
            ),
        ),
        Row(
            "Queues and guards",
            (
                Panel("Waiting", _now("queue", "queue_depth"), width=6),
                Panel(
                    "How long they waited", _p95("queue", "queue_lag_seconds"), unit="s", width=6
                ),
                Panel(
                    "Breakers that are open",
                    _now("service, breaker", "breaker_state", ',state=~"open|forced_open"'),
                    width=6,
                ),
                Panel(
                    "Retries",
                    _by("service, retry", "retry_retries_total"),
                    unit="ops",
                    width=6,
                ),
            ),
        ),
        Row(
            "What users feel",
            (
                Panel(
                    "Largest paint, 95th percentile",
                    _p95("page", "web_vitals_seconds", ',name="LCP"'),
                    unit="s",
                    bounds=((2.5, "orange"), (4.0, "red")),
                ),
                Panel(
                    "Next paint after input, 95th percentile",
                    _p95("page", "web_vitals_seconds", ',name="INP"'),
                    unit="s",
                    bounds=((0.2, "orange"), (0.5, "red")),
                ),
                Panel(
                    "Ratings",
                    _by("name, rating", "web_vitals_ratings_total"),
                    unit="ops",
                    is_stacked=True,
                ),
            ),
        ),
        Row(
            "Processes",
            (
                Panel(
                    "Processor",
                    _by("service, service_instance", "process_cpu_seconds_total"),
                    unit="percentunit",
                    width=6,
                ),
                Panel(
                    "Memory",
                    _now("service, service_instance", "process_resident_memory_bytes"),
                    unit="bytes",
                    width=6,
                ),
                Panel(
                    "Lag of the event loop",
                    _p95("service, service_instance", "event_loop_lag_seconds"),
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Open files",
                    _now("service, service_instance", "process_open_fds"),
                    width=6,
                ),
            ),
        ),
    ),
    (Variable("service", "Service", "up", "service"),),
)
