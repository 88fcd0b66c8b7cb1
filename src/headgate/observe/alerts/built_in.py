"""The rules that hold without being written: one may be changed or switched off by its name.

Theory of operation. Bounds are those of the product's manual: CPU 70/90 %, memory 80/95 %, response
time 2/5 s, error rate 5/10 %, cache hit rate 80/60 %. A ratio has a minimum of requests in its
expression, so that one failure of two at night wakes nobody. Each expression is also one for
Prometheus; a rule whose metric does not exist on a system answers nothing and is quiet.
"""

from __future__ import annotations

from typing import Final, Literal

from headgate.observe.alerts.rules import Flapping, Level, Rule, Threshold, Unit

__all__ = ["BUILT_IN", "built_in"]


def _figure(
    name: str,
    expr: str,
    warning: float,
    critical: float,
    summary: str,
    *,
    unit: Unit,
    clear: float | None = None,
    direction: Literal["above", "below"] = "above",
    for_s: float = 300.0,
    description: str = "",
) -> Rule:
    return Rule(
        name=name,
        expr=expr,
        thresholds=(
            Threshold("warning", warning, warning if clear is None else clear),
            Threshold("critical", critical, critical),
        ),
        direction=direction,
        for_s=for_s,
        keep_firing_s=60.0,
        flapping=Flapping(),
        summary=summary,
        description=description,
        unit=unit,
        is_built_in=True,
    )


def _fact(
    name: str,
    expr: str,
    level: Level,
    summary: str,
    *,
    for_s: float = 0.0,
    keep_firing_s: float = 0.0,
    description: str = "",
    unit: Unit = "",
) -> Rule:
    return Rule(
        name=name,
        expr=expr,
        level=level,
        for_s=for_s,
        keep_firing_s=keep_firing_s,
        summary=summary,
        description=description,
        unit=unit,
        is_built_in=True,
    )


_REQUESTS = "headgate_http_requests_total"
_HITS = 'outcome=~"hit|stale|stale_on_error|revalidated|collapsed"'
_ASKED = 'outcome=~"hit|stale|stale_on_error|revalidated|collapsed|miss"'

BUILT_IN: Final[tuple[Rule, ...]] = (
    _figure(
        "cpu",
        "headgate_system_cpu_usage_ratio",
        0.70,
        0.90,
        "The processors of this machine are {value} busy",
        unit="percent",
        clear=0.65,
        description="Over {bound} for 5 minutes. See which process it is: headgate status.",
    ),
    _figure(
        "memory",
        "1 - headgate_system_memory_available_bytes / headgate_system_memory_total_bytes",
        0.80,
        0.95,
        "{value} of this machine's memory is in use",
        unit="percent",
        clear=0.77,
    ),
    _figure(
        "response-time",
        "histogram_quantile(0.95, sum by (route, le)"
        " (rate(headgate_http_request_duration_seconds_bucket[5m])))"
        " and on (route) sum by (route) (increase(headgate_http_requests_total[5m])) >= 20",
        2.0,
        5.0,
        "{route}: one request in twenty takes {value} or longer",
        unit="seconds",
        for_s=120.0,
        description="The 95th percentile of 5 minutes, with at least 20 requests; bound {bound}.",
    ),
    _figure(
        "error-rate",
        f'sum by (route) (rate({_REQUESTS}{{code=~"5.."}}[5m]))'
        f" / sum by (route) (rate({_REQUESTS}[5m]))"
        f" and on (route) sum by (route) (increase({_REQUESTS}[5m])) >= 20",
        0.05,
        0.10,
        "{route}: {value} of the requests fail",
        unit="percent",
        for_s=60.0,
        description="Answers 5xx among all of 5 minutes, with at least 20 requests.",
    ),
    _figure(
        "cache-hit-rate",
        f"sum by (route) (rate(headgate_cache_total{{{_HITS}}}[15m]))"
        f" / sum by (route) (rate(headgate_cache_total{{{_ASKED}}}[15m]))"
        f" and on (route) sum by (route) (increase(headgate_cache_total{{{_ASKED}}}[15m])) >= 200",
        0.80,
        0.60,
        "{route}: only {value} of the requests are answered from the cache",
        unit="percent",
        direction="below",
        for_s=900.0,
        description="Of 15 minutes, with at least 200 requests.",
    ),
    _fact(
        "instance-down",
        # What somebody has drained is out because he wants it so.
        "headgate_instance_usable == 0"
        " unless on (service, service_instance) headgate_instance_drained > 0",
        "critical",
        "{service_instance} of {service} is fit to serve in no worker",
        for_s=60.0,
    ),
    _fact(
        "breaker-open",
        'headgate_breaker_state{state="open"} == 1',
        "warning",
        "The circuit breaker of {service} {service_instance} is open",
        for_s=30.0,
    ),
    Rule(
        name="certificate-expiry",
        expr="headgate_certificate_expiry_seconds",
        thresholds=(
            Threshold("warning", 14 * 86400.0, 14 * 86400.0),
            Threshold("critical", 3 * 86400.0, 3 * 86400.0),
        ),
        direction="below",
        for_s=300.0,
        summary="The certificate {name} ends in {value}",
        unit="seconds",
        is_built_in=True,
    ),
    _fact(
        "monitor-down",
        'headgate_monitor_up{critical="true"} == 0',
        "critical",
        "{monitor} is down",
        description="See headgate monitors for why and since when.",
    ),
    _fact(
        "monitor-down-minor",
        'headgate_monitor_up{critical="false"} == 0',
        "warning",
        "{monitor} is down",
        description="See headgate monitors for why and since when.",
    ),
    _fact(
        "monitor-degraded",
        "headgate_monitor_degraded == 1",
        "info",
        "{monitor} works, but is slow or about to fail",
        for_s=300.0,
    ),
    _fact(
        "worker-restarts",
        "sum(increase(headgate_worker_restarts_total[10m])) > 2",
        "warning",
        "Workers ended by themselves {value} times in 10 minutes",
        description="See the log of the control process for how they ended.",
        keep_firing_s=300.0,
    ),
    _figure(
        "disk",
        "1 - headgate_system_disk_free_bytes / headgate_system_disk_total_bytes",
        0.80,
        0.95,
        "The disk of {path} is {value} full",
        unit="percent",
        clear=0.78,
    ),
    _fact(
        "disk-full-soon",
        "predict_linear(headgate_system_disk_free_bytes[6h], 86400) < 0"
        " and headgate_system_disk_free_bytes / headgate_system_disk_total_bytes < 0.4",
        "warning",
        "The disk of {path} is full within a day if it goes on like this",
        for_s=900.0,
    ),
    _fact(
        "reload-refused",
        'increase(headgate_reloads_total{result="refused"}[5m]) > 0',
        "warning",
        "A reload was refused; the configuration from before serves on",
        description="headgate check says what is wrong with the file.",
        keep_firing_s=60.0,
    ),
    _fact(
        "log-lines-dropped",
        'increase(headgate_access_log_lines_total{result=~"dropped|failed"}[5m]) > 0',
        "warning",
        "Access log lines are lost ({result})",
        keep_firing_s=60.0,
    ),
    _fact(
        "records-dropped",
        'increase(headgate_logs_lines_total{result=~"dropped|failed"}[5m]) > 0',
        "warning",
        "Log lines of {process} for {sink} are lost ({result})",
        keep_firing_s=60.0,
    ),
    _fact(
        "spans-dropped",
        "increase(headgate_traces_dropped_total[5m]) > 0",
        "info",
        "Spans of traces are lost",
        keep_firing_s=60.0,
    ),
    _fact(
        "notifications-failing",
        'sum by (receiver) (increase(headgate_alerts_notifications_total{outcome="failed"}[15m]))'
        " > 0",
        "warning",
        "Notifications to {receiver} were given up",
        keep_firing_s=300.0,
    ),
    _fact(
        "no-workers",
        "headgate_workers == 0",
        "critical",
        "No worker serves",
        for_s=15.0,
    ),
    _fact(
        "no-figures",
        "absent(headgate_workers)",
        "critical",
        "There are no figures of this gateway: alerts are judged in the dark",
        for_s=60.0,
    ),
)


def built_in(name: str) -> Rule | None:
    return next((each for each in BUILT_IN if each.name == name), None)
