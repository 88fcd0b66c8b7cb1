"""Metrics of processes and the machine, and of what control keeps: alerts, logs, history, ..."""

from __future__ import annotations

from typing import Final

from headgate.observe.metric import Metric

__all__ = ["KEEPING"]

_PROCESS = ("process",)

KEEPING: Final[tuple[Metric, ...]] = (
    Metric(
        "headgate_worker_restarts_total",
        "counter",
        ("worker",),
        "Times a worker was started again after it had ended by itself.",
    ),
    Metric("headgate_reloads_total", "counter", ("result",), "Reloads; result is ok or refused."),
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
    Metric("headgate_process_max_fds", "gauge", _PROCESS, "The limit of open file descriptors."),
    Metric(
        "headgate_process_start_time_seconds",
        "gauge",
        _PROCESS,
        "When the process began, in seconds since 1970.",
        "max",
    ),
    Metric(
        "headgate_process_uptime_seconds",
        "gauge",
        _PROCESS,
        "How long a process has run.",
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
        "headgate_system_cpus",
        "gauge",
        (),
        "Processors of the machine.",
        "max",
    ),
    Metric(
        "headgate_system_cpus_usable",
        "gauge",
        (),
        "How many of them Headgate may use, by its affinity and the quota of its control group;"
        " not always whole.",
        "max",
    ),
    Metric(
        "headgate_system_load",
        "gauge",
        ("window",),
        "Tasks that run or wait for a processor or a disk, on average; window is 1m, 5m or 15m.",
        "max",
    ),
    Metric(
        "headgate_system_uptime_seconds",
        "gauge",
        (),
        "How long the machine has run.",
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
    Metric(
        "headgate_metrics_pushes_total",
        "counter",
        ("result",),
        "Pushes of all figures to `metrics_push`: ok, failed (tried again soon), refused there.",
    ),
    Metric("headgate_traces_store_bytes", "gauge", (), "Size of the store of traces."),
    Metric("headgate_traces_stored", "gauge", (), "Traces in the store."),
)
