"""Every metric Headgate shows, as data: the exposition and the reference page are made from it.

Theory of operation. A metric is known by its name; its labels have a fixed order, and a sample is
the tuple of their values with a number (or, for a histogram, with counts and a sum). To add a
metric is to add a row here and to put samples under its name into a snapshot; to put samples under
a name that has no row is a programming error and raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    merge: Literal["sum", "max"] = "sum"
    """How samples with the same labels from several processes become one."""


_ROUTE = ("route", "service")
# `instance` is the label Prometheus itself puts on every sample of a target.
_INSTANCE = ("service", "service_instance")
_PROCESS = ("process",)

METRICS: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric(
            "headgate_build_info",
            "gauge",
            ("version", "python"),
            "Always 1; see the labels.",
            "max",
        ),
        Metric(
            "headgate_http_requests_total",
            "counter",
            (*_ROUTE, "method", "code"),
            "Requests answered, or given up by the client (code 499).",
        ),
        Metric(
            "headgate_http_request_duration_seconds",
            "histogram",
            _ROUTE,
            "From the first byte of a request to the last byte of its response.",
        ),
        Metric(
            "headgate_upstream_duration_seconds",
            "histogram",
            _ROUTE,
            "From sending a request upstream to the end of the response from there, all attempts.",
        ),
        Metric(
            "headgate_http_request_body_bytes_total",
            "counter",
            _ROUTE,
            "Body bytes received from clients.",
        ),
        Metric(
            "headgate_http_response_body_bytes_total",
            "counter",
            _ROUTE,
            "Body bytes sent to clients.",
        ),
        Metric(
            "headgate_http_requests_in_flight",
            "gauge",
            (),
            "Requests begun and not yet ended, tunnels included.",
        ),
        Metric("headgate_connections", "gauge", ("listener",), "Client connections that are open."),
        Metric(
            "headgate_connections_accepted_total",
            "counter",
            ("listener",),
            "Client connections accepted.",
        ),
        Metric(
            "headgate_connections_refused_total",
            "counter",
            ("listener", "reason"),
            "Client connections closed on arrival because of a limit.",
        ),
        Metric(
            "headgate_tls_handshakes_total",
            "counter",
            ("listener", "result"),
            "TLS handshakes with clients; result is ok, or why one failed: not_tls, version,"
            " no_shared_cipher, alpn, no_client_certificate, client_certificate,"
            " certificate_refused (ours, by the client), client_alert, closed, timeout, other.",
        ),
        Metric(
            "headgate_upstream_connections",
            "gauge",
            (*_INSTANCE, "state"),
            "Connections to an instance; state is active or idle.",
        ),
        Metric(
            "headgate_upstream_connections_created_total",
            "counter",
            _INSTANCE,
            "Connections made to an instance.",
        ),
        Metric(
            "headgate_upstream_connections_reused_total",
            "counter",
            _INSTANCE,
            "Exchanges that found an open connection in the pool.",
        ),
        Metric(
            "headgate_upstream_failures_total",
            "counter",
            (*_INSTANCE, "kind"),
            "Exchanges an instance failed; kind is connect, timeout, reset, protocol, tls, dns,"
            " queue_full, queue_timeout or closed.",
        ),
        Metric(
            "headgate_upstream_retries_total",
            "counter",
            _INSTANCE,
            "Exchanges sent again after this instance had failed them.",
        ),
        Metric(
            "headgate_upstream_queue",
            "gauge",
            _INSTANCE,
            "Requests waiting for a connection to an instance.",
        ),
        Metric(
            "headgate_timeouts_total",
            "counter",
            ("kind",),
            "Waits given up, by what was waited for.",
        ),
        Metric(
            "headgate_protocol_refusals_total",
            "counter",
            ("side", "reason"),
            "Messages refused because they break the rules of the wire; side is downstream or"
            " upstream.",
        ),
        Metric(
            "headgate_filter_errors_total",
            "counter",
            ("filter",),
            "Exceptions raised by a filter.",
        ),
        Metric(
            "headgate_access_log_lines_total",
            "counter",
            ("result",),
            "Access log lines; result is written, dropped (the queue was full) or failed (the"
            " file or pipe did not take them).",
        ),
        Metric(
            "headgate_breaker_state",
            "gauge",
            (*_INSTANCE, "state"),
            "1 for each state that the circuit breaker is in, in some worker; without an instance"
            " it is the service's.",
            "max",
        ),
        Metric(
            "headgate_breaker_rejected_total",
            "counter",
            _INSTANCE,
            "Attempts that a circuit breaker let not through.",
        ),
        Metric(
            "headgate_instance_usable",
            "gauge",
            _INSTANCE,
            "Workers that consider the instance fit to serve.",
        ),
        Metric(
            "headgate_instance_drained",
            "gauge",
            _INSTANCE,
            "Workers that give the instance no new requests because somebody has said so.",
        ),
        Metric(
            "headgate_limit_decisions_total",
            "counter",
            ("limit", "outcome"),
            "Decisions of rate limits: allowed, refused, or shadowed (would have been refused).",
        ),
        Metric(
            "headgate_guard_decisions_total",
            "counter",
            ("policy", "outcome"),
            "Decisions on who is let in, by method of authentication or policy.",
        ),
        Metric(
            "headgate_traces_kept_total",
            "counter",
            ("why",),
            "Traces of requests that were kept: sampled, error or slow.",
        ),
        Metric(
            "headgate_traces_dropped_total",
            "counter",
            ("where",),
            "Traces, or spans where no more is known, that were to be kept and found no room.",
        ),
        Metric("headgate_limit_keys", "gauge", ("limit",), "Keys that a rate limit keeps."),
        Metric(
            "headgate_concurrency_limit", "gauge", ("limit",), "Requests that may be under way."
        ),
        Metric("headgate_concurrency_in_flight", "gauge", ("limit",), "Requests that hold a seat."),
        Metric("headgate_concurrency_waiting", "gauge", ("limit",), "Requests in line for a seat."),
        Metric(
            "headgate_concurrency_rejected_total",
            "counter",
            ("limit",),
            "Requests that got no seat: the line was full, or they waited for too long.",
        ),
        Metric(
            "headgate_policy_events_total",
            "counter",
            ("route", "event"),
            "What traffic policies did: retries, hedges, hedges_won, budget_spent, fallbacks,"
            " faults, rejected_open, shed, mirrored, mirrored_failed, mirrors_dropped.",
        ),
        Metric(
            "headgate_cache_total",
            "counter",
            ("route", "outcome"),
            "What became of requests on routes with a cache: hit, stale, stale_on_error,"
            " revalidated, collapsed, miss, pass, refused, alone; and of responses: stored,"
            " too_long (for the rules), no_room (too much was on its way into the cache).",
        ),
        Metric("headgate_cache_bytes", "gauge", (), "Memory that kept responses take."),
        Metric("headgate_cache_bytes_max", "gauge", (), "Memory that they may take."),
        Metric("headgate_cache_responses", "gauge", (), "Responses kept in memory."),
        Metric(
            "headgate_cache_evictions_total",
            "counter",
            (),
            "Responses that went to make room for others.",
        ),
        Metric(
            "headgate_cache_fills",
            "gauge",
            (),
            "Requests to services under way whose answers may be kept, or read by several clients.",
        ),
        Metric(
            "headgate_cache_lower_reads_total",
            "counter",
            ("layer", "result"),
            "Responses looked for on disk or in Redis, as memory had none; result is hit or miss.",
        ),
        Metric(
            "headgate_cache_lower_writes_total",
            "counter",
            ("layer", "result"),
            "Responses for disk or Redis; result is written or dropped (it was away, the queue was"
            " full, or the response too large).",
        ),
        Metric(
            "headgate_cache_lower_drops_total",
            "counter",
            ("layer", "reason"),
            "Responses that left the disk or were not taken from Redis: evicted, struck by an"
            " invalidation, or spoilt (garbled or cut short).",
        ),
        Metric(
            "headgate_cache_lower_failures_total",
            "counter",
            ("layer",),
            "Reads and writes of disk or Redis that failed or were late; none fails a request.",
        ),
        Metric(
            "headgate_cache_lower_away",
            "gauge",
            ("layer",),
            "Workers that cannot use the disk or Redis now.",
        ),
        Metric(
            "headgate_cache_lower_queued",
            "gauge",
            ("layer",),
            "Responses and invalidations that wait to be written.",
        ),
        Metric(
            "headgate_cache_lower_bytes",
            "gauge",
            ("layer",),
            "What responses on disk take, for all workers.",
            "max",
        ),
        Metric(
            "headgate_cache_lower_bytes_max",
            "gauge",
            ("layer",),
            "What they may take.",
            "max",
        ),
        Metric("headgate_workers", "gauge", (), "Workers that are running."),
        Metric(
            "headgate_worker_restarts_total",
            "counter",
            ("worker",),
            "Times a worker was started again after it had ended by itself.",
        ),
        Metric(
            "headgate_reloads_total", "counter", ("result",), "Reloads; result is ok or refused."
        ),
        Metric(
            "headgate_admin_refused_total",
            "counter",
            ("reason",),
            "Requests to the admin API that were not let in; reason is token (wrong), failures"
            " (too many wrong ones), rate, busy, role or origin.",
        ),
        Metric(
            "headgate_admin_live_dropped_total",
            "counter",
            (),
            "Events that a live view lost because its client was too slow.",
        ),
        Metric("headgate_admin_live_views", "gauge", (), "Live views that are open."),
        Metric(
            "headgate_config_versions_lost_total",
            "counter",
            (),
            "Versions of the configuration that could not be written and were given up.",
        ),
        Metric(
            "headgate_config_generation",
            "gauge",
            _PROCESS,
            "The generation of the configuration a process serves.",
        ),
        Metric(
            "headgate_process_cpu_seconds_total",
            "counter",
            _PROCESS,
            "Processor time used, user and system.",
        ),
        Metric("headgate_process_resident_memory_bytes", "gauge", _PROCESS, "Resident memory."),
        Metric("headgate_process_open_fds", "gauge", _PROCESS, "Open file descriptors."),
        Metric(
            "headgate_process_max_fds", "gauge", _PROCESS, "The limit of open file descriptors."
        ),
        Metric(
            "headgate_process_start_time_seconds",
            "gauge",
            _PROCESS,
            "When the process began, in seconds since 1970.",
            "max",
        ),
        Metric(
            "headgate_gc_collections_total",
            "counter",
            (*_PROCESS, "generation"),
            "Runs of Python's garbage collector.",
        ),
        Metric(
            "headgate_gc_pause_seconds",
            "histogram",
            _PROCESS,
            "How long the garbage collector held everything up.",
        ),
        Metric(
            "headgate_event_loop_lag_seconds",
            "histogram",
            _PROCESS,
            "How late the event loop ran a timer, sampled four times a second.",
        ),
        Metric(
            "headgate_system_cpu_usage_ratio",
            "gauge",
            (),
            "How busy the processors of the machine were since the reading before, 0 to 1.",
            "max",
        ),
        Metric(
            "headgate_system_memory_total_bytes",
            "gauge",
            (),
            "Memory of the machine, or of the control group where that is less.",
            "max",
        ),
        Metric(
            "headgate_system_memory_available_bytes",
            "gauge",
            (),
            "Memory that may still be taken.",
            "max",
        ),
        Metric(
            "headgate_system_disk_total_bytes",
            "gauge",
            ("path",),
            "Room on the disk of the state directory.",
            "max",
        ),
        Metric(
            "headgate_system_disk_free_bytes",
            "gauge",
            ("path",),
            "Room that is free there.",
            "max",
        ),
        Metric(
            "headgate_certificate_expiry_seconds",
            "gauge",
            ("name",),
            "How long a certificate of a listener is still good.",
            "max",
        ),
        Metric(
            "headgate_monitor_up",
            "gauge",
            ("monitor", "critical"),
            "1 while a monitored thing outside does what is expected of it, 0 while it is down.",
            "max",
        ),
        Metric(
            "headgate_monitor_degraded",
            "gauge",
            ("monitor",),
            "1 while it works but is slow, near the end of its certificate, or failed just now.",
            "max",
        ),
        Metric(
            "headgate_monitor_duration_seconds",
            "gauge",
            ("monitor",),
            "How long the last check took.",
            "max",
        ),
        Metric(
            "headgate_monitor_checks_total",
            "counter",
            ("monitor", "result"),
            "Checks by what they found: ok, degraded or failing.",
        ),
        Metric(
            "headgate_monitor_certificate_expiry_seconds",
            "gauge",
            ("monitor",),
            "How long the certificate that it showed is still good.",
            "max",
        ),
        Metric(
            "headgate_monitor_uptime_ratio",
            "gauge",
            ("monitor",),
            "The share of today (UTC) in which it was up, of the time that is known.",
            "max",
        ),
        Metric(
            "headgate_monitor_results_lost_total",
            "counter",
            (),
            "Results that could not be written and found no room to wait.",
        ),
        Metric(
            "headgate_alerts",
            "gauge",
            ("rule", "level", "state"),
            "Alerts that are pending or firing.",
        ),
        Metric(
            "headgate_alerts_evaluations_total",
            "counter",
            ("result",),
            "Evaluations of alert rules: ok, failed, timeout, or overdue (the one before was not"
            " done).",
        ),
        Metric(
            "headgate_alerts_notifications_total",
            "counter",
            ("receiver", "outcome"),
            "Attempts to tell a receiver: sent, retried (it failed and is tried again), failed"
            " (given up), dropped (the queue was full).",
        ),
        Metric("headgate_alerts_queued", "gauge", (), "Notifications that wait to be sent."),
        Metric(
            "headgate_alerts_held_back_total",
            "counter",
            (),
            "Notifications over the limit of a receiver, told later in a digest.",
        ),
        Metric(
            "headgate_logs_lines_total",
            "counter",
            ("process", "sink", "result"),
            "Lines of Headgate's own processes by what became of them: written, dropped for want"
            " of room, failed at the sink.",
        ),
        Metric(
            "headgate_logs_queued_bytes",
            "gauge",
            ("process", "sink"),
            "Lines that wait for a sink.",
        ),
        Metric(
            "headgate_logs_stored_total",
            "counter",
            ("source", "result"),
            "Lines offered to the searchable store by control, workers and services, and those lost"
            " on the way.",
        ),
        Metric(
            "headgate_logs_store_total",
            "counter",
            ("result",),
            "Lines in the searchable store: written, dropped for want of room in its queue, failed"
            " to be written.",
        ),
        Metric(
            "headgate_slo_target_ratio",
            "gauge",
            ("slo", "objective"),
            "The share of events that must be good.",
            "max",
        ),
        Metric(
            "headgate_slo_good_ratio",
            "gauge",
            ("slo", "objective"),
            "The share of events that were good, over the window of the SLO.",
            "max",
        ),
        Metric(
            "headgate_slo_budget_left_ratio",
            "gauge",
            ("slo", "objective"),
            "What is left of the error budget: 1 is all, below 0 it is overspent.",
            "max",
        ),
        Metric(
            "headgate_slo_burn_rate",
            "gauge",
            ("slo", "objective", "window"),
            "How many times as fast as allowed the budget was spent in a window, times that do not"
            " count left out.",
            "max",
        ),
        Metric(
            "headgate_slo_window_events",
            "gauge",
            ("slo", "objective", "window", "result"),
            "Events in a window; result is all or bad.",
            "max",
        ),
        Metric(
            "headgate_slo_age_seconds",
            "gauge",
            ("slo",),
            "How long ago the objectives of an SLO were judged.",
            "max",
        ),
        Metric(
            "headgate_capacity_full_seconds",
            "gauge",
            ("resource", "name", "bound"),
            "By the forecast, until something is full: likely, or soonest and latest with 80 %"
            " confidence; only where that is within the horizon.",
            "max",
        ),
        Metric(
            "headgate_capacity_instances_wanted",
            "gauge",
            ("service",),
            "Instances that a service needs for the busiest hour of the forecast.",
            "max",
        ),
        Metric(
            "headgate_capacity_forecasts_total",
            "counter",
            ("result",),
            "Forecasts: made, short (too little is known yet), failed.",
        ),
        Metric("headgate_history_series", "gauge", (), "Series of which the history has samples."),
        Metric("headgate_history_samples_total", "counter", (), "Samples taken into the history."),
        Metric(
            "headgate_metrics_left_out",
            "gauge",
            (),
            "Families that a process told and that cannot be added up: it is of another version.",
            "max",
        ),
        Metric(
            "headgate_history_dropped_total",
            "counter",
            ("what",),
            "What the history could not take: a series, a moment, a block, or foreign figures.",
        ),
        Metric("headgate_history_bytes", "gauge", (), "Size of the history on disk."),
        Metric("headgate_history_blocks", "gauge", ("tier",), "Sealed blocks of the history."),
        Metric(
            "headgate_history_unwritten_blocks",
            "gauge",
            (),
            "Blocks that are in memory until the disk takes them.",
        ),
        Metric(
            "headgate_history_scrapes_total",
            "counter",
            ("result",),
            "Times that an instance was asked for its own figures: ok or failed.",
        ),
        Metric("headgate_logs_store_bytes", "gauge", (), "Size of the searchable store."),
        Metric("headgate_logs_store_lines", "gauge", (), "Lines in the searchable store."),
        Metric(
            "headgate_traces_spans_total",
            "counter",
            ("outcome",),
            "Spans that came in: stored, dropped, refused (no proper span), unwanted (undecided).",
        ),
        Metric(
            "headgate_traces_exported_total",
            "counter",
            ("outcome",),
            "Spans for `tracing.export`: sent, refused there, late (given up), full (no room),"
            " faulty (they could not be written).",
        ),
        Metric("headgate_traces_store_bytes", "gauge", (), "Size of the store of traces."),
        Metric("headgate_traces_stored", "gauge", (), "Traces in the store."),
    )
}

OTHER: Final = "other"
"""The label value under which samples are added up that exceed a family's bound."""


def reference() -> str:
    """The text of docs/reference/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "`GET /metrics` on the admin listener answers in the Prometheus text format. The figures",
        "of all workers are added up; those of a worker that has ended are kept, so a counter",
        "never falls while the control process lives.",
        "",
        "Label values come from the configuration or from fixed sets, never from what clients",
        "send: a method or status that is not registered counts as `other` or as its class",
        "(`5xx`). A family shows at most 1,000 label sets (10,000 for",
        "`headgate_http_requests_total`); what comes after them is added up under `other`.",
        "",
        "| Metric | Type | Labels | Meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    lines += [
        "",
        "Durations are kept in buckets about 12 % wide, from which the admin API estimates the",
        "median, 95th and 99th percentile; Prometheus sees the coarser buckets from 250 us to",
        "50 s. A histogram `x` has the samples `x_bucket`, `x_sum` and `x_count`.",
        "",
    ]
    return "\n".join(lines)
