"""The dashboard to look at first."""

from __future__ import annotations

from typing import Final

from headgate.interop.grafana.common import (
    EACH,
    ERRORS,
    FEW_ERRORS,
    GATE,
    GATEWAY,
    REQUESTS,
    SLOW,
    TOOK,
    TRACES,
    quantiles,
    ratio,
)
from headgate.interop.grafana.model import Board, Panel, Query, Row

__all__ = ["OVERVIEW"]

OVERVIEW: Final = Board(
    "headgate-overview",
    "Headgate / Overview",
    "Is all well? What the gateway serves, how fast, how much of it fails, and what fires.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Requests",
                    (Query(f"sum(rate({REQUESTS}{{{GATE}}}{EACH}))"),),
                    unit="reqps",
                    draw="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Errors",
                    (
                        Query(
                            ratio(
                                f"{REQUESTS}{{{GATE},{ERRORS}}}",
                                f"{REQUESTS}{{{GATE}}}",
                            )
                        ),
                    ),
                    unit="percentunit",
                    draw="stat",
                    width=4,
                    height=4,
                    bounds=FEW_ERRORS,
                ),
                Panel(
                    "95th percentile",
                    (
                        Query(
                            "histogram_quantile(0.95,"
                            f" sum by (le) (rate({TOOK}_bucket{{{GATE}}}{EACH})))"
                        ),
                    ),
                    unit="s",
                    draw="stat",
                    width=4,
                    height=4,
                    bounds=SLOW,
                ),
                Panel(
                    "Workers",
                    (Query(f"sum(headgate_workers{{{GATE}}})"),),
                    draw="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Alerts that fire",
                    (Query(f'sum(headgate_alerts{{{GATE},state="firing"}}) or vector(0)'),),
                    draw="stat",
                    width=4,
                    height=4,
                    bounds=((1, "red"),),
                ),
                Panel(
                    "Instances out",
                    (Query(f"count(headgate_instance_usable{{{GATE}}} == 0) or vector(0)"),),
                    draw="stat",
                    width=4,
                    height=4,
                    bounds=((1, "red"),),
                    text="Fit to serve in no worker.",
                ),
            ),
        ),
        Row(
            "Traffic",
            (
                Panel(
                    "Requests by status",
                    (Query(f"sum by (code) (rate({REQUESTS}{{{GATE}}}{EACH}))", "{{code}}"),),
                    unit="reqps",
                    is_stacked=True,
                    width=12,
                ),
                Panel(
                    "How long clients wait",
                    quantiles(TOOK, GATE),
                    unit="s",
                    width=12,
                    links=TRACES,
                ),
                Panel(
                    "Busiest routes",
                    (
                        Query(
                            f"topk(8, sum by (route) (rate({REQUESTS}{{{GATE}}}{EACH})))",
                            "{{route}}",
                        ),
                    ),
                    unit="reqps",
                ),
                Panel(
                    "Routes that fail most",
                    (
                        Query(
                            "topk(8, "
                            + ratio(
                                f"{REQUESTS}{{{GATE},{ERRORS}}}",
                                f"{REQUESTS}{{{GATE}}}",
                                "route",
                            )
                            + ")",
                            "{{route}}",
                        ),
                    ),
                    unit="percentunit",
                    bounds=FEW_ERRORS,
                ),
                Panel(
                    "Alerts",
                    (
                        Query(
                            f"sum by (rule, level, state) (headgate_alerts{{{GATE}}}) > 0",
                            is_now=True,
                        ),
                    ),
                    draw="table",
                    text="As Headgate judges them by itself.",
                ),
            ),
        ),
        Row(
            "Connections",
            (
                Panel(
                    "Under way",
                    (
                        Query(f"sum(headgate_http_requests_in_flight{{{GATE}}})", "requests"),
                        Query(
                            f"sum by (listener) (headgate_connections{{{GATE}}})",
                            "connections to {{listener}}",
                        ),
                    ),
                ),
                Panel(
                    "Connections refused",
                    (
                        Query(
                            "sum by (listener, reason)"
                            f" (rate(headgate_connections_refused_total{{{GATE}}}{EACH}))",
                            "{{listener}} {{reason}}",
                        ),
                    ),
                    unit="cps",
                ),
                Panel(
                    "Bytes",
                    (
                        Query(
                            f"sum(rate(headgate_http_request_body_bytes_total{{{GATE}}}{EACH}))",
                            "in",
                        ),
                        Query(
                            f"sum(rate(headgate_http_response_body_bytes_total{{{GATE}}}{EACH}))",
                            "out",
                        ),
                    ),
                    unit="Bps",
                ),
            ),
        ),
    ),
    (GATEWAY,),
)
