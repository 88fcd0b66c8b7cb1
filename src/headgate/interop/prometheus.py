"""For Prometheus: what to scrape, the alert rules, and series that are worth recording.

Theory of operation. The alert rules are those of the gateway's file (`observe.alerts.exporting`),
judged at the pace of the scrapes, and two that only somebody outside can judge: the gateway does
not answer, a service does not answer. Recorded series are for what is looked at over weeks and for
federation; the dashboards ask for the plain ones, which Headgate's own history has as well.

Files named here are found beside prometheus.yml, unless their names are absolute.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.interop.naming import demand
from headgate.interop.site import Site, Watched
from headgate.interop.writing import as_yaml, note
from headgate.observe.alerts.exporting import seconds, to_prometheus_rules

__all__ = ["RECORDED", "alert_rules", "files", "recording_rules", "scrape_config"]

PACE_S: Final = 15.0
TOKEN_FILE: Final = "headgate-token"  # noqa: S105 - the name of a file
KIND: Final = "prometheus"

_REQUESTS: Final = "headgate_http_requests_total"
_CACHE: Final = "headgate_cache_total"
_HITS: Final = 'outcome=~"hit|stale|stale_on_error|revalidated|collapsed"'
_ASKED: Final = 'outcome=~"hit|stale|stale_on_error|revalidated|collapsed|miss"'
_TOOK: Final = "headgate_http_request_duration_seconds_bucket"

_HIT_RATE: Final = (
    f"sum by (job, route) (rate({_CACHE}{{{_HITS}}}[5m]))"
    f" / sum by (job, route) (rate({_CACHE}{{{_ASKED}}}[5m]))"
)

RECORDED: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    (
        "route:headgate_http_requests:rate5m",
        ("route", "service"),
        f"sum by (job, route, service) (rate({_REQUESTS}[5m]))",
    ),
    (
        "route:headgate_http_errors:rate5m",
        ("route", "service"),
        f'sum by (job, route, service) (rate({_REQUESTS}{{code=~"5.."}}[5m]))',
    ),
    (
        "route:headgate_http_errors:ratio_rate5m",
        ("route", "service"),
        "route:headgate_http_errors:rate5m / route:headgate_http_requests:rate5m",
    ),
    (
        "route:headgate_http_request_duration_seconds:p50_5m",
        ("route",),
        f"histogram_quantile(0.5, sum by (job, route, le) (rate({_TOOK}[5m])))",
    ),
    (
        "route:headgate_http_request_duration_seconds:p95_5m",
        ("route",),
        f"histogram_quantile(0.95, sum by (job, route, le) (rate({_TOOK}[5m])))",
    ),
    (
        "route:headgate_http_request_duration_seconds:p99_5m",
        ("route",),
        f"histogram_quantile(0.99, sum by (job, route, le) (rate({_TOOK}[5m])))",
    ),
    (
        "service:headgate_upstream_failures:rate5m",
        ("service", "kind"),
        "sum by (job, service, kind) (rate(headgate_upstream_failures_total[5m]))",
    ),
    ("route:headgate_cache_hits:ratio_rate5m", ("route",), _HIT_RATE),
    (
        "headgate:process_cpu:rate5m",
        ("process",),
        "sum by (job, instance, process) (rate(headgate_process_cpu_seconds_total[5m]))",
    ),
)
"""Name, labels of its own, expression."""

_MORE: Final = {name: frozenset((*labels, "job", "instance")) for name, labels, _ in RECORDED}


def files(site: Site) -> dict[str, str]:
    """By path below the folder of Prometheus' configuration."""
    made = note(KIND)
    return {
        "prometheus.yml": as_yaml(
            scrape_config(site),
            made,
            f"`{TOKEN_FILE}` beside this file holds a token of the role viewer:",
            "    headgate tokens make prometheus --role viewer",
            "Exemplars are kept with --enable-feature=exemplar-storage.",
        ),
        "rules/headgate-alerts.yml": as_yaml(alert_rules(site), made),
        "rules/headgate-recording.yml": as_yaml(recording_rules(), made),
    }


def scrape_config(site: Site) -> dict[str, Any]:
    return {
        "global": {
            "scrape_interval": seconds(PACE_S),
            "evaluation_interval": seconds(PACE_S),
        },
        "rule_files": ["rules/headgate-*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [site.alertmanager]}]}]},
        "scrape_configs": [_gateway(site), *(_service(one) for one in site.services)],
    }


def _gateway(site: Site) -> dict[str, Any]:
    if not site.admin:
        raise HeadgateError(
            "nobody can scrape this gateway: `admin.bind` is no address; write one there, or say"
            " --admin HOST:PORT if something in between has one"
        )
    made: dict[str, Any] = {
        "job_name": "headgate",
        "metrics_path": "/metrics",
        "authorization": {"credentials_file": TOKEN_FILE},
        "static_configs": [{"targets": [site.admin]}],
    }
    if site.is_tls:
        made["scheme"] = "https"
        made["tls_config"] = {"ca_file": "headgate-ca.pem"}
    return made


def _service(one: Watched) -> dict[str, Any]:
    """Named by the labels that Headgate's own history gives them."""
    made: dict[str, Any] = {
        "job_name": f"service-{one.service}-{one.scheme}",
        "metrics_path": one.path,
        "scheme": one.scheme,
        "static_configs": [{"targets": list(one.addresses), "labels": {"service": one.service}}],
        "relabel_configs": [
            {
                "source_labels": ["__scheme__", "__address__"],
                "separator": "://",
                "target_label": "service_instance",
            }
        ],
    }
    return made


def alert_rules(site: Site) -> dict[str, Any]:
    paced = [replace(rule, every_s=max(rule.every_s, PACE_S)) for rule in site.rules]
    for rule in paced:
        if rule.is_built_in:
            demand(rule.expr, f"the rule {rule.name}")
    made = to_prometheus_rules(paced)
    made["groups"].append(
        {
            "name": "headgate-outside",
            "interval": seconds(PACE_S),
            "rules": [
                _outside(
                    "gateway-unreachable",
                    'up{job="headgate"} == 0',
                    "critical",
                    "Prometheus gets no figures from {{ $labels.instance }}",
                    "The gateway is down, its admin listener is not reachable, or the token is"
                    " refused; the page Targets of Prometheus says which.",
                ),
                _outside(
                    "service-figures-missing",
                    'up{service=~".+"} == 0',
                    "warning",
                    "Prometheus gets no figures from {{ $labels.service_instance }}"
                    " of {{ $labels.service }}",
                    "",
                ),
            ],
        }
    )
    return made


def _outside(name: str, expr: str, level: str, summary: str, description: str) -> dict[str, Any]:
    texts = {"summary": summary, "description": description}
    return {
        "alert": name,
        "expr": demand(expr, name),
        "for": "1m",
        "labels": {"severity": level},
        "annotations": {key: text for key, text in texts.items() if text},
    }


def recording_rules() -> dict[str, Any]:
    return {
        "groups": [
            {
                "name": "headgate-recording",
                "interval": seconds(2 * PACE_S),
                "rules": [
                    {"record": name, "expr": demand(expr, name, _MORE)}
                    for name, _, expr in RECORDED
                ],
            }
        ]
    }
