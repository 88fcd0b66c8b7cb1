"""What stands behind the gateway."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import (
    EACH,
    ERRORS,
    FEW_ERRORS,
    GATE,
    GATEWAY,
    REQUESTS,
    SERVED,
    SERVICE,
    TRACES,
    UPSTREAM,
    p95,
    ratio,
)
from headgate.interop.grafana.model import Board, Panel, Query, Row

__all__ = ["SERVICES"]

_REUSED: Final = "headgate_upstream_connections_reused_total"
_MADE: Final = "headgate_upstream_connections_created_total"
_BY_INSTANCE: Final = "service, service_instance"
_NAMED: Final = "{{service}} {{service_instance}}"


SERVICES: Final = Board(
    "headgate-services",
    "Headgate / Services and instances",
    "What stands behind the gateway: who is fit, who fails and how, pools, breakers, retries.",
    (
        Row(
            "Services",
            (
                Panel(
                    "Requests",
                    (
                        Query(
                            f"sum by (service) (rate({REQUESTS}{{{SERVED}}}{EACH}))",
                            "{{service}}",
                        ),
                    ),
                    unit="reqps",
                ),
                Panel(
                    "95th percentile of the service alone",
                    (p95(UPSTREAM, SERVED, "service"),),
                    unit="s",
                    links=TRACES,
                ),
                Panel(
                    "Errors",
                    (
                        Query(
                            ratio(
                                f"{REQUESTS}{{{SERVED},{ERRORS}}}",
                                f"{REQUESTS}{{{SERVED}}}",
                                "service",
                            ),
                            "{{service}}",
                        ),
                    ),
                    unit="percentunit",
                    bounds=FEW_ERRORS,
                ),
            ),
        ),
        Row(
            "Instances",
            (
                Panel(
                    "Workers that find it fit",
                    (
                        Query(
                            f"sum by ({_BY_INSTANCE}) (headgate_instance_usable{{{SERVED}}})",
                            _NAMED,
                        ),
                        Query(
                            f"sum by ({_BY_INSTANCE}) (headgate_instance_drained{{{SERVED}}}) > 0",
                            f"{_NAMED} drained",
                        ),
                    ),
                    text="0 is out everywhere; drained is out because somebody said so.",
                ),
                Panel(
                    "How long an attempt takes, on average",
                    (
                        Query(
                            f"sum by ({_BY_INSTANCE})"
                            f" (rate(headgate_upstream_attempt_seconds_total{{{SERVED}}}{EACH}))"
                            f" / sum by ({_BY_INSTANCE})"
                            f" (rate(headgate_upstream_attempts_total{{{SERVED}}}{EACH}))",
                            _NAMED,
                        ),
                    ),
                    unit="s",
                    text="Where there is a choice of instances, or a policy learns from them.",
                ),
                Panel(
                    "Failures",
                    (
                        Query(
                            "sum by (service_instance, kind)"
                            f" (rate(headgate_upstream_failures_total{{{SERVED}}}{EACH}))",
                            "{{service_instance}} {{kind}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Sent again",
                    (
                        Query(
                            f"sum by ({_BY_INSTANCE})"
                            f" (rate(headgate_upstream_retries_total{{{SERVED}}}{EACH}))",
                            _NAMED,
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Breakers",
                    (
                        Query(
                            f"max by ({_BY_INSTANCE})"
                            f' (headgate_breaker_state{{{SERVED},state=~"open|forced_open"}})',
                            _NAMED,
                        ),
                    ),
                    draw="state-timeline",
                    width=16,
                    bounds=((1, "red"),),
                    names=(("0", "closed"), ("1", "open")),
                ),
                Panel(
                    "Kept away by breakers",
                    (
                        Query(
                            f"sum by ({_BY_INSTANCE})"
                            f" (rate(headgate_breaker_rejected_total{{{SERVED}}}{EACH}))",
                            _NAMED,
                        ),
                    ),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Pools",
            (
                Panel(
                    "Connections",
                    (
                        Query(
                            "sum by (service_instance, state)"
                            f" (headgate_upstream_connections{{{SERVED}}})",
                            "{{service_instance}} {{state}}",
                        ),
                    ),
                ),
                Panel(
                    "Waiting for one",
                    (
                        Query(
                            f"sum by ({_BY_INSTANCE}) (headgate_upstream_queue{{{SERVED}}})",
                            _NAMED,
                        ),
                    ),
                ),
                Panel(
                    "Found open",
                    (
                        Query(
                            f"sum by (service) (rate({_REUSED}{{{SERVED}}}{EACH}))"
                            " / (sum by (service)"
                            f" (rate({_REUSED}{{{SERVED}}}{EACH}))"
                            " + sum by (service)"
                            f" (rate({_MADE}{{{SERVED}}}{EACH})))",
                            "{{service}}",
                        ),
                    ),
                    unit="percentunit",
                    most=1.0,
                    text="The share of exchanges that made no connection.",
                ),
                Panel(
                    "Time-outs",
                    (
                        Query(
                            f"sum by (kind) (rate(headgate_timeouts_total{{{GATE}}}{EACH}))",
                            "{{kind}}",
                        ),
                    ),
                    unit="ops",
                    width=12,
                ),
                Panel(
                    "Against the rules of the wire",
                    (
                        Query(
                            "sum by (side, reason)"
                            f" (rate(headgate_protocol_refusals_total{{{GATE}}}{EACH}))",
                            "{{side}} {{reason}}",
                        ),
                    ),
                    unit="ops",
                    width=12,
                ),
            ),
        ),
    ),
    (GATEWAY, SERVICE),
)
